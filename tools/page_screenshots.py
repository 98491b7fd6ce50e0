"""Take the pictures of the page in docs/page, from the running app in a real browser.

`python tools/page_screenshots.py WEIGHTS PNEUMONIA.jpg OTHER.jpg...`
"""

import argparse
import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import Browser, FilePayload, Locator, Page, ViewportSize, expect

sys.path.insert(0, str(Path(__file__).parent.parent))
from tools.browser import TIMEOUT, ScreenshotError, Watch, browsing, serving, write_pictures

FOLDER = Path(__file__).parent.parent / "docs" / "page"

# Dispatches the event that the browser itself makes when files are dropped or pasted.
GIVE = """([kind, files]) => {
    const data = new DataTransfer();
    for (const [name, content] of files)
        data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
    document.body.dispatchEvent(kind === "drop"
        ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
}"""


class XrayPage:
    """The page at `/` in a browser.

    Args:
        page: a new page.

    Attributes:
        page: the page.
        watch: notes what it does that it should not.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.watch = Watch(page)
        page.set_default_timeout(TIMEOUT)

    def open(self, address: str) -> None:
        """Open it, and wait until the model is loaded."""
        self.page.goto(address)
        expect(self.page.locator("#version")).not_to_have_text("loading …", timeout=TIMEOUT)

    def choose(self, files: dict[str, bytes]) -> None:
        """Choose files by the button."""
        payloads = [FilePayload(name=name, mimeType="", buffer=content) for name, content in files.items()]
        self.page.locator("#files").set_input_files(payloads)

    def give(self, kind: str, files: dict[str, bytes]) -> None:
        """Drop or paste files: `kind` is "drop" or "paste"."""
        encoded = [[name, base64.b64encode(content).decode()] for name, content in files.items()]
        self.page.evaluate(GIVE, [kind, encoded])

    def card(self, name: str) -> Locator:
        """Return the card of a file."""
        return self.page.get_by_role("article").filter(has=self.page.get_by_role("heading", name=name, exact=True))

    def finish(self) -> None:
        """Wait until every file has an answer or an error."""
        expect(self.page.locator("article[aria-busy=true]")).to_have_count(0, timeout=TIMEOUT)

    def explain(self, name: str) -> None:
        """Ask for a file's heatmap, and wait until it is there."""
        self.card(name).get_by_role("button", name="Heatmap of").click()
        self.card(name).locator("img.heatmap").wait_for()


class Picture(NamedTuple):
    """How a picture is taken."""

    width: int
    height: int
    scheme: Literal["light", "dark"]
    shows_all: bool = False  # every X-ray instead of the first one
    is_full_page: bool = False


PICTURES = {
    "heatmap.png": Picture(1100, 760, "light"),
    "many.png": Picture(1100, 900, "dark", shows_all=True),
    "phone.png": Picture(390, 844, "light", is_full_page=True),
}


def take_pictures(weights: Path, xrays: Sequence[Path], chromium: str) -> dict[str, bytes]:
    """Return the pictures by their names; in each, the first X-ray has its heatmap.

    Raises:
        ScreenshotError: an X-ray is not answered, or the page does what it should not.
    """
    # Not under the files' own names: they may be patients'.
    files = {f"xray-{number}{path.suffix}": path.read_bytes() for number, path in enumerate(xrays, 1)}
    with serving(weights) as served, browsing(chromium) as browser:
        return {name: take(picture, files, served.address, browser) for name, picture in PICTURES.items()}


def take(picture: Picture, files: dict[str, bytes], address: str, browser: Browser) -> bytes:
    """Return one picture, as PNG."""
    viewport = ViewportSize(width=picture.width, height=picture.height)
    page = XrayPage(browser.new_page(viewport=viewport, color_scheme=picture.scheme))
    first = next(iter(files))
    page.open(address)
    page.choose(files if picture.shows_all else {first: files[first]})
    page.finish()
    if (error := page.page.locator("article .error:visible")).count():
        raise ScreenshotError(f"An X-ray is not answered: {error.first.inner_text()}")
    page.explain(first)
    page.page.evaluate("scrollTo(0, 0)")
    png = page.page.screenshot(animations="disabled", full_page=picture.is_full_page)
    if page.watch.problems:
        raise ScreenshotError(page.watch.problems[0])
    return png


def main(argv: Sequence[str] | None = None) -> int:
    """Take the pictures; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights", metavar="WEIGHTS", type=Path, help="weights file, its manifest beside it")
    parser.add_argument("xrays", metavar="XRAY", type=Path, nargs="+", help="X-rays; the first one gets a heatmap")
    args = parser.parse_args(argv)
    return write_pictures(FOLDER, lambda chromium: take_pictures(args.weights, args.xrays, chromium))


if __name__ == "__main__":
    sys.exit(main())
