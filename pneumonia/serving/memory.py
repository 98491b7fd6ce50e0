"""Keep the peak of memory low while a model is loaded, if the C library is glibc."""

import contextlib
import ctypes
from collections.abc import Iterator

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt
LARGE = 512 * 1024  # bytes; about twenty kernels of the network are larger
# Bytes; glibc raises its threshold up to this by itself. Then pieces of up to 32 MB are reused from answer to answer:
# if they were fetched from the system each time, answers would take a sixth longer.
USUAL = 32 * 1024 * 1024
ANOTHER_LIBRARY = contextlib.suppress(OSError, AttributeError, TypeError)  # not glibc, or Windows


@contextlib.contextmanager
def sparing_memory() -> Iterator[None]:
    """Give memory that is freed within the block back to the system: pieces from LARGE on at once, others at its end.

    By itself, glibc keeps pieces of such sizes once it has seen one freed. Loading a model frees the bytes of its file
    and the tensors made of them, one after the other. If they were kept, the peak of a serving process would be higher,
    and it would keep 24 MB more after the first load, and some 300 MB more after forty.
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
