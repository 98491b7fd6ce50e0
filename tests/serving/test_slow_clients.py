"""Clients that keep the server waiting, and more clients than it has room for."""

import asyncio
import contextlib
import itertools
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.connections import NO_HTTP, NO_ROOM, Limits
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.problems import SENTENCES, add_problem_handlers
from pneumonia.serving.server import LocalServer, listen
from pneumonia.serving.uploads import STEP, WAITING, Uploads
from tests.builders.checkout import PROJECT
from tests.builders.images import XRAY
from tests.builders.uploads import FORM, GOOD, form, part

pytestmark = pytest.mark.processes

PATIENCE = 1.0  # seconds
HANG = 60.0  # seconds after which a test fails
HEAD = f"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: {FORM}\r\n"
CHUNKED = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n"
HEALTH = "GET /health HTTP/1.1\r\nHost: test\r\n"
PICTURE = b"GET /guide/model-card/learning_curves.png HTTP/1.1\r\nHost: test\r\n\r\n"
LARGE = form(part(XRAY), part(bytes(10 * STEP), 'name="padding"'))


class Served:
    """An app under our server, in a thread.

    Attributes:
        server: it.
    """

    def __init__(self, server: LocalServer) -> None:
        self.server = server

    @contextlib.contextmanager
    def connection(self, receives: int | None = None) -> Iterator[socket.socket]:
        """Connect, with a buffer for so many bytes that are not read yet."""
        with socket.socket() as connection:
            connection.settimeout(HANG)
            if receives:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
            connection.connect(("127.0.0.1", self.server.config.port))
            yield connection

    def has(self, connections: int) -> bool:
        """Wait until the server has so many connections; return whether that happened."""
        return happens(lambda: len(self.server.server_state.connections) == connections)


def happens(what: Callable[[], bool]) -> bool:
    """Return whether something is so before the test counts as hanging."""
    until = time.monotonic() + HANG
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@contextlib.contextmanager
def served(app: ASGIApp, limits: Limits) -> Iterator[Served]:
    with listen(0) as listener:
        server = LocalServer(app, listener, limits, grace=PATIENCE)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            assert happens(lambda: server.started)
            yield Served(server)
        finally:
            server.should_exit = True
            thread.join(HANG)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def api(weights: Path) -> Iterator[Served]:
    app = Uploads(create_app(Predictor(Weights(weights))), PATIENCE)
    with served(app, Limits(PATIENCE)) as server:
        yield server


def everything(connection: socket.socket, dripping: bytes = b"") -> str:
    """Return what comes until the server closes, while these bytes are sent one by one."""
    text = b""
    drops = itertools.chain((dripping[i : i + 1] for i in range(len(dripping))), itertools.repeat(b""))
    connection.settimeout(0.05)
    until = time.monotonic() + HANG
    while time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            try:
                connection.sendall(next(drops))
                received = connection.recv(65536)
            except ConnectionError:
                return text.decode("latin-1")
            if not received:
                return text.decode("latin-1")
            text += received
    pytest.fail(f"The connection is still open after {HANG:.0f} s.")


def detail(sentence: str) -> str:
    return f'{{"detail":"{sentence}"}}'


@pytest.mark.parametrize("dripping", [b"", b"x" * 4000], ids=["silent", "dripping"])
@pytest.mark.parametrize(
    ("start", "status", "end"),
    [
        pytest.param("GET /health HTTP/1.1\r\nX: ", 408, detail(SENTENCES[408]), id="head"),
        pytest.param(f"{HEAD}Content-Length: 9000\r\n\r\n", 408, detail(SENTENCES[408]), id="body"),
        pytest.param(f"{CHUNKED}5;", 408, detail(SENTENCES[408]), id="chunk extension"),
        pytest.param(f"{HEALTH}Content-Length: 9000\r\n\r\n", 200, "}", id="body that is not read"),
        pytest.param("POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 9000\r\n\r\n", 404, "}", id="body to nowhere"),
    ],
)
def test_a_client_that_stops_is_let_go(api: Served, dripping: bytes, start: str, status: int, end: str) -> None:
    with api.connection() as connection:
        connection.sendall(start.encode())
        text = everything(connection, dripping)
    assert text.startswith(f"HTTP/1.1 {status} ")
    assert text.endswith(end)


def test_a_client_that_says_nothing_is_let_go_without_an_answer(api: Served) -> None:
    with api.connection() as connection:
        assert everything(connection) == ""


def test_a_client_that_waits_for_leave_and_does_not_use_it_is_let_go(api: Served) -> None:
    with api.connection() as connection:
        connection.sendall(f"{HEAD}Content-Length: 9000\r\nExpect: 100-continue\r\n\r\n".encode())
        leave, _, answer = everything(connection).partition("\r\n\r\n")
    assert leave == "HTTP/1.1 100 Continue"
    assert answer.startswith("HTTP/1.1 408 ")


def test_a_client_that_reads_no_answer_is_let_go(api: Served) -> None:
    assert api.has(connections=0)
    with api.connection(receives=4096) as connection:
        connection.sendall(PICTURE * 60)
        assert api.has(connections=1)
        assert api.has(connections=0)


def test_a_slow_upload_that_goes_on_is_answered(api: Served) -> None:
    with api.connection() as connection:
        connection.sendall(f"{HEAD}Content-Length: {len(LARGE)}\r\nConnection: close\r\n\r\n".encode())
        for start in range(0, len(LARGE), STEP):  # longer than PATIENCE in all
            connection.sendall(LARGE[start : start + STEP])
            time.sleep(0.2)
        assert everything(connection).startswith("HTTP/1.1 200 ")


def test_a_client_that_has_said_all_is_answered(api: Served) -> None:
    with api.connection() as connection:
        connection.sendall(f"{HEAD}Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_is_read_slowly_is_sent_to_its_end(api: Served) -> None:
    with api.connection(receives=4096) as connection:
        connection.sendall(PICTURE * 30 + f"{HEALTH}Connection: close\r\n\r\n".encode())
        text = b""
        while received := connection.recv(2 * STEP):
            text += received
            time.sleep(0.0005 * len(received) / 1024)  # longer than PATIENCE in all
    assert text.count(b"HTTP/1.1 200 ") == 31
    assert text.endswith(b"}")


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in parts) + b"0\r\n\r\n"


def test_a_body_of_countless_chunks_is_refused(api: Served) -> None:
    with api.connection() as connection:
        connection.sendall(CHUNKED.encode() + chunks(GOOD, 1))
        text = everything(connection)
    assert text.startswith("HTTP/1.1 400 ")
    assert text.endswith(detail(NO_HTTP))


def test_a_body_of_many_small_chunks_is_answered(api: Served) -> None:
    with api.connection() as connection:
        connection.sendall(CHUNKED.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode() + chunks(LARGE, 76))
        assert everything(connection).startswith("HTTP/1.1 200 ")


def test_nonsense_after_an_answer_is_no_fault(api: Served, caplog: pytest.LogCaptureFixture) -> None:
    with api.connection() as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"nonsense\r\n")
        everything(connection)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def busy(scope: Scope, _receive: Receive, _send: Send) -> None:
    """Be an app that never answers a request."""
    if scope["type"] == "http":
        await asyncio.Event().wait()


async def read_and_be_busy(request: Request) -> None:
    await request.body()
    await asyncio.Event().wait()


def test_whoever_waits_longest_makes_room(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Predictor(Weights(weights)))
    with served(app, Limits(connections=3)) as server, contextlib.ExitStack() as stack:
        first, *others = [stack.enter_context(server.connection()) for _ in range(3)]
        assert server.has(connections=3)
        for _ in range(4):  # the rest of the first ones leave, too
            with server.connection() as connection:
                connection.sendall(f"{HEALTH}Connection: close\r\n\r\n".encode())
                assert everything(connection).startswith("HTTP/1.1 200 ")
        assert everything(first) == ""
        assert len(others) == 2
    assert sum("3 connections are open" in record.message for record in caplog.records) == 1


def test_a_client_for_whom_nobody_can_make_room_is_told() -> None:
    with served(busy, Limits(connections=2)) as server, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(server.connection()).sendall(f"{HEALTH}\r\n".encode())
        assert happens(lambda: len(server.server.server_state.tasks) == 2)
        with server.connection() as connection:
            text = everything(connection)
        assert text.startswith("HTTP/1.1 503 ")
        assert "\r\nretry-after: 1\r\n" in text.lower()
        assert text.endswith(detail(NO_ROOM))
        assert len(server.server.server_state.tasks) == 2


def test_pages_and_errors_wait_for_no_thread_of_others() -> None:
    app, leave = FastAPI(), threading.Event()
    add_problem_handlers(app)
    app.get("/predict")(lambda: leave.wait(2 * HANG))  # on threads, as are predictions and pages
    app.get("/page")(lambda: "page")
    with served(app, Limits(connections=64)) as server, contextlib.ExitStack() as stack:
        stack.callback(leave.set)
        for _ in range(60):  # anyio itself has 40 threads
            stack.enter_context(server.connection()).sendall(b"GET /predict HTTP/1.1\r\nHost: test\r\n\r\n")
        assert happens(lambda: len(server.server.server_state.tasks) == 60)
        for path, status in [("/page", 200), ("/nowhere", 404)]:
            with server.connection() as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
                assert connection.recv(65536).startswith(f"HTTP/1.1 {status} ".encode())


def test_no_more_uploads_wait_for_answers_than_can_be_given_in_seconds() -> None:
    app = FastAPI()
    add_problem_handlers(app)
    app.add_middleware(Uploads)
    app.post("/predict")(read_and_be_busy)
    upload = f"{HEAD}Content-Length: {len(GOOD)}\r\nConnection: close\r\n\r\n".encode() + GOOD
    with served(app, Limits()) as server:
        for _ in range(WAITING):
            with server.connection() as connection:  # the client leaves, and its request stays
                connection.sendall(upload)
        assert happens(lambda: len(server.server.server_state.tasks) == WAITING)
        with server.connection() as connection:
            connection.sendall(upload)
            text = everything(connection)
    assert text.startswith("HTTP/1.1 503 ")
    assert text.endswith(detail(SENTENCES[503]))


def test_more_clients_than_files_leave_others_their_answers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = 'ulimit -n 200; exec "$0" -m pneumonia serve --port 0'
    with log.open("w") as output:
        process = subprocess.Popen(
            ["sh", "-c", command, sys.executable], cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        assert happens(lambda: process.poll() is not None or "Swagger:" in log.read_text())
        found = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())
        assert found, log.read_text()
        with contextlib.ExitStack() as stack:
            for _ in range(220):
                stack.enter_context(socket.create_connection(("127.0.0.1", int(found[1])), timeout=HANG))
            with socket.create_connection(("127.0.0.1", int(found[1])), timeout=HANG) as connection:
                connection.sendall(f"{HEALTH}Connection: close\r\n\r\n".encode())
                assert everything(connection).startswith("HTTP/1.1 200 ")
        assert "66 connections are open" in log.read_text()
        assert "Traceback" not in log.read_text()
        assert len(log.read_bytes()) < 10_000
    finally:
        process.terminate()
        process.wait()
