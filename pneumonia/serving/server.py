"""Serve the page and the API on this machine.

The command prints the addresses once it listens; Ctrl-C stops it.
"""

import argparse
import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import anyio.to_thread
import uvicorn

from pneumonia import logs
from pneumonia.command import ENGINE_HELP, say
from pneumonia.errors import ConfigurationError
from pneumonia.serving.connections import DEFAULT, Connection, Limits

HOST = "127.0.0.1"  # for this machine alone: the API has no login
EPILOG = f"{ENGINE_HELP}\n\nexample: pneumonia serve --port 8001"
OTHER_PORT = "choose another with --port, or with make run PORT=8001"
APP = "pneumonia.serving.api:app_from_environment"  # imported only once the port is ours, as that takes a second or two
GRACE = 5.0  # seconds in which requests under way may still be answered once the server is to end
QUEUE = 2048  # clients that the system lets wait to be accepted
logger = logging.getLogger(__name__)


class LocalServer(uvicorn.Server):
    """A server that prints the addresses to open, after all log lines of its start, and that ends within seconds.

    Args:
        app: the app, or where to import it or what makes it from.
        listener: listens on this machine.
        limits: for the connections.
        grace: seconds in which requests under way may still be answered once it is to end.
        options: of uvicorn.
    """

    def __init__(
        self,
        app: Callable[..., Any] | str,
        listener: socket.socket,
        limits: Limits = DEFAULT,
        grace: float = GRACE,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                port=listener.getsockname()[1],
                http=functools.partial(Connection, limits=limits),  # type: ignore[arg-type]  # called, never inherited
                # uvicorn's own line about each request would have the path, and whatever a header calls the client.
                access_log=False,
                proxy_headers=False,
                ws="none",  # a web socket would have none of the limits, and the API has no use for one
                backlog=max(1, limits.connections // 4),  # accepted at once, before old ones can be closed
                **options,
            )
        )
        self._threads = limits.connections
        self._grace = grace
        self._signal: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the addresses of the page and of Swagger UI."""
        # One for each connection: no page, and no error, waits for the threads of requests that wait for their turn.
        anyio.to_thread.current_default_thread_limiter().total_tokens = self._threads
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(QUEUE)
        address = f"http://{HOST}:{self.config.port}"
        say(f"Page:    {address}", f"Swagger: {address}/docs")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in good order at the first signal, at once at the second."""
        if self._signal:
            end_by(sig)
        self._signal = sig
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, finish the answers under way, and after the grace cut off the rest."""
        asyncio.get_running_loop().call_later(self._grace, self._cut_off)
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()  # which uvicorn leaves out then, and has a traceback logged
            await asyncio.sleep(0.1)  # for the requests that were cut off to end
        if self._signal and self.server_state.tasks:
            end_by(self._signal)  # their threads work on for clients that are gone, and Python would wait for them

    def _cut_off(self) -> None:
        connections = cast("set[Connection]", self.server_state.connections)
        if connections:
            logger.warning("Connections cut off, as they take too long to end: %d.", len(connections))
        for connection in list(connections):
            connection.cut()
        self.force_exit = True  # uvicorn's, of all further waiting


def end_by(sig: int) -> None:
    """End this process as a signal does that nobody handles, without waiting for its threads."""
    signal.signal(sig, signal.SIG_DFL)
    signal.raise_signal(sig)


def listen(port: int, advice: str = "choose another with --port") -> socket.socket:
    """Return a socket that listens on this machine.

    Args:
        port: its number, 0 for any free one.
        advice: what to do if that one cannot be had.

    Raises:
        ConfigurationError: the port is in use, or not allowed.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        # Not the error's own text: Python adds the address.
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "ports are numbers from 0 to 65535"
        raise ConfigurationError(f"Port {port} cannot be listened on ({reason}): {advice}.") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser."""
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="where to listen (%(default)s)")


def run(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C.

    Raises:
        ConfigurationError: the port is in use or not allowed, or a setting of the environment is wrong.
    """
    logs.set_up()
    with contextlib.suppress(KeyboardInterrupt), listen(args.port, OTHER_PORT) as listener:
        LocalServer(APP, listener, factory=True).run(sockets=[listener])
