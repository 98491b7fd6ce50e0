"""Serve the API on this machine.

`python -m pneumonia.serving.server --port 8000` says where to look once it listens; Ctrl-C ends it.
"""

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Sequence

import uvicorn

from pneumonia.errors import ConfigurationError, exit_status

HOST = "127.0.0.1"  # nobody else's machine: the API asks nobody who they are
APP = "app:app"  # imported when the port is ours: it takes a second or two


class Server(uvicorn.Server):
    """Says what to open, below whatever else is logged until then."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the addresses of the page and of Swagger UI."""
        await super().startup(sockets)
        address = f"http://{HOST}:{self.config.port}"
        print(f"Page:    {address}\nSwagger: {address}/docs", flush=True)


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this machine.

    Args:
        port: its number, 0 for a free one.

    Raises:
        ConfigurationError: the port is in use, or may not be used.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        # Not the error's own text: Python adds the address.
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "ports are numbers from 0 to 65535"
        raise ConfigurationError(
            f"Port {port} cannot be listened on ({reason}): choose another, for example with make run PORT=8001."
        ) from error


def serve(port: int) -> None:
    """Serve the API until Ctrl-C.

    Args:
        port: where to listen, 0 for any free port.

    Raises:
        ConfigurationError: the port is in use, or may not be used, or a setting of the app is wrong.
    """
    with contextlib.suppress(KeyboardInterrupt), listen(port) as listener:
        config = uvicorn.Config(APP, port=listener.getsockname()[1])
        Server(config).run(sockets=[listener])


def main(argv: Sequence[str] | None = None) -> int:
    """Serve; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pneumonia.serving.server", description="Serve the API on this machine."
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="where to listen (%(default)s)")
    args = parser.parse_args(argv)
    return exit_status(lambda: serve(args.port))


if __name__ == "__main__":
    sys.exit(main())
