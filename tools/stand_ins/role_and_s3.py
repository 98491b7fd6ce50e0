"""A stand-in for what a function under SnapStart asks: the endpoint of its role's credentials, and S3.

Under SnapStart, Lambda sets AWS_CONTAINER_CREDENTIALS_FULL_URI and AWS_CONTAINER_AUTHORIZATION_TOKEN.
"""

import contextlib
import http.server
import json
import socket
import threading
from types import TracebackType
from typing import Any, Self

ROLE = "a-token-of-lambda"


class RoleAndS3(http.server.ThreadingHTTPServer):
    """Both, on one port of 127.0.0.1; S3 takes only the access key that the endpoint gives at that time.

    Attributes:
        objects: of S3 by their paths, `/bucket/key`.
        environment: what an instance needs to find them, with an access key that S3 takes until `renew_credentials`.
        asked: paths that were asked for, oldest first.
        refused: paths that S3 did not give because of the credentials.
        clients: ports of the connections that were made, oldest first.
        connections: those that are open.
    """

    ENDPOINT = "/2021-04-23/credentials"
    daemon_threads = False  # server_close waits for them: none is left with an open socket

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refused: list[str] = []
        self.clients: list[int] = []
        self.connections: set[socket.socket] = set()
        self.key = self.accepted = "AKIDFIRST"
        self.role: str | None = ROLE
        self.closing = threading.Event()
        self.silent = False
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        address = f"http://127.0.0.1:{self.server_port}"
        self.environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": "hush",
            "AWS_SESSION_TOKEN": f"token of {self.key}",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{address}{self.ENDPOINT}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": ROLE,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def renew_credentials(self) -> None:
        """Let all keys that were given expire, and give another from now on."""
        self.key = self.accepted = "AKIDSECOND"

    def refuse(self) -> None:
        """Take no key any more."""
        self.accepted = "none"

    def forget_role(self) -> None:
        """Give no key any more."""
        self.role = None

    def fall_silent(self) -> None:
        """Answer nothing any more."""
        self.silent = True

    def stop(self) -> None:
        """Refuse connections."""
        self.closing.set()
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
            self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as S3's do
    server: RoleAndS3

    def setup(self) -> None:
        super().setup()
        self.server.clients.append(self.client_address[1])
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().finish()
        self.server.connections.discard(self.connection)

    def do_GET(self) -> None:  # http.server's name
        self.server.asked.append(self.path)
        if self.server.silent:
            self.server.closing.wait()
            self.close_connection = True
        elif self.path == self.server.ENDPOINT:
            self._give_credentials()
        else:
            self._give_object()

    def log_message(self, *_: Any) -> None:  # noqa: ANN401  # http.server's
        """Say nothing."""

    def _give_credentials(self) -> None:
        if self.server.role is None or self.headers["Authorization"] != self.server.role:
            return self._send(404, b"cannot get credentials for the provided token\n")
        key = self.server.key
        answer = {"AccessKeyId": key, "SecretAccessKey": "hush", "Token": f"token of {key}"}
        return self._send(200, json.dumps(answer | {"Expiration": "2030-01-02T03:04:05Z"}).encode())

    def _give_object(self) -> None:
        key = self.server.accepted
        is_signed = f"Credential={key}/" in self.headers["Authorization"]
        if not is_signed or self.headers["X-Amz-Security-Token"] != f"token of {key}":
            self.server.refused.append(self.path)
            return self._send(400, b"<Error><Code>ExpiredToken</Code><Message>It has expired.</Message></Error>")
        if self.path not in self.server.objects:
            return self._send(404, b"<Error><Code>NoSuchKey</Code><Message>There is none.</Message></Error>")
        return self._send(200, self.server.objects[self.path])

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
