"""Copies of this checkout: all of it, for commands that write into it, and what a function has of it."""

import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
STAMPS = ("serving", "development", "bin/uv")  # what make looks at to see whether there is something to install
NOT_IN_THE_IMAGE = ("client", "launching", "training")  # rooms of the package


def copy_checkout(folder: Path) -> Path:
    """Copy what would be committed, and lend the copy the environment of this process: make installs nothing there.

    Args:
        folder: folder to make.

    Returns:
        The same folder.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():  # what was deleted is listed still
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, copy)

    environment = folder / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name not in {"bin", "onnx", *STAMPS}:
            (environment / entry.name).symlink_to(entry)
    (environment / "bin").mkdir()
    for program in Path(sys.prefix, "bin").iterdir():
        if program.name != "uv":
            (environment / "bin" / program.name).symlink_to(program)
    for name in reversed(STAMPS):  # each newer than what it is made of
        (environment / name).touch()
    return folder


def make_task_root(folder: Path) -> Path:
    """Copy a function's code to where nothing can be written, as Lambda has it.

    Args:
        folder: folder to make.

    Returns:
        The same folder.
    """
    folder.mkdir(parents=True)
    shutil.copy(PROJECT / "app.py", folder)
    ignored = shutil.ignore_patterns(*NOT_IN_THE_IMAGE, "__pycache__")
    shutil.copytree(PROJECT / "pneumonia", folder / "pneumonia", ignore=ignored)
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            path.chmod(0o555)
    return folder
