"""The running app in a real browser, for the pictures in docs/ and the tests of what people see."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from playwright.sync_api import Error as BrowserError

from pneumonia.errors import file_sentence

PROJECT = Path(__file__).parent.parent
HOST = "127.0.0.1"
TIMEOUT = 120_000  # milliseconds: a busy machine takes long to import torch
# With these the browser sends requests to the app alone, and none of its own.
ARGUMENTS = (
    "--no-sandbox",  # chromium as root, as in a container, has no sandbox; it opens no page but ours
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
)


class ScreenshotError(Exception):
    """A picture cannot be taken; the message says why in one sentence."""


class Watch:
    """Notes what a page does that it should not.

    Attributes:
        problems: requests to other hosts and errors on the console so far, a sentence each.
    """

    def __init__(self, page: Page) -> None:
        self.problems: list[str] = []
        page.on("request", self._note_request)
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.problems.append(f"The page's script fails: {error}"))

    def _note_request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob"} and url.hostname != HOST:
            self.problems.append(f"The page asks another host: {request.url}")

    def _note_message(self, message: ConsoleMessage) -> None:
        # The browser logs each answer that is no success; the page has to show it where people look.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.problems.append(f"The browser's console has an error: {message.text}")


def find_chromium() -> str | None:
    """Return the path of the browser: CHROMIUM, or else chromium on the search path."""
    return shutil.which(os.environ.get("CHROMIUM") or "chromium")


@contextlib.contextmanager
def browsing(chromium: str) -> Iterator[Browser]:
    """Yield a browser that is closed afterwards.

    Args:
        chromium: its path.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS, timeout=TIMEOUT)
        try:
            yield browser
        finally:
            browser.close()


class Served:
    """The app under uvicorn.

    Attributes:
        address: `http://…` of it.
    """

    def __init__(self, address: str, process: "subprocess.Popen[bytes]") -> None:
        self.address = address
        self._process = process

    def stop(self) -> None:
        """End it: later connections are refused."""
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def serving(model_path: Path) -> Iterator[Served]:
    """Serve the app as a laptop does, without AWS.

    Args:
        model_path: weights file; where there is none, the model in `weights/` serves.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MODEL_"))}
    command = [sys.executable, "-m", "uvicorn", "app:app", "--log-level", "warning"]
    with socket.create_server((HOST, 0)) as listener:
        # The port listens before uvicorn starts: requests wait for it, and are refused if it fails.
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        process = subprocess.Popen(
            [*command, "--fd", str(descriptor)],
            pass_fds=[descriptor],
            cwd=PROJECT,
            env=environment | {"MODEL_PATH": str(model_path)},
            stdout=subprocess.DEVNULL,  # a line for each request
        )
    served = Served(f"http://{HOST}:{port}", process)
    try:
        yield served
    finally:
        served.stop()


def write_pictures(folder: Path, take: Callable[[str], dict[str, bytes]]) -> int:
    """Take pictures and write them into a folder; return the exit status.

    Args:
        folder: where they go.
        take: given the browser's path, returns the pictures by their names; may raise ScreenshotError.
    """
    try:
        if not (chromium := find_chromium()):
            raise ScreenshotError("There is no chromium: install it, or set CHROMIUM to its path.")
        for name, picture in take(chromium).items():
            (folder / name).write_bytes(picture)
            print(folder / name)
    except BrowserError as error:
        print(f"The browser fails: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    except OSError as error:
        print(file_sentence(error), file=sys.stderr)
        return 1
    except ScreenshotError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
