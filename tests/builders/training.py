"""The command train_model.py, started as a process of its own, or as two."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import train_model

ALONE = (sys.executable, train_model.__file__)
TORCHRUN = (str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2")
TOGETHER = (*TORCHRUN, train_model.__file__)


def start(
    command: Sequence[str], argv: list[str], *, output: int = subprocess.PIPE, **environment: str
) -> "subprocess.Popen[str]":
    # The order of additions, and so the last digit, depends on the number of threads.
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(train_model.__file__).parent)}
    return subprocess.Popen([*command, *argv], stdout=output, stderr=output, text=True, env=variables | environment)


def told_at_the_end(moment: str, argv: list[str], number: int, command: Sequence[str] = ALONE) -> tuple[str, int]:
    """Start the command, send it a signal when its log shows `moment`, and return what stderr had, and the status."""
    process = start(command, argv)
    assert process.stdout
    for line in process.stdout:
        if re.search(moment, line):
            process.send_signal(number)
            break
    _, told = process.communicate()
    return told, process.returncode
