"""Clients learn what kind of trouble the server has, and none of its names; its log has all of it."""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from awslambdaric.lambda_context import LambdaContext
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from starlette.types import ASGIApp, Receive, Scope, Send

from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import ANSWER_SECONDS, create_app
from pneumonia.serving.events import Events
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.problems import NO_REASON
from tests.builders.images import encoded
from tests.builders.releases import manifest_for
from tools.stand_ins.faulty_s3 import Answer, cut, hang_up, refusal, standing_for_s3, whole
from tools.stand_ins.runtime_api import ARN

REQUESTS = {"predict": ("POST", "/predict"), "batch": ("POST", "/predict/batch"), "ready": ("GET", "/ready?load=1")}
DENIED = (
    "User: arn:aws:sts::123456789012:assumed-role/serving/fn is not authorized to perform: s3:GetObject on resource: "
    "arn:aws:s3:::models/current.json"
)
IMAGE = encoded(Image.new("L", (64, 64)), "PNG")
BROKEN = b'{"version": "1"}'  # of a release whose manifest is broken


def in_a_hurry(app: FastAPI) -> ASGIApp:
    """Give the app requests as on Lambda when an invocation has little time left."""
    context = SimpleNamespace(aws_request_id="", get_remaining_time_in_millis=lambda: 1000 * (ANSWER_SECONDS + 3))

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "aws.context": context}, receive, send)

    return asked


@pytest.mark.processes
@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize(
    ("answers", "detail", "logged"),
    [
        (
            {"current.json": refusal(403, "AccessDenied", message=DENIED)},
            "The model is unavailable, as S3 answers AccessDenied. The server's log says more.",
            f"s3://models/current.json, S3 answers AccessDenied ({DENIED}): grant s3:GetObject",
        ),
        (
            {"current.json": refusal(400, "RequestTimeout")},
            "The model is unavailable, as S3 answers RequestTimeout: try again later. The server's log says more.",
            "s3://models/current.json, S3 answers RequestTimeout after ",
        ),
        (
            {"current.json": hang_up},
            "The model is unavailable, as S3 cannot be reached: try again later. The server's log says more.",
            "s3://models/current.json (Remote end closed connection without response) after ",
        ),
        (
            {"current.json": whole(BROKEN), "releases/1/manifest.json": whole(b"{}")},
            NO_REASON,
            "s3://models/releases/1/",
        ),
        ({WEIGHTS_NAME: whole(b"no weights")}, NO_REASON, f"{WEIGHTS_NAME} is not a weights file"),
    ],
    ids=["denied", "timed out", "hung up", "broken manifest", "broken weights"],
)
def test_client_reads_no_name_of_the_server(
    request_name: str,
    answers: dict[str, Answer],
    detail: str,
    logged: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    method, path = REQUESTS[request_name]
    with (
        standing_for_s3(monkeypatch, {f"/models/{key}": [answer] for key, answer in answers.items()}),
        TestClient(in_a_hurry(create_app(Predictor(Weights(tmp_path / "model.pth", "models"))))) as client,
    ):
        response = client.request(method, path, files={"file": IMAGE} if method == "POST" else None)
    assert (response.status_code, response.json()) == (503, {"detail": detail})
    assert logged in caplog.text


def make_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def make_foreign(path: Path, weights: Path) -> None:
    shutil.copy(weights, path)
    dataclasses.replace(manifest_for(weights), sha256="0" * 64).write_beside(path)


# What may lie at MODEL_PATH instead of weights, and what the log says of it.
DAMAGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a folder": (lambda path, _: path.mkdir(), "cannot be read"),
    "a pipe": (make_pipe, "cannot be read"),
    "text": (lambda path, _: path.write_text("no weights"), "is not a weights file"),
    "another's manifest": (make_foreign, "manifest"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_client_reads_no_path(
    damage: str, tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ward 3" / "model.pth"
    path.parent.mkdir()
    make, logged = DAMAGES[damage]
    make(path, weights)
    predictor = Predictor(Weights(path))
    with TestClient(create_app(predictor)) as client:
        for method, address in REQUESTS.values():
            answer = client.request(method, address, files={"file": IMAGE} if method == "POST" else None)
            assert (answer.status_code, answer.json()) == (503, {"detail": NO_REASON})
        everything = "".join(client.get(one).text for one in ("/health", "/ready", "/openapi.json", "/", "/docs"))
        assert "ward 3" not in everything
    warm_up = Events(lambda *_: {}, predictor)(
        {}, LambdaContext("1", None, None, int(time.time() * 1000) + 60_000, ARN)
    )
    assert warm_up == {"warm": False, "detail": NO_REASON}
    assert str(path) in caplog.text
    assert logged in caplog.text
    assert str(path) in capsys.readouterr().out  # the line of the warm-up


@pytest.mark.processes
def test_client_notices_nothing_of_what_s3_does_better_a_moment_later(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = weights.read_bytes()
    busy, late = refusal(503, "SlowDown"), refusal(400, "RequestTimeout")
    answers = {
        "/models/current.json": [busy, refusal(429, "TooManyRequests"), late, refusal(404, "NoSuchKey")],
        f"/models/{WEIGHTS_NAME}": [cut(content, 1000), cut(content, 1_000_000), cut(content, 0), whole(content)],
    }
    with (
        standing_for_s3(monkeypatch, answers) as server,
        TestClient(create_app(Predictor(Weights(tmp_path / "model.pth", "models")))) as client,
    ):
        assert client.post("/predict", files={"file": IMAGE}).status_code == 200
    assert len(server.seen) == 8
