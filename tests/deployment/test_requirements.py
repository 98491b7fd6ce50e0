"""The files of pins: which packages each has, and that all agree on their versions."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.builders.checkout import PROJECT

# torch, and what nothing but torch brings. `onnx` builds ONNX files: promotion's work, which needs torch as well.
OF_TORCH = {"torch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec", "setuptools"}
OF_PROMOTION = {"onnx", "ml-dtypes"}


def pins(name: str) -> set[str]:
    """Return the lines of a requirements file that pin something."""
    return {line for line in (PROJECT / name).read_text().splitlines() if "==" in line}


def packages(name: str) -> set[str]:
    return {pin.partition("==")[0] for pin in pins(name)}


def test_without_torch_the_packages_are_the_same_but_for_what_torch_and_promotion_bring() -> None:
    assert packages("requirements.txt") - packages("requirements-onnx.txt") == OF_TORCH | OF_PROMOTION
    assert pins("requirements-onnx.txt") <= pins("requirements.txt")


def test_what_is_served_is_what_was_tested() -> None:
    assert pins("requirements.txt") <= pins("requirements-dev.txt")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-onnx.txt", "requirements-dev.txt"])
def test_they_name_versions_and_no_index(name: str) -> None:
    lines = [line for line in (PROJECT / name).read_text().splitlines() if line and not line.lstrip().startswith("#")]
    assert lines
    assert [line for line in lines if "==" not in line or "://" in line] == []


def test_what_pyproject_asks_for_is_pinned() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    serving = {requirement.partition(">=")[0] for requirement in project["dependencies"] + extras["onnx"]}
    assert serving - {"torch"} <= packages("requirements-onnx.txt")
    assert serving | {"onnx"} <= packages("requirements.txt")


@pytest.mark.processes
@pytest.mark.parametrize("name", ["requirements.txt", "requirements-onnx.txt"])
@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
def test_every_pin_has_a_wheel_for_both_processors_of_lambda(name: str, processor: str, tmp_path: Path) -> None:
    (python,) = re.findall(r"lambda/python:(\S+)", (PROJECT / "Dockerfile").read_text())
    # The glibc of Amazon Linux 2023, which AWS's base image is.
    platform = (f"--python-platform={processor}-manylinux_2_34", f"--python-version={python}", "--only-binary=:all:")
    target = (f"--target={tmp_path}", f"--requirement={PROJECT / name}")
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "--dry-run", "--no-deps", "--quiet", *platform, *target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
