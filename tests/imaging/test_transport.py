"""Images whose bytes something took for text: named, and no other file is."""

import base64

import numpy as np
import pytest
from PIL import Image

from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.kinds import NO_IMAGE
from pneumonia.imaging.transport import IN_BASE64, OTHER_ENCODING, TURNED_TO_TEXT
from tests.builders.dicom_files import dicom
from tests.builders.images import encoded

GRADIENT = Image.linear_gradient("L")
IMAGES = {kind: encoded(GRADIENT, kind) for kind in ("JPEG", "PNG", "BMP", "TIFF", "WEBP")}
IMAGES["big-endian TIFF"] = encoded(GRADIENT.convert("I;16B"), "TIFF")


@pytest.fixture(params=[*IMAGES, "DICOM"])
def image(request: pytest.FixtureRequest) -> bytes:
    return dicom(np.asarray(GRADIENT)) if request.param == "DICOM" else IMAGES[request.param]


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_replaced_bytes_are_named(image: bytes, cut: int) -> None:
    text = image.decode(errors="replace").encode()
    with pytest.raises(ImageError) as error:
        decode(text[: len(text) - cut])
    assert str(error.value) == TURNED_TO_TEXT


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_encoded_bytes_are_named(kind: str, encoding: str) -> None:
    with pytest.raises(ImageError) as error:
        decode(IMAGES[kind].decode(encoding, errors="ignore").encode())
    assert str(error.value) == (OTHER_ENCODING if (kind, encoding) != ("PNG", "cp1252") else NO_IMAGE)


@pytest.mark.parametrize(
    "encode",
    [
        base64.b64encode,
        base64.urlsafe_b64encode,
        base64.encodebytes,
        lambda data: b"data:image/png;base64," + base64.b64encode(data),
    ],
    ids=["plain", "URL-safe", "in lines", "data URL"],
)
def test_base64_is_named(image: bytes, encode: "type[bytes]") -> None:
    with pytest.raises(ImageError) as error:
        decode(encode(image))
    assert str(error.value) == IN_BASE64


@pytest.mark.parametrize(
    "text", ["Dear radiologist,\n", "röntgen", "a \ufffd in a text", "/9j/", "QUJD" * 100, "data:", "data:;base64,"]
)
def test_other_text_is_no_image(text: str) -> None:
    with pytest.raises(ImageError) as error:
        decode(text.encode())
    assert str(error.value) == NO_IMAGE


def test_image_of_ascii_bytes_is_read() -> None:
    data = encoded(Image.new("L", (8, 8), 65), "BMP")
    assert decode(data).image.size == (8, 8)
