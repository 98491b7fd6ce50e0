"""The page at `/` of the running app, used in a real browser."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args
from urllib.parse import urldefrag

import httpx2
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, FilePayload, FloatRect, Locator, Route, expect

from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.serving.page import Guide
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.dicom_files import dicom
from tests.builders.images import encoded
from tools.browser import TIMEOUT, browsing, find_chromium, serving
from tools.page_screenshots import XrayPage

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: install it, or set CHROMIUM to its path"),
    pytest.mark.usefixtures("engine"),
]
NORMAL = encoded(draw_radiograph(Random(0), "NORMAL", 400).resize((500, 400)), "JPEG")
PNEUMONIA = encoded(draw_radiograph(Random(1), "PNEUMONIA", 400), "PNG")
TIFF = encoded(draw_radiograph(Random(2), "NORMAL", 300), "TIFF")
FRONTAL = np.asarray(draw_radiograph(Random(3), "NORMAL", 300))
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
PREDICT, READY = re.compile(r"/predict(\?|$)"), re.compile(r"/ready\?load=1$")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM
    with browsing(CHROMIUM) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(engine: str) -> Iterator[str]:  # noqa: ARG001  # what is started has it
    with serving(RELEASED_WEIGHTS) as served:
        httpx2.get(f"{served.address}/health", timeout=TIMEOUT / 1000)  # so that no test waits for it to start
        yield served.address


@pytest.fixture(scope="module")
def unchecked(weights: Path, engine: str) -> Iterator[str]:  # noqa: ARG001
    """The address of an app whose model has no input check, so that drawn X-rays pass for real ones."""
    with serving(weights) as served:
        httpx2.get(f"{served.address}/health", timeout=TIMEOUT / 1000)
        yield served.address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[XrayPage]:
    page = XrayPage(browser.new_page())
    page.open(address)
    yield page
    page.page.close()
    assert page.watch.problems == []


def answer_of(address: str, content: bytes) -> dict[str, Any]:
    """Return what the API answers about a file."""
    response = httpx2.post(f"{address}/predict", files={"file": content}, timeout=60)
    answer: dict[str, Any] = response.json()
    return answer


def box_of(place: Locator) -> FloatRect:
    """Return where something is on the page."""
    box = place.bounding_box()
    assert box
    return box


@pytest.mark.parametrize("content", [NORMAL, PNEUMONIA], ids=["normal", "pneumonia"])
def test_card_shows_what_the_api_answers(page: XrayPage, address: str, content: bytes) -> None:
    answer = answer_of(address, content)
    page.choose({"xray": content})
    page.finish()
    card = page.card("xray")
    expect(card.locator(".class")).to_have_text(answer["prediction"])
    expect(card.locator(".confidence")).to_have_text(f"confidence {100 * answer['confidence']:.1f}%")
    suspicion = answer["probabilities"]["PNEUMONIA"]
    bar = card.get_by_role("img", name=re.compile("Probability of pneumonia"))
    sentence = f"{100 * suspicion:.1f}%. From 50% (the mark) upwards, the answer is PNEUMONIA."
    assert bar.get_attribute("aria-label") == f"Probability of pneumonia: {sentence}"
    expect(card.locator(".legend")).to_have_text(f"Probability of pneumonia: {sentence}")
    box, fill, point = (box_of(place) for place in (bar, card.locator(".fill"), card.locator(".point")))
    assert fill["width"] == pytest.approx(box["width"] * suspicion, abs=2)
    assert point["x"] + 1.5 - box["x"] == pytest.approx(box["width"] / 2, abs=2)
    expect(card.locator(".warnings li")).to_have_count(len(answer["warnings"]))
    expect(card.get_by_role("img", name="X-ray xray")).to_be_visible()
    expect(page.page.locator("#version")).to_have_text(answer["model_version"])


def test_markup_in_a_name_is_text(page: XrayPage) -> None:
    name = "<img src=x onerror=alert(1)>&amp;</h2><b>\u202e.jpeg"
    page.choose({name: NORMAL, f"{name}.txt": b"no image"})
    page.finish()
    assert page.page.locator("#results h2").all_text_contents() == [name, f"{name}.txt"]
    assert page.page.locator("#results b").count() == 0
    assert page.page.locator("#results img[src=x]").count() == 0


def test_heatmap_comes_on_request_over_the_image_and_fades(page: XrayPage) -> None:
    page.choose({"xray": NORMAL})
    page.finish()
    card = page.card("xray")
    heatmap, slider = card.locator("img.heatmap"), card.get_by_role("slider", name="opacity")
    expect(heatmap).to_be_hidden()
    expect(slider).to_be_hidden()
    page.explain("xray")
    assert heatmap.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [500, 400]
    assert heatmap.bounding_box() == card.locator("img.xray").bounding_box()
    slider.fill("25")
    expect(heatmap).to_have_css("opacity", "0.25")
    button = card.get_by_role("button", name="Heatmap of")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(heatmap).to_be_hidden()
    expect(button).to_have_attribute("aria-pressed", "false")
    button.click()
    expect(heatmap).to_be_visible()


def test_it_works_below_a_path(browser: Browser, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT_PATH", "/xray")
    with serving(weights) as served:
        page = XrayPage(browser.new_page())
        page.open(f"{served.address}/xray")  # without a slash at its end, relative links would lead past it
        page.choose({"xray": NORMAL})
        page.finish()
        expect(page.card("xray").locator(".class")).to_have_text(re.compile("NORMAL|PNEUMONIA"))
        page.page.get_by_role("link", name="API").click()
        expect(page.page.get_by_text("Classify a chest X-ray")).to_be_visible(timeout=TIMEOUT)
        expect(page.page.locator(".servers select")).to_have_value("/xray")
        page.page.close()
    assert page.watch.problems == []


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_files_are_dropped_and_pasted(page: XrayPage, kind: str) -> None:
    page.give(kind, {"one": NORMAL, "two": PNEUMONIA})
    page.finish()
    for name in ("one", "two"):
        expect(page.card(name).locator(".class")).to_have_text(re.compile("NORMAL|PNEUMONIA"))


def test_file_that_the_browser_cannot_show_is_shown_as_the_server_sees_it(page: XrayPage) -> None:
    page.choose({"xray.tif": TIFF})
    page.finish()
    picture = page.card("xray.tif").get_by_role("img", name="X-ray xray.tif")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [300, 300]
    page.explain("xray.tif")


ORIENTATION = Image.Exif()
ORIENTATION[0x0112] = 6
# The same as a number of 32 bits: Chromium takes it only if it has 16.
LONG_ORIENTATION = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 4, 1, 6, 0)
SIZE = "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
# The brightest of the pixels as they are shown.
BRIGHTEST = """image => image.decode().then(() => {
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
    canvas.drawImage(image, 0, 0);
    return canvas.getImageData(0, 0, image.naturalWidth, image.naturalHeight).data
        .reduce((most, value, index) => index % 4 === 3 ? most : Math.max(most, value), 0);
})"""


def test_file_that_the_browser_shows_otherwise_is_shown_as_the_model_saw_it(page: XrayPage) -> None:
    image = draw_radiograph(Random(0), "NORMAL", 300).resize((300, 200))
    page.choose(
        {
            "turned.webp": encoded(image, "WEBP", exif=ORIENTATION),
            "12-bit.png": encoded(image.convert("I").point(lambda value: value * 16).convert("I;16"), "PNG"),
        }
    )
    page.finish()
    turned, dark = (page.card(name).locator("img.xray") for name in ("turned.webp", "12-bit.png"))
    expect(turned).to_have_attribute("src", re.compile("^data:"))
    assert turned.evaluate(SIZE) == [200, 300]
    assert dark.evaluate(BRIGHTEST) > 100


def test_jpeg_is_shown_as_the_model_saw_it_once_the_heatmap_lies_over_it(page: XrayPage) -> None:
    asked: list[str] = []
    page.page.on("request", lambda request: asked.append(request.url) if "/predict" in request.url else None)
    image = draw_radiograph(Random(0), "NORMAL", 300).resize((300, 200))
    page.choose({"turned.jpg": encoded(image, "JPEG", exif=LONG_ORIENTATION)})
    page.finish()
    picture = page.card("turned.jpg").locator("img.xray")
    expect(picture).to_have_attribute("src", re.compile("^blob:"))
    page.explain("turned.jpg")
    expect(picture).to_have_attribute("src", re.compile("^data:"))
    assert picture.evaluate(SIZE) == page.card("turned.jpg").locator("img.heatmap").evaluate(SIZE) == [200, 300]
    assert [url.partition("/predict")[2] for url in asked] == ["", "?explain=true&preview=true"]


def test_dicom_is_shown_and_answered(page: XrayPage, address: str) -> None:
    content = dicom(FRONTAL)
    answer = answer_of(address, content)
    page.choose({"xray.dcm": content})
    page.finish()
    card = page.card("xray.dcm")
    picture = card.get_by_role("img", name="X-ray xray.dcm")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [300, 300]
    expect(card.locator(".class")).to_have_text(answer["prediction"])
    page.explain("xray.dcm")


@pytest.mark.parametrize("others", [{}, {"other": PNEUMONIA}], ids=["alone", "among others"])
def test_photograph_gets_a_headline_and_a_warning_rather_than_a_diagnosis(
    page: XrayPage, address: str, others: dict[str, bytes]
) -> None:
    photo = encoded(Image.radial_gradient("L").resize((400, 400)), "JPEG")
    assert answer_of(address, photo)["prediction"] == "PNEUMONIA"
    page.choose({"photo": photo} | others)
    page.finish()
    card = page.card("photo")
    expect(card.locator(".warnings")).to_contain_text("does not look like the chest X-rays")
    assert card.locator(".verdict").inner_text().startswith("Not a chest X-ray?\n")  # read out first
    headline, label = (card.locator(f".{name}").evaluate(LOOK) for name in ("headline", "class"))
    gray = card.locator(".legend").evaluate(LOOK)
    assert headline["size"] > 1.3 * label["size"]
    assert label == gray


# The size of some text in pixels, and its colour and weight.
LOOK = """element => {
    const { fontSize, color, fontWeight } = getComputedStyle(element);
    return { size: parseFloat(fontSize), color, fontWeight };
}"""


def test_chest_xray_gets_its_class_as_the_headline(browser: Browser, unchecked: str) -> None:
    page = XrayPage(browser.new_page())
    page.open(unchecked)
    page.choose({"xray": PNEUMONIA})
    page.finish()
    card = page.card("xray")
    expect(card.locator(".headline")).to_be_hidden()
    label, gray = (card.locator(f".{name}").evaluate(LOOK) for name in ("class", "legend"))
    assert label["size"] > 1.3 * gray["size"]
    assert label["color"] != gray["color"]
    page.page.close()


@pytest.mark.parametrize(
    ("attributes", "headline"),
    [
        ({}, None),
        ({"BodyPartExamined": "HAND"}, "Not a chest X-ray?"),
        ({"ViewPosition": "LL"}, "Not a frontal view?"),
        ({"BodyPartExamined": "HAND", "ViewPosition": "LL"}, "Not a chest X-ray?"),
    ],
    ids=["frontal chest", "hand", "lateral", "lateral hand"],
)
def test_headline_says_what_the_dicom_header_says_against_the_answer(
    browser: Browser, unchecked: str, attributes: dict[str, Any], headline: str | None
) -> None:
    page = XrayPage(browser.new_page())
    page.open(unchecked)
    page.choose({"xray.dcm": dicom(FRONTAL, **attributes)})
    page.finish()
    place = page.card("xray.dcm").locator(".headline")
    expect(place).to_be_visible(visible=headline is not None)
    expect(place).to_have_text(headline or "")
    page.page.close()


def test_warnings_of_a_dicom_header_are_told_each_in_a_sentence(page: XrayPage, address: str) -> None:
    known = ["dicom_not_a_chest_radiograph", "dicom_not_a_frontal_view", "dicom_for_processing"]
    answer = answer_of(address, NORMAL)
    page.page.route(PREDICT, lambda route: route.fulfill(json={**answer, "warnings": known}))
    page.choose({"both": NORMAL})
    page.finish()
    chest, frontal, processing = page.card("both").get_by_role("list").get_by_role("listitem").all()
    expect(chest).to_have_text("The DICOM header says that this is not a chest X-ray: do not trust the answer.")
    expect(frontal).to_have_text(
        "The DICOM header says that this is not a frontal view. The model knows no others: do not trust the answer."
    )
    expect(processing).to_have_text(
        "The DICOM header says that these are raw data, for processing: send the image that is meant for viewing."
    )


def test_remove_all_keeps_off_the_cards(page: XrayPage) -> None:
    page.choose({"one": NORMAL, "two": NORMAL})
    page.finish()
    button, card = box_of(page.page.get_by_role("button", name="Remove all")), box_of(page.card("one"))
    assert button["y"] + button["height"] + 8 <= card["y"]


def test_guide_has_headings_that_look_like_headings_and_a_warning(page: XrayPage, address: str) -> None:
    page.page.goto(f"{address}/guide/model-card.md")
    heading = page.page.get_by_role("heading", name="Data")
    size = "element => parseFloat(getComputedStyle(element).fontSize)"
    assert heading.evaluate(size) > page.page.locator("main p").first.evaluate(size)
    color = "element => getComputedStyle(element).backgroundColor"
    assert page.page.locator("blockquote").evaluate(color) != page.page.locator("main").evaluate(color)


def test_broken_file_is_told_beside_it_and_the_others_are_answered(page: XrayPage) -> None:
    page.choose({"good": NORMAL, "broken": NORMAL[:2000], "notes.txt": b"no image"})
    page.finish()
    expect(page.card("broken").get_by_role("alert")).to_contain_text("The image is broken")
    expect(page.card("notes.txt").get_by_role("alert")).to_contain_text("The file is not an image")
    expect(page.card("good").get_by_role("alert")).to_be_hidden()
    expect(page.card("good").locator(".class")).to_be_visible()
    expect(page.page.get_by_role("status")).to_have_text("3 of 3 done")


def test_twenty_at_once_are_answered_each_and_two_at_a_time(page: XrayPage, address: str) -> None:
    files = {f"xray {number}": encoded(draw_radiograph(Random(number), "NORMAL"), "JPEG") for number in range(20)}
    asking = most = 0

    def count(change: int) -> None:
        nonlocal asking, most
        asking += change
        most = max(most, asking)

    page.page.on("request", lambda request: count("/predict" in request.url))
    page.page.on("requestfinished", lambda request: count(-("/predict" in request.url)))
    page.choose(files)
    page.finish()
    expect(page.page.get_by_role("status")).to_have_text("20 of 20 done")
    for name, content in files.items():
        expect(page.card(name).locator(".class")).to_have_text(answer_of(address, content)["prediction"])
    assert 1 <= most <= 2
    page.page.get_by_role("button", name="Remove all").click()
    expect(page.page.get_by_role("article")).to_have_count(0)
    expect(page.page.locator("#files")).to_be_focused()
    expect(page.page.get_by_role("status")).to_have_text("")


def test_server_that_is_down_is_told_and_asked_again_on_request(browser: Browser) -> None:
    with serving(RELEASED_WEIGHTS) as served:
        page = XrayPage(browser.new_page())
        page.open(served.address)
        served.stop()
        page.choose({"xray": NORMAL})
        page.finish()
        card = page.card("xray")
        expect(card.get_by_role("alert")).to_contain_text("The server does not answer")
        expect(card.get_by_role("button", name="Try again")).to_be_visible()
        page.page.close()


def hold(page: XrayPage, address: re.Pattern[str]) -> list[Route]:
    """Hold back what the page asks from now on; the list gets it."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        held.append(route)

    page.page.route(address, keep)
    return held


def first(page: XrayPage, held: list[Route]) -> Route:
    """Wait until the page has asked what is held back, and return it."""
    while not held:
        page.page.wait_for_timeout(20)
    return held[0]


@pytest.mark.parametrize("status", [403, 429, 500, 503, 504])
def test_trying_again_is_offered_where_it_may_help(page: XrayPage, status: int) -> None:
    page.page.route(PREDICT, lambda route: route.fulfill(status=status, body="<html>Not now</html>"))
    page.choose({"other": NORMAL, "xray": NORMAL})
    page.finish()
    card, progress = page.card("xray"), page.page.get_by_role("status")
    page.page.unroute(PREDICT)
    held = hold(page, PREDICT)
    expect(progress).to_have_text("2 of 2 done")
    card.get_by_role("button", name="Try again").press("Enter")
    expect(card).to_be_focused()
    expect(progress).to_have_text("1 of 2 done")
    first(page, held).continue_()
    expect(card.locator(".class")).to_be_visible()
    expect(card.get_by_role("alert")).to_be_hidden()
    expect(progress).to_have_text("2 of 2 done")
    expect(card).to_be_focused()


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (400, '{"detail": "The image is broken."}', "The image is broken."),
        # As Lambda's gateway does, before the app sees it.
        (413, "<html>Request Too Long</html>", "too large for this server"),
        (415, '{"detail": "GIF files are not read."}', "GIF files are not read."),
        (422, '{"detail": [{"loc": ["body"], "msg": "Field required"}]}', "The server answered 422."),
        (404, "Not here", "The server answered 404."),
        (200, "<html>Welcome</html>", "The answer does not come from this server: check the address."),
        (200, '{"hello": "world"}', "The answer does not come from this server: check the address."),
        (200, '{"prediction": "NORMAL", "warnings": [1]}', "The answer does not come from this server"),
    ],
)
def test_trying_again_is_not_offered_where_it_cannot_help(
    page: XrayPage, status: int, body: str, sentence: str
) -> None:
    page.page.route(PREDICT, lambda route: route.fulfill(status=status, body=body))
    page.choose({"xray": NORMAL})
    page.finish()
    alert = page.card("xray").get_by_role("alert")
    expect(alert).to_contain_text(sentence)
    expect(alert).not_to_contain_text("try again")
    expect(page.card("xray").get_by_role("button", name="Try again")).to_be_hidden()


def test_trying_again_asks_for_the_heatmap_that_failed(page: XrayPage) -> None:
    page.choose({"xray": NORMAL})
    page.finish()
    card = page.card("xray")
    held = hold(page, PREDICT)
    button = card.get_by_role("button", name="Heatmap of")
    button.press("Enter")
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_be_focused()
    button.press("Enter")  # nothing comes of it while the first is under way
    first(page, held).fulfill(status=503, body="")
    page.finish()
    assert len(held) == 1
    page.page.unroute(PREDICT)
    card.get_by_role("button", name="Try again").click()
    card.locator("img.heatmap").wait_for()


@pytest.mark.parametrize(
    ("suspicion", "shown"), [(0.4996, "under 50%"), (0.5, "50.0%"), (0.9999, "over 99.9%"), (0.4994, "49.9%")]
)
def test_probability_is_not_rounded_to_the_other_answers(
    page: XrayPage, address: str, suspicion: float, shown: str
) -> None:
    probabilities = {"NORMAL": 1 - suspicion, "PNEUMONIA": suspicion}
    answer = {**answer_of(address, PNEUMONIA), "probabilities": probabilities}
    page.page.route(PREDICT, lambda route: route.fulfill(json=answer))
    page.choose({"one": PNEUMONIA})
    page.finish()
    expect(page.card("one").locator(".legend")).to_contain_text(f"Probability of pneumonia: {shown}. From 50%")


def test_version_is_the_one_that_answered_last(page: XrayPage, address: str) -> None:
    answer = {**answer_of(address, PNEUMONIA), "model_version": "other"}
    page.page.route(PREDICT, lambda route: route.fulfill(json=answer))
    page.choose({"one": PNEUMONIA})
    page.finish()
    expect(page.page.locator("#version")).to_have_text("other")


def test_no_file_name_leaves_the_browser(page: XrayPage) -> None:
    page.page.evaluate("""() => {
        window.sent = [];
        const ask = window.fetch;
        window.fetch = (address, options) => {
            if (options?.body) window.sent.push(options.body.get("file").name);
            return ask(address, options);
        };
    }""")
    page.choose({"Jane Doe 1980-01-01.jpg": NORMAL})
    page.finish()
    assert page.page.evaluate("window.sent") == ["xray"]


def test_keyboard_is_enough(page: XrayPage) -> None:
    keyboard = page.page.keyboard
    page.page.on("filechooser", lambda _: None)  # has the browser hand choosers over, well before one opens
    keyboard.press("Tab")
    expect(page.page.locator("#files")).to_be_focused()
    with page.page.expect_file_chooser() as chooser:
        keyboard.press("Enter")
    chooser.value.set_files(FilePayload(name="xray", mimeType="", buffer=NORMAL))
    page.finish()
    keyboard.press("Tab")
    expect(page.page.get_by_role("main").get_by_role("link", name="model card")).to_be_focused()
    keyboard.press("Tab")
    heatmap = page.card("xray").get_by_role("button", name="Heatmap of")
    expect(heatmap).to_be_focused()
    keyboard.press("Enter")
    page.card("xray").locator("img.heatmap").wait_for()
    page.finish()
    expect(heatmap).to_be_focused()
    slider = page.card("xray").get_by_role("slider")
    slider.focus()
    keyboard.press("ArrowLeft")
    expect(slider).to_have_value("79")
    page.card("xray").get_by_role("button", name="Remove").press("Enter")
    expect(page.page.get_by_role("article")).to_have_count(0)
    expect(page.page.locator("#files")).to_be_focused()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing(browser: Browser, address: str, scheme: Scheme) -> None:
    page = XrayPage(browser.new_page(color_scheme=scheme))
    page.open(address)
    assert violations(page) == []
    page.choose({"normal": NORMAL, "pneumonia": PNEUMONIA, "broken": b"no image"})
    page.finish()
    page.explain("normal")
    page.finish()
    expect(page.card("normal").locator(".headline")).to_be_visible()
    assert violations(page) == []
    certain = {**answer_of(address, PNEUMONIA), "prediction": "PNEUMONIA", "warnings": []}
    page.page.route(PREDICT, lambda route: route.fulfill(json=certain))
    page.choose({"certain": PNEUMONIA})
    page.finish()
    assert violations(page) == []
    page.page.close()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("guide", list(Guide))
def test_axe_finds_nothing_in_the_guides(browser: Browser, address: str, guide: Guide, width: int) -> None:
    for scheme in SCHEMES:
        page = XrayPage(browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 640}))
        page.page.goto(f"{address}/guide/{guide}.md")
        assert violations(page) == []
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width
        page.page.close()


def test_wide_table_scrolls_by_keyboard(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 640})
    page.goto(f"{address}/guide/model-card.md")
    table = page.get_by_role("group", name="Table").first
    table.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("table => table.scrollLeft > 0", arg=table.element_handle(), timeout=TIMEOUT)
    page.close()


def violations(page: XrayPage) -> list[str]:
    """Return what axe finds wrong with the page as it is now."""
    found = Axe().run(page.page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


def test_phone_shows_all_of_it_and_always_the_disclaimer(browser: Browser, address: str) -> None:
    page = XrayPage(browser.new_page(viewport={"width": 360, "height": 640}))
    page.open(address)
    page.choose({"A name that is longer than a phone is wide, or so it seems.dcm" * 2: NORMAL, "two": PNEUMONIA})
    page.finish()
    expect(page.page.locator(".headline:visible")).to_have_text([re.compile(r"Not a (chest X-ray|frontal view)\?")] * 2)
    page.page.mouse.wheel(0, 5000)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
    expect(page.page.locator("#disclaimer")).to_be_in_viewport()
    page.page.close()


def test_model_card_is_shown_with_its_pictures(page: XrayPage) -> None:
    page.page.get_by_role("contentinfo").get_by_role("link", name="Model card").click()
    expect(page.page.get_by_role("heading", name="Model card")).to_be_visible()
    pictures = page.page.locator("img")
    expect(pictures.first).to_be_visible()
    for number in range(pictures.count()):
        assert pictures.nth(number).evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


@pytest.mark.parametrize("guide", list(Guide))
def test_links_of_the_guides_lead_somewhere(page: XrayPage, address: str, guide: Guide) -> None:
    page.page.goto(f"{address}/guide/{guide}.md")
    ids = page.page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids)) > 5
    links = page.page.evaluate("[...document.links].map((link) => link.href)")
    local = [urldefrag(link) for link in links if link.startswith(address)]
    assert local
    for url, fragment in local:
        response = httpx2.get(url)
        assert response.status_code == 200, url
        assert not fragment or f'id="{fragment}"' in response.text, (url, fragment)
    assert all(link.startswith((address, "https://")) for link in links)


def test_links_of_the_guides_to_what_is_not_served_are_text(page: XrayPage, address: str) -> None:
    page.page.goto(f"{address}/guide/training.md#the-input-check")
    expect(page.page.get_by_role("heading", name="The input check")).to_be_in_viewport()
    expect(page.page.get_by_text("Settings lists its arguments")).to_be_visible()
    expect(page.page.get_by_role("link", name="Settings")).to_have_count(0)
    expect(page.page.get_by_role("link", name="the model card").first).to_be_visible()
