"""Connections to uvicorn that end where their clients keep the server waiting, and that never take all its files.

uvicorn itself only limits the pause after an answer. Here a client has some seconds for each of its moves: to send the
head of a request, to send the next STEP of a body that is not read, and to read the next STEP of an answer. Bodies that
are read have the same limit, in `uploads`.
"""

import asyncio
import logging
from typing import Any, cast

import h11
from starlette.responses import JSONResponse
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from pneumonia.serving.problems import SENTENCES
from pneumonia.serving.uploads import PATIENCE, STEP

CONNECTIONS = 256  # the most at once, if as many files may be open
HEAD_BYTES = 16 * 1024  # of a request's head, and of what describes a chunk
FREE_CHUNKS, CHUNK_BYTES = 1000, 64  # after so many chunks, they must have so many bytes on average
LOG_SECONDS = 10.0  # between two lines about too many connections
NO_HTTP = "This is no valid HTTP/1.1 request: use an HTTP client's own upload."
NO_ROOM = "The server has no room for more connections: try again in a moment."
logger = logging.getLogger(__name__)


def most_connections() -> int:
    """Return how many connections may be open: CONNECTIONS, or a third of the files that may be, if that is less.

    Another third is for those that the system accepts before old ones are closed, and the last for everything else.
    """
    try:
        import resource  # noqa: PLC0415  # Windows has neither the module nor the limit
    except ModuleNotFoundError:
        return CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if files == resource.RLIM_INFINITY else min(CONNECTIONS, files // 3)


class Limits:
    """What the connections of a server have in common.

    Args:
        patience: seconds that a client has for a move.
        connections: the most at once; None for `most_connections`.
    """

    def __init__(self, patience: float = PATIENCE, connections: int | None = None) -> None:
        self.patience = patience
        self.connections = connections or most_connections()
        self._logged = -LOG_SECONDS

    def log_full(self, now: float) -> None:
        """Write a line that there are too many connections, unless one was written LOG_SECONDS ago or later."""
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            logger.warning(
                "%d connections are open, the most that are allowed (at most a third of `ulimit -n`): for each new "
                "one, the one whose client is waited for longest is closed.",
                self.connections,
            )


class Reader(h11.Connection):
    """Reads requests, and refuses bodies of countless small chunks: each chunk takes as long as a thousand bytes."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEAD_BYTES)
        self._chunks = 0
        self._bytes = 0

    def next_event(self) -> Any:  # noqa: ANN401  # as h11 types it
        """Return the next event of the request.

        Raises:
            RemoteProtocolError: it is not HTTP, or its chunks are too small.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._chunks > FREE_CHUNKS + self._bytes // CHUNK_BYTES:
                raise h11.RemoteProtocolError("The chunks are too small.")
        return event


class Connection(H11Protocol):
    """A connection that ends if its client is waited for too long.

    Args:
        config: as for uvicorn's.
        server_state: as for uvicorn's.
        app_state: as for uvicorn's.
        limits: shared by all connections of the server.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = Reader()
        self._limits = limits or DEFAULT
        self._since = self.loop.time()  # when the client began its move, or the STEP of it that it is at
        self._received = 0  # bytes since then
        self._unsent = 0  # bytes that the client had not read then
        self._is_cut = False
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to watch the client, and make room for it."""
        super().connection_made(transport)
        self._check()
        if len(self.connections) > self._limits.connections:
            self._limits.log_full(self.loop.time())
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        self._received += len(data)
        if self._received >= STEP:
            self._begin_move()
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn never stays
        """Return whether to stay connected, as a client that has sent its whole request is owed an answer."""
        if stays := not self._is_idle and not self.cycle.more_body:
            self.cycle.keep_alive = False
        return stays

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._begin_move()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the watch."""
        if self._watch:
            self._watch.cancel()
        super().connection_lost(exc)

    def cut(self) -> None:
        """End the connection at once, whatever has not been sent."""
        self._is_cut = True
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's text
        """Refuse what is not HTTP, with a sentence of our own."""
        self._refuse(400, NO_HTTP)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _waits(self) -> bool:
        """Whether the next move is the client's."""
        return self._is_idle or self.cycle.more_body or self.transport.get_write_buffer_size() > 0

    def _begin_move(self) -> None:
        self._since, self._received = self.loop.time(), 0

    def _check(self) -> None:
        """End the connection if it is time, and do so again soon."""
        self._watch = self.loop.call_later(self._limits.patience / 10, self._check)
        unsent = self.transport.get_write_buffer_size()
        was_read = unsent > self._unsent or unsent <= self._unsent - STEP or (self._unsent and not unsent)
        if was_read or not self._waits:  # more is only added when the client has read most
            self._begin_move()
            self._unsent = unsent
        elif (self._is_idle or unsent) and self.loop.time() - self._since >= self._limits.patience:
            self._end()

    def _end(self) -> None:
        """End the connection, with an answer where the client is owed one."""
        if self.transport.get_write_buffer_size():
            self.cut()
        elif self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:  # a part of a request's head
            self._refuse(408, SENTENCES[408])
        else:
            self.transport.close()

    def _make_room(self) -> None:
        """End the connection whose client has been waited for longest, or this one if no other waits."""
        others = {cast("Connection", one) for one in self.connections if one is not self}
        waiting = [one for one in others if one._waits and not one._is_cut]  # noqa: SLF001  # of the same class
        if waiting:
            min(waiting, key=lambda one: one._since).cut()  # noqa: SLF001  # of the same class
        else:
            self._refuse(503, NO_ROOM, **{"Retry-After": "1"})

    def _refuse(self, status: int, sentence: str, **headers: str) -> None:
        """Answer with a sentence, unless an answer has begun, and close."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            headers |= {"Connection": "close", "Cache-Control": "no-store"}
            answer = JSONResponse({"detail": sentence}, status, headers)
            head = h11.Response(status_code=status, headers=answer.raw_headers, reason=STATUS_PHRASES[status])
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


DEFAULT = Limits()
