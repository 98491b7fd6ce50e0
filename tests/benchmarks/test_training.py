"""The memory of a training's processes: seen, and counted once where they share it."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.builders.benchmarks import benchmark

TRAINING = benchmark("training")
SHARED_MB = 100
# A process and its child, which has a copy of the same memory that neither has written to.
FORKED = f"""
import os, time
held = b"x" * {SHARED_MB * 10**6}
if os.fork():
    print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.processes
def test_memory_that_processes_share_counts_once() -> None:
    with subprocess.Popen([sys.executable, "-c", FORKED], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        try:
            process.stdout.readline()
            (child,) = psutil.Process(process.pid).children()
            assert SHARED_MB < TRAINING["memory_of"]([process.pid, child.pid]) < 1.5 * SHARED_MB
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.processes
def test_the_peak_of_a_process_is_seen() -> None:
    program = f"import time; held = b'x' * {SHARED_MB * 10**6}; time.sleep(2)"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        assert SHARED_MB < TRAINING["peak_memory"](process) < 2 * SHARED_MB


@pytest.mark.processes
def test_a_process_that_ends_at_once_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        assert TRAINING["peak_memory"](process) < SHARED_MB
