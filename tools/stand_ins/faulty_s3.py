"""A server that stands for S3 at its worst: slow, overloaded, broken off, or in another region."""

import contextlib
import http.server
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pneumonia.network.contract import WEIGHTS_NAME

PLAIN = f"/models/{WEIGHTS_NAME}"  # the path of the plain key in the bucket `models`

Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection; keeps it alive as S3 does, unless an answer ends it."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        answer = self.server.next_answer(self.path)
        self.server.seen.append(Seen(self.path, dict(self.headers), self.client_address[1]))
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # the client gave up
            answer(self)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

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
    """Answers each path by its own list of answers; the last one stays."""

    daemon_threads = True

    def __init__(self, answers: Mapping[str, list[Answer]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[Seen] = []
        self.over = threading.Event()
        self._answers = {path: list(given) for path, given in answers.items()}
        self._choosing = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Return the address for AWS_ENDPOINT_URL."""
        scheme = "https" if isinstance(self.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that gave up."""

    def next_answer(self, path: str) -> Answer:
        with self._choosing:
            answers = self._answers.get(path, [refusal(404, "NoSuchKey")])
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def count(self, path: str) -> int:
        """Return how often a path was asked for."""
        return [request.path for request in self.seen].count(path)


def whole(content: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with an object."""

    def answer(handler: Handler) -> None:
        handler.begin(200, len(content), headers)
        handler.wfile.write(content)

    return answer


def chunked(*parts: bytes) -> Answer:
    """Answer with an object in chunks, without its length."""

    def answer(handler: Handler) -> None:
        handler.begin(200, None, {"Transfer-Encoding": "chunked"})
        for part in (*parts, b""):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

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


@contextlib.contextmanager
def serving(answers: Mapping[str, list[Answer]], certificate: Certificate | None = None) -> Iterator[Server]:
    """Serve these answers until the block ends."""
    with Server(answers) as server:
        if certificate:
            server.socket = certificate.context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


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
