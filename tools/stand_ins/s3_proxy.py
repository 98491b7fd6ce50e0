"""A server between a client and moto's, to stop or to hold the client at a chosen call."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from tools.stand_ins.local_server import HandingOn, running

# Gets the call's number, from 1, and what it is, such as "PUT /bucket/key"; a status is the answer instead of S3's.
Step = Callable[[int, str], int | None]
HANG_UP = -1  # in place of a status: end the connection without an answer
CODES = {
    301: "PermanentRedirect",
    400: "ExpiredToken",
    403: "AccessDenied",
    409: "ConditionalRequestConflict",
    503: "SlowDown",
}


class Proxy(http.server.ThreadingHTTPServer):
    """Hands calls on, and tells of each before it is made and when it is done, but not answered yet."""

    daemon_threads = True

    def __init__(self, target: str, before: Step, after: Step) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.before, self.after = before, after
        self.calls = 0
        self.counting = threading.Lock()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that is gone."""


class _Handler(HandingOn):
    server: Proxy

    def hand_on(self) -> None:
        with self.server.counting:
            self.server.calls += 1
            number = self.server.calls
        what = f"{self.command} {self.path.partition('?')[0]}"
        if self.headers.get("Expect") == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if status := self.server.before(number, what):
            self.refuse(status)
            return
        response, content = self.ask(self.server.target, body)
        if status := self.server.after(number, what):
            self.refuse(status)
            return
        self.answer_as(response, response.status, content)

    def refuse(self, status: int) -> None:
        """Answer as S3 does that refuses, or not at all."""
        if status == HANG_UP:
            self.close_connection = True
            return
        body = f"<Error><Code>{CODES[status]}</Code><Message>Refused here</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = hand_on  # noqa: N815  # http.server's names

    def handle_expect_100(self) -> bool:
        return True  # `hand_on` does it, once it is its turn


def nothing(_number: int, _what: str) -> None:
    """Do nothing at this step."""


@contextlib.contextmanager
def proxy(target: str, before: Step = nothing, after: Step = nothing) -> Iterator[Proxy]:
    """Stand before a server until the block ends."""
    server = Proxy(target, before, after)
    with running(server):
        yield server
