"""What people see in a browser: the page at `/`, and the guides that it links to.

Nothing of it is read before somebody asks for it, and it asks no other host for anything.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles

from pneumonia.files import shipped

if TYPE_CHECKING:
    from markdown_it.token import Token

STATIC = Path(__file__).parent / "static"
GUIDES = shipped("docs")
# Whatever a file name or an answer might smuggle in, the browser runs and fetches what comes from here alone.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
OTHER_MODEL = (
    '<p class="warning">The model that answers here is release {version}. This card is about another one.</p>\n    '
)
GUIDE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{title}</title>
  <link rel="icon" href="data:,">
  <link rel="stylesheet" href="../static/page.css">
</head>
<body>
  <main id="guide">
    <p><a href="..">Back to the page</a></p>
    {note}{content}
  </main>
</body>
</html>
"""


class Guide(StrEnum):
    """A page of docs/ that people who are not developers may want to read."""

    MODEL_CARD = "model-card"
    TRAINING = "training"


def add_page(app: FastAPI, served_version: Callable[[], str | None]) -> None:
    """Have an app answer with the page at `/`, and with the guides as HTML.

    Args:
        app: the app.
        served_version: tells the release that answers, None while none is loaded.
    """
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    # The model card's pictures, and the figures behind it.
    app.mount("/guide/model-card", StaticFiles(directory=GUIDES / "model-card", check_dir=False), name="model-card")

    # HEAD as well: FastAPI's get() takes GET alone, and whoever checks links or uptime asks for no body.
    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=HEADERS)

    @app.api_route("/guide/{guide}.md", methods=["GET", "HEAD"], include_in_schema=False)
    def show_guide(guide: Guide) -> HTMLResponse:
        text = (GUIDES / f"{guide}.md").read_text(encoding="utf-8")
        title = text.partition("\n")[0].lstrip("# ")
        version = served_version()
        note = ""
        if guide == Guide.MODEL_CARD and version and f"Release `{version}`" not in text:
            note = OTHER_MODEL.format(version=escape(version))
        return HTMLResponse(GUIDE.format(title=title, note=note, content=_to_html(text)), headers=HEADERS)


def _to_html(text: str) -> str:
    """Return a guide as HTML whose links lead somewhere."""
    from markdown_it import MarkdownIt  # noqa: PLC0415  # no cold start needs it

    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(text)
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _slug(tokens[number + 1].content))
        if token.type == "inline":
            _unlink(token.children or [])
    html: str = markdown.renderer.render(tokens, markdown.options, {})
    return html


def _slug(heading: str) -> str:
    """Return the fragment that GitHub gives a heading, as the guides' links have it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _unlink(tokens: list["Token"]) -> None:
    """Leave no more than the text of links to documents that are not served."""
    hidden = False
    for token in tokens:
        if token.type == "link_open":
            hidden = not _is_served(str(token.attrGet("href")))
        if token.type in {"link_open", "link_close"}:  # links do not lie in one another
            token.hidden = hidden


def _is_served(address: str) -> bool:
    url = urlsplit(address)
    served = url.path in {"", *(f"{guide}.md" for guide in Guide)} or url.path.startswith("model-card/")
    return bool(url.scheme) or served
