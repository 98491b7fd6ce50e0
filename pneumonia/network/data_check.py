"""What training counted in its images that makes its figures untrue. Does not import torch."""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataCheck:
    """What training counted in its channels that makes its figures untrue.

    Attributes:
        shared: pairs of channels, "train and test" say, to the number of `images` that are in both, byte for byte, and
            of `patients` that are in both by their files' names; pairs that share nothing are left out.
        warnings: a sentence for each thing that was found, the shared ones included.
    """

    shared: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)

    def leaks(self) -> list[str]:
        """Return what each pair of channels shares, in words."""
        return [f"its {pair} channels share {in_words(counts)}" for pair, counts in self.shared.items()]


def in_words(counts: dict[str, int]) -> str:
    """Return for `{"images": 1, "patients": 17}` the words "1 image and 17 patients"; what is 0 is left out."""
    found = {name: count for name, count in counts.items() if count}
    return " and ".join(f"{count:,} {name if count > 1 else name.removesuffix('s')}" for name, count in found.items())


def data_check_in(content: dict[str, Any]) -> DataCheck | None:
    """Return the data check in a manifest or a training report, or None if it has none, as older ones.

    Raises:
        ValueError: it is not as training writes it.
    """
    given = content.get("data_check")
    if given is None:
        return None
    match given:
        case {"shared": dict(shared), "warnings": list(warnings)} if (
            all(isinstance(counts, dict) for counts in shared.values())
            # By type, as a bool would pass for an int.
            and all(type(count) is int for counts in shared.values() for count in counts.values())
            and all(isinstance(warning, str) for warning in warnings)
        ):
            return DataCheck(shared, warnings)
    raise ValueError(f"its data_check is {given!r:.200}, not the counts and sentences of a training")
