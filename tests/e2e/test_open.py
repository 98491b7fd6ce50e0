"""`pneumonia open` in a real browser: the page of a function that takes only signed requests."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from playwright.sync_api import expect

from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.function import Function
from tests.builders.images import encoded
from tools.browser import browsing, find_chromium
from tools.page_screenshots import XrayPage
from tools.stand_ins.function_url import ENVIRONMENT, REGION, FunctionUrl, function_url

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: install it, or set CHROMIUM to its path"),
    pytest.mark.usefixtures("engine"),
]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[FunctionUrl]:
    environment = {"MODEL_BUCKET": "", "MODEL_PATH": str(RELEASED_WEIGHTS)}
    with Function(tmp_path, environment) as function, function_url(function.invoke) as url:
        yield url


@pytest.fixture
def address(url: FunctionUrl) -> Iterator[str]:
    """Where `pneumonia open` says that the page is."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pneumonia", "open", url.address, "--sign", REGION],
        cwd=PROJECT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    yield process.stdout.readline().split()[1]
    process.terminate()
    process.communicate()


def test_an_x_ray_dropped_on_the_page_gets_its_answer_and_its_heatmap(url: FunctionUrl, address: str) -> None:
    assert CHROMIUM
    with browsing(CHROMIUM) as browser:
        page = XrayPage(browser.new_page())
        page.open(address)
        page.choose({"xray": encoded(draw_radiograph(Random(0), "PNEUMONIA", 400), "PNG")})
        page.finish()
        expect(page.card("xray").locator(".confidence")).to_contain_text("confidence")
        page.explain("xray")
        expect(page.card("xray").locator("img.heatmap")).to_be_visible()
        assert page.watch.problems == []
    assert {"GET /", "GET /static/page.js", "POST /predict?explain=true"} <= set(url.requests)
