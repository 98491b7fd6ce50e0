"""Swagger UI of the running app, used in a real browser."""

import io
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from pneumonia.training.synthetic import draw_radiograph
from tools.api_screenshots import SwaggerUI, swagger_ui
from tools.browser import find_chromium, serving

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium: install it, or set CHROMIUM to its path")


@pytest.fixture(scope="module")
def address(weights: Path) -> Iterator[str]:
    with serving(weights) as served:
        yield served.address


@pytest.fixture
def page(address: str) -> Iterator[SwaggerUI]:
    assert CHROMIUM
    with swagger_ui(address, CHROMIUM) as page:
        yield page


def test_page_asks_no_other_host_and_predicts(page: SwaggerUI) -> None:
    file = io.BytesIO()
    draw_radiograph(Random(0), "NORMAL").save(file, "JPEG")
    status, answer = page.predict("xray.jpg", file.getvalue())
    assert status == 200
    assert list(answer) == ["prediction", "confidence", "probabilities", "model_version", "warnings"]
    assert answer["confidence"] == answer["probabilities"][answer["prediction"]]
    assert answer["model_version"].startswith("sha256-")
    assert page.watch.problems == []


def test_page_shows_what_is_wrong_with_a_file(page: SwaggerUI) -> None:
    status, answer = page.predict("notes.txt", b"no image")
    assert status == 400
    assert list(answer) == ["detail"]
    assert "The file is not an image" in answer["detail"]
