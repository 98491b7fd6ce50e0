"""DICOM as it is found: what is read although it breaks the standard, and what is refused with a reason."""

import struct
import zlib
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging.decoding import decode
from tests.builders.dicom_files import (
    ENCODERS,
    ROWS,
    UNCOMPRESSED,
    beginning_of,
    colors,
    data_set_of,
    in_fragments,
    pixels_of,
    radiograph,
    to_8_bit,
)
from tests.builders.dicom_files import dicom as made

WINDOW: dict[str, Any] = {"WindowCenter": 1500, "WindowWidth": 2000}
END = b"\xfe\xff\x0d\xe0\0\0\0\0"  # of an item
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
CODESTREAMS = [syntax for syntax in ENCODERS if syntax != RLELossless]


def coded(syntax: pydicom.uid.UID) -> bytes:
    return bytes(ENCODERS[syntax](radiograph(8)))


def item(content: bytes, length: int | None = None) -> bytes:
    return b"\xfe\xff\0\xe0" + struct.pack("<I", len(content) if length is None else length) + content


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@pytest.mark.parametrize("prefix", [b"", b"DICM", bytes(128), b"II*\0".ljust(128, b"\1") + b"DICM"], ids=len)
@pytest.mark.parametrize("has_meta", [True, False])
def test_the_beginning_may_be_missing(syntax: pydicom.uid.UID, prefix: bytes, has_meta: bool) -> None:  # noqa: FBT001
    data = made(radiograph(12), syntax, 12, **WINDOW)
    assert np.array_equal(pixels_of(prefix + (data[132:] if has_meta else data_set_of(data))), pixels_of(data))


@pytest.mark.parametrize("syntax", [RLELossless, *CODESTREAMS])
def test_a_compressed_data_set_needs_no_meta_header(syntax: pydicom.uid.UID) -> None:
    data = made(radiograph(8), syntax, **WINDOW)
    assert np.array_equal(pixels_of(data_set_of(data)), pixels_of(data))


@pytest.mark.parametrize("length", [0, 2, 2**32 - 1])
def test_the_length_of_the_meta_header_may_be_wrong(length: int) -> None:
    data = made(radiograph(8))
    assert np.array_equal(pixels_of(data[:140] + struct.pack("<I", length) + data[144:]), pixels_of(data))
    assert np.array_equal(pixels_of(data[:132] + data[144:]), pixels_of(data))


@pytest.mark.parametrize("said", [*UNCOMPRESSED, RLELossless, JPEGBaseline8Bit, "1.2.3"])
@pytest.mark.parametrize("is_so", [*UNCOMPRESSED, RLELossless, *CODESTREAMS])
def test_a_wrong_transfer_syntax_does_no_harm(said: str, is_so: pydicom.uid.UID) -> None:
    data = made(radiograph(8), is_so, **WINDOW)
    if said == "1.2.3" and is_so in {*UNCOMPRESSED, RLELossless}:
        return  # what an unknown compression looks like is not known
    assert np.array_equal(pixels_of(beginning_of(said) + data_set_of(data)), pixels_of(data))


def test_a_deflated_file_is_read() -> None:
    data = made(radiograph(12), bits=12, **WINDOW)
    squeeze = zlib.compressobj(wbits=-15)
    squeezed = squeeze.compress(data_set_of(data)) + squeeze.flush()
    assert np.array_equal(pixels_of(beginning_of(DeflatedExplicitVRLittleEndian) + squeezed), pixels_of(data))
    with pytest.raises(ImageError):
        decode(beginning_of(DeflatedExplicitVRLittleEndian) + squeezed[: len(squeezed) // 2])


@pytest.mark.parametrize("syntax", CODESTREAMS)
@pytest.mark.parametrize("padding", [b"\xff", b"\0", b"  ", b"\0" * 5000, b"\xff\xff\xff", b"\x12\x34\x56"], ids=repr)
def test_what_follows_the_end_marker_is_padding(syntax: pydicom.uid.UID, padding: bytes) -> None:
    frame = coded(syntax).rstrip(b"\0")
    assert frame.endswith(b"\xff\xd9")
    data = made(radiograph(8), syntax, PixelData=encapsulate([frame + padding]))
    assert np.array_equal(pixels_of(data), pixels_of(made(radiograph(8), syntax)))


@pytest.mark.parametrize("syntax", CODESTREAMS)
@pytest.mark.parametrize("padding", [b"", b"\0", b"\xff", b"  "], ids=repr)
def test_a_stream_that_is_cut_off_is_refused(syntax: pydicom.uid.UID, padding: bytes) -> None:
    frame = coded(syntax)
    for percent in (1, 10, 50, 90, 99):
        with pytest.raises(ImageError, match="is broken"):
            decode(made(radiograph(8), syntax, PixelData=encapsulate([frame[: len(frame) * percent // 100] + padding])))


def box(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    return struct.pack(">I4s", 8 + len(content) if length is None else length, kind) + content


def in_boxes(stream: bytes) -> list[bytes]:
    """Return a codestream in the boxes of a JPEG 2000 file, its length said in each way there is."""
    head = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", box(b"ihdr", bytes(14)))
    extended = struct.pack(">Q", 16 + len(stream)) + stream
    return [
        head + box(b"jp2c", stream),
        head + box(b"jp2c", stream, 0),
        head + box(b"jp2c", extended, 1),
        head + box(b"free", struct.pack(">Q", 18) + b"ab", 1) + box(b"jp2c", stream) + box(b"xml ", b"\xff\xd9"),
    ]


@pytest.mark.parametrize("number", range(4))
def test_jpeg_2000_may_be_in_boxes(number: int) -> None:
    boxes = in_boxes(coded(JPEG2000Lossless))[number]
    data = made(radiograph(8), JPEG2000Lossless, PixelData=encapsulate([boxes]))
    assert np.array_equal(pixels_of(data), to_8_bit(radiograph(8), 0, 255))


@pytest.mark.parametrize(
    "boxes",
    [
        box(b"jP  ", b"\r\n\x87\n"),
        box(b"jP  ", b"\r\n\x87\n") + box(b"free", bytes(8), 1),
        box(b"jP  ", b"\r\n\x87\n") + box(b"free", b"", 4) * 9,
        box(b"jP  ", b"\r\n\x87\n") + box(b"free", b"") * 1_000_000,
        box(b"jP  ", b"\r\n\x87\n") + box(b"free", struct.pack(">Q", 2**63), 1),
    ],
    ids=["nothing else", "an endless loop", "too short", "a million", "beyond the end"],
)
def test_boxes_without_a_codestream_are_refused(boxes: bytes) -> None:
    with pytest.raises(ImageError, match="is broken"):
        decode(made(radiograph(8), JPEG2000Lossless, PixelData=encapsulate([boxes])))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1])
def test_fragments_may_be_wrong(syntax: pydicom.uid.UID) -> None:
    frame = coded(syntax)
    expected = pixels_of(made(radiograph(8), syntax))
    half = len(frame) // 2 | 1
    variants = {
        "no delimiter": item(b"") + item(frame),
        "a wrong table": item(b"\1\2\3\4" * 9) + item(frame) + SEQUENCE_END,
        "no table": item(frame) + SEQUENCE_END,
        "odd lengths": item(b"") + item(frame[:half]) + item(frame[half:]) + SEQUENCE_END,
        "the last too long": item(b"") + item(frame, len(frame) + 1000) + SEQUENCE_END,
        "the last too short": item(b"") + item(frame, half) + SEQUENCE_END,
        "the last without length": item(b"") + item(frame, 2**32 - 1) + SEQUENCE_END,
        "more elements": item(b"") + item(frame) + SEQUENCE_END + b"\xfc\xff\xfc\xffOB\0\0\4\0\0\0\0\0\0\0",
    }
    for name, pixels in variants.items():
        assert np.array_equal(pixels_of(in_fragments(syntax, pixels)), expected), name


@pytest.mark.parametrize(
    ("syntax", "said"),
    [(RLELossless, RLELossless), (JPEGLSLossless, JPEGBaseline8Bit), (JPEGLSLossless, ExplicitVRLittleEndian)],
)
def test_compressed_pixels_may_have_a_length(syntax: pydicom.uid.UID, said: pydicom.uid.UID) -> None:
    data, frame = made(radiograph(8), syntax), coded(syntax)
    head = beginning_of(said) + data_set_of(data)
    head = head[: head.index(b"\xe0\x7f\x10\0OB") + 8]
    for pixels in (item(b"") + item(frame), frame if syntax == JPEGLSLossless else item(frame)):
        assert np.array_equal(pixels_of(head + struct.pack("<I", len(pixels)) + pixels), pixels_of(data))


def test_pixels_that_begin_like_a_compressed_image_are_pixels() -> None:
    for begin in (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\xfe\xff\0\xe0"):
        pixels = begin + radiograph(8).tobytes()[len(begin) :]
        shown = pixels_of(made(radiograph(8), PixelData=pixels, **WINDOW | {"WindowCenter": 128, "WindowWidth": 256}))
        assert np.array_equal(shown.reshape(-1), np.frombuffer(pixels, np.uint8))


def test_jpeg_2000_may_lack_its_end_marker() -> None:
    frame = coded(JPEG2000Lossless).rstrip(b"\0")
    data = made(radiograph(8), JPEG2000Lossless, PixelData=encapsulate([frame[:-2]]))
    assert np.array_equal(pixels_of(data), pixels_of(made(radiograph(8))))


def test_of_elements_given_twice_the_first_counts() -> None:
    data = made(radiograph(12), bits=12, **WINDOW)
    window = b"\x28\0\x50\x10DS\2\x001 "
    pixels = b"\xe0\x7f\x10\0OW\0\0\4\0\0\0\0\0\0\0"
    place = data.index(b"\xe0\x7f\x10\0")
    assert np.array_equal(pixels_of(data[:place] + window + data[place:] + pixels + window), pixels_of(data))


@pytest.mark.parametrize("kind", [b"OB", b"OW"])
def test_compressed_icons_are_passed_over(kind: bytes) -> None:
    data = made(radiograph(12), bits=12, **WINDOW)
    undefined = b"\0\0\xff\xff\xff\xff"
    fragments = item(b"") + item(b"\xff\xd8 any bytes at all") + SEQUENCE_END
    private = b"\x09\0\x10\x10" + kind + undefined + fragments
    inside = item(b"\x28\0\x10\0US\2\0\1\0\xe0\x7f\x10\0" + kind + undefined + fragments + END, 2**32 - 1)
    icon = b"\x88\0\0\2SQ" + undefined + inside + SEQUENCE_END
    place = data.index(b"\x28\0\x02\0")
    for element in (private, icon, private + icon):
        assert np.array_equal(pixels_of(data[:place] + element + data[place:]), pixels_of(data))


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_pixels_may_be_padded(syntax: pydicom.uid.UID) -> None:
    expected = pixels_of(made(radiograph(8), syntax))
    for padding in (b"\0", b"\0\0", bytes(1000)):
        pixels = radiograph(8).tobytes() + padding
        assert np.array_equal(pixels_of(made(radiograph(8), syntax, PixelData=pixels)), expected)


def test_elements_may_be_out_of_order() -> None:
    data = made(radiograph(12), bits=12, RescaleSlope="2", RescaleIntercept="-7", **WINDOW)
    begin, pixels = data.index(b"\x28\0\x02\0US"), data.index(b"\xe0\x7f\x10\0OW")
    head, layout, image = data[:begin], data[begin:pixels], data[pixels:]
    assert np.array_equal(pixels_of(head + image + layout), pixels_of(data))
    assert np.array_equal(pixels_of(layout + head[132:] + image), pixels_of(data))
    assert np.array_equal(pixels_of(head + layout + image + bytes(2**20)), pixels_of(data))


@pytest.mark.parametrize("syntax", UNCOMPRESSED[:2])
@pytest.mark.parametrize("stray", [END, SEQUENCE_END, END * 3, SEQUENCE_END + END, item(b"")])
def test_stray_delimiters_are_skipped(syntax: pydicom.uid.UID, stray: bytes) -> None:
    data = made(radiograph(12), syntax, 12, **WINDOW)
    for tag in (b"\x10\0\x10\0", b"\x28\0\x02\0", b"\x28\0\x50\x10", b"\xe0\x7f\x10\0"):
        place = data.index(tag)
        assert np.array_equal(pixels_of(data[:place] + stray + data[place:]), pixels_of(data))


@pytest.mark.parametrize("syntax", UNCOMPRESSED[:2])
@pytest.mark.parametrize(
    "content",
    [
        item(b"", 2**32 - 1) + END + SEQUENCE_END,
        item(b"", 2**32 - 1) + SEQUENCE_END,
        item(b"", 2**32 - 1) + END,
        item(b"") + item(b"", 2**32 - 1) + END,
        item(b"", 2**32 - 1) + item(b"", 2**32 - 1) + END + SEQUENCE_END,
        b"",
    ],
    ids=["as it should", "no end of the item", "no end", "two, no end", "an item in an item", "nothing"],
)
def test_a_sequence_without_length_may_end_otherwise(syntax: pydicom.uid.UID, content: bytes) -> None:
    data = made(radiograph(12), syntax, 12, **WINDOW)
    place = data.index(b"\x28\0\x02\0")
    kind = b"\xff\xff\xff\xff" if syntax == ImplicitVRLittleEndian else b"SQ\0\0\xff\xff\xff\xff"
    unknown = b"\xff\xff\xff\xff" if syntax == ImplicitVRLittleEndian else b"UN\0\0\xff\xff\xff\xff"
    for sequence in (b"\x08\0\x40\x11" + kind, b"\x09\0\x10\x10" + unknown):
        written = data[:place] + sequence + content + data[place:]
        assert np.array_equal(pixels_of(written), pixels_of(data))


def test_an_explicit_file_may_have_implicit_elements() -> None:
    data = made(radiograph(12), bits=12, **WINDOW)
    place = data.index(b"\x28\0\x50\x10DS")
    written = data[: place + 4] + data[place + 6 : place + 8] + b"\0\0" + data[place + 8 :]
    assert np.array_equal(pixels_of(written), pixels_of(data))


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, RLELossless, JPEGLSLossless])
def test_what_a_header_leaves_out_is_what_viewers_assume(syntax: pydicom.uid.UID) -> None:
    missing: dict[str, Any] = dict.fromkeys(("BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"))
    empty: dict[str, Any] = {**dict.fromkeys(missing, ""), "NumberOfFrames": ""}
    for pixels in (radiograph(8), radiograph(16)):
        expected = pixels_of(made(pixels, syntax, **WINDOW))
        assert np.array_equal(pixels_of(made(pixels, syntax, **WINDOW, **missing)), expected)
        assert np.array_equal(pixels_of(made(pixels, syntax, **WINDOW, **empty)), expected)
    assert np.array_equal(pixels_of(made(colors(), syntax, **missing)), colors())


@pytest.mark.parametrize("highest", [0, 3, 10, 16, 255])
@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, RLELossless, JPEGLSLossless])
def test_an_impossible_highest_bit_is_the_usual_one(highest: int, syntax: pydicom.uid.UID) -> None:
    expected = pixels_of(made(radiograph(12), syntax, 12))
    assert np.array_equal(pixels_of(made(radiograph(12), syntax, 12, HighBit=highest)), expected)


def test_a_number_of_frames_may_have_spaces() -> None:
    data = made(radiograph(8), NumberOfFrames="1 ")
    assert np.array_equal(pixels_of(data), pixels_of(made(radiograph(8))))


@pytest.mark.parametrize(
    ("elements", "error", "sentence"),
    [
        ({"NumberOfFrames": 2}, UnsupportedImageError, "several frames"),
        ({"PixelData": None}, UnsupportedImageError, "holds no image"),
        ({"Rows": None}, UnsupportedImageError, "holds no image"),
        ({"BitsAllocated": 32}, UnsupportedImageError, "unsupported kind of pixels, 1 x 32 bits of MONOCHROME2"),
        ({"BitsAllocated": 1}, UnsupportedImageError, "unsupported kind of pixels, 1 x 1 bits of MONOCHROME2"),
        ({"PhotometricInterpretation": "HSV"}, UnsupportedImageError, "1 x 16 bits of HSV: send MONOCHROME2"),
        ({"PhotometricInterpretation": "DOE^JANE"}, UnsupportedImageError, "bits with an unknown photometric"),
        ({"PhotometricInterpretation": ""}, UnsupportedImageError, "bits with no photometric interpretation"),
        ({"SamplesPerPixel": 4}, UnsupportedImageError, "unsupported kind of pixels, 4 x 16 bits of MONOCHROME2"),
        ({"Rows": 60_000, "Columns": 60_000}, ImageTooLargeError, "60000 x 60000 pixels"),
        ({"Rows": 0}, ImageError, "is broken"),
        ({"BitsStored": 17}, ImageError, "is broken"),
        ({"BitsStored": 0}, ImageError, "is broken"),
        ({"PhotometricInterpretation": None}, ImageError, "is broken"),
        ({"Rows": ROWS + 1}, ImageError, "is broken"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(
    elements: dict[str, Any], error: type[ImageError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence) as caught:
        decode(made(radiograph(12), bits=12, **elements))
    assert caught.type is error
    assert caught.value.__cause__ is None


def test_a_report_is_no_image() -> None:
    with pytest.raises(UnsupportedImageError, match="holds no image"):
        decode(made(None, Modality="SR"))
