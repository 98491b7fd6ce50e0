"""A server on this machine for as long as a block lasts, and a handler that hands requests on to another server."""

import contextlib
import http.client
import http.server
import socketserver
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def running(server: socketserver.BaseServer) -> Iterator[None]:
    """Let a server answer until the block ends."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class HandingOn(http.server.BaseHTTPRequestHandler):
    """Can ask another server what it was asked, and answer as that one did."""

    protocol_version = "HTTP/1.1"  # answers "Expect: 100-continue", for which botocore would wait a second

    def ask(self, host: str, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """Return another server's answer to this request, and the answer's body."""
        with contextlib.closing(http.client.HTTPConnection(host)) as connection:
            headers = {name: value for name, value in self.headers.items() if name != "Expect"}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            return response, response.read()

    def answer_as(
        self, response: http.client.HTTPResponse, status: int, content: bytes, promised: int | None = None
    ) -> None:
        """Answer with another server's headers, this status and content, and the length that is promised, if any is."""
        self.send_response(status)
        for name, value in response.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "date", "server", "content-length"}:
                self.send_header(name, value)
        # The length of what a HEAD would have had is in its own header.
        length = response.getheader("Content-Length") if self.command == "HEAD" else str(promised or len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
