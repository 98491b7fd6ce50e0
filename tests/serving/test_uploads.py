"""POST /predict against whatever the internet sends: an answer by the table, and the next X-ray is answered right."""

import base64
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx2
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pneumonia.deadline import Deadline
from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.imaging.transport import IN_BASE64, OTHER_ENCODING, TURNED_TO_TEXT
from pneumonia.network.prediction import Prediction
from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.forms import (
    EMPTY_BODY,
    ENCODED_BODY,
    LINE_FEEDS,
    LONG_BOUNDARY,
    NO_BOUNDARY,
    NO_END,
    NO_FORM,
    NO_NAME,
    OTHER_BOUNDARY,
    TOO_MANY_FIELDS,
)
from pneumonia.serving.middleware import BODY_BYTES, FORM_BYTES
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.telemetry import Record
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.disk import full_after
from tests.builders.images import XRAY, encoded
from tests.builders.uploads import BOUNDARY, FORM, GOOD, form, frames, is_sentence, part, png, tiff, webp

XRAY_PNG = encoded(draw_radiograph(Random(0), "PNEUMONIA"), "PNG")

pytestmark = [
    pytest.mark.usefixtures("engine"),
    # Of a broken file Pillow warns before it fails, or reads on. As an error, which it is nowhere else, that would hide
    # what follows.
    pytest.mark.filterwarnings("ignore:::PIL"),
]


class Service:
    """The API, and the answer that a good X-ray still gets after whatever came before."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self._answer = self.accept(GOOD)

    def post(self, body: bytes, content_type: str = FORM, path: str = "/predict") -> httpx2.Response:
        return self.client.post(path, content=body, headers={"Content-Type": content_type})

    def accept(self, body: bytes, content_type: str = FORM) -> dict[str, object]:
        """Send what is to be answered, and return the answer."""
        response = self.post(body, content_type)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        answer: dict[str, object] = response.json()
        assert answer["prediction"] in {"NORMAL", "PNEUMONIA"}
        return answer

    def refuse(self, status: int, body: bytes, content_type: str = FORM) -> str:
        """Send what is to be refused, check that the next X-ray is answered as the first, and return the reason."""
        response = self.post(body, content_type)
        assert response.status_code == status
        assert response.headers["cache-control"] == "no-store"
        assert list(response.json()) == ["detail"]
        detail: str = response.json()["detail"]
        assert is_sentence(detail)
        assert self.accept(GOOD) == self._answer
        return detail


@pytest.fixture(scope="module")
def service(weights: Path, engine: str) -> Iterator[Service]:  # noqa: ARG001  # Weights chooses it
    with TestClient(create_app(Predictor(Weights(weights)))) as client:
        yield Service(client)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"", "The file is empty", id="empty"),
        pytest.param(b"\0", "not an image", id="one byte"),
        pytest.param(b"Dear radiologist,\n", "not an image", id="text"),
        pytest.param(b"MZ" + bytes(4000), "not an image", id="program"),
    ],
)
def test_what_is_no_image_is_refused(service: Service, content: bytes, sentence: str) -> None:
    assert sentence in service.refuse(400, form(part(content)))


@pytest.mark.parametrize("data", [XRAY, XRAY_PNG], ids=["JPEG", "PNG"])
@pytest.mark.parametrize("percent", range(10, 100, 10))
def test_a_truncated_image_is_refused(service: Service, data: bytes, percent: int) -> None:
    assert "The image is broken" in service.refuse(400, form(part(data[: len(data) * percent // 100])))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(50_000, 50_000), id="PNG"),
        pytest.param(png(2**31 - 1, 1), id="PNG of one row"),
        pytest.param(tiff(50_000, 50_000), id="TIFF"),
        pytest.param(webp(16_383, 16_383, canvas=False), id="WebP"),
        pytest.param(webp(16_383, 16_383, canvas=True), id="WebP canvas"),
        pytest.param(png(10_000, 10_000), id="PNG within Pillow's limit"),
        pytest.param(encoded(Image.new("1", (9_000, 9_000)), "TIFF", compression="group4"), id="fax"),
    ],
)
def test_a_decompression_bomb_is_refused(service: Service, data: bytes) -> None:
    assert len(data) < 20_000
    assert "25,000,000" in service.refuse(413, form(part(data)))


@pytest.mark.parametrize(
    "data",
    [
        *(pytest.param(encoded(Image.new("L", (1, 1)), kind), id=f"{kind}, one pixel") for kind in ("JPEG", "PNG")),
        *(pytest.param(encoded(Image.new("L", (30_000, 10)), kind), id=f"{kind}, wide") for kind in ("JPEG", "PNG")),
        *(pytest.param(encoded(Image.new("L", (10, 30_000)), kind), id=f"{kind}, high") for kind in ("JPEG", "PNG")),
    ],
)
def test_an_odd_image_is_answered(service: Service, data: bytes) -> None:
    service.accept(form(part(data)))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_several_images_in_a_file_are_refused(service: Service, kind: str) -> None:
    assert "send each radiograph as a file of its own" in service.refuse(415, form(part(frames(kind))))


@pytest.mark.parametrize(
    ("data", "kind"),
    [(frames("GIF"), "GIF"), (b"%PDF-1.7\n", "PDF"), (b"8BPS\0\1", "Photoshop"), (b"<!doctype html>", "HTML")],
    ids=["GIF", "PDF", "Photoshop", "HTML"],
)
def test_a_kind_that_is_not_read_is_named(service: Service, data: bytes, kind: str) -> None:
    assert service.refuse(415, form(part(data))).startswith(f"{kind} files are not read: ")


@pytest.mark.parametrize("kind", ["text/plain", "application/pdf", "image/gif", "nonsense", ""])
def test_bytes_count_not_their_type(service: Service, kind: str) -> None:
    assert service.accept(form(part(XRAY, kind=kind))) == service.accept(GOOD)
    service.refuse(400, form(part(b"Dear radiologist,", kind="image/jpeg")))


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "x" * 3_000, "röntgen 🫁.jpg", "'; drop table", "C:\\\\xray.jpg", "", ".", "\0"],
    ids=["path", "long", "unicode", "quote", "Windows", "empty", "dot", "zero"],
)
def test_a_file_may_have_any_name(service: Service, name: str) -> None:
    assert service.accept(form(part(XRAY, f'name="file"; filename="{name}"'))) == service.accept(GOOD)


@pytest.mark.parametrize(
    "disposition",
    [
        'name="file"',
        "name=file",
        'NAME="file"',
        "name=\"file\"; filename*=UTF-8''r%C3%B6ntgen.jpg",
        'name="file"; filename*=nonsense',
        'name="file"; filename=xray.jpg',
        'name="file"; filename=""; filename*=UTF-8\'\'xray.jpg',
        'name = "file" ; filename = "x"',
    ],
)
def test_a_file_needs_no_name(service: Service, disposition: str) -> None:
    for image in (XRAY, XRAY_PNG):
        assert service.accept(form(part(image, disposition))) == service.accept(form(part(image)))


@pytest.mark.parametrize("header", ["base64", "binary", "quoted-printable", "nonsense"])
def test_bytes_are_not_decoded(service: Service, header: str) -> None:
    """Whatever a part says of its encoding, RFC 7578 has none; nor does a charset change the bytes of an image."""
    body = GOOD.replace(b"\r\n\r\n", f"\r\nContent-Transfer-Encoding: {header}\r\n\r\n".encode(), 1)
    assert service.accept(body) == service.accept(GOOD)
    unnamed = form(part(XRAY, 'name="file"', kind="text/plain; charset=utf-16"))
    assert service.accept(unnamed, f"{FORM}; charset=utf-16") == service.accept(GOOD)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        pytest.param(
            form(part(XRAY, 'name="image"; filename="x"')),
            "The form has the field 'image', but no 'file': send the X-ray as field 'file'.",
            id="another name",
        ),
        pytest.param(form(part(XRAY, 'name="File"')), "The form has the field 'File', but no 'file'", id="case"),
        pytest.param(form(part(XRAY, 'name="files"')), "The form has the field 'files', but no 'file'", id="plural"),
        pytest.param(form(part(XRAY, 'name="file[]"')), "The form has the field 'file[]', but no 'file'", id="list"),
        pytest.param(form(part(XRAY, 'name=""; filename="x"')), "The form has the field '', but", id="empty name"),
        pytest.param(
            form(part(b"a", 'name="ward"'), *[part(XRAY, 'name="image"')] * 2),
            "The form has the field 'ward' and 2 more, but no 'file'",
            id="several others",
        ),
        pytest.param(
            form(part(XRAY, f'name="{"x" * 300}"')), f"The form has the field '{'x' * 40}…', but no 'file'", id="long"
        ),
        pytest.param(
            form(part(XRAY, 'name="\u202ea\0b\x85"')),
            "The form has the field '\ufffda\ufffdb\ufffd', but",
            id="unprintable",
        ),
        pytest.param(form(), "The form has no fields: send the X-ray as field 'file'.", id="no field"),
        pytest.param(form(part(XRAY), part(XRAY)), "There are 2 fields 'file' in the form", id="two"),
        pytest.param(form(*[part(b"")] * 7), "There are 7 fields 'file' in the form", id="seven"),
        pytest.param(
            form(part(XRAY), part(XRAY, 'name="file"')),
            "There are 2 fields 'file' in the form",
            id="one without a name",
        ),
        pytest.param(
            form(part(b"xray.jpg", 'name="file"')),
            "The field 'file' holds the text 'xray.jpg', and no image: send the file itself, as curl -F file=@NAME.",
            id="only a name",
        ),
    ],
)
def test_a_form_without_exactly_one_file_is_refused(service: Service, body: bytes, sentence: str) -> None:
    assert sentence in service.refuse(422, body)


def test_other_fields_do_not_matter(service: Service) -> None:
    comment = part(b"from ward 3", 'name="comment"')
    assert service.accept(form(comment, part(XRAY), part(b"GIF8", 'name="other"; filename="a"'))) == service.accept(
        GOOD
    )


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        pytest.param(f"Multipart/Form-Data; Boundary={BOUNDARY}", GOOD, id="upper case"),
        pytest.param(f'multipart/form-data; boundary="{BOUNDARY}"', GOOD, id="quoted"),
        pytest.param(f"multipart/form-data ;  boundary = {BOUNDARY} ", GOOD, id="spaces around"),
        pytest.param(f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}; x=y", GOOD, id="other parameters"),
        pytest.param(f"{FORM}; charset=undefined", GOOD, id="charset"),
        pytest.param(f"{FORM}, {FORM}", GOOD, id="two headers joined"),
        pytest.param(
            'multipart/form-data; boundary="a b;c"', GOOD.replace(BOUNDARY.encode(), b"a b;c"), id="spaces within"
        ),
        pytest.param(FORM, b"\r\n\r\n" + GOOD, id="empty lines first"),
        pytest.param(FORM, GOOD.removesuffix(b"\r\n"), id="no line end at the end"),
        pytest.param(FORM, GOOD + b"epilogue", id="epilogue"),
        pytest.param(FORM, form(part(bytes(2**21), 'name="a"'), part(XRAY)), id="two megabytes of text"),
    ],
)
def test_every_spelling_of_a_form_is_read(service: Service, content_type: str, body: bytes) -> None:
    assert service.accept(body, content_type) == service.accept(GOOD)


@pytest.mark.parametrize(
    ("status", "sentence", "body", "content_type"),
    [
        pytest.param(400, NO_BOUNDARY, GOOD, "multipart/form-data", id="no boundary"),
        pytest.param(400, NO_BOUNDARY, GOOD, "multipart/form-data; charset=utf-8", id="only a charset"),
        pytest.param(400, NO_BOUNDARY, GOOD, "multipart/form-data; boundary=", id="empty boundary"),
        pytest.param(400, NO_BOUNDARY, GOOD, 'multipart/form-data; boundary=""', id="quoted empty boundary"),
        pytest.param(400, OTHER_BOUNDARY, GOOD, "multipart/form-data; boundary=another", id="another boundary"),
        pytest.param(400, OTHER_BOUNDARY, XRAY, FORM, id="the image alone as a form"),
        pytest.param(400, OTHER_BOUNDARY, b"\x07\xff" * 500, FORM, id="garbage"),
        pytest.param(400, NO_END, b"\r\n\r\n", FORM, id="empty lines"),
        pytest.param(400, LONG_BOUNDARY, GOOD, f"multipart/form-data; boundary={'x' * 3000}", id="long boundary"),
        pytest.param(400, ENCODED_BODY, base64.b64encode(GOOD), FORM, id="base64"),
        pytest.param(400, LINE_FEEDS, GOOD.replace(b"\r\n", b"\n"), FORM, id="LF"),
        pytest.param(400, NO_FORM, GOOD.replace(b"\r\n\r\n", b"\n\r\n"), FORM, id="LF in the header"),
        pytest.param(400, NO_END, GOOD[: len(GOOD) // 2], FORM, id="cut off"),
        pytest.param(400, NO_END, GOOD[: GOOD.index(b"\r\n\r\n")], FORM, id="cut off in the header"),
        pytest.param(400, NO_END, part(XRAY), FORM, id="no end"),
        pytest.param(
            400, NO_END, part(XRAY) + f"--{BOUNDARY}\r\n".encode(), FORM, id="a boundary that is not the last"
        ),
        pytest.param(400, NO_NAME, GOOD.replace(b"Content-Disposition", b"X-Other"), FORM, id="no disposition"),
        pytest.param(400, NO_NAME, GOOD.replace(b'name="file"', b""), FORM, id="no field name"),
        pytest.param(400, NO_FORM, GOOD.replace(b"Content-D", b"Content(D"), FORM, id="broken header"),
        pytest.param(400, NO_FORM, form(part(XRAY, f'name="file"; filename="{"x" * 10_000}"')), FORM, id="long header"),
        pytest.param(400, TOO_MANY_FIELDS, form(*[part(b"", 'name="a"')] * 1001), FORM, id="1,001 fields"),
        pytest.param(
            400,
            TOO_MANY_FIELDS,
            form(part(f"\r\n--{BOUNDARY}x".encode() * 1001)),
            FORM,
            id="1,001 lines like boundaries",
        ),
        pytest.param(422, EMPTY_BODY, b"", FORM, id="nothing"),
        pytest.param(422, EMPTY_BODY, b"", "image/jpeg", id="nothing of an image"),
        pytest.param(422, "The Content-Type is 'image/jpeg', not", XRAY, "image/jpeg", id="the image alone"),
        pytest.param(
            422, "The Content-Type is 'application/octet-stream'", XRAY, "application/octet-stream", id="bytes"
        ),
        pytest.param(422, "The Content-Type is 'application/json'", b'{"file": "/9j/"}', "application/json", id="JSON"),
        pytest.param(422, "The Content-Type is 'application/json'", b"{", "application/json", id="broken JSON"),
        pytest.param(
            422, "The Content-Type is 'text/plain'", b"data:image/png;base64,iVBO", "text/plain", id="data URL"
        ),
        pytest.param(
            422,
            "The Content-Type is 'application/x-www-form-urlencoded'",
            b"file=xray.jpg",
            "application/x-www-form-urlencoded",
            id="URL-encoded",
        ),
        pytest.param(
            422,
            "The Content-Type is 'application/x-www-form-urlencoded'",
            b"&" * MAX_BYTES,
            "application/x-www-form-urlencoded; charset=utf-8",
            id="20 million parameters",
        ),
        pytest.param(
            422, "The Content-Type is 'multipart/mixed'", GOOD, "multipart/mixed; boundary=" + BOUNDARY, id="mixed"
        ),
        pytest.param(422, f"The Content-Type is '{'x' * 40}…'", GOOD, "x" * 3000, id="long type"),
        pytest.param(422, "The request has no Content-Type: send", GOOD, "", id="no type"),
    ],
)
def test_what_is_no_such_form_is_named(
    service: Service, status: int, sentence: str, body: bytes, content_type: str
) -> None:
    assert service.refuse(status, body, content_type).startswith(sentence)


@pytest.mark.parametrize("image", [XRAY, XRAY_PNG], ids=["JPEG", "PNG"])
@pytest.mark.parametrize("disposition", ['name="file"', 'name="file"; filename="xray"'])
def test_a_body_that_was_turned_into_text_is_named(service: Service, image: bytes, disposition: str) -> None:
    body = form(part(image, disposition))
    assert service.refuse(400, body.decode(errors="replace").encode()) == TURNED_TO_TEXT
    assert service.refuse(400, body.decode("latin-1").encode()) == OTHER_ENCODING
    assert service.refuse(400, form(part(base64.b64encode(image), disposition))) == IN_BASE64


def test_two_types_of_one_body_are_refused(service: Service) -> None:
    for types, status in ((["image/jpeg", FORM], 400), ([FORM, FORM], 200)):
        headers = [("Content-Type", one) for one in types]
        response = service.client.post("/predict", content=GOOD, headers=headers)
        assert response.status_code == status
    response = service.client.post("/predict", content=GOOD, headers=[("Content-Type", FORM), ("Content-Type", "a/b")])
    assert response.json() == {"detail": "The request has 2 different headers Content-Type: send one."}


def test_the_largest_upload_is_answered_and_one_byte_more_refused(service: Service) -> None:
    largest = XRAY.ljust(MAX_BYTES, b"\0")
    assert service.accept(form(part(largest))) == service.accept(GOOD)
    assert "20,971,520 bytes" in service.refuse(413, form(part(largest + b"\0")))


def test_the_largest_body_is_answered_and_one_byte_more_refused(service: Service) -> None:
    body = GOOD.ljust(BODY_BYTES, b"\0")  # what follows a form does not count
    assert service.accept(body) == service.accept(GOOD)
    assert "20,971,520 bytes" in service.refuse(413, body + b"\0")


def test_the_limit_of_a_body_holds_for_all_files_of_a_batch_together(service: Service) -> None:
    half = XRAY.ljust(MAX_BYTES // 2, b"\0")
    response = service.post(form(part(half), part(half)), path="/predict/batch")
    assert response.status_code == 200
    assert [row["prediction"] for row in response.json()["results"]] == [service.accept(GOOD)["prediction"]] * 2
    response = service.post(form(part(half), part(half), part(bytes(FORM_BYTES))), path="/predict/batch")
    assert response.status_code == 413
    assert "20,971,520 bytes" in response.json()["detail"]
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("kind", ["BMP", "PNG"])
def test_a_large_upload_never_touches_the_disk(service: Service, kind: str) -> None:
    noise = Image.frombytes("RGB", (1000, 1000), Random(0).randbytes(3_000_000))
    body = form(part(encoded(noise, kind)))
    assert len(body) > 2_900_000
    with full_after(0):
        service.accept(body)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/ready", 200),
        ("GET", "/ready?load=nonsense", 422),
        ("GET", "/nothing", 404),
        ("GET", "/predict", 405),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("HEAD", "/health", 200),
        ("HEAD", "/predict", 405),
    ],
)
def test_nobody_keeps_an_answer(service: Service, method: str, path: str, status: int) -> None:
    response = service.client.request(method, path)
    assert response.status_code == status
    assert response.headers["cache-control"] == "no-store"


class Faulty(Predictor):
    """A predictor with a fault that nobody thought of."""

    def predict(self, data: bytes, deadline: Deadline | None = None, record: Record | None = None) -> Prediction:
        raise RuntimeError(f"secret {len(data)} {deadline} {record}")


def test_a_fault_is_answered_without_its_traceback(weights: Path) -> None:
    with TestClient(create_app(Faulty(Weights(weights))), raise_server_exceptions=False) as client:
        response = client.post("/predict", content=GOOD, headers={"Content-Type": FORM})
        assert response.status_code == 500
        assert response.headers["cache-control"] == "no-store"
        assert list(response.json()) == ["detail"]
        assert is_sentence(response.json()["detail"])
        assert "secret" not in response.text
        assert client.get("/health").status_code == 200
