"""The app under uvicorn against clients that send too much, leave early, or speak no HTTP."""

import contextlib
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.serving.middleware import BODY_BYTES
from pneumonia.serving.uploads import STEP
from tests.builders.checkout import PROJECT
from tests.builders.images import XRAY
from tests.builders.uploads import FORM, GOOD, form, part

pytestmark = pytest.mark.processes


class Server:
    """The app under uvicorn, in a process of its own."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log

    @contextlib.contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            yield connection

    def is_well(self) -> None:
        """Check that the process lives, answers a good X-ray, and has met no fault."""
        url = f"http://127.0.0.1:{self.port}"
        assert httpx2.get(f"{url}/health", timeout=60).json()["status"] == "ok"
        response = httpx2.post(f"{url}/predict", content=GOOD, headers={"Content-Type": FORM}, timeout=60)
        assert response.status_code == 200
        assert "Traceback" not in self.log.read_text()


@pytest.fixture(scope="module")
def server(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("uvicorn") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "0"],
            cwd=PROJECT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"MODEL_PATH": str(weights)},
        )
    try:
        while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield Server(int(found[1]), log)
    finally:
        process.terminate()
        process.wait()


def head(*lines: str) -> bytes:
    """Return a request's head."""
    return "\r\n".join(["POST /predict HTTP/1.1", "Host: test", f"Content-Type: {FORM}", *lines, "", ""]).encode()


def answer(connection: socket.socket) -> str:
    """Read to the end of the one answer that is JSON."""
    text = b""
    while not text.endswith(b"}"):
        received = connection.recv(65536)
        assert received, text
        text += received
    return text.decode()


def check_413(text: str) -> None:
    """Check that an answer refuses a body that is too large."""
    status, _, rest = text.partition("\r\n")
    assert status.startswith("HTTP/1.1 413 ")
    assert "cache-control: no-store" in rest.lower()
    assert '{"detail":"The upload is larger than 20,971,520 bytes: send a smaller or' in rest


@pytest.mark.parametrize("length", [BODY_BYTES + 1, 10**12], ids=["one byte more", "a terabyte"])
@pytest.mark.parametrize("sent", [GOOD[:4000], b""], ids=["a little sent", "nothing sent"])
def test_a_body_declared_too_large_is_refused_unread(server: Server, length: int, sent: bytes) -> None:
    with server.connection() as connection:
        connection.sendall(head(f"Content-Length: {length}", "Expect: 100-continue") + sent)
        check_413(answer(connection))  # not "100 Continue", as to who may send the rest
    server.is_well()


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(server: Server) -> None:
    def chunk(content: bytes) -> bytes:
        return f"{len(content):x}\r\n".encode() + content + b"\r\n"

    start = part(b"").removesuffix(b"\r\n")
    with server.connection() as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + chunk(start))
        connection.sendall(chunk(bytes(BODY_BYTES - len(start))))
        connection.sendall(chunk(b"\0"))  # all that is ever sent: the answer is due although more may come
        check_413(answer(connection))
    server.is_well()


def test_uploads_at_once_take_no_more_memory_than_ten_largest(server: Server) -> None:
    most = form(part(bytes(MAX_BYTES)))[:MAX_BYTES]  # never whole: the server has to keep what it has
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connection()) for _ in range(12)]
        for connection in connections:
            connection.settimeout(0)
        waiting = {connection: head(f"Content-Length: {BODY_BYTES}") + most for connection in connections}
        refused: list[socket.socket] = []
        while not refused:
            refused, writable, _ = select.select(connections, [one for one in waiting if waiting[one]], [], 60)
            assert refused or writable
            for connection in writable:
                waiting[connection] = waiting[connection][connection.send(waiting[connection][:1_000_000]) :]
        refused[0].settimeout(60)
        text = answer(refused[0])
        assert text.startswith("HTTP/1.1 503 ")
        assert "retry-after: 1" in text
        assert "no room for more uploads at once: try again in a moment." in text
        sent = len(connections) * len(head(f"Content-Length: {BODY_BYTES}") + most) - sum(map(len, waiting.values()))
        assert sent >= 9 * MAX_BYTES
    server.is_well()


def test_uploads_that_stand_still_give_way_to_others(server: Server) -> None:
    slow = form(part(XRAY), part(bytes(10 * STEP), 'name="padding"'))
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(server.connection()) for _ in range(10)]
        for connection in stalled:
            connection.sendall(head(f"Content-Length: {BODY_BYTES}") + bytes(BODY_BYTES - 1))
        with server.connection() as connection:
            connection.sendall(head(f"Content-Length: {len(slow)}"))
            for start in range(0, len(slow), STEP):  # as a phone does
                connection.sendall(slow[start : start + STEP])
                server.is_well()
            assert answer(connection).startswith("HTTP/1.1 200 ")
        gave_way, _, _ = select.select(stalled, [], [], 0)
        assert answer(gave_way[0]).startswith("HTTP/1.1 503 ")
        assert len(gave_way) < 3  # no more than need be


@pytest.mark.parametrize("sent", [len(GOOD) // 2, len(GOOD) - 1, 0])
def test_a_client_that_leaves_does_no_harm(server: Server, sent: int) -> None:
    with server.connection() as connection:
        connection.sendall(head(f"Content-Length: {len(GOOD)}") + GOOD[:sent])
    server.is_well()


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), id="TLS"),
        pytest.param(head("Content-Length: -1"), id="negative length"),
        pytest.param(head("Content-Length: " + "9" * 5000), id="length of 5,000 digits"),
        pytest.param(head("Transfer-Encoding: chunked") + b"nonsense\r\n", id="broken chunk"),
        pytest.param(head("X: " + "x" * 100_000), id="long header"),
    ],
)
def test_what_is_not_http_does_no_harm(server: Server, request_bytes: bytes) -> None:
    with server.connection() as connection, contextlib.suppress(ConnectionError):  # uvicorn may hang up in the middle
        connection.sendall(request_bytes)
        received = connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 4")
    server.is_well()
