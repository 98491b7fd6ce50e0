"""A server in front of moto's that answers chosen calls of SageMaker and CloudWatch Logs in its own way."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from tools.stand_ins.local_server import HandingOn, running

# Gets moto's status and answer to a call, and returns what the client gets instead; None to hang up.
Answer = Callable[[int, dict[str, Any]], tuple[int, dict[str, Any]] | None]


class Api(http.server.ThreadingHTTPServer):
    """Hands calls on to moto, and answers each operation by its own list of answers; the last one stays."""

    daemon_threads = True

    def __init__(self, target: str, answers: Mapping[str, list[Answer]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.operations: list[str] = []
        self._answers: dict[str, list[Answer]] = {operation: list(given) for operation, given in answers.items()}
        self._choosing = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that is gone."""

    def next_answer(self, operation: str) -> Answer:
        with self._choosing:
            self.operations.append(operation)
            answers: list[Answer] = self._answers.get(operation, [as_moto_does])
            return answers.pop(0) if len(answers) > 1 else answers[0]


class _Handler(HandingOn):
    server: Api

    def hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        response, content = self.ask(self.server.target, body)
        status = response.status
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        if operation:
            answered = self.server.next_answer(operation)(status, json.loads(content or b"{}"))
            if answered is None:
                self.close_connection = True
                return
            status, content = answered[0], json.dumps(answered[1]).encode()
        self.answer_as(response, status, content)

    do_GET = do_PUT = do_HEAD = do_POST = hand_on  # noqa: N815  # http.server's names


def as_moto_does(status: int, answer: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Answer as moto does."""
    return status, answer


def refused(code: str, message: str, status: int = 400) -> Answer:
    """Refuse, whatever moto has done."""
    return lambda _status, _answer: (status, {"__type": code, "message": message})


def changed(**fields: Any) -> Answer:  # noqa: ANN401
    """Answer with other values for some fields; None takes a field away."""
    return lambda _status, answer: (
        200,
        {name: value for name, value in (answer | fields).items() if value is not None},
    )


def hang_up(_status: int, _answer: dict[str, Any]) -> None:
    """End the connection without an answer, when moto has done what was asked."""


@contextlib.contextmanager
def answering(target: str, answers: Mapping[str, list[Answer]]) -> Iterator[Api]:
    """Stand in front of moto's server until the block ends.

    Args:
        target: moto's address.
        answers: an operation's name, such as DescribeTrainingJob, to its answers.
    """
    server = Api(target, answers)
    with running(server):
        yield server
