"""Train, promote, serve: the commands and the runtime that a user runs, against AWS's stand-ins."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import pytest
import torch
import torchvision
from PIL import Image
from torchvision import transforms

from pneumonia.imaging.preprocessing import MEAN, STD
from pneumonia.launching.metrics import METRICS, metric_regex
from pneumonia.network.contract import CLASSES, ONNX_NAME, WEIGHTS_NAME
from pneumonia.training.synthetic import draw_dataset, draw_radiograph
from tests.builders.checkout import PROJECT
from tools.stand_ins.events import function_url_event, multipart
from tools.stand_ins.function_url import ENVIRONMENT, REGION, function_url
from tools.stand_ins.moto import Moto
from tools.stand_ins.runtime_api import RuntimeApi
from tools.stand_ins.sagemaker_job import FinishedJob, run_training_job

ROLE = "arn:aws:iam::123456789012:role/training"
# What separates drawn pneumonia from drawn normals is learnt in these from random values.
HYPERPARAMETERS = ["--weights", "none", "--epochs", "4", "--batch-size", "8", "--learning-rate", "0.0005"]
FILES = {"torch": WEIGHTS_NAME, "onnx": ONNX_NAME}  # of a release, by engine
# How far an engine's probabilities may lie from those of torch and torchvision, by the precision of its file.
NEAR = {"float": 1e-5, "half": 1e-4, "int8": 0.05}
Answer = dict[str, Any]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    draw_dataset(folder, {"train": 160, "val": 40, "test": 40})
    return folder


@pytest.fixture(scope="module")
def data_bucket(moto: Moto, dataset: Path) -> str:
    bucket = moto.make_bucket("chest-xrays")
    upload(moto, dataset, bucket)
    return bucket


@pytest.fixture(scope="module")
def job(moto: Moto, data_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> FinishedJob:
    """A training job, launched and run."""
    return run_training_job(moto, launch(moto, data_bucket), tmp_path_factory.mktemp("opt-ml"))


@pytest.fixture(scope="module")
def weights_bucket(moto: Moto, job: FinishedJob) -> str:
    """A bucket with the job's model as the served release."""
    bucket = moto.make_bucket("promoted-weights")
    command("promote_model.py", job.archive, "--bucket", bucket, environment=moto.environment)
    return bucket


@pytest.fixture(scope="module")
def trained(moto: Moto, weights_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """The trained network in plain torch and torchvision, by a way of its own from the plain key."""
    path = tmp_path_factory.mktemp("trained") / WEIGHTS_NAME
    moto.s3().download_file(weights_bucket, WEIGHTS_NAME, str(path))
    network: torch.nn.Module = torchvision.models.resnet18(num_classes=len(CLASSES))
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


class Release(NamedTuple):
    """What the served release says about an engine's file: the precision, and what was fitted on validation."""

    precision: str
    calibration: dict[str, float]


@pytest.fixture
def release(moto: Moto, weights_bucket: str, engine: str) -> Release:
    s3 = moto.s3()
    version = json.loads(s3.get_object(Bucket=weights_bucket, Key="current.json")["Body"].read())["version"]
    manifest = json.loads(s3.get_object(Bucket=weights_bucket, Key=f"releases/{version}/manifest.json")["Body"].read())
    onnx = manifest["onnx"]
    if engine == "torch":
        return Release("float", manifest["calibration"])
    return Release(onnx["precision"], manifest["calibration"])


class Function:
    """The Lambda function: the real runtime client, and the API that feeds it."""

    def __init__(self, moto: Moto, bucket: str, model_path: Path) -> None:
        self.model_path = model_path
        self._api = RuntimeApi()
        variables = {
            "AWS_LAMBDA_RUNTIME_API": self._api.address,
            "MODEL_BUCKET": bucket,
            "MODEL_PATH": str(model_path),
            "PYTHONPATH": str(PROJECT),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", "app.handler"],
            env=os.environ | moto.environment | variables,
            cwd=PROJECT,
        )

    def __enter__(self) -> "Function":
        self._api.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._api.__exit__(None, None, None)

    def invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        """Hand an event to the handler, and return its answer."""
        return self._api.invoke(event, process=self._process)

    def predict(self, image: Path, query: str = "") -> Answer:
        """Send an image as a browser would, and return the answer."""
        body, content_type = multipart("file", image.name, image.read_bytes(), "image/jpeg")
        response = self.invoke(function_url_event("POST", f"/predict{query}", body, {"Content-Type": content_type}))
        assert response["statusCode"] == 200, response
        answer: Answer = json.loads(response["body"])
        return answer


@pytest.fixture
def function(moto: Moto, weights_bucket: str, engine: str, tmp_path: Path) -> Iterator[Function]:
    with Function(moto, weights_bucket, tmp_path / FILES[engine]) as function:
        yield function


def test_training_job_learns_and_leaves_its_model(job: FinishedJob) -> None:
    assert job.status == 0, job.log
    assert job.failure is None
    epochs = re.findall(r"^epoch=\d train_loss=\d\.\d+ val_accuracy=\d\.\d+ val_loss=\d+\.\d+", job.log, re.MULTILINE)
    assert len(epochs) == 4
    accuracy = re.search(r"^test_accuracy=(\S+) test_loss=", job.log, re.MULTILINE)
    assert accuracy
    assert float(accuracy[1]) > 0.9


def test_every_metric_is_found_in_the_log(job: FinishedJob) -> None:
    found = {name: len(re.findall(metric_regex(word), job.log, re.MULTILINE)) for name, word in METRICS.items()}
    assert found == {name: 1 if name.startswith("test:") else 4 for name in METRICS}


def test_function_answers_as_the_trained_network(
    function: Function, trained: torch.nn.Module, release: Release, dataset: Path
) -> None:
    right = 0
    images = [path for label in CLASSES for path in sorted((dataset / "test" / label).iterdir())[:5]]
    for path in images:
        answer = function.predict(path)
        expected = dict(zip(CLASSES, probabilities(trained, release.calibration, path).tolist(), strict=True))
        assert answer["probabilities"] == pytest.approx(expected, abs=NEAR[release.precision])
        assert answer["prediction"] == max(CLASSES, key=lambda name: answer["probabilities"][name])
        right += answer["prediction"] == path.parent.name
    assert right / len(images) > 0.8


@pytest.mark.parametrize("side", ["left", "right"])
def test_heatmap_lies_on_the_side_of_the_opacities(
    function: Function, tmp_path: Path, side: Literal["left", "right"]
) -> None:
    shares = []
    for seed in range(8):
        path = tmp_path / f"{seed}.jpeg"
        draw_radiograph(Random(seed), "PNEUMONIA", side=side).save(path, quality=90)
        answer = function.predict(path, "?explain=true")
        if answer["prediction"] == "PNEUMONIA":
            with Image.open(io.BytesIO(base64.b64decode(str(answer["heatmap"])))) as heatmap:
                opaque = heatmap.convert("RGBA").getchannel("A")
            middle = opaque.width // 2
            halves = {"left": (0, 0, middle, opaque.height), "right": (middle, 0, *opaque.size)}
            mass = {name: sum(opaque.crop(half).tobytes()) for name, half in halves.items()}
            shares.append(mass[side] / sum(mass.values()))
    assert len(shares) > 4
    assert sum(shares) / len(shares) > 0.6


def test_cold_start_downloads_and_warm_invocation_neither_asks_s3_nor_loads(
    moto: Moto, function: Function, weights_bucket: str, dataset: Path, engine: str
) -> None:
    image = next((dataset / "test" / "PNEUMONIA").iterdir())
    before = len(moto.requests())
    first = function.predict(image)
    version = json.loads(moto.s3().get_object(Bucket=weights_bucket, Key="current.json")["Body"].read())["version"]
    assert first["model_version"] == version
    cold = [request for request in moto.requests()[before:] if request.startswith(f"GET /{weights_bucket}/releases/")]
    assert cold == [
        f"GET /{weights_bucket}/releases/{version}/manifest.json",
        f"GET /{weights_bucket}/releases/{version}/{FILES[engine]}",
    ]

    function.model_path.write_bytes(b"loading this would fail")
    before = len(moto.requests())
    assert function.predict(image) == first
    assert moto.requests()[before:] == []


def test_the_command_asks_the_cold_function_with_a_signature(
    function: Function, trained: torch.nn.Module, release: Release, dataset: Path
) -> None:
    """As whoever deployed it does: `pneumonia predict --url`, through a URL that checks signatures."""
    images = [next((dataset / "test" / label).iterdir()) for label in CLASSES]
    with function_url(function.invoke) as url:
        arguments = ["predict", "--url", url.address, "--sign", REGION, *map(str, images)]
        printed = command("pneumonia/__main__.py", *arguments, environment=ENVIRONMENT | {"PYTHONPATH": str(PROJECT)})
    answers = [json.loads(line) for line in printed.splitlines()]
    assert [answer.pop("file") for answer in answers] == list(map(str, images))
    for image, answer in zip(images, answers, strict=True):
        expected = probabilities(trained, release.calibration, image).tolist()
        assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=NEAR[release.precision])


def test_failing_job_tells_sagemaker_why(moto: Moto, dataset: Path, tmp_path: Path) -> None:
    bucket = moto.make_bucket("broken-xrays")
    upload(moto, dataset, bucket)
    moto.s3().put_object(Bucket=bucket, Key="chest_xray/val/NORMAL/broken.jpeg", Body=b"no image")
    failed = run_training_job(moto, launch(moto, bucket), tmp_path)
    assert failed.status != 0
    assert failed.failure
    assert failed.failure.startswith("Images cannot be read, remove or replace them: val/NORMAL/broken.jpeg")
    assert "epoch=" not in failed.log


def upload(moto: Moto, folder: Path, bucket: str) -> None:
    s3 = moto.s3()
    for path in folder.glob("*/*/*"):
        s3.upload_file(str(path), bucket, f"chest_xray/{path.relative_to(folder)}")


def launch(moto: Moto, bucket: str) -> str:
    """Launch a training job on the images in a bucket; return its name."""
    arguments = ["--bucket", bucket, "--role", ROLE, "--region", moto.environment["AWS_DEFAULT_REGION"]]
    output = command("train_sagemaker.py", *arguments, *HYPERPARAMETERS, environment=moto.environment)
    name = re.search(r"^Training job (\S+) in", output, re.MULTILINE)
    assert name, output
    return name[1]


def command(script: str, *arguments: str, environment: dict[str, str]) -> str:
    """Run one of the project's scripts and return what it printed."""
    process = subprocess.run(
        [sys.executable, PROJECT / script, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def probabilities(network: torch.nn.Module, calibration: dict[str, float], path: Path) -> torch.Tensor:
    """Return the probability of each class, computed with torchvision alone."""
    transform = transforms.Compose(
        [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    with torch.inference_mode():
        batch: torch.Tensor = transform(Image.open(path).convert("RGB"))[None]
        output: torch.Tensor = network(batch)
        bias = torch.tensor([0, calibration["bias"]])
        return (output / calibration["temperature"] + bias).softmax(1)[0]
