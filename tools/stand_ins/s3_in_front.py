"""A server in front of moto's, or of another that stands for S3: hands requests on, or answers them by a fault.

Faults are the answers here and in `faulty_s3`. A client uses the server's `endpoint` as AWS_ENDPOINT_URL.
"""

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

from tools.stand_ins.faulty_s3 import Answer, Choice, Handler, Server, answering


def handed_on(handler: Handler) -> None:
    """Answer as the server behind this one does."""
    response, content = handler.ask_target()
    handler.answer_as(response, response.status, content)


def broken_off(share: float) -> Answer:
    """Answer with the head and a share, from 0 to 1, of the body that the server behind this one sends; break off."""

    def answer(handler: Handler) -> None:
        response, content = handler.ask_target()
        handler.answer_as(response, response.status, content[: int(share * len(content))], len(content))
        handler.end_connection()

    return answer


def slowly(seconds: float, parts: int = 10) -> Answer:
    """Answer as the server behind this one does, but spread the body in parts over so many seconds."""

    def answer(handler: Handler) -> None:
        response, content = handler.ask_target()
        handler.answer_as(response, response.status, b"", len(content))
        step = max(1, -(-len(content) // parts))
        for start in range(0, len(content), step):
            if handler.server.over.wait(seconds / parts):
                handler.end_connection()
                return
            handler.wfile.write(content[start : start + step])

    return answer


def first(*answers: Answer, of: str = "") -> Choice:
    """Give these answers, one each, to the first requests whose path contains a text; hand on all others."""
    left = list(answers)
    return lambda _method, path: left.pop(0) if left and of in path else handed_on


@contextlib.contextmanager
def in_front_of(target: str, choose: Choice) -> Iterator[Server]:
    """Stand in front of another server until the block ends.

    Args:
        target: the other server's address, such as moto's.
        choose: returns the answer to a request: `handed_on` for the other server's, or a fault; see `first`.
    """
    with answering(Server(choose, urlsplit(target).netloc)) as server:
        yield server
