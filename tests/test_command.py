import contextlib
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.builders.checkout import PROJECT, copy_checkout

pytestmark = pytest.mark.processes

PROGRAM = """
import sys
from pneumonia.command import progress
if "--bare" in sys.argv:
    sys.modules["tqdm"] = None
assert list(progress(iter("abc"), 3, "reading")) == ["a", "b", "c"]
"""


def shown_on_a_terminal(*arguments: str, **environment: str) -> str:
    """Run PROGRAM with a terminal as its stderr, and return what the terminal shows."""
    terminal, other_end = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))  # tqdm draws nothing on a terminal without lines
    command = [sys.executable, "-W", "error", "-c", PROGRAM, *arguments]
    subprocess.run(command, stderr=other_end, env=os.environ | environment, cwd=PROJECT, check=True)
    os.close(other_end)
    shown = b""
    with contextlib.suppress(OSError):  # so a terminal ends that nobody writes to any more
        while data := os.read(terminal, 10_000):
            shown += data
    os.close(terminal)
    return shown.decode()


def test_progress_is_shown_on_a_terminal() -> None:
    shown = shown_on_a_terminal()
    assert "reading:   0%" in shown
    assert " 0/3 " in shown


@pytest.mark.parametrize(("arguments", "environment"), [([], {"RANK": "1"}), (["--bare"], {})])
def test_progress_is_not_shown_by_another_process_or_without_tqdm(
    arguments: list[str], environment: dict[str, str]
) -> None:
    assert shown_on_a_terminal(*arguments, **environment) == ""


def test_a_full_disk_below_the_output_is_told_in_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "pneumonia", "--help"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=PROJECT, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "The standard output cannot be read or written: No space left on device.\n"


def test_progress_is_not_shown_in_a_log() -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    assert subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stderr == ""


@pytest.mark.parametrize(
    ("place", "expected"),
    [(".", ".venv/bin/python"), ("elsewhere", "{checkout}/.venv/bin/python")],
    ids=["in the checkout", "elsewhere"],
)
def test_a_printed_command_starts_the_python_that_printed_it(place: str, expected: str, tmp_path: Path) -> None:
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (tmp_path / "elsewhere").mkdir()
    program = (
        "import sys; sys.path.append(sys.argv[1]); from pneumonia.command import this_python; print(this_python())"
    )
    printed = subprocess.check_output([python, "-c", program, PROJECT], cwd=tmp_path / place, text=True)
    assert printed == expected.format(checkout=tmp_path) + "\n"


@pytest.mark.parametrize(
    "command",
    [
        "promote_model.py model.tar.gz --directory {}",
        "-m pneumonia evaluate model.pth xrays --output {}",
        "-m pneumonia calibrate model.pth xrays --output {}",
        "-m pneumonia batch xrays {}",
        "-m pneumonia split xrays {}",
        "-m pneumonia download {}",
        "-m pneumonia draw {} --images 8",
    ],
)
def test_no_folder_is_made_that_is_called_like_an_address(command: str, tmp_path: Path) -> None:
    first, *rest = command.format("s3://bucket/folder").split()
    argv = [sys.executable, *([first] if first == "-m" else [str(PROJECT / first)]), *rest]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    ended = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "s3://bucket/folder is an address: name a file or folder of this machine" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_make_takes_names_with_spaces(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    (checkout / "my films" / "train").mkdir(parents=True)
    for target, expected in (
        (["train", "DATA=my films"], "my films/train lacks NORMAL and PNEUMONIA"),
        (["train", "DATA=no films"], "DATA names no films, which has no folder train"),
        (["run", "MODEL_PATH=my model.pth"], "MODEL_PATH names my model.pth, which is no file"),
    ):
        ended = subprocess.run(["make", *target], cwd=checkout, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert ended.stderr.startswith(expected), ended.stderr
