"""What of tools/gpu_check.py can be shown without a GPU: that its parts run, and that what fails is told."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pneumonia.training.synthetic import draw_dataset
from tests.builders.checkout import PROJECT
from tools.gpu_check import Outcome, Part, PartError, measure, report, run

pytestmark = pytest.mark.processes

NO_GPU = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
# It starts another process, which would keep the pipe open for minutes.
SLEEPER = """
import subprocess, sys
print("asleep", flush=True)
subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"])
"""


def gpu_check(*arguments: str | Path, python: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *python, "-m", "tools.gpu_check", *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT, env=NO_GPU, capture_output=True, text=True, check=False)


def part(code: str) -> Part:
    return Part("part", "aim", 60, lambda until: Outcome(run(["-c", code], until)[-1]))


def test_a_missing_gpu_is_told_in_one_sentence(tmp_path: Path) -> None:
    done = gpu_check(tmp_path)
    sentence = "There is no CUDA device: run this on a machine with an NVIDIA GPU and its driver.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


def test_missing_packages_are_told_in_one_sentence(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, python=("-S",))  # without site-packages
    sentence = "Training needs torch, torchvision, numpy, psutil, matplotlib, pillow, scikit-learn: pip install torch "
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


def test_missing_folders_are_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    done = gpu_check(tmp_path, "--cpu")
    missing = f"There is no folder {tmp_path / 'val'}, {tmp_path / 'test'}: "
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(missing)


def test_a_command_that_is_not_done_in_time_is_killed_with_what_it_started() -> None:
    with pytest.raises(PartError) as caught:
        run(["-c", SLEEPER], time.monotonic() + 2)
    assert str(caught.value) in {"-c: not done in time; asleep", "-c: not done in time"}


def test_a_command_is_killed_at_a_line() -> None:
    assert run(["-c", SLEEPER], time.monotonic() + 60, kill_at="asl") == ["asleep"]


def test_a_part_that_fails_is_a_row_with_its_reason() -> None:
    failing = "print('half'); raise SystemExit('no | memory')"
    rows = [measure(part(failing), 1), measure(part("print('fine')"), 1)]
    table = report("A machine", rows).splitlines()
    assert table[4] == f"| part | aim | failed: -c: exit status 1; no / memory | {rows[0].seconds:.0f} |"
    assert table[5] == f"| part | aim | fine | {rows[1].seconds:.0f} |"
    assert set(table[10:-1]) == {"half", "no | memory"}


@pytest.mark.slow
def test_all_parts_run(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "data", {"train": 6, "val": 2, "test": 2}, size=64)
    done = gpu_check("--cpu", "--report", tmp_path / "report.md", tmp_path / "data")
    assert (done.returncode, done.stderr) == (0, "")
    table = (tmp_path / "report.md").read_text().splitlines()[2:9]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    benchmark, full_size, clock, sync, resumed = (row[2] for row in cells[2:])
    assert benchmark.startswith("ours: ")
    assert "; ours, small: " in benchmark
    assert full_size == "left out: no folder was named"
    assert " s, test_accuracy=" in clock
    assert sync == "left out: there is no GPU"
    assert resumed.startswith("resumed after epoch ")
    assert resumed.endswith(", off by 0.0e+00 (of another one never killed: 0.0e+00)")
    assert "| ceiling, small |" in (tmp_path / "report.md").read_text()
