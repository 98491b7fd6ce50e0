"""What stays in memory, in processes of their own: what malloc keeps depends on all that was freed before."""

import subprocess
import sys
from pathlib import Path

import pytest

from pneumonia.memory import HUGE_PAGES
from tests.builders.checkout import PROJECT

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="glibc manages the memory of Linux alone"),
]

MEASURED = """
import re, sys
from contextlib import nullcontext
from pathlib import Path
from pneumonia.memory import spare_memory_in_training, sparing_memory

def megabytes():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

bytes(bytearray(16 * 2**20))  # one freed piece of that size, and glibc keeps such pieces from then on
before = megabytes()
"""
LOADING = """
with sparing_memory() if sys.argv[1] == "sparing" else nullcontext():
    for _ in range(3):
        pieces = [bytearray(b"1" * 2**20) for _ in range(64)]
        kept = pieces[::8] + pieces[-1:]
        del pieces
    during = megabytes()
print(round(during - before), round(megabytes() - before))
"""
TRAINING = """
spare_memory_in_training(Path(sys.argv[1]))
pieces = [bytearray(b"1" * 2**23) for _ in range(16)]
kept = pieces[-1:]
del pieces
print(round(megabytes() - before))
"""
HELD_BY_A_TENSOR = """
import re, train_model, torch
from pathlib import Path
tensor = torch.ones(2**24)
print(re.search(r"AnonHugePages:\\s+(\\d+)", Path("/proc/self/smaps_rollup").read_text())[1])
"""


def printed(program: str, *arguments: str) -> list[int]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


def test_a_load_keeps_no_more_than_it_uses() -> None:
    during, after = printed(MEASURED + LOADING, "sparing")
    kept, _ = printed(MEASURED + LOADING, "usual")
    assert during < 16  # 9 MB are in use
    assert after < 16
    assert kept > 40


@pytest.mark.parametrize(
    ("said", "is_spared"),
    [("always [madvise] never", True), ("[always] madvise never", True), ("always madvise [never]", False)],
)
def test_training_keeps_nothing_large_where_there_are_huge_pages(said: str, *, is_spared: bool, tmp_path: Path) -> None:
    (tmp_path / "enabled").write_text(f"{said}\n")
    (kept,) = printed(MEASURED + TRAINING, str(tmp_path / "enabled"))
    assert (kept < 16) is is_spared  # 8 MB are in use, of 128


def test_a_system_that_does_not_say_so_has_no_huge_pages(tmp_path: Path) -> None:
    (kept,) = printed(MEASURED + TRAINING, str(tmp_path / "missing"))
    assert kept > 100


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="this system has no huge pages"
)
def test_trainings_large_tensors_lie_in_huge_pages() -> None:
    (kilobytes,) = printed(HELD_BY_A_TENSOR)
    assert kilobytes > 2**15  # half of the tensor
