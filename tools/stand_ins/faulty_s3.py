"""A server that stands for S3 at its worst: slow, overloaded, broken off, or in another region.

It has objects of its own; `s3_in_front` lets it stand in front of a server that has them.
"""

import contextlib
import http.client
import http.server
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pneumonia.network.contract import WEIGHTS_NAME
from tools.stand_ins.local_server import HandingOn, running

PLAIN = f"/models/{WEIGHTS_NAME}"  # the path of the plain key in the bucket `models`

Answer = Callable[["Handler"], None]
Choice = Callable[[str, str], Answer]  # gets the method and the path with its query, of one request at a time


class Handler(HandingOn):
    """One connection; keeps it alive as S3 does, unless an answer ends it."""

    server: "Server"

    def answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.seen.append(Seen(self.path, dict(self.headers), self.client_address[1]))
        answer = self.server.next_answer(self.command, self.path)
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # the client gave up
            answer(self)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815  # http.server's names

    def ask_target(self) -> tuple[http.client.HTTPResponse, bytes]:
        """Return the answer of the server behind this one, and the answer's body."""
        return self.ask(self.server.target, self.body)

    def begin(self, status: int, length: int | None, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of a response."""
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def end_connection(self) -> None:
        self.close_connection = True


@dataclass(frozen=True)
class Seen:
    """A request that was made: its path, its headers, and the port of the client's end of the connection."""

    path: str
    headers: dict[str, str]
    port: int

    @property
    def region(self) -> str:
        """The region that the request is signed for."""
        found = re.search(r"Credential=[^/]+/\d{8}/([^/]+)/s3/aws4_request", self.headers["authorization"])
        assert found
        return found[1]


class Server(http.server.ThreadingHTTPServer):
    """Answers each request as it is told to.

    Args:
        choose: returns the answer to a request.
        target: host and port of the server behind this one, if there is one.

    Attributes:
        seen: the requests so far, oldest first.
    """

    daemon_threads = True

    def __init__(self, choose: Choice, target: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[Seen] = []
        self.target = target
        self.over = threading.Event()
        self._choose = choose
        self._choosing = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Return the address for AWS_ENDPOINT_URL."""
        scheme = "https" if isinstance(self.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that gave up."""

    def next_answer(self, method: str, path: str) -> Answer:
        with self._choosing:
            return self._choose(method, path)

    def count(self, path: str) -> int:
        """Return how often a path was asked for."""
        return [request.path for request in self.seen].count(path)


def whole(content: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with an object."""

    def answer(handler: Handler) -> None:
        handler.begin(200, len(content), headers)
        handler.wfile.write(content)

    return answer


def chunked(*parts: bytes, is_whole: bool = True) -> Answer:
    """Answer with an object in chunks, without its length; if it is not whole, break off before the last."""

    def answer(handler: Handler) -> None:
        handler.begin(200, None, {"Transfer-Encoding": "chunked"})
        for part in (*parts, b"") if is_whole else parts:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.close_connection = not is_whole

    return answer


def last(content: bytes) -> Answer:
    """Answer with an object, and end the connection after it, as S3 does now and then."""

    def answer(handler: Handler) -> None:
        whole(content, {"Connection": "close"})(handler)
        handler.end_connection()

    return answer


def cut(content: bytes, after: int) -> Answer:
    """Answer with the beginning of an object, and break off."""

    def answer(handler: Handler) -> None:
        handler.begin(200, len(content))
        handler.wfile.write(content[:after])
        handler.end_connection()

    return answer


def hang_up(handler: Handler) -> None:
    """End the connection without an answer."""
    handler.end_connection()


def trickle(content: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with a byte every twentieth of a second, until the test is over."""

    def answer(handler: Handler) -> None:
        handler.begin(200, len(content), headers)
        for byte in content:
            handler.wfile.write(bytes([byte]))
            if handler.server.over.wait(0.05):
                break
        handler.end_connection()

    return answer


def trickling_head(handler: Handler) -> None:
    """Begin an answer whose head does not end until the test is over."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-amz-meta-long: ")
    while not handler.server.over.wait(0.05):
        handler.wfile.write(b"x")
    handler.end_connection()


def reset(handler: Handler) -> None:
    """End the connection as a machine does that knows nothing of it."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.end_connection()


def silence(handler: Handler) -> None:
    """Do not answer until the test is over."""
    handler.server.over.wait()
    handler.end_connection()


def held(gate: threading.Event, answer: Answer) -> Answer:
    """Answer when a test opens the gate."""

    def answer_later(handler: Handler) -> None:
        gate.wait()
        answer(handler)

    return answer_later


def refusal(
    status: int, code: str, headers: Mapping[str, str] | None = None, more: str = "", message: str = ""
) -> Answer:
    """Answer as S3 refuses: with a code, and a message that is XML already."""
    page = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message>{more}"
        "<RequestId>9S5ZQBDEMYW6T7GX</RequestId><HostId>PyCdkKcIOeFqcTDaWV/+Kr0ZKcCpBjtvIeWCYA==</HostId></Error>"
    )
    return refusal_of(status, page.encode(), headers)


def refusal_of(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with a status and any body."""

    def answer(handler: Handler) -> None:
        handler.begin(status, len(body), headers)
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer


@dataclass
class Certificate:
    """A certificate for 127.0.0.1, signed by itself, in a file with its key."""

    path: Path
    context: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.path)


def in_order(answers: Mapping[str, list[Answer]]) -> Choice:
    """Answer each path by its own list of answers; the last one stays, and other paths have no object."""
    left = {path: list(given) for path, given in answers.items()}

    def choose(_method: str, path: str) -> Answer:
        given = left.get(path, [refusal(404, "NoSuchKey")])
        return given.pop(0) if len(given) > 1 else given[0]

    return choose


@contextlib.contextmanager
def answering(server: Server, certificate: Certificate | None = None) -> Iterator[Server]:
    """Let a server answer until the block ends, over HTTPS if there is a certificate."""
    if certificate:
        server.socket = certificate.context.wrap_socket(server.socket, server_side=True)
    with running(server):
        try:
            yield server
        finally:
            server.over.set()


@contextlib.contextmanager
def serving(answers: Mapping[str, list[Answer]], certificate: Certificate | None = None) -> Iterator[Server]:
    """Serve these answers until the block ends, as `in_order` has them."""
    with answering(Server(in_order(answers)), certificate) as server:
        yield server


@contextlib.contextmanager
def standing_for_s3(patch: pytest.MonkeyPatch, answers: Mapping[str, list[Answer]]) -> Iterator[Server]:
    """Serve these answers as S3 to this process, and to those that it starts."""
    with serving(answers) as server:
        for name in ("AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        yield server


def wait_for_requests(server: Server, number: int, *processes: "subprocess.Popen[bytes]", path: str = PLAIN) -> None:
    """Wait until a path was asked for so often, by processes that live."""
    while server.count(path) < number:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
