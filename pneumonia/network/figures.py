"""The figures of a training, by name. Imports nothing heavy, as a cold start reads them."""

import sys

SHARES = ("accuracy", "auroc", "sensitivity", "specificity")  # how the names of figures from 0 to 1 end
ROUNDING = 1e-9  # more than a sum of shares can be off


def is_possible(name: str, value: object) -> bool:
    """Return whether a value can be this figure: a finite number, for a share from 0 to 1, for a loss from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int | float):  # a bool is an int as well
        return False
    if name.endswith(SHARES):
        return -ROUNDING <= value <= 1 + ROUNDING
    return abs(value) <= sys.float_info.max and (value >= 0 or not name.endswith("loss"))
