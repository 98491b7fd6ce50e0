"""Which pages of other origins may read what a server answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pneumonia.errors import ConfigurationError
from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.cors import origins_from_environment, with_cors
from pneumonia.serving.predictor import Predictor
from tests.builders.checkout import PROJECT
from tests.builders.images import XRAY
from tools.stand_ins.events import function_url_event

ORIGIN, OTHER = "https://a.example", "https://b.example:8443"


def client_of(weights: Path, *origins: str) -> TestClient:
    app = create_app(Predictor(Weights(weights)))
    # Reads no form, and fails as nothing that is sent could make it fail.
    app.add_api_route("/fault", lambda: 1 / 0)
    return TestClient(with_cors(app, origins), raise_server_exceptions=False)


@pytest.fixture
def client(weights: Path) -> TestClient:
    return client_of(weights, ORIGIN, OTHER)


@pytest.mark.parametrize("origin", [ORIGIN, OTHER])
def test_pages_of_an_origin_may_ask_and_read(client: TestClient, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-login"}
    preflight = client.options("/predict", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "x-login"
    answer = client.post("/predict", files={"file": XRAY}, headers={"Origin": origin})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("POST", "/predict", {"files": {"file": b"text"}}, 400),
        ("GET", "/nothing", {}, 404),
        ("GET", "/predict", {}, 405),
        ("POST", "/predict", {"content": b"x", "headers": {"Content-Length": "99999999"}}, 413),
        ("POST", "/predict", {"files": {"file": b"GIF89a"}}, 415),
        ("POST", "/predict", {}, 422),
        ("HEAD", "/health", {}, 200),
        ("GET", "/fault", {}, 500),
    ],
)
def test_errors_may_be_read_as_well(
    client: TestClient, method: str, path: str, sent: dict[str, dict[str, str]], status: int
) -> None:
    headers = {"Origin": ORIGIN} | sent.get("headers", {})
    response = client.request(method, path, **{**sent, "headers": headers})  # type: ignore[arg-type]
    assert (response.status_code, response.headers.get_list("access-control-allow-origin")) == (status, [ORIGIN])


def test_missing_weights_may_be_read_as_well(tmp_path: Path) -> None:
    response = client_of(tmp_path, "*").post("/predict", files={"file": XRAY}, headers={"Origin": OTHER})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (503, "*")


def test_pages_of_other_origins_may_not(client: TestClient) -> None:
    headers = {"Origin": "https://a.example.org", "Access-Control-Request-Method": "POST"}
    preflight = client.options("/predict", headers=headers)
    assert (preflight.status_code, preflight.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    for response in (preflight, client.get("/health", headers=headers)):
        assert "access-control-allow-origin" not in response.headers


def test_without_origins_nothing_is_said(weights: Path) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    client = client_of(weights)
    assert client.options("/predict", headers=headers).status_code == 405
    assert "access-control-allow-origin" not in client.get("/health", headers=headers).headers


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", []),
        ("*", ["*"]),
        (ORIGIN, [ORIGIN]),
        (f" {ORIGIN}/ , {OTHER},", [ORIGIN, OTHER]),
        ("http://localhost:5173", ["http://localhost:5173"]),
        (
            "HTTPS://Me.Org:443,http://me.org:80/,http://[::1]:8080",
            ["https://me.org", "http://me.org", "http://[::1]:8080"],
        ),
        ("http://me.org:443", ["http://me.org:443"]),
    ],
)
def test_origins_are_read_however_they_are_written(
    monkeypatch: pytest.MonkeyPatch, text: str, origins: list[str]
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", text)
    assert origins_from_environment() == origins


@pytest.mark.parametrize(
    "text",
    [
        "a.example",
        "https://a.example/page",
        "null",
        "https://a.example https://b.example",
        "https://*.a.example",
        "https://me@a.example",
        "https://müller.example",
        "https://a.example:",
        "https://",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", text)
    with pytest.raises(ConfigurationError, match=r"^CORS_ORIGINS names '.+': write origins as https://me\.org"):
        origins_from_environment()


ON_LAMBDA = """
import json, sys, time
import app
from awslambdaric.lambda_context import LambdaContext
context = LambdaContext("1", None, None, int(time.time() * 1000) + 60_000, "arn")
print("answered", sorted(app.handler(json.loads(sys.argv[1]), context)["headers"]))
print("imported", "starlette.middleware.cors" in sys.modules)
"""


@pytest.mark.processes
def test_on_lambda_the_function_url_alone_adds_the_header(weights: Path) -> None:
    event = function_url_event("GET", "/health", headers={"Origin": ORIGIN})
    lambdas = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9", "CORS_ORIGINS": "*", "MODEL_PATH": str(weights)}
    command = [sys.executable, "-c", ON_LAMBDA, json.dumps(event)]
    environment = os.environ | lambdas | {"PYTHONPATH": str(PROJECT)}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "answered ['cache-control', 'content-length', 'content-type']" in printed
    assert "imported False" in printed
