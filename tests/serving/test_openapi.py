"""What Swagger UI shows, against what the app really answers."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.network.prediction import Explanation
from pneumonia.releases.fetch import RELEASED_WEIGHTS, Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.openapi import Batch, Health, Readiness
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.problems import NO_REASON
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.images import encoded

XRAY: Final = encoded(draw_radiograph(Random(0), "NORMAL"), "JPEG")
GIF: Final = encoded(Image.new("L", (9, 9)), "GIF")
LARGE: Final = encoded(Image.new("1", (9000, 9000)), "PNG")
UNREADABLE: Final[dict[str, Any]] = {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=xray"}}
UNBOUNDED: Final[dict[str, Any]] = {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}
TOO_MANY_BYTES: Final[dict[str, Any]] = {"files": {"file": bytes(MAX_BYTES + 100_000)}}
# What brings each documented error about: method, address and body, by the status and the example's name.
Request = tuple[str, str, dict[str, Any]]
CAUSES: Final[dict[tuple[str, str, str], Request]] = {
    ("predict", "400", "text"): ("POST", "/predict", {"files": {"file": b"text"}}),
    ("predict", "400", "broken"): ("POST", "/predict", {"files": {"file": XRAY[:500]}}),
    ("predict", "400", "form"): ("POST", "/predict", UNREADABLE),
    ("predict", "400", "boundary"): ("POST", "/predict", UNBOUNDED),
    ("predict", "413", "bytes"): ("POST", "/predict", TOO_MANY_BYTES),
    ("predict", "413", "pixels"): ("POST", "/predict", {"files": {"file": LARGE}}),
    ("predict", "415", "gif"): ("POST", "/predict", {"files": {"file": GIF}}),
    ("predict", "422", "none"): ("POST", "/predict", {"files": {"image": XRAY}}),
    ("predict", "422", "several"): ("POST", "/predict", {"files": [("file", XRAY)] * 2}),
    ("predict", "422", "option"): ("POST", "/predict?explain=perhaps", {"files": {"file": XRAY}}),
    ("predict_batch", "400", "form"): ("POST", "/predict/batch", UNREADABLE),
    ("predict_batch", "413", "bytes"): ("POST", "/predict/batch", TOO_MANY_BYTES),
    ("predict_batch", "422", "none"): ("POST", "/predict/batch", {"files": {"image": XRAY}}),
    ("predict_batch", "422", "too_many"): ("POST", "/predict/batch", {"files": [("file", b"x")] * 65}),
    ("ready", "422", "option"): ("GET", "/ready?load=perhaps", {}),
}
ELSEWHERE = {"fault", "weights", "uploads"}  # below, and in tests/serving/test_connections.py


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Predictor(Weights(RELEASED_WEIGHTS)))) as client:
        yield client


@pytest.fixture(scope="module")
def operations(client: TestClient) -> dict[str, dict[str, Any]]:
    """Each operation by its name."""
    paths = client.get("/openapi.json").json()["paths"]
    return {operation["operationId"]: operation for path in paths.values() for operation in path.values()}


def examples_of(operation: dict[str, Any], status: str) -> dict[str, Any]:
    examples = operation["responses"][status]["content"]["application/json"]["examples"]
    return {name: example["value"] for name, example in examples.items()}


def test_every_status_that_an_operation_answers_is_documented(operations: dict[str, dict[str, Any]]) -> None:
    assert {name: list(operation["responses"]) for name, operation in operations.items()} == {
        "predict": ["200", "400", "413", "415", "422", "500", "503"],
        "predict_batch": ["200", "400", "413", "422", "500", "503"],
        "health": ["200"],
        "ready": ["200", "422", "500", "503"],
    }


def test_every_operation_has_a_summary_and_lies_under_a_heading(
    client: TestClient, operations: dict[str, dict[str, Any]]
) -> None:
    headings = [tag["name"] for tag in client.get("/openapi.json").json()["tags"]]
    assert headings == ["Classification", "Status"]
    for operation in operations.values():
        assert operation["summary"]
        assert len(operation["tags"]) == 1
        assert operation["tags"][0] in headings


def test_every_field_of_every_answer_is_described(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    answers = ("Prediction", "Explanation", "Failure", "Batch", "Health", "Problem", "Readiness")
    fields = [(name, field, text) for name in answers for field, text in schemas[name]["properties"].items()]
    assert fields
    assert [(name, field) for name, field, text in fields if not text.get("description")] == []


def test_examples_of_answers_are_answers(operations: dict[str, dict[str, Any]]) -> None:
    kinds = {"predict": Explanation, "predict_batch": Batch, "health": Health, "ready": Readiness}
    for name, kind in kinds.items():
        examples = examples_of(operations[name], "200")
        assert examples
        assert all(kind(**example) for example in examples.values())


def test_every_example_of_an_error_has_its_cause(operations: dict[str, dict[str, Any]]) -> None:
    documented = {
        (name, status, cause)
        for name, operation in operations.items()
        for status in operation["responses"]
        if status != "200"
        for cause in examples_of(operation, status)
    }
    assert {example for example in documented if example[2] not in ELSEWHERE} == CAUSES.keys()


@pytest.mark.parametrize("example", CAUSES, ids="-".join)
def test_example_of_an_error_is_what_the_app_says(
    client: TestClient, operations: dict[str, dict[str, Any]], example: tuple[str, str, str]
) -> None:
    name, status, cause = example
    method, address, body = CAUSES[example]
    response = client.request(method, address, **body)
    assert str(response.status_code) == status
    assert response.json() == examples_of(operations[name], status)[cause]


@pytest.mark.processes
def test_without_weights_the_app_says_what_is_documented(tmp_path: Path) -> None:
    """A checkout without weights/ serves from nowhere."""
    shutil.copy(PROJECT / "app.py", tmp_path)
    shutil.copytree(PROJECT / "pneumonia", tmp_path / "pneumonia")
    program = """
import app
from fastapi.testclient import TestClient
response = TestClient(app.app).get("/ready?load=1")
print(response.status_code, response.json()["detail"])
"""
    path = tmp_path / "model.pth"
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "MODEL_PATH": str(path), "MODEL_BUCKET": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.splitlines()[-1] == f"503 {NO_REASON}"
    assert f"There are no weights: {path} does not exist and MODEL_BUCKET is not set." in process.stderr


class Faulty(Predictor):
    """A predictor with a fault that nobody thought of."""

    def load(self, *_: object) -> Any:  # noqa: ANN401
        raise RuntimeError("a fault")


def test_a_fault_is_answered_as_documented(weights: Path, operations: dict[str, dict[str, Any]]) -> None:
    with TestClient(create_app(Faulty(Weights(weights))), raise_server_exceptions=False) as client:
        said = {
            "predict": client.post("/predict", files={"file": XRAY}),
            "predict_batch": client.post("/predict/batch", files={"file": XRAY}),
            "ready": client.get("/ready?load=1"),
        }
    for name, response in said.items():
        assert response.status_code == 500
        assert response.json() == examples_of(operations[name], "500")["fault"]
