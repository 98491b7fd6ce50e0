"""POST /predict against whatever the internet sends: an answer by the table, and the next X-ray is answered right."""

import contextlib
import os
import re
import select
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx2
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.network.prediction import Prediction
from pneumonia.releases.fetch import RELEASED_WEIGHTS, Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.middleware import BODY_BYTES, FORM_BYTES
from pneumonia.serving.predictor import LOAD_SECONDS, Predictor
from pneumonia.serving.telemetry import Record
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.disk import full_after
from tests.builders.images import XRAY, encoded

BOUNDARY: Final = "----4f1d8ab2c3"
FORM: Final = f"multipart/form-data; boundary={BOUNDARY}"
FILE: Final = 'name="file"; filename="xray.jpg"'
COLORS = Image.merge("RGB", [Image.linear_gradient("L").rotate(90 * turns).resize((24, 18)) for turns in range(3)])

pytestmark = [
    # Starlette leaves the file of a part without an end to the garbage collector.
    pytest.mark.filterwarnings("ignore:Unclosed file <tempfile:ResourceWarning"),
    # Of a broken file Pillow warns before it fails, or reads on. As an error, which it is nowhere else, that would hide
    # what follows.
    pytest.mark.filterwarnings("ignore:::PIL"),
]


def part(content: bytes, disposition: str = FILE, kind: str = "image/jpeg") -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {kind}\r\n\r\n"
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def frames(kind: str) -> bytes:
    """Return an animation, or a file of many pages."""
    pages = [Image.new("RGB", (20, 20), color) for color in ("white", "black", "gray")]
    return encoded(pages[0], kind, save_all=True, append_images=pages[1:])


def png(width: int, height: int) -> bytes:
    """Return a PNG file that promises so many pixels and has some that unpack to 4 MB of zeros."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(4_000_000), 9))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def tiff(width: int, height: int) -> bytes:
    """Return a TIFF file that promises so many pixels and has 4 kB of them."""
    start, long = 128, 4
    tags = {
        256: width,
        257: height,
        258: 8,  # bits a sample
        259: 1,  # uncompressed
        262: 1,  # black is zero
        273: start,
        277: 1,  # sample a pixel
        278: height,  # rows in the one strip
        279: width * height,
    }
    entries = b"".join(struct.pack("<HHII", tag, long, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(start, b"\0") + bytes(4000)


def webp(width: int, height: int, *, canvas: bool) -> bytes:
    """Return a WebP file that promises so many pixels: of its one image, or of the canvas of an animation."""
    size = (width - 1) | (height - 1) << 14
    image = b"VP8L" + struct.pack("<I", 1005) + b"\x2f" + struct.pack("<I", size) + bytes(1001)
    if canvas:
        extent = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        image = b"VP8X" + struct.pack("<I", 10) + bytes(4) + extent + image
    return b"RIFF" + struct.pack("<I", len(image) + 4) + b"WEBP" + image


XRAY_PNG = encoded(draw_radiograph(Random(0), "PNEUMONIA"), "PNG")
GOOD = form(part(XRAY))


def is_sentence(detail: object) -> bool:
    """Tell whether this is one line that ends as a sentence, and no traceback."""
    return (
        isinstance(detail, str) and bool(re.fullmatch(r"[A-Z'][^\n\r]{20,200}\.", detail)) and "Traceback" not in detail
    )


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
        """Send what is to be refused, see that the next X-ray is answered as the first, and return the reason."""
        response = self.post(body, content_type)
        assert response.status_code == status
        assert response.headers["cache-control"] == "no-store"
        assert list(response.json()) == ["detail"]
        detail: str = response.json()["detail"]
        assert is_sentence(detail)
        assert self.accept(GOOD) == self._answer
        return detail


@pytest.fixture(scope="module")
def service(weights: Path) -> Iterator[Service]:
    with TestClient(create_app(Predictor(Weights(weights)))) as client:
        yield Service(client)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"", "The file is empty", id="empty"),
        pytest.param(b"\0", "not an image", id="one byte"),
        pytest.param(b"Dear radiologist,\n", "not an image", id="text"),
        pytest.param(b"<!doctype html><title>X-ray</title>", "not an image", id="HTML"),
        pytest.param(b"MZ" + bytes(4000), "not an image", id="program"),
        pytest.param(b"PK\3\4" + bytes(4000), "not an image", id="archive"),
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
        *(pytest.param(frames(kind), id=f"{kind} of many frames") for kind in ("PNG", "WEBP", "TIFF")),
    ],
)
def test_an_odd_image_is_answered(service: Service, data: bytes) -> None:
    service.accept(form(part(data)))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_the_first_frame_counts(service: Service, kind: str) -> None:
    first = encoded(Image.new("RGB", (20, 20), "white"), kind)
    assert service.accept(form(part(frames(kind)))) == service.accept(form(part(first)))


@pytest.mark.parametrize(
    ("data", "kind"),
    [(frames("GIF"), "GIF"), (b"%PDF-1.7\n", "PDF"), (b"8BPS\0\1", "Photoshop")],
    ids=["GIF", "PDF", "Photoshop"],
)
def test_a_kind_that_is_not_read_is_named(service: Service, data: bytes, kind: str) -> None:
    assert service.refuse(415, form(part(data))).startswith(f"{kind} files are not read: ")


@pytest.mark.parametrize("kind", ["text/plain", "application/pdf", "image/gif", "nonsense", ""])
def test_bytes_count_not_their_type(service: Service, kind: str) -> None:
    assert service.accept(form(part(XRAY, kind=kind))) == service.accept(GOOD)
    service.refuse(400, form(part(b"<html>", kind="image/jpeg")))


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "x" * 3_000, "röntgen 🫁.jpg", "'; drop table", "C:\\\\xray.jpg", "", ".", "\0"],
    ids=["path", "long", "unicode", "quote", "Windows", "empty", "dot", "zero"],
)
def test_a_file_may_have_any_name(service: Service, name: str) -> None:
    assert service.accept(form(part(XRAY, f'name="file"; filename="{name}"'))) == service.accept(GOOD)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        pytest.param(form(part(XRAY, 'name="file"')), "There is no file in the form", id="no file name"),
        pytest.param(form(part(XRAY, 'name="image"; filename="x"')), "There is no file in the form", id="another name"),
        pytest.param(form(part(XRAY, 'name=""; filename="x"')), "There is no file in the form", id="empty name"),
        pytest.param(form(), "There is no file in the form", id="no field"),
        pytest.param(form(part(XRAY), part(XRAY)), "There are 2 fields 'file' in the form", id="two"),
        pytest.param(form(*[part(b"")] * 7), "There are 7 fields 'file' in the form", id="seven"),
        pytest.param(
            form(part(XRAY), part(b"a", 'name="file"')), "There are 2 fields 'file' in the form", id="text too"
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
    ("status", "body", "content_type"),
    [
        pytest.param(400, GOOD, "multipart/form-data", id="no boundary"),
        pytest.param(422, GOOD, "multipart/form-data; boundary=", id="empty boundary"),
        pytest.param(400, GOOD, "multipart/form-data; boundary=another", id="another boundary"),
        pytest.param(400, GOOD, f"multipart/form-data; boundary={'x' * 3000}", id="long boundary"),
        pytest.param(400, b"\x07\xff" * 500, FORM, id="garbage"),
        pytest.param(422, b"", FORM, id="nothing"),
        pytest.param(422, GOOD[: len(GOOD) // 2], FORM, id="cut off"),
        pytest.param(422, GOOD[: GOOD.index(b"\r\n\r\n")], FORM, id="cut off in the header"),
        pytest.param(422, part(XRAY), FORM, id="no end"),
        pytest.param(400, GOOD.replace(b"Content-Disposition", b"X-Other"), FORM, id="no disposition"),
        pytest.param(400, GOOD.replace(b"Content-Disposition", b"Content(Disposition"), FORM, id="broken header"),
        pytest.param(400, GOOD.replace(b'name="file"', b""), FORM, id="no field name"),
        pytest.param(400, form(*[part(b"", 'name="a"')] * 1001), FORM, id="1,001 fields"),
        pytest.param(400, form(*[part(b"", 'name="a"; filename="a"')] * 1001), FORM, id="1,001 files"),
        pytest.param(400, form(part(bytes(2**20 + 1), 'name="a"')), FORM, id="a megabyte of text"),
        pytest.param(400, form(part(XRAY, f'name="file"; filename="{"x" * 10_000}"')), FORM, id="long header"),
        pytest.param(400, GOOD, f"{FORM}; charset=undefined", id="charset"),
        pytest.param(422, XRAY, "image/jpeg", id="the image alone"),
        pytest.param(422, b'{"file": "xray.jpg"}', "application/json", id="JSON"),
        pytest.param(422, b"{", "application/json", id="broken JSON"),
        pytest.param(422, b"file=xray.jpg", "application/x-www-form-urlencoded", id="URL-encoded"),
        pytest.param(422, b"&" * MAX_BYTES, "application/x-www-form-urlencoded", id="20 million parameters"),
        pytest.param(422, b"%ff%&&=;=%", "application/x-www-form-urlencoded", id="broken URL-encoded"),
        pytest.param(422, GOOD, "multipart/mixed; boundary=" + BOUNDARY, id="another multipart"),
        pytest.param(422, GOOD, "", id="no type"),
    ],
)
def test_what_is_no_such_form_is_refused(service: Service, status: int, body: bytes, content_type: str) -> None:
    assert service.refuse(status, body, content_type).endswith(
        "send multipart/form-data with the X-ray as field 'file'."
    )


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
    ],
)
def test_nobody_keeps_an_answer(service: Service, method: str, path: str, status: int) -> None:
    response = service.client.request(method, path)
    assert response.status_code == status
    assert response.headers["cache-control"] == "no-store"


class Faulty(Predictor):
    """A predictor with a fault that nobody thought of."""

    def predict(self, data: bytes, load_seconds: float = LOAD_SECONDS, record: Record | None = None) -> Prediction:
        raise RuntimeError(f"secret {len(data)} {load_seconds} {record}")


def test_a_fault_is_answered_without_its_traceback(weights: Path) -> None:
    with TestClient(create_app(Faulty(Weights(weights))), raise_server_exceptions=False) as client:
        response = client.post("/predict", content=GOOD, headers={"Content-Type": FORM})
        assert response.status_code == 500
        assert response.headers["cache-control"] == "no-store"
        assert list(response.json()) == ["detail"]
        assert is_sentence(response.json()["detail"])
        assert "secret" not in response.text
        assert client.get("/health").status_code == 200


class Server:
    """The app under uvicorn, in a process of its own."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log

    @contextlib.contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            yield connection

    def is_well(self) -> None:
        """See that the process lives, answers a good X-ray, and has met no fault."""
        url = f"http://127.0.0.1:{self.port}"
        assert httpx2.get(f"{url}/health", timeout=60).json()["status"] == "ok"
        response = httpx2.post(f"{url}/predict", content=GOOD, headers={"Content-Type": FORM}, timeout=60)
        assert response.status_code == 200
        assert "Traceback" not in self.log.read_text()


@pytest.fixture(scope="module")
def server(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("uvicorn") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "0"],
            cwd=PROJECT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"MODEL_PATH": str(weights)},
        )
    try:
        while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield Server(int(found[1]), log)
    finally:
        process.terminate()
        process.wait()


def head(*lines: str) -> bytes:
    """Return a request's head."""
    return "\r\n".join(["POST /predict HTTP/1.1", "Host: test", f"Content-Type: {FORM}", *lines, "", ""]).encode()


def answer(connection: socket.socket) -> str:
    """Read to the end of the one answer that is JSON."""
    text = b""
    while not text.endswith(b"}"):
        received = connection.recv(65536)
        assert received, text
        text += received
    return text.decode()


def check_413(text: str) -> None:
    """See that an answer refuses a body that is too large."""
    status, _, rest = text.partition("\r\n")
    assert status.startswith("HTTP/1.1 413 ")
    assert "cache-control: no-store" in rest.lower()
    assert '{"detail":"The upload has more than the 20,971,520 bytes that are read: send a smaller or' in rest


@pytest.mark.parametrize("length", [BODY_BYTES + 1, 10**12], ids=["one byte more", "a terabyte"])
@pytest.mark.parametrize("sent", [GOOD[:4000], b""], ids=["a little sent", "nothing sent"])
def test_a_body_declared_too_large_is_refused_unread(server: Server, length: int, sent: bytes) -> None:
    with server.connection() as connection:
        connection.sendall(head(f"Content-Length: {length}", "Expect: 100-continue") + sent)
        check_413(answer(connection))  # not "100 Continue", as to who may send the rest
    server.is_well()


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(server: Server) -> None:
    def chunk(content: bytes) -> bytes:
        return f"{len(content):x}\r\n".encode() + content + b"\r\n"

    start = part(b"").removesuffix(b"\r\n")
    with server.connection() as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + chunk(start))
        connection.sendall(chunk(bytes(BODY_BYTES - len(start))))
        connection.sendall(chunk(b"\0"))  # all that is ever sent: the answer is due although more may come
        check_413(answer(connection))
    server.is_well()


def test_uploads_at_once_take_no_more_memory_than_ten_largest(server: Server) -> None:
    most = form(part(bytes(MAX_BYTES)))[:MAX_BYTES]  # never whole: the server has to keep what it has
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connection()) for _ in range(12)]
        for connection in connections:
            connection.settimeout(0)
        waiting = {connection: head(f"Content-Length: {BODY_BYTES}") + most for connection in connections}
        refused: list[socket.socket] = []
        while not refused:
            refused, writable, _ = select.select(connections, [one for one in waiting if waiting[one]], [], 60)
            assert refused or writable
            for connection in writable:
                waiting[connection] = waiting[connection][connection.send(waiting[connection][:1_000_000]) :]
        refused[0].settimeout(60)
        text = answer(refused[0])
        assert text.startswith("HTTP/1.1 503 ")
        assert "retry-after: 1" in text
        assert "as many uploads as it has memory for: try again in a moment." in text
        assert sum(len(left) == 0 for left in waiting.values()) >= 9
    server.is_well()


@pytest.mark.parametrize("sent", [len(GOOD) // 2, len(GOOD) - 1, 0])
def test_a_client_that_leaves_does_no_harm(server: Server, sent: int) -> None:
    with server.connection() as connection:
        connection.sendall(head(f"Content-Length: {len(GOOD)}") + GOOD[:sent])
    server.is_well()


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), id="TLS"),
        pytest.param(head("Content-Length: -1"), id="negative length"),
        pytest.param(head("Content-Length: " + "9" * 5000), id="length of 5,000 digits"),
        pytest.param(head("Transfer-Encoding: chunked") + b"nonsense\r\n", id="broken chunk"),
        pytest.param(head("X: " + "x" * 100_000), id="long header"),
    ],
)
def test_what_is_not_http_does_no_harm(server: Server, request_bytes: bytes) -> None:
    with server.connection() as connection, contextlib.suppress(ConnectionError):  # uvicorn may hang up in the middle
        connection.sendall(request_bytes)
        received = connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 4")
    server.is_well()


def fuzzed(max_examples: int) -> settings:
    """Return Hypothesis's settings: the same cases in every run, however long one takes, and no file left."""
    return settings(
        max_examples=max_examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )


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


@st.composite
def mutated(draw: st.DrawFn, good: list[bytes], most: int = 6) -> bytes:
    """Return one of these with bytes changed, cut out, repeated or put in, or with its end cut off or another's."""
    data = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(1, most))):
        # Most that matters to a decoder stands at the beginning.
        place = draw(st.integers(0, min(len(data), 120)) | st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        match draw(st.sampled_from(["flip", "flip", "write", "cut", "repeat", "insert", "truncate", "splice"])):
            case "flip":
                data = data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
            case "write":
                number = draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\1\0\0\0"]))
                data = data[:place] + number + data[place + 4 :]
            case "cut":
                data = data[:place] + data[place + length :]
            case "repeat":
                data = data[:place] + data[place : place + length] * 3 + data[place + length :]
            case "insert":
                data = data[:place] + draw(st.binary(max_size=40)) + data[place:]
            case "truncate":
                data = data[: max(place, 8)]
            case "splice":
                other = draw(st.sampled_from(good))
                data = data[:place] + other[place:]
    return data


def check_decode(data: bytes) -> None:
    """See that bytes are decoded to what the network is made for, or refused in a sentence."""
    try:
        image = decode(data).image
    except ImageError as error:
        assert is_sentence(str(error))  # noqa: PT017  # either may happen
    else:
        assert image.mode in {"L", "RGB"}
        assert len(image.tobytes()) == image.width * image.height * len(image.getbands())


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


def check_post(service: Service, body: bytes, content_type: str) -> None:
    """See that a body is answered, or refused by the table and in a sentence."""
    response = service.client.post("/predict", content=body, headers={b"Content-Type": content_type.encode("latin-1")})
    assert response.status_code in {200, 400, 413, 415, 422}
    assert response.status_code == 200 or is_sentence(response.json()["detail"])


@given(mutated(FORMS, most=3))
@fuzzed(400)
def test_mutated_forms_are_answered_or_refused(service: Service, body: bytes) -> None:
    check_post(service, body, FORM)


@given(
    st.lists(st.sampled_from(TOKENS) | st.binary(max_size=20), max_size=20).map(b"".join) | st.sampled_from(FORMS),
    TYPES,
)
@fuzzed(400)
def test_random_forms_are_answered_or_refused(service: Service, body: bytes, content_type: str) -> None:
    check_post(service, body, content_type)


API = schemathesis.openapi.from_asgi("/openapi.json", create_app(Predictor(Weights(RELEASED_WEIGHTS))))
NO_IMAGE: list[schemathesis.CheckFunction] = [positive_data_acceptance]  # no schema can say that a file is an image


@API.parametrize()
@fuzzed(40)
def test_every_answer_is_as_documented(case: "schemathesis.Case[Any]") -> None:
    excluded = NO_IMAGE if case.path.startswith("/predict") else []
    # In a form a number is as good as a string: all of it is bytes.
    excluded = [*excluded, negative_data_rejection] if case.path == "/predict/batch" else excluded
    case.call_and_validate(excluded_checks=excluded)


def test_the_answer_to_a_batch_is_as_documented() -> None:
    files: Any = [XRAY, b""]
    case = API["/predict/batch"]["POST"].Case(body={"file": files}, media_type="multipart/form-data")
    response = case.call_and_validate(excluded_checks=NO_IMAGE)
    assert [row.get("status") for row in response.json()["results"]] == [None, 400]


@pytest.mark.parametrize(
    ("content", "status"),
    [(XRAY, 200), (b"", 400), (png(50_000, 50_000), 413), (frames("GIF"), 415)],
    ids=["answer", "no image", "too large", "GIF"],
)
def test_the_answer_to_a_file_is_as_documented(content: bytes, status: int) -> None:
    case = API["/predict"]["POST"].Case(body={"file": content}, media_type="multipart/form-data")  # type: ignore[dict-item]
    response = case.call_and_validate(excluded_checks=NO_IMAGE)
    assert response.status_code == status
