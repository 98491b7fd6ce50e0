"""JPEG: the pixels equal Pillow's, what is damaged is noticed, and what only looks odd is read."""

import io
import math
import struct
import sys
from random import Random

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageChops, ImageOps

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.depth import to_8_bits
from pneumonia.imaging.kinds import BROKEN
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.images import encoded

RADIOGRAPH = draw_radiograph(Random(0), "PNEUMONIA", 512)
COLORED = Image.merge("RGB", [RADIOGRAPH, RADIOGRAPH.rotate(4), RADIOGRAPH.rotate(9)])
START, END, SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"

PICTURES: list[tuple[str, Image.Image, dict[str, object]]] = [
    ("gray", RADIOGRAPH, {}),
    ("gray of high quality", RADIOGRAPH, {"quality": 98}),
    ("gray with optimised codes", RADIOGRAPH, {"optimize": True}),
    ("gray with a restart marker after each row", RADIOGRAPH, {"restart_marker_rows": 1}),
    ("gray with a restart marker after three rows", RADIOGRAPH, {"restart_marker_rows": 3}),
    ("4:4:4", COLORED, {"subsampling": "4:4:4"}),
    ("4:2:2", COLORED, {"subsampling": "4:2:2"}),
    ("4:2:0", COLORED, {"subsampling": "4:2:0"}),
    ("4:2:0 with a restart marker after each row", COLORED, {"subsampling": "4:2:0", "restart_marker_rows": 1}),
    ("4:2:0 with restart markers within rows", COLORED, {"subsampling": "4:2:0", "restart_marker_blocks": 7}),
    ("RGB", COLORED, {"keep_rgb": True}),
    ("CMYK", COLORED.convert("CMYK"), {}),
]
WHOLE = {
    f"{name}{', progressive' if progressive else ''}": encoded(image, "JPEG", progressive=progressive, **options)
    for progressive in (False, True)
    for name, image, options in PICTURES
}


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2] + END


def zeros_inside(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(4096) + data[middle + 4096 :]


def chunk_removed(data: bytes) -> bytes:
    third = len(data) // 3  # losing as much of the last bits of a progressive file, in the middle, can go unnoticed
    return data[:third] + data[third + 1000 :]


def chunk_repeated(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + data[middle - 1000 :]


def end_missing(data: bytes) -> bytes:
    return data[:-200] + END


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_the_pixels_equal_pillows_bit_for_bit(data: bytes) -> None:
    expected = Image.open(io.BytesIO(data))
    image = decode(data).image
    assert image.mode == ("L" if expected.mode == "L" else "RGB")
    assert image.tobytes() == expected.convert(image.mode).tobytes()


@pytest.mark.parametrize("damage", [cut, zeros_inside, chunk_removed, chunk_repeated, end_missing])
@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_damage_is_noticed(data: bytes, damage: object) -> None:
    assert callable(damage)
    with pytest.raises(ImageError) as caught:
        decode(damage(data))
    assert str(caught.value) == BROKEN


@pytest.mark.parametrize("image", [RADIOGRAPH, COLORED])
def test_a_progressive_file_that_ends_between_two_scans_is_damaged(image: Image.Image) -> None:
    data = encoded(image, "JPEG", progressive=True)
    scans = [at for at in range(len(data)) if data.startswith(SCAN, at)]
    assert len(scans) > 5
    for at in scans[1:]:
        end = data.rindex(b"\xff\xc4", 0, at) if b"\xff\xc4" in data[at - 100 : at] else at
        with pytest.raises(ImageError, match="is broken"):
            decode(data[:end] + END)


def in_scans_of_their_own(*channels: int, across: int) -> bytes:
    """Return a baseline YCbCr file in which each channel has its own scan, so coded as the scan of a gray file.

    Args:
        channels: those that have one: 0 is Y.
        across: how many pixels of Y stand beside one of Cb and Cr.
    """
    small = RADIOGRAPH.resize((math.ceil(RADIOGRAPH.width / across), RADIOGRAPH.height))
    coded = [encoded(image, "JPEG") for image in (RADIOGRAPH, small, small)]
    start, scan = coded[0].index(b"\xff\xc0"), coded[0].index(b"\xff\xc4")
    sampled = bytes([0, across << 4 | 1, 0, 1, 0x11, 0, 2, 0x11, 0])
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, *RADIOGRAPH.size[::-1], 3) + sampled
    data = [coded[channel][coded[channel].index(SCAN) + 10 : -2] for channel in channels]
    headers = [SCAN + b"\0\x08\1" + bytes([channel, 0, 0, 63, 0]) for channel in channels]
    tables = coded[0][scan : coded[0].index(SCAN)]
    return coded[0][:start] + frame + tables + b"".join(map(bytes.__add__, headers, data)) + END


@pytest.mark.parametrize("across", [1, 2, 3, 4])
def test_channels_in_scans_of_their_own_are_read(across: int) -> None:
    data = in_scans_of_their_own(0, 1, 2, across=across)
    assert decode(data).image.tobytes() == Image.open(io.BytesIO(data)).tobytes()


@pytest.mark.parametrize("channels", [(0,), (0, 1), (0, 2), (1, 2)])
def test_a_file_without_the_scan_of_one_channel_is_damaged(channels: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="is broken"):
        decode(in_scans_of_their_own(*channels, across=1))


@pytest.mark.parametrize(
    "after", [SCAN * 1_000_000, bytes(8_000_000), WHOLE["4:2:0"], b"\xff" * 1_000_000, b"MakerNote" * 100_000]
)
@pytest.mark.parametrize("name", ["gray", "gray, progressive"])
def test_what_follows_the_end_does_not_count(name: str, after: bytes) -> None:
    assert decode(WHOLE[name] + after).image.tobytes() == decode(WHOLE[name]).image.tobytes()


def with_segments(data: bytes, *contents: bytes) -> bytes:
    """Return a file with these application segments after its first two bytes."""
    return START + b"".join(b"\xff\xe3" + struct.pack(">H", 2 + len(one)) + one for one in contents) + data[2:]


@pytest.mark.parametrize("name", ["gray", "gray, progressive"])
def test_thumbnails_in_metadata_are_no_scans(name: str) -> None:
    thumbnail = encoded(RADIOGRAPH.resize((64, 64)), "JPEG", progressive=True)
    data = with_segments(WHOLE[name], *[thumbnail] * 50)
    assert data.count(SCAN) > 100
    assert decode(data).image.tobytes() == decode(WHOLE[name]).image.tobytes()


def test_endless_scans_are_refused_before_anything_is_decoded() -> None:
    data = WHOLE["gray, progressive"]
    last = data[data.rindex(SCAN) : -2]
    with pytest.raises(ImageTooLargeError, match="more than 100 JPEG scans"):
        decode(data[:-2] + last * 100 + END)


@pytest.mark.parametrize("count", [10_000, 5_000_000])
def test_endless_segments_are_refused(count: int) -> None:
    with pytest.raises(ImageTooLargeError, match="more than 10,000 JPEG segments"):
        decode(START + b"\xff\xe3\0\2" * count + WHOLE["gray"][2:])


@pytest.mark.parametrize("filling", [b"\xff", b"\0", b"\xff\0", b"\xff\x01", b"\xff\xd0"])
def test_endless_filling_before_a_marker_is_refused(filling: bytes) -> None:
    data = START + b"\xff\xe3\0\2" + filling * (19_000_000 // len(filling)) + WHOLE["gray"][2:]
    with pytest.raises(ImageError, match="is broken"):
        decode(data)


def test_a_few_fill_bytes_before_each_marker_are_read() -> None:
    data = START + b"\xff" * 20 + WHOLE["gray"][2:-2] + b"\xff" * 20 + END
    assert decode(data).image.tobytes() == decode(WHOLE["gray"]).image.tobytes()


def odd_revision(data: bytes) -> bytes:
    return data.replace(b"JFIF\0\1", b"JFIF\0\3")


def odd_scan_parameters(data: bytes) -> bytes:
    at = data.index(SCAN) + 7
    return data[:at] + bytes(3) + data[at + 3 :]


def odd_transform(data: bytes) -> bytes:
    return START + b"\xff\xee\0\x0eAdobe" + bytes([0, 100, 0, 0, 0, 0, 7]) + data[2:]


@pytest.mark.parametrize("oddity", [odd_revision, odd_scan_parameters, odd_transform])
def test_what_libjpeg_warns_of_without_damage_is_read(oddity: object) -> None:
    assert callable(oddity)
    data = WHOLE["gray"]
    assert oddity(data) != data
    assert decode(oddity(data)).image.tobytes() == decode(data).image.tobytes()


DEEP = np.asarray(RADIOGRAPH).astype(np.uint16) * 16
RGB = np.asarray(COLORED)
UNREAD = {
    "12-bit JPEG": bytes(imagecodecs.jpeg8_encode(RGB.astype(np.uint16) * 16, bitspersample=12)),
    "Lossless JPEG of 3 channels": bytes(imagecodecs.jpeg8_encode(RGB, lossless=True)),
    "JPEG-LS": bytes(imagecodecs.jpegls_encode(DEEP)),
    "Arithmetically coded JPEG": WHOLE["gray"].replace(b"\xff\xc0", b"\xff\xc9"),
    "Hierarchical JPEG": WHOLE["gray"].replace(b"\xff\xc0", b"\xff\xc5"),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_kinds_that_are_not_read_are_named(kind: str) -> None:
    with pytest.raises(UnsupportedImageError, match=f"^{kind} files are not read: save"):
        decode(UNREAD[kind])


NOISY = DEEP + np.random.default_rng(0).integers(0, 16, DEEP.shape).astype(np.uint16)
READ_BY_IMAGECODECS = {
    "12-bit": bytes(imagecodecs.jpeg8_encode(NOISY, bitspersample=12, level=95)),
    "lossless of 8 bits": bytes(imagecodecs.jpeg8_encode(np.asarray(RADIOGRAPH), lossless=True, predictor=1)),
    "lossless of 12 bits": bytes(imagecodecs.ljpeg_encode(NOISY)),
    "lossless of 16 bits": bytes(imagecodecs.jpeg8_encode(NOISY * 16, lossless=True, bitspersample=16, predictor=7)),
}


@pytest.mark.parametrize("data", READ_BY_IMAGECODECS.values(), ids=READ_BY_IMAGECODECS)
def test_deep_and_lossless_gray_is_read(data: bytes) -> None:
    values = imagecodecs.jpeg8_decode(data)
    expected = values if values.dtype == np.uint8 else to_8_bits(values)
    assert np.array_equal(np.asarray(decode(data).image), expected)


@pytest.mark.parametrize("damage", [cut, zeros_inside, chunk_removed, chunk_repeated])
@pytest.mark.parametrize("data", READ_BY_IMAGECODECS.values(), ids=READ_BY_IMAGECODECS)
def test_damage_of_deep_and_lossless_gray_is_noticed(data: bytes, damage: object) -> None:
    assert callable(damage)
    with pytest.raises(ImageError, match="is broken"):
        decode(damage(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_and_lossless_gray_is_turned_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    segment = exif.tobytes()
    data = READ_BY_IMAGECODECS["lossless of 8 bits"]
    data = START + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + data[2:]
    expected = Image.open(io.BytesIO(encoded(RADIOGRAPH, "PNG", exif=exif)))
    assert decode(data).image.tobytes() == ImageOps.exif_transpose(expected).tobytes()


def twice(data: bytes, length: int) -> bytes:
    """Return a gray JPEG that shows another one twice, below each other, in an interval of so many units each."""
    frame, scan = data.index(b"\xff\xc3"), data.index(SCAN) + 10
    (height,) = struct.unpack_from(">H", data, frame + 5)
    head = data[: frame + 5] + struct.pack(">H", 2 * height) + data[frame + 7 : scan]
    interval = b"\xff\xdd" + struct.pack(">HH", 4, length)
    return head[:2] + interval + head[2:] + data[scan:-2] + b"\xff\xd0" + data[scan:-2] + END


def test_damage_in_each_restart_interval_of_lossless_gray_is_noticed() -> None:
    small = np.asarray(RADIOGRAPH.resize((200, 100)))
    one = bytes(imagecodecs.jpeg8_encode(small, lossless=True, predictor=1))
    data = twice(one, small.size)
    assert np.array_equal(np.asarray(decode(data).image), np.concatenate([small, small]))
    for middle in (len(data) // 4, len(data) * 3 // 4):
        with pytest.raises(ImageError, match="is broken"):
            decode(data[:middle] + data[middle + 100 :])


@pytest.mark.parametrize("kind", [0xC1, 0xC3])
def test_a_deep_jpeg_of_other_size_than_its_pixels_is_damaged(kind: int) -> None:
    data = READ_BY_IMAGECODECS["12-bit" if kind == 0xC1 else "lossless of 16 bits"]
    at = data.index(bytes([0xFF, kind])) + 5
    with pytest.raises(ImageError, match="is broken"):
        decode(data[:at] + struct.pack(">HH", 600, 600) + data[at + 4 :])
    with pytest.raises(ImageTooLargeError):
        decode(data[:at] + struct.pack(">HH", 60_000, 60_000) + data[at + 4 :])


LENGTHS = struct.pack(">HH", *RADIOGRAPH.size)


def test_two_channels_are_not_read() -> None:
    with pytest.raises(UnsupportedImageError, match=r"^JPEG files of 2 channels are not read"):
        decode(WHOLE["4:4:4"].replace(b"\0\x11\x08" + LENGTHS + b"\3", b"\0\x11\x08" + LENGTHS + b"\2"))


def test_training_without_simplejpeg_decodes_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode(WHOLE["4:2:0"]).image
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    image = decode(WHOLE["4:2:0"]).image
    assert ImageChops.difference(image, expected).getbbox() is None
    with pytest.raises(ImageError, match="is broken"):
        decode(cut(WHOLE["4:2:0"]))
    assert decode(cut(WHOLE["gray, progressive"])[:-2] + WHOLE["gray, progressive"][-500:]).image.size == expected.size
