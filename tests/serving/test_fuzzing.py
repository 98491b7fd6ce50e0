"""Random and mutated images and forms: decoded and answered, or refused by the table; every answer as documented."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from pneumonia.releases.fetch import RELEASED_WEIGHTS, Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.predictor import Predictor
from tests.builders.fuzzing import fuzzed
from tests.builders.images import XRAY, encoded
from tests.builders.mutations import check_decode, mutated
from tests.builders.uploads import BOUNDARY, FORM, form, frames, is_sentence, part, png

COLORS = Image.merge("RGB", [Image.linear_gradient("L").rotate(90 * turns).resize((24, 18)) for turns in range(3)])

pytestmark = [
    # Of a broken file Pillow warns before it fails, or reads on. As an error, which it is nowhere else, that would hide
    # what follows.
    pytest.mark.filterwarnings("ignore:::PIL"),
]


@pytest.fixture(scope="module")
def client(weights: Path, engine: str) -> Iterator[TestClient]:  # noqa: ARG001  # Weights chooses it
    with TestClient(create_app(Predictor(Weights(weights)))) as client:
        yield client


IMAGES = [
    encoded(COLORS, "JPEG"),
    encoded(
        COLORS.convert("L"), "JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"
    ),
    encoded(COLORS.convert("CMYK"), "JPEG"),
    encoded(COLORS, "PNG"),
    encoded(COLORS.convert("P"), "PNG", transparency=3),
    encoded(COLORS.convert("LA"), "PNG"),
    encoded(COLORS.convert("I;16"), "PNG"),
    encoded(COLORS, "BMP"),
    encoded(COLORS.convert("P"), "BMP"),
    encoded(COLORS, "TIFF"),
    encoded(COLORS.convert("I;16"), "TIFF"),
    encoded(COLORS, "TIFF", compression="tiff_lzw"),
    encoded(COLORS, "TIFF", compression="jpeg"),
    encoded(COLORS.convert("1"), "TIFF", compression="group4"),
    encoded(COLORS, "WEBP"),
    encoded(COLORS, "WEBP", lossless=True),
    frames("PNG"),
    frames("WEBP"),
    frames("TIFF"),
    XRAY,
]


@given(st.binary(max_size=300))
@fuzzed(300)
def test_random_bytes_are_decoded_or_refused(data: bytes) -> None:
    check_decode(data)


@given(mutated(IMAGES))
@fuzzed(1300)
def test_mutated_images_are_decoded_or_refused(data: bytes) -> None:
    check_decode(data)


FORMS = [form(part(image)) for image in IMAGES if len(image) < 1000] + [
    form(part(b"a", 'name="comment"'), part(IMAGES[3])),
    form(part(IMAGES[3], "name*=utf-8''file; filename*=utf-8''x")),
    form(part(IMAGES[3], 'name="image"; filename="x"')),
    form(),
]
TOKENS = [
    f"--{BOUNDARY}".encode(),
    f"\r\n--{BOUNDARY}--\r\n".encode(),
    b"\r\n",
    b"\r\n\r\n",
    b"Content-Disposition: form-data; ",
    b'name="file"; ',
    b'filename="x"',
    b"Content-Type: image/png",
    b"Content-Transfer-Encoding: base64",
    b"Content-Length: 5",
    b": ",
    b"=",
    b"&file=",
    IMAGES[3],
]
HEADERS = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=30)
TYPES = st.one_of(
    st.just(FORM),
    st.sampled_from(["multipart/form-data", "application/x-www-form-urlencoded", "application/json", "image/jpeg", ""]),
    st.builds("multipart/form-data; boundary={}".format, HEADERS),
    st.builds(
        f"{FORM}; charset={{}}".format, st.sampled_from(["utf-16", "idna", "punycode", "zlib", "undefined"]) | HEADERS
    ),
    HEADERS,
)


def check_post(client: TestClient, body: bytes, content_type: str) -> None:
    """Check that a body is answered, or refused by the table and in a sentence."""
    response = client.post("/predict", content=body, headers={b"Content-Type": content_type.encode("latin-1")})
    assert response.status_code in {200, 400, 413, 415, 422}
    assert response.status_code == 200 or is_sentence(response.json()["detail"])


@given(mutated(FORMS, most=3))
@fuzzed(400)
def test_mutated_forms_are_answered_or_refused(client: TestClient, body: bytes) -> None:
    check_post(client, body, FORM)


@given(
    st.lists(st.sampled_from(TOKENS) | st.binary(max_size=20), max_size=20).map(b"".join) | st.sampled_from(FORMS),
    TYPES,
)
@fuzzed(400)
def test_random_forms_are_answered_or_refused(client: TestClient, body: bytes, content_type: str) -> None:
    check_post(client, body, content_type)


Case = schemathesis.Case[Any]
API = schemathesis.openapi.from_asgi("/openapi.json", create_app(Predictor(Weights(RELEASED_WEIGHTS))))
NO_IMAGE: list[schemathesis.CheckFunction] = [positive_data_acceptance]  # no schema can say that a file is an image


@pytest.fixture(scope="module")
def app(engine: str) -> FastAPI:  # noqa: ARG001  # Weights chooses it
    """The API that is asked, with the schema that API has."""
    return create_app(Predictor(Weights(RELEASED_WEIGHTS)))


def test_every_route_of_the_schema_is_called_below() -> None:
    routes = {(method, path) for path, methods in API.raw_schema["paths"].items() for method in methods}
    assert routes == {("post", "/predict"), ("post", "/predict/batch"), ("get", "/health"), ("get", "/ready")}


@API.include(path="/predict").parametrize()
@fuzzed(40)
def test_every_answer_of_predict_is_as_documented(case: Case, app: FastAPI) -> None:
    case.call_and_validate(app=app, excluded_checks=NO_IMAGE)


@API.include(path="/predict/batch").parametrize()
@fuzzed(40)
def test_every_answer_of_predict_batch_is_as_documented(case: Case, app: FastAPI) -> None:
    # In a form a number is as good as a string: all of it is bytes.
    case.call_and_validate(app=app, excluded_checks=[*NO_IMAGE, negative_data_rejection])


@API.include(path="/health").parametrize()
@fuzzed(40)
def test_every_answer_of_health_is_as_documented(case: Case, app: FastAPI) -> None:
    case.call_and_validate(app=app)


@API.include(path="/ready").parametrize()
@fuzzed(40)
def test_every_answer_of_ready_is_as_documented(case: Case, app: FastAPI) -> None:
    case.call_and_validate(app=app)


def test_the_answer_to_a_batch_is_as_documented(app: FastAPI) -> None:
    files: Any = [XRAY, b""]
    case = API["/predict/batch"]["POST"].Case(body={"file": files}, media_type="multipart/form-data")
    response = case.call_and_validate(app=app, excluded_checks=NO_IMAGE)
    assert [row.get("status") for row in response.json()["results"]] == [None, 400]


@pytest.mark.parametrize(
    ("content", "status"),
    [(XRAY, 200), (b"", 400), (png(50_000, 50_000), 413), (frames("GIF"), 415)],
    ids=["answer", "no image", "too large", "GIF"],
)
def test_the_answer_to_a_file_is_as_documented(content: bytes, status: int, app: FastAPI) -> None:
    case = API["/predict"]["POST"].Case(body={"file": content}, media_type="multipart/form-data")  # type: ignore[dict-item]
    response = case.call_and_validate(app=app, excluded_checks=NO_IMAGE)
    assert response.status_code == status
