"""What a load leaves in memory, in processes of their own: what malloc keeps depends on all that was freed before."""

import subprocess
import sys

import pytest

from tests.builders.checkout import PROJECT

PROGRAM = """
import re, sys
from contextlib import nullcontext
from pathlib import Path
from pneumonia.serving.memory import sparing_memory

def megabytes():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

bytes(bytearray(16 * 2**20))  # one freed piece of that size, and glibc keeps such pieces from then on
before = megabytes()
with sparing_memory() if sys.argv[1] == "sparing" else nullcontext():
    for _ in range(3):
        pieces = [bytearray(b"1" * 2**20) for _ in range(64)]
        kept = pieces[::8] + pieces[-1:]
        del pieces
    during = megabytes()
print(round(during - before), round(megabytes() - before))
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="glibc manages the memory of Linux alone")
def test_a_load_keeps_no_more_than_it_uses() -> None:
    def run(how: str) -> tuple[int, ...]:
        command = [sys.executable, "-c", PROGRAM, how]
        printed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
        return tuple(int(number) for number in printed.split())

    during, after = run("sparing")
    kept, _ = run("usual")
    assert during < 16  # 9 MB are in use
    assert after < 16
    assert kept > 40
