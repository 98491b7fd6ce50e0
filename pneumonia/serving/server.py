"""Serve the page and the API on this machine.

The command prints the addresses once it listens; Ctrl-C stops it.
"""

import argparse
import contextlib
import os
import socket

import uvicorn

from pneumonia import logs
from pneumonia.command import say
from pneumonia.errors import ConfigurationError

HOST = "127.0.0.1"  # for this machine alone: the API has no login
EPILOG = "example: pneumonia serve --port 8001"
OTHER_PORT = "choose another with --port, or with make run PORT=8001"
APP = "pneumonia.serving.api:app_from_environment"  # imported only once the port is ours, as that takes a second or two


class LocalServer(uvicorn.Server):
    """A server that prints the addresses to open, after all log lines of its start."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the addresses of the page and of Swagger UI."""
        await super().startup(sockets)
        address = f"http://{HOST}:{self.config.port}"
        say(f"Page:    {address}", f"Swagger: {address}/docs")


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
        # uvicorn's own line about each request would have the path, and whatever a header calls the client.
        config = uvicorn.Config(
            APP, factory=True, port=listener.getsockname()[1], access_log=False, proxy_headers=False
        )
        LocalServer(config).run(sockets=[listener])
