"""What decoding takes: calls and bytes allocated, in this process; or processor time and memory, in one of its own.

`python -m tests.builders.effort FORMAT…` prints for large images of these formats, and for each element of their
grammars in the largest file that may be sent: bytes, seconds, by how many KiB memory grew, and the image's size or the
error; with --accepted, also for the largest file that is accepted.
"""

import contextlib
import os
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import torch

from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.limits import MAX_BYTES
from tests.builders.large import LARGE
from tests.builders.multiplied import OF_BMP, OF_JPEG, OF_PNG, OF_WEBP, Multiplied
from tests.builders.multiplied_others import OF_DICOM, OF_TIFF

GRAMMARS: dict[str, dict[str, Multiplied]] = {
    "JPEG": OF_JPEG,
    "PNG": OF_PNG,
    "WebP": OF_WEBP,
    "BMP": OF_BMP,
    "TIFF": OF_TIFF,
    "DICOM": OF_DICOM,
}
SECONDS = 20  # of processor time, after which decoding is stopped


class Work(NamedTuple):
    """What decoding took in Python: calls of functions, written in Python or in C, and bytes allocated."""

    calls: int
    allocated: int


def work(data: bytes) -> Work:
    """Decode a file, or have it refused; return what that took."""
    calls = allocated = last = 0

    def count(*_: object) -> None:
        nonlocal calls, allocated, last
        now, peak = tracemalloc.get_traced_memory()
        calls, allocated, last = calls + 1, allocated + max(0, peak - last), now
        tracemalloc.reset_peak()

    tracemalloc.start()
    sys.setprofile(count)
    try:
        with contextlib.suppress(ImageError):
            decode(data)
    finally:
        sys.setprofile(None)
        tracemalloc.stop()
    return Work(calls, allocated)


class Effort(NamedTuple):
    """What decoding a file took: its bytes, seconds of a processor, KiB of memory, and the outcome."""

    size: int
    seconds: float
    grown: int
    outcome: str


def effort(build: Callable[[], bytes]) -> Effort:
    """Decode a file in a fork of this process, which must have only one thread."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, "\t".join(map(str, _told(build()))).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        size, seconds, grown, outcome = (answer.read() or f"0\t{SECONDS}\t0\tstopped").split("\t")
    return Effort(int(size), float(seconds), int(grown), outcome)


def _told(data: bytes) -> Effort:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    memory, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        outcome = str(decode(data).image.size)
    except ImageError as error:
        outcome = type(error).__name__
    seconds = time.process_time() - started
    return Effort(len(data), round(seconds, 3), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory, outcome)


def most(build: Multiplied) -> int:
    """Return how many of an element a file of MAX_BYTES has."""
    each = max(1, len(build(2000)) - len(build(1000))) / 1000
    return max(1, int((MAX_BYTES - len(build(1))) / each))


def largest_accepted(build: Multiplied) -> Effort:
    """Return what the file with the most of an element takes that is not refused, found to a tenth."""
    few, many = 1, most(build)
    found = effort(lambda: build(few))
    while many > 1.1 * few + 1:
        middle = int((few * many) ** 0.5) if few * 4 < many else (few + many) // 2
        tried = effort(lambda: build(middle))  # noqa: B023  # called before it changes
        if "Error" in tried.outcome:
            many = middle
        else:
            few, found = middle, tried
    return found


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)  # a fork has none of the others, and would wait for them
    for grammar in GRAMMARS.values():
        for build in list(grammar.values())[:1] + list(grammar.values())[-1:]:
            with contextlib.suppress(ImageError):
                decode(build(1))  # imports what is imported only once
    is_searched, kinds = "--accepted" in sys.argv, [kind for kind in sys.argv if kind in GRAMMARS]
    for kind in kinds:
        for name, large in LARGE[kind].items():
            print(kind, name, "pixels", *effort(large), sep="\t", flush=True)
        for name, build in GRAMMARS[kind].items():
            full = effort(lambda: build(most(build))[:MAX_BYTES])  # noqa: B023  # called at once
            print(kind, name, "full", *full, sep="\t", flush=True)
            if is_searched:
                print(kind, name, "accepted", *largest_accepted(build), sep="\t", flush=True)


if __name__ == "__main__":
    main()
