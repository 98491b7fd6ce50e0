"""A server between a client and moto's, to stop or to hold the client at a chosen call."""

import contextlib
import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

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


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
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
        with contextlib.closing(http.client.HTTPConnection(self.server.target)) as connection:
            headers = {name: value for name, value in self.headers.items() if name != "Expect"}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
        if status := self.server.after(number, what):
            self.refuse(status)
            return
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "date", "server", "content-length"}:
                self.send_header(name, value)
        # The length of what a HEAD would have had is in its own header.
        length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

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

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def nothing(_number: int, _what: str) -> None:
    """Do nothing at this step."""


@contextlib.contextmanager
def proxy(target: str, before: Step = nothing, after: Step = nothing) -> Iterator[Proxy]:
    """Stand before a server until the block ends."""
    with Proxy(target, before, after) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
