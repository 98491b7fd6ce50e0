"""TIFF files of every kind of value, byte order and compression, and of several pages."""

import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging.decoding import decode, from_pillow
from tests.builders.images import encoded
from tests.builders.missing_packages import refusal_without
from tests.builders.tiff_files import COMPRESSIONS, Values, tiff

HEIGHT, WIDTH = 60, 50


def radiograph() -> Values:
    """Return a smooth image of values from 0 to 4095, both of which more than a pixel has."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = (np.sin(x / 7) + np.cos(y / 9) + 2) / 4 * 4095
    values: Values = np.clip(smooth.round(), 100, 4000).astype(np.int64)
    values[2:6, 2:6], values[-6:-2, -6:-2] = 0, 4095
    return values


REFERENCE = (radiograph() / 4095 * 255).round().astype(int)


def shown(data: bytes) -> Values:
    return np.asarray(decode(data).image).astype(int)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True], ids=["classic", "BigTIFF"])
@pytest.mark.parametrize("dtype", ["u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"])
def test_values_of_every_type_give_the_same_image(dtype: str, is_big: bool, order: str) -> None:  # noqa: FBT001
    offset = {"i": -2048, "f": -2048, "u": 1000}[dtype[0]]
    values = (radiograph() + offset).astype(order + dtype)
    assert abs(shown(tiff(values, is_big=is_big)) - REFERENCE).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True], ids=["classic", "BigTIFF"])
@pytest.mark.parametrize("samples", [1, 3, 4])
def test_8_bits_stay_as_they_are(samples: int, is_big: bool, order: str) -> None:  # noqa: FBT001
    values = np.clip(np.stack([REFERENCE] * samples, axis=-1).squeeze(), 30, 200).astype(np.uint8)
    expected = values[..., :3] if samples == 4 else values
    assert np.array_equal(shown(tiff(values, is_big=is_big, order=order)), expected)


def test_a_big_endian_bigtiff_is_read_whatever_its_pixels_look_like_as_a_directory() -> None:
    values = np.resize(np.arange(256, dtype=np.uint8), (1000, 1000))  # at the 524,288 that a TIFF's first offset were
    assert np.array_equal(shown(tiff(values, order=">", is_big=True)), values)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("offset", [b"\xff" * 8, b"\x7f" * 8, b"\0\0\0\1" * 2])
def test_a_bigtiff_whose_directory_lies_nowhere_is_called_broken(order: str, offset: bytes) -> None:
    data = tiff(radiograph().astype(f"{order}u2"), is_big=True)
    with pytest.raises(ImageError, match="broken"):
        decode(data[:8] + offset + data[16:])


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i2", "<f4"])
@pytest.mark.parametrize("is_big", [False, True], ids=["classic", "BigTIFF"])
def test_a_tiff_that_is_cut_off_before_its_directory_is_called_broken(dtype: str, is_big: bool) -> None:  # noqa: FBT001
    data = tiff((radiograph() // 16).astype(dtype), is_big=is_big)
    for length in (30, len(data) // 2, len(data) - 320, len(data) - 100):
        with pytest.raises(ImageError, match="The image is broken"):
            decode(data[:length])
    with pytest.raises(ImageError, match="The image is broken"):
        decode(data[: len(data) // 2].ljust(len(data), b"\0"))


def test_8_bits_with_a_sign_are_not_taken_for_unsigned_ones() -> None:
    values = (REFERENCE - 128).astype(np.int8)
    assert abs(shown(tiff(values)) - REFERENCE).max() <= 1


@pytest.mark.parametrize("dtype", ["u4", "f4"])
def test_values_above_two_billion_do_not_wrap(dtype: str) -> None:
    values = (radiograph() * 2.0**20).astype(dtype)
    assert values.max() > 2**31
    assert abs(shown(tiff(values)) - REFERENCE).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "f4"])
def test_compression_changes_nothing(dtype: str, compression: int, order: str) -> None:
    values = radiograph().astype(order + dtype)
    assert abs(shown(tiff(values, compression=compression)) - REFERENCE).max() <= 1


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_fax_codes_are_refused_and_nothing_is_printed(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    whole = encoded(Image.radial_gradient("L").convert("1"), "TIFF", compression=compression)
    for data in (whole, whole[:8] + bytes(range(256)) + whole[264:]):  # libtiff would print a line for each damaged row
        with pytest.raises(UnsupportedImageError, match="fax codes"):
            decode(data)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_separate", [False, True])
def test_colors_and_transparency_of_16_bits(samples: int, order: str, is_separate: bool) -> None:  # noqa: FBT001
    values = np.stack([radiograph()] * samples, axis=-1).astype(order + "u2")
    if samples in {2, 4}:
        values[..., -1] = 65_535
    found = decode(tiff(values, is_separate=is_separate)).image
    assert found.mode == ("L" if samples == 2 else "RGB")
    assert all(abs(np.asarray(band).astype(int) - REFERENCE).max() <= 1 for band in found.split())


@pytest.mark.parametrize("dtype", ["u2", "i2", "f4"])
def test_where_white_is_zero_the_image_is_inverted(dtype: str) -> None:
    data = tiff((4095 - radiograph()).astype(dtype), fields={262: 0})
    assert abs(shown(data) - REFERENCE).max() <= 1


@pytest.mark.parametrize("dtype", ["u2", "i2"])
def test_the_image_is_turned_as_its_orientation_says(dtype: str) -> None:
    data = tiff(np.rot90(radiograph()).astype(dtype), fields={274: 6})
    assert abs(shown(data) - REFERENCE).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    values = radiograph().astype("f4")
    values[1, 1] = value
    with pytest.raises(ImageError, match="infinite or not numbers"):
        decode(tiff(values))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        pytest.param(tiff(radiograph().astype("c8")), "number format with 64 bits", id="complex numbers"),
        pytest.param(tiff(radiograph().astype("f4"), fields={262: 8}), "must be gray or RGB", id="CIE L*a*b*"),
        pytest.param(tiff(np.zeros((9, 9, 4), "u2"), fields={262: 5}), "must be gray or RGB", id="CMYK"),
        pytest.param(tiff(np.zeros((9, 9, 5), "u2"), fields={262: 1}), "must be gray or RGB", id="five samples"),
    ],
)
def test_other_kinds_are_refused_with_a_reason(data: bytes, sentence: str) -> None:
    with pytest.raises(UnsupportedImageError, match=sentence):
        decode(data)


def test_values_that_would_take_too_much_memory_are_refused_before_they_are_decoded() -> None:
    data = tiff(np.zeros((2, 2, 3), "f8"), fields={256: 4000, 257: 4000, 278: 4000})
    with pytest.raises(ImageTooLargeError, match="more than 200,000,000 bytes"):
        decode(data)


@pytest.mark.parametrize("dtype", ["u2", "i2", "f4"])
@pytest.mark.parametrize("compression", [1, 5, 8])
def test_a_truncated_image_is_refused(dtype: str, compression: int) -> None:
    noise = np.random.default_rng(0).integers(0, 4095, (HEIGHT, WIDTH)).astype(dtype)
    data = tiff(noise, compression=compression)
    with pytest.raises(ImageError, match="broken"):
        decode(data[: len(data) * 2 // 3])


def pages(*images: Image.Image, kinds: tuple[int, ...] = ()) -> bytes:
    """Return a TIFF of several pages, with the NewSubfileType of each."""
    infos = []
    for kind in kinds or [0] * len(images):
        info = ImageFileDirectory_v2()
        info[254] = kind
        infos.append(info)
    for image, info in zip(images, infos, strict=True):
        image.encoderinfo = {"tiffinfo": info}
    first, *others = images
    return encoded(first, "TIFF", save_all=True, append_images=others, tiffinfo=infos[0])


FULL = Image.fromarray(REFERENCE.astype(np.uint8))
SMALL = FULL.resize((WIDTH // 2, HEIGHT // 2))
SMALLER = FULL.resize((WIDTH // 5, HEIGHT // 5))
REDUCED, MASK = 1, 4


@pytest.mark.parametrize(
    ("images", "kinds"),
    [
        pytest.param((SMALLER, FULL), (REDUCED, 0), id="a thumbnail first"),
        pytest.param((FULL, SMALLER), (0, REDUCED), id="a thumbnail last"),
        pytest.param((SMALLER, FULL), (0, 0), id="a thumbnail that is not called one"),
        pytest.param((FULL, SMALL, SMALLER), (0, REDUCED, REDUCED), id="a pyramid"),
        pytest.param((SMALLER, SMALL, FULL), (0, 0, 0), id="a pyramid that is not called one"),
        pytest.param((FULL, FULL.point(lambda value: 255 * (value > 9))), (0, MASK), id="a mask"),
        pytest.param((FULL.resize((WIDTH * 2, HEIGHT * 2)), FULL), (REDUCED, 0), id="a larger page that is a copy"),
    ],
)
def test_the_page_that_is_no_copy_counts(images: tuple[Image.Image, ...], kinds: tuple[int, ...]) -> None:
    assert np.array_equal(shown(pages(*images, kinds=kinds)), REFERENCE)


def test_a_page_of_deep_values_after_a_thumbnail_counts() -> None:
    deep = tiff(radiograph().astype("i2"), before=SMALLER)
    assert abs(shown(deep) - REFERENCE).max() <= 1


@pytest.mark.parametrize(
    "images",
    [
        pytest.param((FULL, FULL), id="two of one size"),
        pytest.param((FULL, FULL.resize((WIDTH - 3, HEIGHT))), id="two of about one size"),
        pytest.param((FULL, FULL.resize((WIDTH // 2, HEIGHT // 4))), id="a smaller one of another shape"),
        pytest.param((SMALLER, FULL, FULL), id="two and a thumbnail"),
        pytest.param((FULL, *[SMALLER] * 64), id="very many"),
    ],
)
def test_several_radiographs_in_a_file_are_refused(images: tuple[Image.Image, ...]) -> None:
    with pytest.raises(UnsupportedImageError, match="holds several images"):
        decode(pages(*images))


def test_a_preview_of_an_image_that_no_page_holds_is_refused() -> None:
    data = tiff(radiograph().astype("u2"), fields={254: REDUCED, 330: 8})
    with pytest.raises(UnsupportedImageError, match="only a preview"):
        decode(data)
    assert abs(shown(tiff(radiograph().astype("u2"), fields={254: REDUCED})) - REFERENCE).max() <= 1


def test_pages_that_follow_each_other_in_a_circle_are_read_once() -> None:
    data = bytearray(tiff(radiograph().astype("u2")))
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * count, at)
    assert abs(shown(bytes(data)) - REFERENCE).max() <= 1


@settings(max_examples=200)
@given(
    st.sampled_from(["<u2", ">u2", "<i2", ">i4", "<f4", ">f8", "<u8"]),
    st.booleans(),
    st.sampled_from([1, 5, 8]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    st.data(),
)
def test_broken_bytes_raise_nothing_but_an_image_error(
    dtype: str,
    is_big: bool,  # noqa: FBT001
    compression: int,
    changes: list[tuple[int, int]],
    data: st.DataObject,
) -> None:
    file = bytearray(tiff(radiograph().astype(dtype), compression=compression, is_big=is_big))
    header = len(file) - 320 if data.draw(st.booleans()) else 0  # the fields stand at the end
    for place, value in changes:
        file[(header + place) % len(file)] = value
    try:
        image = decode(bytes(file)).image
    except ImageError:
        return
    assert image.mode in {"L", "RGB"}


@settings(max_examples=100)
@given(
    st.sampled_from(["u2", "i2", "u4", "i4", "f4", "f8"]),
    st.sampled_from(["PNG", "TIFF"]),
    st.integers(1, 4),
    st.floats(0.05, 7.9),
    st.integers(0, 10_000),  # so that 16 bits with a sign hold the values
    st.sampled_from([1, 5, 8]),
)
def test_any_container_and_range_gives_nearly_the_same_image(
    dtype: str, kind: str, samples: int, factor: float, offset: int, compression: int
) -> None:
    values: Any = (radiograph() * factor).round() + offset - (10_000 if dtype[0] in "if" else 0)
    values = np.stack([values] * samples, axis=-1) if samples > 1 else values
    if kind == "PNG":
        data = bytes(imagecodecs.png_encode((values - values.min()).astype("u2")))
    else:
        data = tiff(values.astype(dtype), compression=compression)
    found = np.asarray(decode(data).image.convert("L")).astype(int)
    assert abs(found - REFERENCE).max() <= 1 + 0.5 / factor * 255 / 4095


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_of_an_image_that_pillow_would_narrow_the_file_is_asked_for(samples: int, tmp_path: Path) -> None:
    values = np.ascontiguousarray(np.stack([radiograph()] * samples, axis=-1).astype("u2"))
    path = tmp_path / "xray.png"
    path.write_bytes(imagecodecs.png_encode(values))
    with Image.open(path) as image, pytest.raises(UnsupportedImageError, match="path or its bytes"):
        from_pillow(image)
    assert abs(np.asarray(decode(path.read_bytes()).image.convert("L")) - REFERENCE).max() <= 1


def test_a_png_of_16_bits_and_transparency_is_turned_and_cut() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.rot90(radiograph()).astype("u2")
    plain = bytes(imagecodecs.png_encode(np.ascontiguousarray(np.stack([turned, np.full_like(turned, 9)], axis=-1))))
    small = encoded(Image.new("L", (2, 2)), "PNG", exif=exif)
    start = small.index(b"eXIf") - 4
    chunk = small[start : small.index(b"IDAT") - 4]
    for place in (plain.index(b"IDAT") - 4, plain.index(b"IEND") - 4):
        assert abs(shown(plain[:place] + chunk + plain[place:]) - REFERENCE).max() <= 1
    with pytest.raises(ImageError, match="broken"):
        decode(plain[: len(plain) // 2])


@pytest.mark.processes
def test_where_imagecodecs_is_missing_a_sentence_says_so(tmp_path: Path) -> None:
    path = tmp_path / "xray.tif"
    path.write_bytes(tiff(radiograph().astype("i2")))
    sentence = refusal_without("imagecodecs", path)
    assert sentence.startswith("Reading signed, floating-point, 32-bit or coloured 16-bit images, and lossless or")


@pytest.mark.parametrize("fields", [{259: 9999}, {262: 32803}, {262: 9}], ids=["compression", "filter", "colours"])
def test_a_second_page_that_is_not_read_is_named_like_a_first(fields: dict[int, Any]) -> None:
    pixels = (radiograph() >> 4).astype("u1")
    named = []
    for before in (None, Image.fromarray(pixels).resize((16, 16))):
        with pytest.raises(UnsupportedImageError, match="TIFF files of this kind are not read") as error:
            decode(tiff(pixels, fields=fields, before=before))
        named.append(str(error.value))
    assert named[0] == named[1]


@pytest.mark.parametrize(("compression", "side"), [(5, 15_000), (8, 40_000), (7, 60_000)])
@pytest.mark.parametrize("dtype", ["u1", "i8"])
def test_a_tile_that_takes_gigabytes_is_refused_before_it_is_decoded(compression: int, side: int, dtype: str) -> None:
    values, coded = REFERENCE.astype(dtype), [COMPRESSIONS[5](bytes(1000))]
    data = tiff(values, compression, {278: None, 273: None, 279: None, 322: side, 323: side}, coded=coded)
    with pytest.raises(ImageTooLargeError, match="TIFF tile"):
        decode(data)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
def test_a_tile_may_be_much_larger_than_its_image(dtype: str) -> None:
    tile = np.zeros((1024, 1024), dtype)
    values = (REFERENCE if dtype == "u1" else radiograph()).astype(dtype)
    tile[:HEIGHT, :WIDTH] = values
    data = tiff(values, 8, {278: None, 322: 1024, 323: 1024}, coded=[COMPRESSIONS[8](tile.tobytes())])
    assert abs(shown(data) - REFERENCE).max() <= 1


def test_many_tiles_that_are_much_larger_than_their_image_are_refused() -> None:
    values = np.zeros((1, 600), np.uint8)
    coded = [COMPRESSIONS[5](bytes(10))] * 600
    with pytest.raises(ImageTooLargeError, match=r"more than 400,000,000 bytes in TIFF tiles"):
        decode(tiff(values, 5, {278: None, 322: 1, 323: 1_000_000}, coded=coded))


def entry(tag: int, kind: int, *numbers: int) -> bytes:
    """Return a little-endian entry of one number, or of more at a place that no file has."""
    value = numbers[0] if len(numbers) == 1 else 2**31
    return struct.pack("<HHII", tag, kind, len(numbers), value)


def by_hand(blob: bytes, *entries: bytes, end: bytes = bytes(4)) -> bytes:
    """Return a TIFF of one strip or tile at byte 8, of these entries."""
    ordered: list[bytes] = sorted(entries, key=lambda one: int.from_bytes(one[:2], "little"))
    directory = struct.pack("<H", len(entries)) + b"".join(ordered)
    return b"II*\0" + struct.pack("<I", 8 + len(blob)) + blob + directory + end


SHORT, LONG, SIGNED_SHORT, SIGNED = 3, 4, 8, 9
PACKED = zlib.compress(bytes(4096), 9)
GRAY = [entry(258, SHORT, 8), entry(262, SHORT, 1), entry(277, SHORT, 1)]
HUGE = [*GRAY, entry(259, SHORT, 8), entry(324, LONG, 8), entry(325, LONG, len(PACKED))]
SIDES, TILES = ([entry(first, LONG, side), entry(first + 1, LONG, side)] for first, side in ((256, 64), (322, 30_000)))


@pytest.mark.parametrize(
    "data",
    [
        by_hand(PACKED, *HUGE, *SIDES, *TILES),
        by_hand(PACKED, *HUGE, *SIDES, entry(322, SIGNED, 30_000), entry(323, SIGNED, 30_000)),
        by_hand(PACKED, *HUGE, entry(256, SIGNED, 64), entry(257, SIGNED, 64), *TILES),
        by_hand(PACKED, *HUGE, *SIDES, *TILES, entry(322, LONG, 64), entry(323, LONG, 64)),
        by_hand(PACKED, *HUGE, *SIDES, *TILES, entry(273, LONG, 8), entry(279, LONG, len(PACKED))),
        by_hand(PACKED, *HUGE, *SIDES, *TILES, entry(65000, LONG, 1, 2)),
        by_hand(PACKED, *HUGE, *SIDES, *TILES, end=b""),
    ],
    ids=["plain", "signed tiles", "signed sides", "twice", "strips too", "a stray tag", "cut off"],
)
def test_no_tag_hides_a_huge_tile(data: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(ImageError):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


HALF = encoded(Image.fromarray(REFERENCE.astype(np.uint8)), "JPEG")
HALF = HALF[: len(HALF) // 2] + b"\xff\xd9"
STRIP = [*GRAY, entry(273, LONG, 8), entry(278, SHORT, HEIGHT), entry(279, LONG, len(HALF))]


@pytest.mark.parametrize(
    "data",
    [
        by_hand(HALF, *STRIP, entry(256, SIGNED, WIDTH), entry(257, SIGNED, HEIGHT), entry(259, SHORT, 7)),
        by_hand(HALF, *STRIP, entry(256, LONG, WIDTH), entry(257, LONG, HEIGHT), entry(259, SIGNED_SHORT, 7)),
        by_hand(HALF, *STRIP, entry(256, LONG, WIDTH), entry(257, LONG, HEIGHT), entry(259, 11, 7)),
        by_hand(HALF, *STRIP, entry(256, LONG, WIDTH), entry(257, LONG, HEIGHT), entry(259, SHORT, 7), end=b""),
    ],
    ids=["signed sides", "signed compression", "compression that is no whole number", "cut off"],
)
def test_no_tag_hides_that_a_jpeg_is_cut_off(data: bytes) -> None:
    with pytest.raises(ImageError, match="broken"):
        decode(data)


def test_pixels_without_samples_are_broken() -> None:
    with pytest.raises(ImageError, match="broken"):
        decode(tiff(REFERENCE.astype(np.uint8), 7, {277: 0, 284: 2, 262: 6}, coded=[HALF]))


def test_restart_markers_of_all_tiles_count_together() -> None:
    rows = 40_000
    body = b"".join(b"\xaa\xbf\xff" + bytes([0xD0 + row % 8]) for row in range(rows - 1)) + b"\xaa\xbf\xff\xd9"
    head = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, 8, rows, 1, 1) + b"\1\x11\0"
    table = b"\xff\xc4" + struct.pack(">H", 21) + b"\0" + bytes([1, 1] + [0] * 14) + b"\0\7"
    coded = head + table + b"\xff\xdd\0\4\0\1\xff\xda\0\x08\1\1\0\1\0\0" + body
    data = tiff(np.zeros((rows, 2), np.uint8), 7, {278: None, 322: 1, 323: rows}, coded=[coded, coded])
    with pytest.raises(ImageTooLargeError, match="restart markers"):
        decode(data)


def jpeg(values: Values, **how: Any) -> bytes:  # noqa: ANN401  # imagecodecs' own
    return bytes(imagecodecs.jpeg8_encode(values, level=95, **how))


JPEG: dict[str, tuple[Values, dict[str, Any]]] = {  # by name: values, and how they are coded
    "8 bits": (REFERENCE.astype(np.uint8), {}),
    "12 bits": (radiograph().astype(np.uint16), {"bitspersample": 12}),
    "lossless": (REFERENCE.astype(np.uint8), {"lossless": True}),
}


@pytest.mark.parametrize("kind", JPEG)
def test_a_jpeg_in_a_tiff_is_whole_or_refused(kind: str) -> None:
    values, how = JPEG[kind]
    fields: dict[int, Any] = {258: how.get("bitspersample", 8)}
    coded = jpeg(values, **how)
    assert abs(shown(tiff(values, 7, fields, coded=[coded])) - shown(jpeg_file(values, how))).max() <= 12
    half, narrow = jpeg(values[: HEIGHT // 2], **how), jpeg(np.ascontiguousarray(values[:, : WIDTH // 2]), **how)
    for damaged in (coded[: len(coded) // 2] + b"\xff\xd9", half, narrow):
        with pytest.raises(ImageError, match="broken"):
            decode(tiff(values, 7, fields, coded=[damaged]))


def jpeg_file(values: Values, how: dict[str, Any]) -> bytes:
    """Return a file of the same pixels, which is read as it looks: only Pillow reads 12 bits of TIFF as 16."""
    if "bitspersample" in how:
        return tiff(values << 4)
    return encoded(Image.fromarray(values), "PNG")


def test_the_last_jpeg_strip_may_be_as_high_as_the_others() -> None:
    values = REFERENCE.astype(np.uint8)
    padded = np.concatenate([values, np.zeros((4, WIDTH), np.uint8)])
    for last in (values[32:], padded[32:]):
        data = tiff(values, 7, {278: 32}, coded=[jpeg(values[:32]), jpeg(last)])
        assert abs(shown(data) - REFERENCE).max() <= 12


@pytest.mark.parametrize(
    ("compression", "fields", "word"),
    [
        (50001, {}, "WebP"),
        (6, {513: 8, 514: 900, 262: 6}, "old-style JPEG"),
        (32773, {317: 2}, "PackBits"),
        (1, {262: 6}, "YCbCr"),
        (1, {262: 6, 530: [2, 1]}, "YCbCr"),
        (1, {262: 6, 530: [1, 1], 284: 2}, "YCbCr"),
    ],
)
def test_what_is_misread_or_never_found_damaged_is_refused(compression: int, fields: dict[int, Any], word: str) -> None:
    values = np.stack([REFERENCE] * 3, axis=-1).astype(np.uint8)
    with pytest.raises(UnsupportedImageError, match=word):
        decode(tiff(values, compression, fields, coded=[values.tobytes()]))


def test_luminance_and_chrominance_of_every_pixel_are_read_uncompressed() -> None:
    values = np.stack([REFERENCE, np.full_like(REFERENCE, 128), np.full_like(REFERENCE, 128)], axis=-1)
    found = shown(tiff(values.astype(np.uint8), fields={262: 6, 530: [1, 1]}))
    assert abs(found - REFERENCE[..., None]).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_the_bits_of_deflate_may_be_in_reverse_order(mode: str) -> None:
    image = Image.fromarray(REFERENCE.astype(np.uint8)).convert(mode)
    data = encoded(image, "TIFF", compression="tiff_adobe_deflate", tiffinfo={266: 2})
    assert np.array_equal(shown(data), np.asarray(image.convert("RGB" if mode == "P" else mode)))
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 0x10
    with pytest.raises(ImageError, match="broken"):
        decode(bytes(damaged))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
@pytest.mark.parametrize("tile", [0, 10])
def test_uncompressed_strips_and_tiles_have_room_before_the_next(dtype: str, tile: int) -> None:
    values = (REFERENCE if dtype == "u1" else radiograph()).astype(dtype)
    fields: dict[int, Any] = {} if tile else {278: 10}
    corners = [(y, x) for y in range(0, HEIGHT, 10) for x in range(0, WIDTH, tile or WIDTH)]
    coded = [values[y : y + 10, x : x + (tile or WIDTH)].tobytes() for y, x in corners]
    assert abs(shown(tiff(values, 1, fields, coded=coded, tile=tile)) - REFERENCE).max() <= 1
    short = [*coded[:2], coded[2][: len(coded[2]) // 2], *coded[3:]]
    with pytest.raises(ImageError, match="broken"):
        decode(tiff(values, 1, fields, coded=short, tile=tile))


def test_a_float_tiff_that_pillow_has_opened_is_inverted_too(tmp_path: Path) -> None:
    path = tmp_path / "xray.tif"
    path.write_bytes(tiff((4095 - radiograph()).astype("f4"), fields={262: 0}))
    with Image.open(path) as image:
        assert abs(np.asarray(from_pillow(image).image).astype(int) - REFERENCE).max() <= 1


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_palette_may_have_8_or_12_bits_instead_of_16(order: str, bits: int) -> None:
    values, ramp = REFERENCE.astype(np.uint8), np.arange(256)
    fields: dict[int, Any] = {
        262: 3,
        320: np.concatenate([257 * ramp >> 16 - bits, 255 - ramp << bits - 8, ramp]).tolist(),
    }
    found = shown(tiff(values, fields=fields, order=order))
    assert np.array_equal(found[..., 0], values)
    assert np.array_equal(found[..., 1], 255 - values)
    fields = {262: 3, 320: (257 * ramp // 8).tolist() * 3}
    assert shown(tiff(values, fields=fields, order=order)).max() == 255 // 8


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_where_the_file_does_not_say_black_is_zero(dtype: str, order: str) -> None:
    values = REFERENCE if dtype == "u1" else radiograph()
    assert abs(shown(tiff(values.astype(order + dtype), fields={262: None}, order=order)) - REFERENCE).max() <= 1


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_white_may_be_zero_in_either_order_of_bytes_and_bits(dtype: str, order: str, is_mirrored: bool) -> None:  # noqa: FBT001
    values = (255 - REFERENCE if dtype == "u1" else 4095 - radiograph()).astype(order + dtype)
    if is_mirrored:
        mirrored = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)], np.uint8)
        values = mirrored[np.frombuffer(values.tobytes(), np.uint8)].view(order + dtype).reshape(values.shape)
    data = tiff(values, fields={262: 0, 266: 2 if is_mirrored else 1}, order=order)
    assert abs(shown(data) - REFERENCE).max() <= 1


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("samples", [1, 2])
def test_gray_may_say_that_its_planes_are_separate(samples: int, dtype: str) -> None:
    values = (REFERENCE if dtype == "u1" else radiograph()).astype(dtype)
    stacked = np.stack([values] * samples, axis=-1)
    for compression in (1, 8):
        data = tiff(stacked, compression, fields={277: samples}, is_separate=True)
        assert abs(shown(data) - REFERENCE).max() <= 1


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4"])
@pytest.mark.parametrize("samples", [2, 4])
def test_what_is_multiplied_by_alpha_is_divided_by_it(samples: int, dtype: str) -> None:
    most = 1 if dtype == "f4" else np.iinfo(dtype).max
    gray, alpha = REFERENCE / 255, np.broadcast_to(np.linspace(0.5, 1, WIDTH), REFERENCE.shape)
    multiplied = np.stack([gray * alpha] * (samples - 1) + [alpha], axis=-1) * most
    whole = multiplied if dtype == "f4" else multiplied.round()
    found = decode(tiff(whole.astype(dtype), fields={338: 1})).image
    assert all(abs(np.asarray(band).astype(int) - REFERENCE).max() <= 2 for band in found.split())
