import json
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.telemetry import Record, emit
from tests.builders.images import XRAY

PHASES = {"LoadMilliseconds", "DecodeMilliseconds", "InferenceMilliseconds", "TotalMilliseconds"}


@pytest.fixture
def client(weights: Path) -> TestClient:
    return TestClient(create_app(Predictor(Weights(weights))), raise_server_exceptions=False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def metrics_of(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line's metrics, as CloudWatch reads them: name to values, with the units checked."""
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("Pneumonia", [["service"]])
    assert abs(line["_aws"]["Timestamp"] / 1000 - time.time()) < 3600
    for metric in directive["Metrics"]:
        expected = {"Milliseconds": "Milliseconds", "Bytes": "Bytes", "Confidence": "None"}
        assert metric["Unit"] == next((unit for end, unit in expected.items() if metric["Name"].endswith(end)), "Count")
    return {metric["Name"]: line[metric["Name"]] for metric in directive["Metrics"]}


def test_a_prediction_is_one_line_with_its_metrics(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    answer = client.post("/predict", files={"file": ("john-doe.jpg", XRAY)}).json()
    (line,) = lines(capsys)
    metrics = metrics_of(line)
    assert {name: metrics.pop(name) for name in PHASES}.keys() == PHASES
    assert metrics == {
        "Requests": [1],
        "ClientErrors": [0],
        "ServerErrors": [0],
        "ColdStart": [1],
        "ImageBytes": [len(XRAY)],
        "ImagePixels": [224 * 224],
        "Pneumonia": [answer["prediction"] == "PNEUMONIA"],
        "Confidence": [pytest.approx(answer["confidence"], abs=1e-4)],
        "Uncertain": [0],
        "NotAChestXray": [0],
    }
    said = {name: line[name] for name in ("service", "method", "path", "status", "model_version", "predictions")}
    assert said == {
        "service": "inference",
        "method": "POST",
        "path": "/predict",
        "status": 200,
        "model_version": answer["model_version"],
        "predictions": [answer["prediction"]],
    }
    assert "john" not in json.dumps(line)


def test_phases_make_up_the_whole(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.post("/predict", files={"file": XRAY})
    (line,) = lines(capsys)
    times = {name: line[name][0] for name in PHASES}
    assert all(taken > 0 for taken in times.values())
    total = times.pop("TotalMilliseconds")
    assert sum(times.values()) <= total + 1  # each is rounded
    assert line["milliseconds"] == total


def test_only_the_request_that_waits_for_the_model_is_cold(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        client.post("/predict", files={"file": XRAY})
    first, second = lines(capsys)
    assert (first["ColdStart"], second["ColdStart"]) == ([1], [0])
    assert "LoadMilliseconds" not in second


@pytest.mark.parametrize(
    ("upload", "status", "errors"),
    [({"file": b"text"}, 400, ([1], [0])), ({}, 422, ([1], [0])), ({"file": b"GIF89a"}, 415, ([1], [0]))],
)
def test_refused_requests_are_counted(
    client: TestClient,
    capsys: pytest.CaptureFixture[str],
    upload: dict[str, bytes],
    status: int,
    errors: tuple[list[int], list[int]],
) -> None:
    client.post("/predict", files=upload)
    (line,) = lines(capsys)
    metrics = metrics_of(line)
    assert (line["status"], metrics["Requests"]) == (status, [1])
    assert (metrics["ClientErrors"], metrics["ServerErrors"]) == errors
    assert not {"Confidence", "Pneumonia", "InferenceMilliseconds"} & metrics.keys()


def test_faults_and_missing_weights_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TestClient(create_app(Predictor(Weights(tmp_path))), raise_server_exceptions=False) as client:
        assert client.post("/predict", files={"file": XRAY}).status_code == 503
    (line,) = lines(capsys)
    assert (line["status"], metrics_of(line)["ServerErrors"]) == (503, [1])
    assert metrics_of(line)["LoadFailures"] == [1]


def test_a_probe_that_finds_no_model_is_counted_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TestClient(create_app(Predictor(Weights(tmp_path)))) as client:
        assert client.get("/ready?load=1").status_code == 503
        assert client.get("/ready").status_code == 200
    failed, asked = lines(capsys)
    assert metrics_of(failed) == {"LoadFailures": [1]}
    assert "_aws" not in asked


@pytest.mark.parametrize(
    ("path", "logged", "status"),
    [
        ("/health", "/health", 200),
        ("/docs?john-doe", "/docs", 200),
        ("/predict", "/predict", 405),
        ("/static/page.css", "/static", 200),
        ("/static/john-doe.jpg", "/static", 404),
        ("/guide/john-doe.md", "/guide/{guide}.md", 404),
        ("/john-doe/predict", "other", 404),
        ("/nothing/predictable", "other", 404),
    ],
)
def test_other_requests_are_a_line_without_metrics_and_names(
    client: TestClient, capsys: pytest.CaptureFixture[str], path: str, logged: str, status: int
) -> None:
    client.get(path)
    (line,) = lines(capsys)
    assert (line["path"], line["status"]) == (logged, status)
    assert "john-doe" not in json.dumps(line)
    assert "_aws" not in line or path == "/predict"


def test_a_method_that_http_lacks_is_not_logged(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.request("JOHN-DOE", "/health")
    client.request("HEAD", "/health")
    assert [line["method"] for line in lines(capsys)] == ["other", "HEAD"]


def test_behind_a_prefix_the_line_is_the_same(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = TestClient(create_app(Predictor(Weights(weights)), "/xray"))
    assert client.post("/xray/predict", files={"file": XRAY}).status_code == 200
    (line,) = lines(capsys)
    assert (line["path"], line["Requests"]) == ("/predict", [1])


def test_namespace_and_service_are_powertools_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Other")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "promotion")
    emit({"Promotions": [1]}, {})
    (line,) = lines(capsys)
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Other"
    assert line["service"] == "promotion"


def test_a_phase_that_fails_or_comes_twice_is_added_up() -> None:
    record = Record()
    record.add("Decode", 0.25)
    with pytest.raises(ValueError, match="broken"), record.timed("Decode"):
        raise ValueError("broken")
    assert record.milliseconds["Decode"] >= 250
    assert record.metrics()["DecodeMilliseconds"] == [round(record.milliseconds["Decode"], 1)]


def test_a_batch_is_one_line_with_the_values_of_each_image(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = client.post("/predict/batch", files=[("file", XRAY)] * 63 + [("file", b"text")])
    assert answer.status_code == 200
    (line,) = lines(capsys)
    metrics = metrics_of(line)
    assert (metrics["Requests"], metrics["ClientErrors"], line["status"]) == ([1], [0], 200)
    assert len(metrics["Confidence"]) == len(metrics["Pneumonia"]) == len(metrics["ImagePixels"]) == 63
    assert len(metrics["ImageBytes"]) == 64
    assert len(line["predictions"]) == 63
