"""Decoding where a package is not installed, as in SageMaker's training container."""

import subprocess
import sys
from pathlib import Path

from tests.builders.checkout import PROJECT

_PROGRAM = """
import pathlib, sys
sys.modules[sys.argv[1]] = None
from pneumonia.errors import UnsupportedImageError
from pneumonia.imaging.decoding import decode
try:
    decode(pathlib.Path(sys.argv[2]).read_bytes())
except UnsupportedImageError as error:
    print(error)
"""


def refusal_without(package: str, path: Path) -> str:
    """Return the sentence with which a process that lacks a package refuses a file, "" if it decodes it."""
    command = [sys.executable, "-c", _PROGRAM, package, str(path)]
    return subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
