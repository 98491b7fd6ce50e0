"""Damaged PNG, TIFF, WebP and BMP files are noticed, where the format lets a reader know. JPEG has tests of its own."""

import math
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from random import Random

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.kinds import BROKEN
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.dicom_files import ENCODERS, dicom
from tests.builders.images import chunk, encoded
from tests.builders.tiff_files import tiff

RADIOGRAPH = Image.blend(
    draw_radiograph(Random(0), "PNEUMONIA", 512), Image.effect_noise((512, 512), 60), 0.1
)  # drawn ones are smoother than real ones, and a PNG of them is much smaller
COLORED = Image.merge("RGB", [RADIOGRAPH, RADIOGRAPH.rotate(4), RADIOGRAPH.rotate(9)])
DEEP = np.asarray(RADIOGRAPH).astype(np.uint16) * 16 + np.arange(512, dtype=np.uint16) % 16
DEEP_COLORED = np.stack([DEEP, DEEP.T, DEEP], axis=-1)

PNG = {
    "gray PNG": encoded(RADIOGRAPH, "PNG"),
    "stored PNG": encoded(RADIOGRAPH, "PNG", compress_level=0),
    "colored PNG": encoded(COLORED, "PNG"),
    "16-bit PNG": encoded(Image.fromarray(DEEP), "PNG"),
    "16-bit colored PNG": bytes(imagecodecs.png_encode(DEEP_COLORED)),
}
JPEG_TIFF = {  # in several strips, with tables that they share
    "JPEG in a TIFF": encoded(RADIOGRAPH, "TIFF", compression="jpeg", quality=90),
    "colored JPEG in a TIFF": encoded(COLORED, "TIFF", compression="jpeg", quality=90),
}
DEFLATE_TIFF = {
    "Deflate TIFF": encoded(RADIOGRAPH, "TIFF", compression="tiff_adobe_deflate"),
    "old Deflate TIFF": encoded(RADIOGRAPH, "TIFF", compression="tiff_deflate"),
    "16-bit Deflate TIFF": tiff(DEEP, 8),
    "signed Deflate TIFF": tiff(DEEP.astype(np.int16), 8),
    "16-bit colored Deflate TIFF": tiff(DEEP_COLORED, 8),
    "big-endian Deflate BigTIFF": tiff(DEEP.astype(">u2"), 8, is_big=True),
    "Deflate TIFF of planes": tiff(DEEP_COLORED, 8, is_separate=True),
    "Deflate TIFF of tiles": tiff(np.asarray(RADIOGRAPH), 8, tile=128),
    "signed Deflate TIFF of tiles": tiff(DEEP.astype(np.int16), 8, tile=256),
}
LZW_TIFF = {
    "LZW TIFF": encoded(RADIOGRAPH, "TIFF", compression="tiff_lzw"),
    "signed LZW TIFF": tiff(DEEP.astype(np.int16), 5),
    "LZW TIFF of tiles": tiff(DEEP, 5, tile=128),
}
PACKBITS_TIFF = {
    "PackBits TIFF": encoded(RADIOGRAPH, "TIFF", compression="packbits"),
    "signed PackBits TIFF": tiff(DEEP.astype(np.int16), 32773),
}
STORED = {
    "TIFF": encoded(RADIOGRAPH, "TIFF"),
    "signed TIFF": tiff(DEEP.astype(np.int16)),
    "BMP": encoded(RADIOGRAPH, "BMP"),
    "colored BMP": encoded(COLORED, "BMP"),
}
WEBP = {
    "WebP": encoded(COLORED, "WEBP", quality=95),
    "lossless WebP": encoded(COLORED, "WEBP", lossless=True),
}
WITH_CHECKSUMS = PNG | DEFLATE_TIFF
ALL = WITH_CHECKSUMS | JPEG_TIFF | LZW_TIFF | PACKBITS_TIFF | STORED | WEBP
MIDDLE = 0.6  # of a file, among its pixels

Damage = Callable[[bytes, int], bytes]


def whole(data: bytes, at: int) -> bytes:  # noqa: ARG001
    return data


def cut(data: bytes, at: int) -> bytes:
    return data[:at]


def removed(data: bytes, at: int) -> bytes:
    return data[:at] + data[at + 1000 :]


def zeros(data: bytes, at: int) -> bytes:
    return data[:at] + bytes(4096) + data[at + 4096 :]


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes(byte ^ 0x5A for byte in data[at : at + 100]) + data[at + 100 :]


def one_changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :]


def assert_noticed(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert str(caught.value) == BROKEN


def kinds(files: dict[str, bytes]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("data", files.values(), ids=files)


@kinds(ALL)
def test_whole_files_are_read(data: bytes) -> None:
    assert decode(data).image.size == RADIOGRAPH.size


@pytest.mark.parametrize("damage", [cut, removed])
@kinds(ALL)
def test_missing_bytes_are_noticed(data: bytes, damage: Damage) -> None:
    with pytest.raises(ImageError):  # of a TIFF, also that its directory, at the end, is not found
        decode(damage(data, int(MIDDLE * len(data))))


@pytest.mark.parametrize("damage", [zeros, changed])
@kinds(WITH_CHECKSUMS | JPEG_TIFF)
def test_other_bytes_are_noticed(data: bytes, damage: Damage) -> None:
    assert_noticed(damage(data, int(MIDDLE * len(data))))


@pytest.mark.parametrize("place", [0.2, 0.4, 0.5, 0.6, 0.8])
@kinds(WITH_CHECKSUMS)
def test_one_other_byte_is_noticed_by_a_checksum(data: bytes, place: float) -> None:
    assert_noticed(one_changed(data, int(place * len(data))))


@pytest.mark.parametrize("damage", [zeros, changed])
@kinds(LZW_TIFF)
def test_other_bytes_among_the_codes_of_a_tiff_are_noticed(data: bytes, damage: Damage) -> None:
    assert_noticed(damage(data, int(MIDDLE * len(data))))


def png_chunks(data: bytes) -> list[bytes]:
    found, at = [], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at:end])
        at = end
    return found


@pytest.mark.parametrize("name", ["stored PNG", "colored PNG", "16-bit colored PNG"])
def test_a_png_without_one_of_its_chunks_is_noticed(name: str) -> None:
    chunks = png_chunks(PNG[name])
    pixels = [number for number, chunk in enumerate(chunks) if chunk[4:8] == b"IDAT"]
    assert len(pixels) > 2
    for missing in pixels:
        assert_noticed(PNG[name][:8] + b"".join(chunks[:missing] + chunks[missing + 1 :]))


@kinds(PNG)
def test_a_png_without_its_pixels_is_noticed(data: bytes) -> None:
    assert_noticed(data[:8] + b"".join(chunk for chunk in png_chunks(data) if chunk[4:8] != b"IDAT"))


@pytest.mark.parametrize("name", ["gray PNG", "stored PNG", "16-bit PNG"])
def test_a_png_whose_end_is_missing_has_all_of_its_pixels(name: str) -> None:
    assert decode(PNG[name][:-12]).image.tobytes() == decode(PNG[name]).image.tobytes()


# Channels and bits of each, by the number that a PNG has for its colours.
PNG_COLORS = [(0, 1, 1), (0, 1, 8), (0, 1, 16), (2, 3, 8), (2, 3, 16), (3, 1, 4), (4, 2, 8), (4, 2, 16), (6, 4, 8)]


def png(kind: int, channels: int, bits: int, rows: int, *, is_interlaced: bool, width: int = 13) -> bytes:
    """Return a PNG of noise above black with the first `rows` rows of 20; of passes, where it is interlaced."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    sides = [(len(range(x, width, dx)), len(range(y, 20, dy))) for x, y, dx, dy in passes if x < width]
    lengths = [
        1 + math.ceil(columns * channels * bits / 8)
        for columns, count in (sides if is_interlaced else [(width, 20)])
        for _ in range(count)
    ]
    noise = Random(0)
    lines = [b"\0" + noise.randbytes(length - 1) for length in lengths[:-1]] + [bytes(lengths[-1])]
    palette = chunk(b"PLTE", bytes(range(48))) if kind == 3 else b""
    head = struct.pack(">IIBBBBB", width, 20, bits, kind, 0, 0, is_interlaced)
    pixels = chunk(b"IDAT", zlib.compress(b"".join(lines[: rows if rows >= 0 else len(lines) + rows])))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + pixels + chunk(b"IEND")


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("color", PNG_COLORS)
@pytest.mark.parametrize("width", [1, 2, 13])
def test_a_png_that_lacks_rows_is_noticed(color: tuple[int, int, int], width: int, is_interlaced: bool) -> None:  # noqa: FBT001
    assert decode(png(*color, 9999, is_interlaced=is_interlaced, width=width)).image.size == (width, 20)
    for rows in (1, 2, 11, -3, -1):
        assert_noticed(png(*color, rows, is_interlaced=is_interlaced, width=width))


def test_what_follows_the_rows_of_a_png_is_not_unpacked() -> None:
    rows = (b"\0" + bytes(range(64))) * 63
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    packed = packer.compress(rows + bytes(65)) + b"".join(packer.compress(bytes(2**24)) for _ in range(30))
    tracemalloc.start()
    decode(head + chunk(b"IDAT", packed + packer.flush()) + chunk(b"IEND"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000  # not 500 MB
    many = b"".join([chunk(b"IDAT", zlib.compress(rows)), *[chunk(b"IDAT", bytes(300))] * 60_000])
    assert_noticed(head + many + chunk(b"IEND"))


def with_field(data: bytes, tag: int, number: int) -> bytes:
    """Return a little-endian TIFF in which a field of one value has another."""
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    places = range(directory + 2, directory + 2 + 12 * count, 12)
    place = next(at for at in places if struct.unpack_from("<H", data, at) == (tag,))
    return data[: place + 8] + struct.pack("<I", number) + data[place + 12 :]


ONE_COMPRESSED_STRIP = {
    "LZW TIFF": tiff(DEEP, 5),
    "Deflate TIFF": tiff(DEEP, 8),
    "signed Deflate TIFF": tiff(DEEP.astype(np.int16), 8),
    "PackBits TIFF": tiff(DEEP, 32773),
}
ONE_STRIP = ONE_COMPRESSED_STRIP | {
    "TIFF": tiff(np.asarray(RADIOGRAPH)),
    "16-bit TIFF": tiff(DEEP),
    "signed TIFF": tiff(DEEP.astype(np.int16)),
}


@pytest.mark.parametrize("name", ONE_COMPRESSED_STRIP)
@pytest.mark.parametrize("length", [10, 20_000])
def test_a_compressed_strip_that_is_too_short_is_noticed(name: str, length: int) -> None:
    assert_noticed(with_field(ONE_STRIP[name], 279, length))


@pytest.mark.parametrize(("name", "length"), [("TIFF", 10), ("signed TIFF", 10), *[(name, 0) for name in ONE_STRIP]])
def test_a_length_that_libtiff_does_without_may_be_wrong(name: str, length: int) -> None:
    data = ONE_STRIP[name]
    assert decode(with_field(data, 279, length)).image.tobytes() == decode(data).image.tobytes()


@pytest.mark.parametrize("name", ONE_STRIP)
def test_a_strip_beyond_the_end_of_the_file_is_noticed(name: str) -> None:
    data = ONE_STRIP[name]
    assert_noticed(with_field(data, 273, len(data) - 100))


def test_a_wrong_checksum_of_deflate_is_noticed() -> None:
    packed = zlib.compress(DEEP.tobytes())
    data = tiff(DEEP, 8)
    at = data.index(packed) + len(packed)
    assert_noticed(data[: at - 4] + b"\1\2\3\4" + data[at:])


@pytest.mark.parametrize("data", [WEBP["WebP"], WEBP["lossless WebP"]], ids=["lossy", "lossless"])
@pytest.mark.parametrize("missing", [1, 10, 1000])
def test_a_webp_without_its_last_bytes_is_noticed(data: bytes, missing: int) -> None:
    assert_noticed(data[:-missing])


def in_dicom(syntax: UID, damage: Damage) -> bytes:
    """Return a DICOM file whose codestream is damaged in the middle, but has its end marker."""
    stream = bytes(ENCODERS[syntax](DEEP))
    damaged = damage(stream, len(stream) // 2)
    damaged += b"" if damaged.endswith(b"\xff\xd9") else b"\xff\xd9"
    return dicom(DEEP, syntax, bits=12, PixelData=encapsulate([damaged + bytes(len(damaged) % 2)]))


LOSSLESS = [JPEGLosslessSV1, JPEGLossless]


@pytest.mark.parametrize("damage", [cut, removed, zeros])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLSNearLossless, JPEGExtended12Bit, *LOSSLESS])
def test_damaged_codestreams_in_dicom_are_noticed(syntax: UID, damage: Damage) -> None:
    with pytest.raises(ImageError, match="is broken"):
        decode(in_dicom(syntax, damage))


@pytest.mark.parametrize("damage", [cut, removed])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000])
def test_missing_bytes_of_jpeg_2000_in_dicom_are_noticed(syntax: UID, damage: Damage) -> None:
    with pytest.raises(ImageError, match="is broken"):
        decode(in_dicom(syntax, damage))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGExtended12Bit, *LOSSLESS])
def test_whole_codestreams_in_dicom_are_read(syntax: UID) -> None:
    assert decode(in_dicom(syntax, whole)).image.size == RADIOGRAPH.size


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
@pytest.mark.parametrize("tile", [0, 64])
def test_missing_strips_and_tiles_are_noticed(dtype: str, tile: int) -> None:
    values = np.resize(DEEP, (128, 128)).astype(dtype)
    assert decode(tiff(values, tile=tile)).image.size == (128, 128)
    assert_noticed(tiff(values, fields={257: 256}, tile=tile))
    size = tile * tile * values.itemsize
    assert_noticed(tiff(values, fields={324: [8, 8 + size, 0, 8 + 3 * size]} if tile else {273: 0}, tile=tile))


def in_tiles() -> bytes:
    """Return JPEG 2000 of four tiles."""
    return encoded(RADIOGRAPH, "JPEG2000", no_jp2=True, tile_size=(RADIOGRAPH.width, math.ceil(RADIOGRAPH.height / 4)))


def tile_parts(stream: bytes) -> list[int]:
    """Return where the tile-parts of JPEG 2000 begin, and where the last one ends."""
    starts = [stream.index(b"\xff\x90\0\x0a")]
    while stream[starts[-1] : starts[-1] + 2] == b"\xff\x90":
        starts.append(starts[-1] + int.from_bytes(stream[starts[-1] + 6 : starts[-1] + 10], "big"))
    return starts


@pytest.mark.parametrize("missing", range(4))
def test_missing_tiles_of_jpeg_2000_are_noticed(missing: int) -> None:
    stream, starts = in_tiles(), tile_parts(in_tiles())
    assert len(starts) == 5

    def in_file(code: bytes) -> bytes:
        return dicom(np.asarray(RADIOGRAPH), JPEG2000Lossless, PixelData=encapsulate([code]))

    assert decode(in_file(stream)).image.size == RADIOGRAPH.size
    with pytest.raises(ImageError, match="is broken"):
        decode(in_file(stream[: starts[missing]] + stream[starts[missing + 1] :]))
    two_parts = bytearray(stream)
    two_parts[starts[missing] + 11] = 2  # how many parts the tile has
    with pytest.raises(ImageError, match="is broken"):
        decode(in_file(bytes(two_parts)))
