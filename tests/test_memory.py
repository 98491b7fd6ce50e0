"""What stays in memory, in processes of their own: what malloc keeps depends on all that was freed before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pneumonia.memory import HUGE_PAGES
from pneumonia.training.channels import SPLITS
from pneumonia.training.synthetic import draw_dataset
from tests.builders.checkout import PROJECT

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="glibc manages the memory of Linux alone"),
]

asked_for = pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[madvise]" not in HUGE_PAGES.read_text(),
    reason="this system has no huge pages, or gives them to everybody",
)

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
SPARING = """
spare_memory_in_training(Path(sys.argv[1]))
"""
TRAINED = """
import train_model
assert train_model.main(sys.argv[1:]) == 0
before = megabytes()
"""
FREED = """
pieces = [bytearray(b"1" * 2**23) for _ in range(16)]
kept = pieces[-1:]  # 8 MB of 128
del pieces
print(round(megabytes() - before))
"""
HELD_BY_A_TENSOR = """
import re, train_model, torch
from pathlib import Path
tensor = torch.ones(2**24)
print(re.search(r"AnonHugePages:\\s+(\\d+)", Path("/proc/self/smaps_rollup").read_text())[1])
"""
ASKED, ALWAYS, NEVER = "always [madvise] never", "[always] madvise never", "always madvise [never]"


def printed(program: str, *arguments: str, **environment: str) -> list[int]:
    command = [sys.executable, "-c", program, *arguments]
    variables = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"} | environment
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, env=variables)
    return [int(line) for line in done.stdout.split() if line.isdecimal()]


def test_a_load_keeps_no_more_than_it_uses() -> None:
    during, after = printed(MEASURED + LOADING, "sparing")
    kept, _ = printed(MEASURED + LOADING, "usual")
    assert during < 16  # 9 MB are in use
    assert after < 16
    assert kept > 40


@pytest.mark.parametrize(
    ("said", "asked", "is_spared"),
    [
        (ASKED, {"THP_MEM_ALLOC_ENABLE": "1"}, True),
        (ASKED, {"THP_MEM_ALLOC_ENABLE": "0"}, False),
        (ASKED, {}, False),
        (ALWAYS, {}, True),
        (NEVER, {"THP_MEM_ALLOC_ENABLE": "1"}, False),
    ],
)
def test_training_keeps_nothing_large_if_it_lies_in_huge_pages(
    said: str, asked: dict[str, str], *, is_spared: bool, tmp_path: Path
) -> None:
    (tmp_path / "enabled").write_text(f"{said}\n")
    (kept,) = printed(MEASURED + SPARING + FREED, str(tmp_path / "enabled"), **asked)
    assert (kept < 16) is is_spared


def test_a_system_that_does_not_tell_has_no_huge_pages(tmp_path: Path) -> None:
    (kept,) = printed(MEASURED + SPARING + FREED, str(tmp_path / "missing"), THP_MEM_ALLOC_ENABLE="1")
    assert kept > 100


@asked_for
def test_trainings_large_tensors_lie_in_huge_pages() -> None:
    (kilobytes,) = printed(HELD_BY_A_TENSOR)
    assert kilobytes > 2**15  # half of the tensor
    assert printed(HELD_BY_A_TENSOR, THP_MEM_ALLOC_ENABLE="0") == [0]


@asked_for
def test_a_training_keeps_nothing_large(tmp_path: Path) -> None:
    draw_dataset(tmp_path, {"train": 2, "val": 2, "test": 2}, size=64)
    folders = [part for name in SPLITS for part in (f"--{name}", str(tmp_path / name))]
    folders += ["--model-dir", str(tmp_path / "model"), "--output-data-dir", str(tmp_path / "output")]
    *_, kept = printed(MEASURED + TRAINED + FREED, *folders, "--weights", "none", "--epochs", "1")
    assert kept < 16
