"""The page at `/`, and the guides that it links to.

Files are read only when they are requested, and nothing comes from another host.
"""

import functools
import re
from collections.abc import Callable
from enum import StrEnum
from html import escape
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

from pneumonia.files import shipped

STATIC = Path(__file__).parent / "static"
GUIDES = shipped("docs")
# Whatever a file name or an answer contains, the browser runs and loads only what this server sends.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
OTHER_MODEL = (
    '<p class="warning">The model that answers here is release {version}. This card describes another one.</p>\n    '
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
    """A document of docs/ that the page shows."""

    MODEL_CARD = "model-card"
    TRAINING = "training"


SCROLLED_TABLE = '<div class="scrolled" role="group" aria-label="Table" tabindex="0"><table>'
# A link in a rendered guide to a document that the app does not serve.
NOT_SERVED = re.compile(rf'<a href="(?!https:|#|{"|".join(Guide)})[^>]*>(.*?)</a>', re.DOTALL)


def add_page(app: FastAPI, served_version: Callable[[], str | None]) -> None:
    """Add the page at `/`, and the guides as HTML, to an app.

    Args:
        app: the app.
        served_version: returns the loaded release, None if there is none yet.
    """
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    # The model card's pictures, and the figures behind it.
    app.mount("/guide/model-card", StaticFiles(directory=GUIDES / "model-card", check_dir=False), name="model-card")

    @app.get("/", include_in_schema=False)
    def page(request: Request) -> Response:
        if root := request.scope["root_path"]:
            return HTMLResponse(page_below(root), headers=HEADERS)
        return FileResponse(STATIC / "index.html", headers=HEADERS)

    @app.get("/guide/{guide}.md", include_in_schema=False)
    def show_guide(guide: Guide) -> HTMLResponse:
        content, version = render(guide), escape(served_version() or "")
        is_about_another = guide == Guide.MODEL_CARD and version and f"Release <code>{version}</code>" not in content
        note = OTHER_MODEL.format(version=version) if is_about_another else ""
        title = guide.replace("-", " ").capitalize()
        return HTMLResponse(GUIDE.format(title=title, note=note, content=content), headers=HEADERS)


def page_below(root: str) -> str:
    """Return the page with links that lead below a path, whether or not its own address ends with a slash."""
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    return html.replace("<head>", f'<head>\n  <base href="{escape(quote(root))}/">', 1)


@functools.cache
def render(guide: Guide) -> str:
    """Return a guide as HTML, with GitHub's fragments for headings, and without links that the app does not serve."""
    from markdown_it import MarkdownIt  # noqa: PLC0415  # no cold start needs it

    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse((GUIDES / f"{guide}.md").read_text(encoding="utf-8"))
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", re.sub(r"[^\w\- ]", "", following.content.lower()).replace(" ", "-"))
    html: str = markdown.renderer.render(tokens, markdown.options, {})
    # A table may be wider than the window: what scrolls has to be reached with the keyboard, and to say what it is.
    html = html.replace("<table>", SCROLLED_TABLE).replace("</table>", "</table></div>")
    return NOT_SERVED.sub(r"\1", html)
