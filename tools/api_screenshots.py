"""Take the pictures of Swagger UI in docs/api, from the running app in a real browser.

`python tools/api_screenshots.py NORMAL.jpg PNEUMONIA.jpg`
"""

import argparse
import contextlib
import json
import mimetypes
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Error as BrowserError
from playwright.sync_api import FilePayload, FloatRect, Page

sys.path.insert(0, str(Path(__file__).parent.parent))
from tools.browser import TIMEOUT, ScreenshotError, Watch, browsing, serving, write_pictures

FOLDER = Path(__file__).parent.parent / "docs" / "api"


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
        watch: notes what it does that it should not.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.watch = Watch(page)
        self._operation = page.locator("#operations-Classification-predict")
        self._answer = self._operation.locator(".live-responses-table")

    def open(self, address: str) -> None:
        """Open it, and wait until it shows the API."""
        self.page.goto(f"{address}/docs", timeout=TIMEOUT)
        self._operation.wait_for()

    def predict(self, name: str, content: bytes) -> Answer:
        """Upload a file to `POST /predict` by the page's buttons."""
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
        self.page.evaluate("window.scrollTo(0, 0)")  # boxes are counted from what is in view
        block, answer = self._operation.bounding_box(), self._answer.bounding_box()
        if not (block and answer):
            raise ScreenshotError("Swagger UI shows no answer.")
        height = answer["y"] + answer["height"] - block["y"] + 8  # a margin
        clip = FloatRect(x=block["x"], y=block["y"], width=block["width"], height=height)
        return self.page.screenshot(full_page=True, animations="disabled", clip=clip)


@contextlib.contextmanager
def swagger_ui(address: str, chromium: str) -> Iterator[SwaggerUI]:
    """Yield Swagger UI of the app at this address, in a browser that is closed afterwards."""
    with browsing(chromium) as browser:
        page = SwaggerUI(browser.new_page(viewport={"width": 1000, "height": 800}))
        try:
            page.open(address)
            yield page
        except BrowserError as error:
            if page.watch.problems:  # the cause; the browser's error says only what did not come
                raise ScreenshotError(page.watch.problems[0]) from error
            raise


def take_pictures(normal: Path, pneumonia: Path, chromium: str) -> dict[str, bytes]:
    """Return the pictures by their names.

    Raises:
        ScreenshotError: an X-ray is not answered as it should be, or the page does what it should not.
    """
    pictures: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as empty, serving(Path(empty) / "model.pth") as served:
        for label, image in (("NORMAL", normal), ("PNEUMONIA", pneumonia)):
            with swagger_ui(served.address, chromium) as page:
                pictures["swagger.png"] = page.page.screenshot(full_page=True)
                name = label.lower()
                # Not under the file's own name: it may be a patient's.
                answer = page.predict(f"{name}{image.suffix}", image.read_bytes())
                pictures[f"{name}.png"] = page.picture()
                if page.watch.problems:
                    raise ScreenshotError(page.watch.problems[0])
            if answer.body.get("prediction") != label:
                raise ScreenshotError(f"{image} is answered {answer.status} {answer.body}: take another image.")
    return pictures


def main(argv: Sequence[str] | None = None) -> int:
    """Take the pictures; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("normal", metavar="NORMAL", type=Path, help="X-ray that the model calls NORMAL")
    parser.add_argument("pneumonia", metavar="PNEUMONIA", type=Path, help="X-ray that the model calls PNEUMONIA")
    args = parser.parse_args(argv)
    return write_pictures(FOLDER, lambda chromium: take_pictures(args.normal, args.pneumonia, chromium))


if __name__ == "__main__":
    sys.exit(main())
