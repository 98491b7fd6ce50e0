"""The usual evidence: what each position of an image usually adds to the log-odds of PNEUMONIA.

`training.usual_evidence` measures it, and the release's manifest carries it. Heatmaps show by how much an image exceeds
it: edges and corners have other levels than the middle, on normal films as on pneumonias. This imports nothing heavy.
"""

from typing import Any

from pneumonia.network.activations import GREATEST

SIDE = 7  # rows, and columns, of `Outputs.evidence`
UsualEvidence = tuple[tuple[float, ...], ...]


def usual_evidence_in(content: dict[str, Any]) -> UsualEvidence | None:
    """Return the usual evidence in a training report or a manifest, SIDE rows of SIDE numbers, or None if it has none.

    Raises:
        ValueError: these are not so many rows, or not so many finite numbers in each.
    """
    given = content.get("usual_evidence")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != SIDE or not all(map(_is_row, given)):
        raise ValueError(f"its usual evidence is {given!r:.200}, not {SIDE} rows of {SIDE} finite numbers")
    return tuple(tuple(map(float, row)) for row in given)


def _is_row(value: object) -> bool:
    return isinstance(value, list) and len(value) == SIDE and all(map(_is_finite, value))


def _is_finite(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and -GREATEST <= value <= GREATEST
