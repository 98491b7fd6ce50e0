"""JSON that several programs read, read strictly: what they could take for different things is refused."""

import json
import math
from typing import Any

MAX_DEPTH = 50  # of objects and lists in each other; ours have four


def strict_json(text: str | bytes, most: int) -> Any:  # noqa: ANN401  # as json.loads
    """Return what a JSON text holds.

    Args:
        text: UTF-8, maybe with a byte order mark.
        most: bytes that it may have.

    Raises:
        ValueError: it is longer or no JSON; it has a name twice in one object, a number that is not finite, or half a
            character; or it is nested too deeply.
    """
    data = text.encode() if isinstance(text, str) else text
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    try:
        content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
        _check(content, MAX_DEPTH)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return content


def json_text(content: object) -> str:
    """Return indented JSON that `strict_json` reads: half characters, which names of files may have, become `?`."""
    return json.dumps(content, indent=2, ensure_ascii=False).encode(errors="replace").decode() + "\n"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r:.100} twice")
    return content


def _check(value: object, depth: int) -> None:
    """Check that all numbers are finite, that all text can be written as UTF-8, and that nothing is nested deeper."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"it has the number {value}")
    if isinstance(value, str):
        value.encode()
    if isinstance(value, dict | list) and not depth:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
