"""Clients that hold a server up: they fall silent, drip, stay idle, or never read what they are sent."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pneumonia.imaging.limits import MAX_BYTES
from tools.stand_ins.events import multipart

PAUSE = 1.0  # seconds until one that was hung up on comes back
BODY, TYPE = multipart("file", "xray.jpeg", bytes(MAX_BYTES), "image/jpeg")
HEAD = f"POST /predict HTTP/1.1\r\nHost: rude\r\nContent-Type: {TYPE}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
LARGE_FILE = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: rude\r\n\r\n"


@dataclass
class Kind:
    """Clients that are rude in the same way.

    Attributes:
        name: what they do.
        number: how many of them there are at once.
        opening: what each sends at once.
        dripped: what each sends after that, a byte a second.
        is_deaf: it stays when it is answered, and does not read that.
        held: seconds from each connection's beginning to its end.
    """

    name: str
    number: int
    opening: bytes
    dripped: bytes = b""
    is_deaf: bool = False
    held: list[float] = field(default_factory=list)


def kinds(number: int) -> list[Kind]:
    """Return so many clients of each kind."""
    return [
        Kind("fall silent within the headers", number, HEAD[:-2]),
        Kind("fall silent before the last byte of a full-size body", number, (HEAD + BODY)[:-1]),
        Kind("drip a byte of the headers a second", number, b"", HEAD),
        Kind("drip a byte of the body a second", number, HEAD, BODY),
        Kind("connect, and send nothing", number, b""),
        # What it drips tells it that it was hung up on: the end itself comes behind all that it has not read.
        Kind("never read the answers", number, LARGE_FILE * 20, LARGE_FILE * 20, is_deaf=True),
    ]


@contextlib.contextmanager
def beside(port: int, rude: Sequence[Kind]) -> Iterator[None]:
    """Hold up the server at a port with all of them until the block ends; one that is hung up on comes back."""
    over = threading.Event()
    with ThreadPoolExecutor(sum(kind.number for kind in rude) or 1) as pool:
        clients = [pool.submit(_come_back, port, kind, over) for kind in rude for _ in range(kind.number)]
        try:
            yield
        finally:
            over.set()
    for client in clients:
        client.result()


def _come_back(port: int, kind: Kind, over: threading.Event) -> None:
    while not over.is_set():
        started = time.monotonic()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
            _hold(connection, kind, over)
        kind.held.append(time.monotonic() - started)
        over.wait(PAUSE)


def _hold(connection: socket.socket, kind: Kind, over: threading.Event) -> None:
    """Send what the kind sends, and return once the server has answered or hung up."""
    connection.settimeout(0)
    unsent, dripped = memoryview(kind.opening), iter(kind.dripped)
    ends = select.POLLRDHUP | (0 if kind.is_deaf else select.POLLIN)
    while not over.is_set():
        poll = select.poll()
        poll.register(connection, ends | (select.POLLOUT if unsent else 0))
        happened = dict(poll.poll(1000)).get(connection.fileno(), 0)
        if happened & (ends | select.POLLHUP | select.POLLERR):
            return
        if happened & select.POLLOUT:
            unsent = unsent[connection.send(unsent) :]
        elif not unsent:
            unsent = memoryview(bytes([byte])) if (byte := next(dripped, None)) is not None else unsent
