"""ONNX Runtime's own reports to its maker: a function that sees X-rays sends none."""

import subprocess
import sys
from pathlib import Path

import pytest

from pneumonia.engines.onnx_file import onnx_file
from pneumonia.network.weights_file import load_weights
from tests.builders.checkout import PROJECT

RUN = """
import sys, pathlib
from pneumonia.engines.onnx import engine_in
engine_in(pathlib.Path(sys.argv[1]).read_bytes(), "model.onnx", is_checked=True)
"""


@pytest.mark.processes
def test_the_engine_keeps_no_number_of_the_machine_and_no_reports(weights: Path, tmp_path: Path) -> None:
    model, home = tmp_path / "model.onnx", tmp_path / "home"
    model.write_bytes(onnx_file(load_weights(weights)))
    home.mkdir()

    # With none of the variables of a CI machine, where it holds its tongue by itself.
    subprocess.run([sys.executable, "-c", RUN, model], cwd=PROJECT, env={"HOME": str(home)}, check=True)

    assert [*home.rglob("*")] == []
