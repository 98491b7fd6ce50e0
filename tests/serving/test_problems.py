"""Clients learn what kind of trouble the server has, and none of its names; its log has all of it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from starlette.types import ASGIApp, Receive, Scope, Send

from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import ANSWER_SECONDS, create_app
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.problems import NO_REASON
from tests.builders.images import encoded
from tools.stand_ins.faulty_s3 import Answer, hang_up, refusal, standing_for_s3, whole

REQUESTS = {"predict": ("POST", "/predict"), "batch": ("POST", "/predict/batch"), "ready": ("GET", "/ready?load=1")}
DENIED = (
    "User: arn:aws:sts::123456789012:assumed-role/serving/fn is not authorized to perform: s3:GetObject on resource: "
    "arn:aws:s3:::models/current.json"
)
IMAGE = encoded(Image.new("L", (64, 64)), "PNG")
BROKEN = b'{"version": "1"}'  # of a release whose manifest is broken


def in_a_hurry(app: FastAPI) -> ASGIApp:
    """Give the app requests as on Lambda when an invocation has little time left."""
    context = SimpleNamespace(aws_request_id="", get_remaining_time_in_millis=lambda: 1000 * (ANSWER_SECONDS + 1))

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
        ({WEIGHTS_NAME: whole(b"no weights")}, NO_REASON, "model.pth is not a weights file"),
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


def test_client_reads_no_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(create_app(Predictor(Weights(tmp_path)))) as client:
        assert client.get("/ready?load=1").json() == {"detail": NO_REASON}
    assert f"{tmp_path} cannot be read: Is a directory." in caplog.text
