import base64
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pneumonia.imaging.preview import PREVIEW_SIDE
from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.openapi import EXAMPLE
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.problems import NO_REASON
from tests.builders.checkout import PROJECT
from tests.builders.images import encoded

XRAY = encoded(Image.linear_gradient("L"), "JPEG")


@pytest.fixture
def client(weights: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Predictor(Weights(weights)))) as client:
        yield client


def test_predict_answers_by_the_contract(client: TestClient) -> None:
    response = client.post("/predict", files={"file": ("xray.jpg", XRAY, "image/jpeg")})
    answer = response.json()
    assert response.status_code == 200
    assert list(answer) == ["prediction", "confidence", "probabilities", "model_version", "warnings"]
    assert list(answer["probabilities"]) == ["NORMAL", "PNEUMONIA"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert (
        answer["confidence"] == answer["probabilities"][answer["prediction"]] == max(answer["probabilities"].values())
    )
    assert answer["model_version"].startswith("sha256-")
    assert answer["warnings"] == ["uncalibrated"]


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (b"", 400, "The file is empty"),
        (b"Dear radiologist,", 400, "The file is not an image"),
        (XRAY[:500], 400, "The image is broken"),
        (encoded(Image.new("1", (9000, 9000)), "PNG"), 413, "9000 x 9000 pixels"),
        (bytes(21 * 1024 * 1024), 413, "larger than 20,971,520 bytes"),
        (encoded(Image.new("L", (9, 9)), "GIF"), 415, "GIF files are not read"),
        (b"%PDF-1.7", 415, "PDF files are not read"),
    ],
    ids=["empty", "text", "truncated", "pixels", "bytes", "gif", "pdf"],
)
def test_unusable_upload_is_answered_with_its_reason(
    client: TestClient, content: bytes, status: int, sentence: str
) -> None:
    response = client.post("/predict", files={"file": ("xray.jpg", content, "image/jpeg")})
    assert response.status_code == status
    assert list(response.json()) == ["detail"]
    assert sentence in response.json()["detail"]


def test_content_counts_not_name_nor_type(client: TestClient) -> None:
    response = client.post("/predict", files={"file": ("notes.txt", XRAY, "text/plain")})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(
    ("request_parts", "sentence"),
    [
        ({}, "The request has no body: send multipart/form-data with the X-ray as field 'file'."),
        ({"files": {"image": XRAY}}, "The form has the field 'image', but no 'file': send the X-ray as field 'file'."),
        (
            {"data": {"file": "text"}},
            "The Content-Type is 'application/x-www-form-urlencoded', not multipart/form-data: send",
        ),
    ],
    ids=["nothing", "another name", "text"],
)
def test_request_without_the_field_is_answered_with_what_to_send(
    client: TestClient, path: str, request_parts: dict[str, Any], sentence: str
) -> None:
    response = client.post(path, **request_parts)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(sentence)


def test_missing_weights_are_answered_with_503(tmp_path: Path) -> None:
    with TestClient(create_app(Predictor(Weights(tmp_path)))) as client:
        response = client.post("/predict", files={"file": XRAY})
    assert response.status_code == 503
    assert response.json() == {"detail": NO_REASON}


def batch_of(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("file", (f"{number}.jpg", content, "image/jpeg")) for number, content in enumerate(contents)]


def test_batch_is_answered_in_the_order_sent_like_each_image_alone(client: TestClient) -> None:
    images = [encoded(Image.linear_gradient("L").rotate(10 * number), "JPEG") for number in range(20)]
    response = client.post("/predict/batch", files=batch_of(*images))
    assert response.status_code == 200
    assert list(response.json()) == ["results"]
    results = response.json()["results"]
    alone = [client.post("/predict", files={"file": image}).json() for image in images]
    assert [list(result) for result in results] == [list(answer) for answer in alone]
    suspicions = [answer["probabilities"]["PNEUMONIA"] for answer in alone]
    assert [result["probabilities"]["PNEUMONIA"] for result in results] == pytest.approx(suspicions, abs=1e-5)
    assert len(set(suspicions)) == 20


def test_broken_image_spoils_only_its_own_row(client: TestClient) -> None:
    gif, large = encoded(Image.new("L", (9, 9)), "GIF"), encoded(Image.new("1", (9000, 9000)), "PNG")
    response = client.post("/predict/batch", files=batch_of(b"", XRAY, gif, large, XRAY, XRAY[:500]))
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result.get("status") for result in results] == [400, None, 415, 413, None, 400]
    assert results[1] == results[4]
    assert results[1]["prediction"] in {"NORMAL", "PNEUMONIA"}
    for content, result in ((b"", results[0]), (gif, results[2]), (large, results[3]), (XRAY[:500], results[5])):
        alone = client.post("/predict", files={"file": content})
        assert result == {"status": alone.status_code, "detail": alone.json()["detail"]}


def test_batch_of_broken_images_needs_no_model(tmp_path: Path) -> None:
    with TestClient(create_app(Predictor(Weights(tmp_path)))) as client:
        response = client.post("/predict/batch", files=batch_of(b"", b"text"))
    assert response.status_code == 200
    assert [result["status"] for result in response.json()["results"]] == [400, 400]


def test_batch_without_weights_is_answered_with_503(tmp_path: Path) -> None:
    with TestClient(create_app(Predictor(Weights(tmp_path)))) as client:
        response = client.post("/predict/batch", files=batch_of(b"text", XRAY))
    assert response.status_code == 503
    assert response.json() == {"detail": NO_REASON}


def test_batch_may_have_64_images_and_no_more(client: TestClient) -> None:
    small = encoded(Image.new("L", (9, 9)), "PNG")
    response = client.post("/predict/batch", files=batch_of(*[small] * 64))
    assert (response.status_code, len(response.json()["results"])) == (200, 64)
    response = client.post("/predict/batch", files=batch_of(*[small] * 65))
    assert response.status_code == 422
    assert response.json() == {"detail": "There are 65 fields 'file' in the form: send at most 64 per request."}


def test_health_does_not_load_the_model(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "model_version": None}
    version = client.post("/predict", files={"file": XRAY}).json()["model_version"]
    assert client.get("/health").json() == {"status": "ok", "model_version": version}


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/docs", "/openapi.json", "/static/page.css", "/nothing"])
def test_head_is_answered_as_get_without_the_body(client: TestClient, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.headers, head.content) == (get.status_code, get.headers, b"")
    assert int(head.headers["content-length"]) == len(get.content) > 0


def test_head_does_not_load_the_model_unless_it_is_asked_to(client: TestClient) -> None:
    client.head("/ready")
    assert client.get("/ready").json()["ready"] is False
    client.head("/ready?load=1")
    assert client.get("/ready").json()["ready"] is True


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/health", "GET, HEAD"),
        ("OPTIONS", "/ready", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
        ("HEAD", "/predict", "POST"),
        ("OPTIONS", "/predict", "POST"),
        ("DELETE", "/predict/batch", "POST"),
    ],
)
def test_another_method_is_answered_with_those_that_are_allowed(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


def test_every_field_of_the_answer_is_documented(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    fields = schema["components"]["schemas"]["Prediction"]["properties"]
    assert list(fields) == list(EXAMPLE)
    assert all(field["description"] for field in fields.values())
    assert "more probable" in fields["prediction"]["description"]
    assert "0.5 to 1" in fields["confidence"]["description"]
    assert "`uncertain`" in fields["warnings"]["description"]


@pytest.mark.processes
def test_cold_path_needs_neither_torchvision_nor_boto3(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "xray.jpg").write_bytes(XRAY)
    program = """
import sys
from pathlib import Path
from fastapi.testclient import TestClient
import app
with TestClient(app.app) as client:
    print(client.post("/predict", files={"file": Path(sys.argv[1]).read_bytes()}).status_code)
print(*sorted({"torchvision", "torch._dynamo", "sympy", "sagemaker", "boto3", "matplotlib"} & sys.modules.keys()))
"""
    process = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "xray.jpg")],
        env=os.environ | {"MODEL_PATH": str(weights), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.splitlines()[1:] == ["200", ""]  # the first is about the request
    assert "Warning" not in process.stderr
    assert f"INFO:pneumonia.releases.loading:loaded {weights}, model version sha256-" in process.stderr


def test_explained_answer_has_a_heatmap_as_large_as_the_image(client: TestClient) -> None:
    plain = client.post("/predict", files={"file": XRAY}).json()
    response = client.post("/predict?explain=true", files={"file": XRAY})
    answer = response.json()
    assert response.status_code == 200
    with Image.open(io.BytesIO(base64.b64decode(answer.pop("heatmap"), validate=True))) as heatmap:
        assert (heatmap.format, heatmap.size) == ("PNG", (256, 256))
    assert answer == plain


def test_preview_shows_what_a_browser_cannot(client: TestClient) -> None:
    xray = encoded(Image.linear_gradient("L").resize((3000, 1500)), "TIFF")
    answer = client.post("/predict?preview=1&explain=0", files={"file": xray}).json()
    assert list(answer)[-1] == "preview"
    assert "heatmap" not in answer
    with Image.open(io.BytesIO(base64.b64decode(answer["preview"], validate=True))) as preview:
        assert (preview.format, preview.mode, preview.size) == ("JPEG", "L", (PREVIEW_SIDE, PREVIEW_SIDE // 2))


def test_options_take_no_other_values(client: TestClient) -> None:
    response = client.post("/predict?explain=loudly", files={"file": XRAY})
    assert response.status_code == 422
    assert response.json() == {"detail": "'explain' must be true or false, or 1 or 0: see /docs."}
