"""The page and the guides as files: what is served, and with which headers. tests/e2e has them in a browser."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from pneumonia.releases.fetch import RELEASED_WEIGHTS, Weights
from pneumonia.releases.release import read_release
from pneumonia.serving.api import create_app
from pneumonia.serving.page import Guide, add_page
from pneumonia.serving.predictor import Predictor
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.images import encoded
from tools.browser import serving

NORMAL = encoded(draw_radiograph(Random(0), "NORMAL", 400), "JPEG")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(RELEASED_WEIGHTS) as served:
        httpx2.get(f"{served.address}/health", timeout=60)  # so that no test waits for it to start
        yield served.address


@pytest.mark.parametrize(
    ("version", "warned"),
    [(None, False), (read_release(RELEASED_WEIGHTS).version, False), ('<b>"mine"', True)],
    ids=str,
)
def test_model_card_beside_another_model_says_so(version: str | None, *, warned: bool) -> None:
    app = FastAPI()
    add_page(app, lambda: version)
    client = TestClient(app)
    card, training = (client.get(f"/guide/{guide}.md").text for guide in (Guide.MODEL_CARD, Guide.TRAINING))
    assert ("This card describes another one." in card) == warned
    assert ('<p class="warning">The model that answers here is release &lt;b&gt;&quot;mine&quot;. ' in card) == warned
    assert "another one" not in training


def test_model_card_is_compared_with_the_model_that_answers(weights: Path) -> None:
    client = TestClient(create_app(Predictor(Weights(weights))))
    assert "another one" not in client.get("/guide/model-card.md").text
    version = client.get("/ready?load=1").json()["model_version"]
    assert f"is release {version}. This card describes another one." in client.get("/guide/model-card.md").text


@pytest.mark.processes
def test_page_runs_nothing_from_elsewhere(address: str) -> None:
    policy = httpx2.get(address).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.processes
def test_guides_are_only_those_for_readers(address: str) -> None:
    assert httpx2.get(f"{address}/guide/training.md").headers["content-type"].startswith("text/html")
    for path in ("guide/deployment.md", "guide/..%2FREADME.md", "static/../../app.py", "static/%2e%2e/image.py"):
        assert httpx2.get(f"{address}/{path}").status_code == 404


@pytest.mark.processes
@pytest.mark.parametrize("path", ["", "guide/model-card.md", "guide/training.md", "static/page.js"])
def test_head_answers_as_get_does_without_a_body(address: str, path: str) -> None:
    got, head = httpx2.get(f"{address}/{path}"), httpx2.head(f"{address}/{path}")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "cache-control"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.processes
def test_files_are_kept_where_they_have_not_changed_and_answers_never(address: str) -> None:
    file = httpx2.get(f"{address}/static/page.js")
    assert file.headers["cache-control"] == "no-cache"
    again = httpx2.get(f"{address}/static/page.js", headers={"If-None-Match": file.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")
    for response in (
        httpx2.post(f"{address}/predict?preview=true", files={"file": NORMAL}, timeout=60),
        httpx2.post(f"{address}/predict", files={"file": b"no image"}),
        httpx2.get(f"{address}/static/no.js"),
        httpx2.get(f"{address}/guide/training.md"),
    ):
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("asked", "status", "said"), [("bytes=9999999-", 416, ""), ("half", 400, "Malformed range")])
def test_a_range_that_cannot_be_met_is_answered_in_plain_text(asked: str, status: int, said: str) -> None:
    app = FastAPI()
    add_page(app, lambda: None)
    response = TestClient(app).get("/static/page.css", headers={"Range": asked})
    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text[: len("Malformed range")] == said
