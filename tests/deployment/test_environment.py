"""What `make run ENGINE=onnx` really installs, from the package index: its weight, and its answers."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from pneumonia.engines.onnx_file import onnx_file
from pneumonia.network.weights_file import load_weights
from tests.builders.checkout import PROJECT, copy_checkout

pytestmark = [pytest.mark.slow, pytest.mark.processes]

MEGABYTES = 350  # on disk, at most, with the byte code of what serving imports
XRAY = PROJECT / "docs/tutorial/person96_virus_96.jpeg"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which `make run ENGINE=onnx` has installed what it needs."""
    folder = copy_checkout(tmp_path_factory.mktemp("environment") / "checkout")
    subprocess.run(["make", "--silent", ".venv/onnx/serving"], cwd=folder, check=True)
    return folder


def python(checkout: Path, *arguments: str) -> str:
    """Run Python in the environment, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "ENGINE"}}
    command = [str(checkout / ".venv/onnx/bin/python"), *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_it_has_no_torch_and_answers_as_torch_does(checkout: Path, weights: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx_file(load_weights(weights)))
    ask = ("-m", "pneumonia", "predict", "--json", str(XRAY), "--weights")
    with_torch = subprocess.run(
        [checkout / ".venv/bin/python", *ask, weights],
        cwd=checkout,
        env=os.environ | {"ENGINE": "torch"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout

    assert python(checkout, "-c", "from importlib.util import find_spec; print(find_spec('torch'))") == "None\n"
    answer, expected = json.loads(python(checkout, *ask, str(model))), json.loads(with_torch)
    assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)


def test_it_is_light(checkout: Path) -> None:
    python(checkout, "-c", "import app, pneumonia.__main__, pneumonia.imaging.dicom, uvicorn")
    files = {
        (file.st_dev, file.st_ino): file.st_blocks * 512 for file in map(os.lstat, (checkout / ".venv/onnx").rglob("*"))
    }
    assert sum(files.values()) / 1e6 < MEGABYTES
