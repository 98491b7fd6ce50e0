"""Take the pictures of Swagger UI in this folder, from the running app in a real browser.

`python docs/api/screenshots.py NORMAL.jpg PNEUMONIA.jpg`
"""

import argparse
import contextlib
import mimetypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, FilePayload, Locator, Page, Request, expect, sync_playwright
from playwright.sync_api import Error as BrowserError

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parent.parent
HOST = "127.0.0.1"
TIMEOUT = 120_000  # milliseconds; the first answer waits until torch is imported and the model is loaded
# The browser is to talk to the app and to nobody else, for whatever reason of its own.
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",  # root, as in a container, has none; the only page that is opened is ours
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
)


class ScreenshotError(Exception):
    """The pictures cannot be taken; the message says why, in one sentence."""


@dataclass(frozen=True)
class SwaggerUI:
    """Swagger UI, open in a browser.

    Attributes:
        page: the page.
        problems: requests to other hosts and errors on the console so far, a sentence each.
    """

    page: Page
    problems: list[str] = field(default_factory=list)

    def predict(self, upload: FilePayload) -> Locator:
        """Upload a file to `POST /predict` by hand, so to speak, and return what shows the answer."""
        operation = self.operation
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.locator("input[type=file]").set_input_files(upload)
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table")
        expect(answer.locator("tbody .response-col_status")).to_have_text(r"\d+", timeout=TIMEOUT)
        return answer

    @property
    def operation(self) -> Locator:
        """The block of `POST /predict`."""
        return self.page.locator(".opblock-post", has_text="/predict")

    def note_request(self, request: Request) -> None:
        """Note a request that leaves this machine."""
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob"} and url.hostname != HOST:
            self.problems.append(f"The page asked another host: {request.url}.")

    def note_message(self, message: ConsoleMessage) -> None:
        """Note an error on the console."""
        if message.type == "error":
            self.problems.append(f"The console says: {message.text}.")
