"""Keep the peak of memory low, if the C library is glibc."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt
LARGE = 512 * 1024  # bytes; about twenty kernels of the network are larger
LARGE_IN_TRAINING = 4 * 1024 * 1024  # bytes; most activations of a batch are larger
# Bytes; glibc raises its threshold up to this by itself. Then pieces of up to 32 MB are reused from answer to answer:
# if they were fetched from the system each time, answers would take a sixth longer.
USUAL = 32 * 1024 * 1024
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
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


def spare_memory_in_training(huge_pages: Path = HUGE_PAGES) -> None:
    """From now on, give freed pieces of LARGE_IN_TRAINING bytes or more back to the system at once.

    A step frees tensors of many sizes. If glibc keeps them, they leave gaps that the next ones do not fit into. These
    gaps are a sixth of the peak. Fetching tensors anew takes hardly any time if they come in huge pages, and makes a
    step a sixth slower if they do not. So without huge pages nothing is changed. docs/performance.md has the figures.

    Args:
        huge_pages: the file in which Linux says who gets them: "always" everybody, "madvise" those who ask for them, as
            torch does if THP_MEM_ALLOC_ENABLE is 1.
    """
    with contextlib.suppress(OSError):  # not Linux
        said = huge_pages.read_text()
        if "[always]" in said or ("[madvise]" in said and os.environ.get("THP_MEM_ALLOC_ENABLE") == "1"):
            _change(MMAP_THRESHOLD, LARGE_IN_TRAINING)


def _change(threshold: int, size: int) -> None:
    with ANOTHER_LIBRARY:
        ctypes.CDLL(None).mallopt(threshold, size)
