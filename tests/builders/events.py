"""Events that no AWS service sends: real ones, with a part missing or of another kind."""

import copy
from collections.abc import Iterator
from typing import Any

LACKING = object()  # stands for no value at all
# Every kind of JSON, with what text may be worst: control characters, half a character, and nothing.
VALUES: tuple[Any, ...] = (
    LACKING,
    *(None, True, False, 0, -1, 1.5, 10**30),
    *("", "x", "é\n\x1b[2J", "\ud800"),
    *([], ["x"], [None], {}, {"a": 1}, {"a": None}),
)
Place = tuple[str | int, ...]


def nested(levels: int = 900) -> list[Any]:
    """Return a list in a list, and so on: as deep as Python still reads from JSON."""
    innermost: list[Any] = []
    for _ in range(levels):
        innermost = [innermost]
    return innermost


def mutations(event: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # JSON
    """Yield where an event was changed, and the event with another one of VALUES there, for all its places."""
    for place in places(event):
        for value in (*VALUES, nested()):
            changed = copy.deepcopy(event)
            at = changed
            for name in place[:-1]:
                at = at[name]
            if value is LACKING:
                del at[place[-1]]
            else:
                at[place[-1]] = value
            yield ".".join(map(str, place)), changed


def places(value: Any) -> Iterator[Place]:  # noqa: ANN401  # JSON
    """Yield where the parts of a value are, and the parts of these."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield (name,)
        yield from ((name, *deeper) for deeper in places(part))
