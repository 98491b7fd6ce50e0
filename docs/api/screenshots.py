"""Take the pictures of Swagger UI in this folder, from the running app in a real browser.

`python docs/api/screenshots.py NORMAL.jpg PNEUMONIA.jpg`
"""

import argparse
import contextlib
import json
import mimetypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, FilePayload, FloatRect, Page, Request, sync_playwright
from playwright.sync_api import Error as BrowserError

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parent.parent
HOST = "127.0.0.1"
TIMEOUT = 120_000  # milliseconds: a busy machine takes long to import torch
# The browser talks to the app, and to nobody else for reasons of its own.
BROWSER_ARGUMENTS = (
    "--no-sandbox",  # it cannot be had as root, in a container say; the only page that is opened is ours
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
)


class ScreenshotError(Exception):
    """The pictures cannot be taken; the message says why in one sentence."""


class Answer(NamedTuple):
    """What Swagger UI shows as the answer to a request."""

    status: int
    body: dict[str, Any]


class SwaggerUI:
    """Swagger UI in a browser's page.

    Args:
        page: a new page.

    Attributes:
        page: the page.
        problems: requests to other hosts and errors on the console so far, a sentence each.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self._operation = page.locator("#operations-default-predict")
        self._answer = self._operation.locator(".live-responses-table")
        page.on("request", self._note_request)
        page.on("console", self._note_message)

    def open(self, address: str) -> None:
        """Open it, and wait until it shows the API."""
        self.page.goto(f"{address}/docs", timeout=TIMEOUT)
        self._operation.wait_for()

    def predict(self, name: str, content: bytes) -> Answer:
        """Upload a file to `POST /predict`, as one does by hand."""
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        upload = FilePayload(name=name, mimeType=kind, buffer=content)
        self._operation.locator(".opblock-summary-control").click()
        self._operation.get_by_role("button", name="Try it out").click()
        self._operation.locator("input[type=file]").set_input_files(upload)
        self._operation.get_by_role("button", name="Execute").click()
        self._answer.wait_for(timeout=TIMEOUT)
        return Answer(
            status=int(self._answer.locator("tbody .response-col_status").inner_text()),
            body=json.loads(self._answer.locator(".highlight-code code").inner_text()),
        )

    def picture(self) -> bytes:
        """Return a PNG of `POST /predict` from its name to the answer, without the table of possible answers below."""
        block, answer = self._operation.bounding_box(), self._answer.bounding_box()
        if not (block and answer):
            raise ScreenshotError("Swagger UI shows no answer.")
        height = answer["y"] + answer["height"] - block["y"] + 8  # a margin
        clip = FloatRect(x=block["x"], y=block["y"], width=block["width"], height=height)
        return self.page.screenshot(full_page=True, animations="disabled", clip=clip)

    def _note_request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob"} and url.hostname != HOST:
            self.problems.append(f"The page asks another host: {request.url}")

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"The browser's console has an error: {message.text}")


def find_chromium() -> str | None:
    """Return the path of the browser: CHROMIUM, or else chromium on the search path."""
    return shutil.which(os.environ.get("CHROMIUM") or "chromium")


@contextlib.contextmanager
def serving(model_path: Path) -> Iterator[str]:
    """Serve the app as a laptop does, without AWS; yield its address.

    Args:
        model_path: weights file; where there is none, the model in `weights/` serves.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MODEL_"))}
    command = [sys.executable, "-m", "uvicorn", "app:app", "--log-level", "warning"]
    with socket.create_server((HOST, 0)) as listener:
        # The port listens before uvicorn starts: a request waits meanwhile, and is refused if uvicorn fails.
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        process = subprocess.Popen(
            [*command, "--fd", str(descriptor)],
            pass_fds=[descriptor],
            cwd=PROJECT,
            env=environment | {"MODEL_PATH": str(model_path)},
        )
    try:
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def swagger_ui(address: str, chromium: str) -> Iterator[SwaggerUI]:
    """Yield Swagger UI of the app at this address, in a browser that is closed afterwards."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS, timeout=TIMEOUT)
        try:
            page = SwaggerUI(browser.new_page(viewport={"width": 1000, "height": 800}))
            try:
                page.open(address)
                yield page
            except BrowserError as error:
                if page.problems:  # the cause; the browser tells only what is missing for it
                    raise ScreenshotError(page.problems[0]) from error
                raise
        finally:
            browser.close()


def take_pictures(normal: Path, pneumonia: Path, chromium: str) -> dict[str, bytes]:
    """Return the pictures by their names.

    Raises:
        ScreenshotError: an X-ray is not answered as it should be, or the page does what it should not.
    """
    pictures: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as empty, serving(Path(empty) / "model.pth") as address:
        for label, image in (("NORMAL", normal), ("PNEUMONIA", pneumonia)):
            with swagger_ui(address, chromium) as page:
                pictures["swagger.png"] = page.page.screenshot(full_page=True)
                name = label.lower()
                # Not under the file's own name: it may be a patient's.
                answer = page.predict(f"{name}{image.suffix}", image.read_bytes())
                pictures[f"{name}.png"] = page.picture()
                if page.problems:
                    raise ScreenshotError(page.problems[0])
            if answer.body.get("prediction") != label:
                raise ScreenshotError(f"{image} is answered {answer.status} {answer.body}: take another image.")
    return pictures


def main(argv: Sequence[str] | None = None) -> int:
    """Take the pictures; return the exit status."""
    parser = argparse.ArgumentParser(prog="screenshots.py", description=__doc__.partition("\n")[0])
    parser.add_argument("normal", metavar="NORMAL", type=Path, help="X-ray that the model calls NORMAL")
    parser.add_argument("pneumonia", metavar="PNEUMONIA", type=Path, help="X-ray that the model calls PNEUMONIA")
    args = parser.parse_args(argv)
    try:
        if not (chromium := find_chromium()):
            raise ScreenshotError("There is no chromium: install it, or set CHROMIUM to its path.")
        for name, picture in take_pictures(args.normal, args.pneumonia, chromium).items():
            (FOLDER / name).write_bytes(picture)
            print(FOLDER / name)
    except BrowserError as error:
        print(f"The browser fails: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename} cannot be read or written: {error.strerror or error}.", file=sys.stderr)
        return 1
    except ScreenshotError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
