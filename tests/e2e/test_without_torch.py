"""With what serving by ONNX Runtime needs, and no PyTorch installed, every way to an answer gives PyTorch's answer."""

import contextlib
import csv
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from pneumonia.network.contract import MANIFEST_NAME, ONNX_NAME
from pneumonia.releases.loading import load
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.function import Function
from tests.builders.images import encoded
from tests.builders.releases import bucket_with
from tools.stand_ins.events import function_url_event, multipart
from tools.stand_ins.moto import Moto

pytestmark = pytest.mark.slow
VERSION = "20260102-030405-0a1b2c3d"
NEAR = 1e-4  # of probabilities


def settings(**chosen: str) -> dict[str, str]:
    """Return this process's variables without what it has chosen itself, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MODEL_", "ENGINE"))}
    return kept | chosen


def run(*command: str | Path) -> str:
    """Run a command in the checkout and return what it printed."""
    done = subprocess.run(command, cwd=PROJECT, env=settings(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the pinned requirements of the engine onnx, and the runtime client."""
    folder = tmp_path_factory.mktemp("environment") / "onnx"
    uv, interpreter = Path(sys.executable).with_name("uv"), folder / "bin/python"
    pins = (PROJECT / "requirements-dev.txt").read_text().splitlines()
    client = next(line for line in pins if line.startswith("awslambdaric=="))
    run(uv, "venv", "--quiet", "--python", sys.executable, folder)
    run(uv, "pip", "install", "--quiet", "--python", interpreter, "--requirement", "requirements-onnx.txt", client)
    return interpreter


@pytest.fixture(scope="module")
def release(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a release, but without the weights file that PyTorch reads."""
    folder = tmp_path_factory.mktemp("release")
    for key, data in bucket_with(weights, VERSION).items():
        if key.endswith((ONNX_NAME, MANIFEST_NAME)):
            (folder / Path(key).name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn X-rays."""
    folder = tmp_path_factory.mktemp("xrays")
    for seed, label in enumerate(("NORMAL", "PNEUMONIA", "NORMAL")):
        (folder / f"{seed}.png").write_bytes(encoded(draw_radiograph(Random(seed), label, 300), "PNG"))
    return folder


@pytest.fixture(scope="module")
def expected(weights: Path, xrays: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """P(PNEUMONIA) of each X-ray, by PyTorch."""
    folder = tmp_path_factory.mktemp("by-torch")
    for key, data in bucket_with(weights, VERSION).items():
        if "/" in key:
            (folder / Path(key).name).write_bytes(data)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ENGINE", "torch")
        model = load(folder)
    return [model.predict(path).probabilities["PNEUMONIA"] for path in sorted(xrays.iterdir())]


@pytest.fixture(scope="module")
def served(python: Path, release: Path) -> Iterator[str]:
    """The address of `pneumonia serve`."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [python, "-m", "pneumonia", "serve", "--port", str(port)],
        cwd=PROJECT,
        env=settings(MODEL_PATH=str(release / ONNX_NAME)),
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


def test_torch_is_not_there(python: Path) -> None:
    program = "import importlib.metadata as m; print(sorted(one.name for one in m.distributions()))"
    names = run(python, "-c", program)
    assert "'onnxruntime'" in names
    assert "torch" not in names
    failed = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: No module named 'torch'" in failed.stderr


def test_files_are_predicted(python: Path, release: Path, xrays: Path, expected: list[float]) -> None:
    printed = run(python, "-m", "pneumonia", "predict", "--weights", release, *sorted(xrays.iterdir()))
    answers = [json.loads(line) for line in printed.splitlines()]
    assert {answer["model_version"] for answer in answers} == {VERSION}
    assert [answer["probabilities"]["PNEUMONIA"] for answer in answers] == pytest.approx(expected, abs=NEAR)


def test_a_folder_is_answered_as_a_batch(
    python: Path, release: Path, xrays: Path, expected: list[float], tmp_path: Path
) -> None:
    table = tmp_path / "answers.csv"
    run(python, "-m", "pneumonia", "batch", xrays, table, "--weights", release)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["probability_pneumonia"]) for row in rows] == pytest.approx(expected, abs=NEAR)


def test_a_server_answers(python: Path, served: str, xrays: Path, expected: list[float]) -> None:
    printed = run(python, "-m", "pneumonia", "predict", "--url", served, *sorted(xrays.iterdir()))
    answers = [json.loads(line)["probabilities"]["PNEUMONIA"] for line in printed.splitlines()]
    assert answers == pytest.approx(expected, abs=NEAR)


def test_the_function_answers_with_a_heatmap(
    python: Path, moto: Moto, bucket: str, weights: Path, xrays: Path, expected: list[float], tmp_path: Path
) -> None:
    for key, data in bucket_with(weights, VERSION).items():
        moto.s3().put_object(Bucket=bucket, Key=key, Body=data)
    variables = {"AWS_ENDPOINT_URL": moto.endpoint, "MODEL_BUCKET": bucket, "ENGINE": ""}
    with Function(tmp_path, variables, python=python) as function:
        for path, suspicion in zip(sorted(xrays.iterdir()), expected, strict=True):
            body, content_type = multipart("file", path.name, path.read_bytes(), "image/png")
            event = function_url_event("POST", "/predict?explain=true", body, {"Content-Type": content_type})
            answer = json.loads(function.invoke(event)["body"])
            assert answer["probabilities"]["PNEUMONIA"] == pytest.approx(suspicion, abs=NEAR)
            assert answer["heatmap"]
