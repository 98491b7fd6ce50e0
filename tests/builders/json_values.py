"""Whatever a JSON document may hold where something else is expected, for hypothesis."""

from hypothesis import strategies as st

NASTY = ("", "\n", "a\nb", "\x1b[2J", "\ud800", "a/b", "..", "x" * 10_000, "NaN", "2026-01-02T03:04:05", "f" * 64)
NUMBERS = (0, -1, 5, 88.0, 0.5, 1e300, 10**400, float("nan"), float("inf"))
_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON_VALUES = st.recursive(
    _leaves | st.sampled_from(NASTY) | st.sampled_from(NUMBERS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(NASTY), inner, max_size=3),
    max_leaves=5,
)
