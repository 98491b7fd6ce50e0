"""The image of each engine, which buildah really builds from the Dockerfile: what it holds, weighs and answers."""

import base64
import contextlib
import io
import json
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from pneumonia.engines.onnx_file import onnx_file
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.engine_file import path_for
from pneumonia.releases.fetch import Weights
from pneumonia.serving.page import GUIDES, STATIC
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.problems import NO_REASON
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.container_image import (
    BASE_PACKAGES,
    Buildah,
    ContainerImage,
    build,
    debian_mirror,
    make_base,
    skip_without_tools,
)
from tests.builders.dicom_files import ENCODERS, LOSSY, dicom
from tests.builders.dicom_files import radiograph as film
from tests.builders.dockerfile import ENGINES, files_copied
from tests.builders.images import encoded
from tests.builders.tiff_files import tiff
from tools.stand_ins.events import function_url_event, multipart
from tools.stand_ins.runtime_api import RuntimeApi

pytestmark = pytest.mark.image

# The CPU wheels of torch, which the image is made of where PyTorch's index can be reached, bring no CUDA.
CUDA = set(tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["uv"]["pip"]["no-emit-package"])
BY_ENGINE = {"torch": {"torch"}, "onnx": {"onnxruntime"}}
DEEP = np.arange(64_000, dtype=np.uint16).reshape(250, 256)
MEGABYTES = 250  # of Python packages at most, beside torch itself

Invoke = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """A buildah that has the base image."""
    skip_without_tools()
    folder = tmp_path_factory.mktemp("buildah")
    try:
        buildah = Buildah(folder)
        make_base(buildah, *debian_mirror())
        yield buildah
    finally:
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", folder], check=True)


@pytest.fixture(scope="module", params=ENGINES)
def image(buildah: Buildah, request: pytest.FixtureRequest) -> Iterator[ContainerImage]:
    """The image of this checkout's Dockerfile; 12 GB of disk while it is built, with a CUDA build of torch."""
    yield build(buildah, request.param)
    buildah("rmi", "app")


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    """An empty folder that anyone may write to, as /tmp is at a cold start."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@contextlib.contextmanager
def cold_start(image: ContainerImage, tmp: Path) -> Iterator[Invoke]:
    with RuntimeApi() as api:
        process = subprocess.Popen(image.command(tmp, {"AWS_LAMBDA_RUNTIME_API": api.address}))
        try:
            yield lambda event: api.invoke(event, timeout=300, process=process)
        finally:
            process.kill()
            process.wait()


def put_model(engine: str, weights: Path, folder: Path) -> Path:
    """Put what an engine reads of some weights where a function looks for it, and return the file."""
    path = path_for(folder / "model.pth", engine)
    path.write_bytes(onnx_file(load_weights(weights)) if engine == "onnx" else weights.read_bytes())
    return path


def upload(data: bytes) -> dict[str, Any]:
    body, content_type = multipart("file", "xray.png", data, "image/png")
    return function_url_event("POST", "/predict", body, {"Content-Type": content_type})


@pytest.fixture(scope="module")
def radiograph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("radiograph") / "xray.png"
    draw_radiograph(Random(0), "PNEUMONIA").save(path)
    return path.read_bytes()


def test_the_task_root_has_the_copied_files_compiled_and_readable(image: ContainerImage) -> None:
    task_root = image.root / "var/task"
    files = [path for path in task_root.rglob("*") if path.is_file()]
    sources = [path for path in files if path.suffix != ".pyc"]
    compiled = {
        (path.parent.parent / path.name.partition(".")[0]).with_suffix(".py") for path in set(files) - set(sources)
    }

    expected = sorted(str(path.relative_to(PROJECT)) for path in files_copied(image.engine))
    assert sorted(str(path.relative_to(task_root)) for path in sources) == expected
    assert compiled == {path for path in sources if path.suffix == ".py"}
    assert [path for path in files if not path.stat().st_mode & 0o004] == []


def test_only_tmp_is_writable_in_the_surroundings(image: ContainerImage, tmp: Path) -> None:
    script = "touch /tmp/file && ! touch /var/task/file && ! touch /var/tmp/file && id -u"
    done = subprocess.run(image.command(tmp, {}, ["sh", "-c", script]), check=True, capture_output=True, text=True)

    assert done.stdout == "65534\n"
    assert done.stderr.count("Read-only file system") == 2


def test_its_handler_answers_health_and_says_that_weights_are_missing(
    image: ContainerImage, tmp: Path, radiograph: bytes
) -> None:
    with cold_start(image, tmp) as invoke:
        health = invoke(function_url_event("GET", "/health"))
        prediction = invoke(upload(radiograph))

    assert (health["statusCode"], json.loads(health["body"])) == (200, {"status": "ok", "model_version": None})
    assert prediction["statusCode"] == 503
    assert json.loads(prediction["body"]) == {"detail": NO_REASON}


def test_its_handler_shows_the_page_and_the_model_card(image: ContainerImage, tmp: Path) -> None:
    with cold_start(image, tmp) as invoke:
        page, style, card, picture = (
            invoke(function_url_event("GET", path))
            for path in ("/", "/static/page.css", "/guide/model-card.md", "/guide/model-card/learning_curves.png")
        )

    assert page["body"] == (STATIC / "index.html").read_text()
    assert style["body"] == (STATIC / "page.css").read_text()
    assert '<h1 id="model-card">Model card</h1>' in card["body"]
    assert base64.b64decode(picture["body"]) == (GUIDES / "model-card/learning_curves.png").read_bytes()


def test_its_handler_answers_as_the_checkout_does(
    image: ContainerImage, tmp: Path, radiograph: bytes, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For one file of every library that decodes: of imagecodecs' the image has no others."""
    files = {
        "PNG": radiograph,
        "progressive JPEG": encoded(Image.open(io.BytesIO(radiograph)), "JPEG", progressive=True),
        "PNG, 16-bit colours": bytes(imagecodecs.png_encode(np.stack([DEEP, DEEP, DEEP], axis=2))),
        "TIFF, 32 bits": tiff(DEEP.astype("<f4")),
    } | {syntax.name: dicom(film(), syntax) for syntax in ENCODERS if syntax not in LOSSY}
    monkeypatch.setenv("ENGINE", image.engine)
    predictor = Predictor(Weights(put_model(image.engine, weights, tmp)))
    expected = {name: predictor.predict(data) for name, data in files.items()}

    with cold_start(image, tmp) as invoke:
        responses = {name: invoke(upload(data)) for name, data in files.items()}

    for name, response in responses.items():
        assert (name, response["statusCode"]) == (name, 200)
        assert response["headers"]["content-type"] == "application/json"
        answer, here = json.loads(response["body"]), expected[name]
        assert (answer["prediction"], answer["model_version"]) == (here.prediction, here.model_version)
        assert answer["probabilities"] == pytest.approx(here.probabilities, abs=1e-5)


def test_every_package_in_it_is_imported_by_a_function_and_they_are_light(
    image: ContainerImage, tmp: Path, radiograph: bytes, weights: Path
) -> None:
    put_model(image.engine, weights, tmp)
    script = (PROJECT / "benchmarks/packages.py").read_text()
    done = subprocess.run(
        image.command(tmp, {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "2048"}, ["python", "-c", script]),
        input=json.dumps(upload(radiograph)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(done.stdout)
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]  # not what is logged about the request
    rows = [line.strip("| ").split(" | ") for line in table[1:]]
    unused = {name for name, _, user in rows if user == "none"}

    assert {"fastapi", "pillow", *BY_ENGINE[image.engine]} <= {name for name, _, user in rows if user == "prediction"}
    assert unused <= BASE_PACKAGES | CUDA
    assert sum(float(size) for name, size, _ in rows if name not in BASE_PACKAGES | CUDA | {"torch"}) < MEGABYTES
