import os
import subprocess
import sys

import pytest

from tests.builders.checkout import PROJECT

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("lines", [1, 100_000])  # what stays in the buffer until the end, and what does not
def test_a_command_whose_reader_has_seen_enough_ends_quietly(lines: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = f"""
import sys
from pneumonia.command import exit_status
sys.exit(exit_status(lambda: print("line\\n" * {lines})))
"""
    process = subprocess.run(
        [sys.executable, "-c", program],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        check=False,
    )
    os.close(writing)
    assert process.stderr == ""
    assert process.returncode == 1
