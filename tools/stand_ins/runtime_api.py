"""A stand-in for Lambda's Runtime API, so that the real runtime client (`python -m awslambdaric`) runs here.

It speaks the four calls of https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html, and the two of SnapStart:
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-custom.html. It takes no snapshot: the process
waits where Lambda would take one, and goes on as the restored one would.
"""

import contextlib
import json
import select
import socket
import subprocess
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, TypeVar

PREFIX = "/2018-06-01/runtime"
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:pneumonia"
TICK = 0.05  # seconds between looks at whether a client or a process has gone
T = TypeVar("T")


class InvocationError(Exception):
    """The runtime reported an error, died, or took too long.

    Attributes:
        document: what the runtime posted, such as {"errorMessage": …, "errorType": …}; empty where it posted nothing.
    """

    def __init__(self, message: str, document: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.document = document or {}


class RuntimeApi:
    """Hands events to one runtime process after the other, and its answers back.

    Use as a context manager, start the process with `AWS_LAMBDA_RUNTIME_API` set to `address`, and call `invoke`.

    Attributes:
        address: host and port.
        request_ids: of what was invoked so far, oldest first.
        calls: what the runtime called so far, as `GET restore/next`, oldest first.
    """

    def __init__(self) -> None:
        self.request_ids: list[str] = []
        self.calls: list[str] = []
        self._changed = threading.Condition()
        self._events: deque[tuple[str, bytes, float]] = deque()  # request id, event, deadline
        self._answers: dict[str, dict[str, Any] | InvocationError] = {}
        self._error: InvocationError | None = None  # of the initialisation or a hook
        self._initialized = False
        self._restored = False
        self._closed = False
        # The port listens from here on, so that a process may be started before or within the `with`.
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": TICK})
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def invoke(
        self, event: object, timeout: float = 120, process: subprocess.Popen[bytes] | None = None
    ) -> dict[str, Any]:
        """Have the runtime handle one event and return the handler's response.

        Args:
            event: what the handler gets, anything that JSON can hold.
            timeout: seconds until the attempt counts as failed; the handler's deadline.
            process: the runtime's; when it ends without an answer, so does this call.

        Raises:
            InvocationError: the handler, the initialisation or a hook failed, the process ended, or the time is up.
        """
        request_id, deadline = str(uuid.uuid4()), time.time() + timeout
        self.request_ids.append(request_id)
        with self._changed:
            self._events.append((request_id, json.dumps(event).encode(), deadline))
            self._changed.notify_all()
            try:
                return self._answer(request_id, deadline, process)
            finally:
                self._events = deque(entry for entry in self._events if entry[0] != request_id)

    def _answer(self, request_id: str, deadline: float, process: subprocess.Popen[bytes] | None) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            answer = self._answers.pop(request_id, None)
            if isinstance(answer, InvocationError):
                raise answer
            return answer

        return self._found(look, deadline, process)

    def wait_for_snapshot(self, timeout: float = 120, process: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until the runtime is initialised and has run what it does before a snapshot.

        Raises:
            InvocationError: the initialisation or a hook failed, the process ended, or the time is up.
        """
        with self._changed:
            self._found(lambda: self._initialized or None, time.time() + timeout, process)

    def restore(self) -> None:
        """Let the runtime that waits for its restore go on."""
        with self._changed:
            self._restored = True
            self._changed.notify_all()

    def _found(self, look: Callable[[], T | None], deadline: float, process: subprocess.Popen[bytes] | None) -> T:
        while True:
            # First: a process ends after its last post was answered, so what it posted is seen below.
            status = process.poll() if process else None
            self._changed.wait(TICK)
            if self._error:
                error, self._error = self._error, None
                raise error
            if (found := look()) is not None:
                return found
            if status is not None:
                raise InvocationError(f"The runtime ended with status {status} and had not answered.")
            if time.time() > deadline:
                raise InvocationError("The runtime has not answered in time.")

    def next_event(self, client: socket.socket) -> tuple[str, bytes, float] | None:
        """Wait for an event; None when the client went away meanwhile, or the server shuts down."""
        return self._awaited(lambda: self._events.popleft() if self._events else None, client)

    def next_restore(self, client: socket.socket) -> bool:
        """Wait for `restore`; False when the client went away meanwhile, or the server shuts down."""
        with self._changed:
            self._initialized = True
            self._changed.notify_all()
        return self._awaited(lambda: self._restored or None, client) or False

    def _awaited(self, look: Callable[[], T | None], client: socket.socket) -> T | None:
        with self._changed:
            while not self._closed:
                if select.select([client], [], [], 0)[0]:  # a waiting client sends nothing: this is its end
                    return None
                if (found := look()) is not None:
                    return found
                self._changed.wait(TICK)
        return None

    def take(self, request_id: str, answer: dict[str, Any] | InvocationError) -> None:
        """Hand the answer to the call of `invoke` that waits for it."""
        with self._changed:
            self._answers[request_id] = answer
            self._changed.notify_all()

    def take_error(self, error: InvocationError) -> None:
        """Fail the call of `invoke` or `wait_for_snapshot` that waits, or the next one."""
        with self._changed:
            self._error = error
            self._changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for them: none is left with an open socket

    def __init__(self, api: RuntimeApi) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:  # http.server's name
        self._note()
        match self.path.removeprefix(PREFIX):
            case "/invocation/next":
                event = self.server.api.next_event(self.connection)
                return self._send_event(*event) if event else self._end()
            case "/restore/next":
                restored = self.server.api.next_restore(self.connection)
                return self._send(200, {}, b"") if restored else self._end()
        return self.send_error(404)

    def _send_event(self, request_id: str, body: bytes, deadline: float) -> None:
        # awslambdaric 4.2.2 crashes where one of these is missing.
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": ARN,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Sampled=0",
        }
        self._send(200, headers, body)

    def do_POST(self) -> None:  # http.server's name
        self._note()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.path.removeprefix(PREFIX).split("/"):
            case ["", "invocation", request_id, "response"]:
                self.server.api.take(request_id, json.loads(body))
            case ["", "invocation", request_id, "error"]:
                self.server.api.take(request_id, _error(body))
            case ["", "init" | "restore", "error"]:
                self.server.api.take_error(_error(body))
            case _:
                return self.send_error(404)
        return self._send(202, {"Content-Type": "application/json"}, b'{"status": "OK"}\n')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Say nothing: a failed call shows in the answer."""

    def _note(self) -> None:
        self.server.api.calls.append(f"{self.command} {self.path.removeprefix(PREFIX).lstrip('/')}")

    def _end(self) -> None:
        self.close_connection = True

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # a test may kill the process as soon as it has its answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def _error(body: bytes) -> InvocationError:
    document = json.loads(body)
    return InvocationError(f"{document.get('errorType')}: {document.get('errorMessage')}", document)
