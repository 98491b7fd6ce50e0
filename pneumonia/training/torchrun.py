"""What torchrun tells each of its processes, by variables of the environment. Does not import torch."""

import os

from pneumonia.errors import ConfigurationError


def number(name: str, default: int, least: int = 0) -> int:
    """Return the whole number in a variable.

    Args:
        name: the variable's.
        default: for where torchrun has not started this process, and the variable is missing or empty.
        least: the smallest number that it may be.

    Raises:
        ConfigurationError: it is something else.
    """
    text = os.environ.get(name, "").strip()
    if text and not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
        raise ConfigurationError(
            f"{name} is {text!r:.100}, but torchrun sets it to a whole number from {least} on: start the processes "
            "with torchrun, or unset it to train in one."
        )
    return int(text) if text else default


def processes_here() -> int:
    """Return the number of torchrun's processes on this machine.

    Raises:
        ConfigurationError: LOCAL_WORLD_SIZE is no number.
    """
    return number("LOCAL_WORLD_SIZE", 1, least=1)
