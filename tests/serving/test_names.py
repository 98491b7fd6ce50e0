"""What a server's log says of requests that name a patient, and of a setting that a terminal might obey."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders.checkout import PROJECT
from tests.builders.images import XRAY
from tests.builders.uploads import FORM, form, part

pytestmark = pytest.mark.processes

COMMANDS = {
    "pneumonia serve": [sys.executable, "-m", "pneumonia", "serve", "--port", "0"],
    "uvicorn": [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"],
}
NAME = "Smith_John"
CLAIMED = "203.0.113.66"  # the client that a header claims
HOSTILE = "\x1b[2Jfolder\nERROR:root:forged"  # of the folder with the weights
BODY = form(part(XRAY, f'name="file"; filename="{NAME}.jpg"'))
UPLOAD = (f"Content-Type: {FORM}", f"Content-Length: {len(BODY)}")
HEADERS = (
    "Host: evil.example",
    f"Referer: http://x/{NAME}",
    f"User-Agent: {NAME}",
    f"Cookie: {NAME}=1",
    f"X-Forwarded-For: {CLAIMED}\x1b[31m",
    "X-Forwarded-Proto: gopher",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Prefix: //evil.example",
    f"Forwarded: for={CLAIMED};host=evil.example",
    "Connection: close",
)
REQUESTS = {
    f"GET /xrays/{NAME}.dcm": 404,
    f"GET /static/{NAME}.css": 404,
    f"GET /guide/{NAME}.md": 404,
    f"GET //evil.example/{NAME}": 404,
    f"GET /health?file={NAME}.jpg": 200,
    f"GET /ready?load={NAME}": 422,
    "GET /ready?load=1": 200,
    f"GET /%1b[2J%0a{NAME}": 404,
    f"{NAME.upper()} /health": 405,
    f"POST /predict?file={NAME}.jpg": 200,
    f"POST /predict/{NAME}": 404,
    f"{NAME} HTTP/1.1\r\n\r\n": 400,  # no request at all
}


def answer_to(port: int, request: str) -> bytes:
    """Return the whole answer to a request with all of HEADERS."""
    body = BODY if request.startswith("POST") else b""
    head = "\r\n".join([f"{request} HTTP/1.1", *HEADERS, *(UPLOAD if body else ()), "", ""])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode("latin-1") + body)
        with contextlib.closing(connection.makefile("rb")) as answer:
            return answer.read()


@pytest.fixture(scope="module", params=COMMANDS)
def answered(
    request: pytest.FixtureRequest, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], str]:
    """The answers to REQUESTS of one of COMMANDS, and all that it has printed."""
    folder = tmp_path_factory.mktemp("server")
    (folder / HOSTILE).mkdir()
    shutil.copyfile(weights, folder / HOSTILE / "model.pth")
    log = folder / "log"
    environment = os.environ | {"MODEL_PATH": str(folder / HOSTILE / "model.pth")}
    with log.open("w") as output:
        process = subprocess.Popen(
            COMMANDS[request.param], cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        while not (found := re.search(r"(?:running on|Page:) +http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        answers = {one: answer_to(int(found[1]), one) for one in REQUESTS}
    finally:
        process.terminate()
        process.wait()
    return answers, log.read_text()


def test_no_name_is_logged(answered: tuple[dict[str, bytes], str]) -> None:
    _, log = answered
    assert '"path": "/predict"' in log
    assert '"path": "other"' in log
    assert NAME.lower() not in log.lower()
    assert "evil.example" not in log


def test_a_client_is_not_who_a_header_says(answered: tuple[dict[str, bytes], str]) -> None:
    assert CLAIMED not in answered[1]


def test_a_line_is_a_line_and_no_terminal_obeys_it(answered: tuple[dict[str, bytes], str]) -> None:
    _, log = answered
    (line,) = [line for line in log.splitlines() if "loaded " in line]
    assert "\\x1b[2Jfolder\\nERROR:root:forged/model.pth, model version sha256-" in line
    assert all(line.isprintable() for line in log.splitlines())
    assert not any(line.startswith("ERROR:root") for line in log.splitlines())


def test_no_answer_leads_to_another_host(answered: tuple[dict[str, bytes], str]) -> None:
    answers, _ = answered
    for request, answer in answers.items():
        assert answer.startswith(f"HTTP/1.1 {REQUESTS[request]} ".encode()), request
        assert b"location" not in answer.lower(), request
        assert b"evil.example" not in answer, request
