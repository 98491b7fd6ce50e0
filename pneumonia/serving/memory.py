"""How much memory a load takes at its peak, where glibc manages it."""

import contextlib
import ctypes
from collections.abc import Iterator

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the names that mallopt has for them
LARGE = 512 * 1024  # bytes; the network has some twenty kernels above this
# What glibc comes to by itself at most: for pieces of up to 32 MB, answers need not ask the system again each time,
# which would take a sixth longer.
USUAL = 32 * 1024 * 1024
ANOTHER_LIBRARY = contextlib.suppress(OSError, AttributeError, TypeError)  # than glibc, or Windows


@contextlib.contextmanager
def sparing_memory() -> Iterator[None]:
    """Load a model within the block: large pieces that it frees go back to the system at once, others at its end.

    By itself glibc keeps pieces of such sizes once it has seen one freed. A load frees the bytes of the weights file
    and what was made of them, one after the other: that sets the peak of a process that serves, and would leave it
    with 24 MB more after the first load, and some 300 MB after forty.
    """
    _change(MMAP_THRESHOLD, LARGE)
    try:
        yield
    finally:
        _change(MMAP_THRESHOLD, USUAL)
        _change(TRIM_THRESHOLD, 2 * USUAL)
        with ANOTHER_LIBRARY:
            ctypes.CDLL(None).malloc_trim(0)


def _change(threshold: int, size: int) -> None:
    with ANOTHER_LIBRARY:
        ctypes.CDLL(None).mallopt(threshold, size)
