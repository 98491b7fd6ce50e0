"""From stored values to what is shown, against pydicom's own processing of pixels."""

import io
import struct
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from pneumonia.errors import ImageError, UnsupportedImageError
from pneumonia.imaging.decoding import decode
from tests.builders.dicom_files import UNCOMPRESSED, Pixels, lut, pixels_of, radiograph, to_8_bit
from tests.builders.dicom_files import dicom as made


def dataset_of(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data))


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 1500, "WindowWidth": 2000},
        {"WindowCenter": 1500.5, "WindowWidth": 1},
        {"WindowCenter": ["2500", "100"], "WindowWidth": ["700", "20"]},
        {"WindowCenter": 1500, "WindowWidth": 2000, "VOILUTFunction": "LINEAR"},
        {"WindowCenter": 1500, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 1500, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 1500, "WindowWidth": 2000, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 100, "WindowWidth": 900, "RescaleSlope": "0.25", "RescaleIntercept": "-200"},
    ],
)
def test_windows_are_those_of_the_standard(window: dict[str, Any]) -> None:
    data = made(radiograph(12), bits=12, **window)
    values = apply_modality_lut(radiograph(12), dataset_of(data))
    slope, intercept = float(window.get("RescaleSlope", 1)), float(window.get("RescaleIntercept", 0))
    expected = to_8_bit(apply_voi_lut(values, dataset_of(data)), intercept, 4095 * slope + intercept)
    assert len(np.unique(expected)) > 1
    assert abs(pixels_of(data) - expected).max() <= 1


@pytest.mark.parametrize("width", ["0", "-5", "0.5", ""])
def test_a_window_that_cannot_be_is_none(width: str) -> None:
    data = made(radiograph(12), bits=12, WindowCenter="300", WindowWidth=width)
    assert np.array_equal(pixels_of(data), pixels_of(made(radiograph(12), bits=12)))


@pytest.mark.parametrize(
    ("centers", "widths"),
    [
        ("1500,5", "2000,25"),
        ("1500.5\\x", "2000,25\\10"),
        ("\\1500,5", "\\2000.25"),
        ("\\1500.5", "10\\2000.25"),
        ("10\\1500.5", "\\2000.25"),
        ("10\\1500.5", "0\\2000.25"),
        ("NaN\\1500.5", "1\\2000.25"),
        ("N/A\\1500.5", "1\\2000.25"),
    ],
)
def test_the_first_complete_window_counts_with_comma_or_point(centers: str, widths: str) -> None:
    data = with_texts(WindowCenter=centers, WindowWidth=widths)
    expected = pixels_of(made(radiograph(12), bits=12, WindowCenter="1500.5", WindowWidth="2000.25"))
    assert np.array_equal(pixels_of(data), expected)


def with_texts(**texts: str) -> bytes:
    """Return a file whose decimal elements have texts that are no numbers."""
    placeholders: dict[str, Any] = {name: "0" * len(text) for name, text in texts.items()}
    data = made(radiograph(12), bits=12, **placeholders)
    for name, text in texts.items():
        place = data.index(struct.pack("<HH", *divmod(tag_for_keyword(name) or 0, 2**16)) + b"DS") + 8
        data = data[:place] + text.encode() + data[place + len(text) :]
    return data


def test_rescaling_may_have_a_comma() -> None:
    window: dict[str, Any] = {"WindowCenter": "300", "WindowWidth": "500"}
    for slope, intercept in (("0,25", "-20,5"), ("0.25", "-20,5")):
        data = made(radiograph(12), bits=12, **window, RescaleSlope="0.25", RescaleIntercept="-20.5")
        written = data.replace(b"0.25", slope.encode()).replace(b"-20.5", intercept.encode())
        assert np.array_equal(pixels_of(written), pixels_of(data))
    with pytest.raises(ImageError, match="is broken"):
        decode(data.replace(b"0.25", b"abcd"))


@pytest.mark.parametrize("text", ["a ", "  ", "x\\y ", "NaN "])
def test_a_window_without_numbers_is_none(text: str) -> None:
    expected = pixels_of(made(radiograph(12), bits=12))
    assert np.array_equal(pixels_of(with_texts(WindowCenter="400 ", WindowWidth=text)), expected)
    assert np.array_equal(pixels_of(with_texts(WindowCenter=text, WindowWidth="400 ")), expected)


@pytest.mark.parametrize("missing", [("LUTData",), ("LUTDescriptor",), ("LUTData", "LUTDescriptor")])
def test_the_first_complete_table_counts(missing: tuple[str, ...]) -> None:
    square_root = (np.sqrt(np.arange(4096) / 4096) * 4095).astype(np.uint16)
    table, incomplete = lut(square_root, 0, 12)[0], lut(square_root[::-1], 0, 12)[0]
    for name in missing:
        del incomplete[name]
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        whole: dict[str, Any] = {sequence: Sequence([table])}
        beside: dict[str, Any] = {sequence: Sequence([incomplete, table, incomplete])}
        alone: dict[str, Any] = {sequence: Sequence([incomplete]), "WindowCenter": 1500, "WindowWidth": 2000}
        without = made(radiograph(12), bits=12, WindowCenter=1500, WindowWidth=2000)
        expected = pixels_of(made(radiograph(12), bits=12, **whole))
        assert np.array_equal(pixels_of(made(radiograph(12), bits=12, **beside)), expected)
        assert np.array_equal(pixels_of(made(radiograph(12), bits=12, **alone)), pixels_of(without))


@pytest.mark.parametrize("representation", ["OW", "US"])
@pytest.mark.parametrize("syntax", UNCOMPRESSED[:2])
def test_values_go_through_the_tables(syntax: pydicom.uid.UID, representation: str) -> None:
    square_root = (np.sqrt(np.arange(3000) / 3000) * 4095).astype(np.uint16)
    data = made(radiograph(12), syntax, 12, VOILUTSequence=lut(square_root, 500, 12, representation))
    expected = square_root[np.clip(radiograph(12).astype(int) - 500, 0, 2999)]
    assert abs(pixels_of(data) - to_8_bit(expected, 0, 4095)).max() <= 1

    data = made(radiograph(12), syntax, 12, ModalityLUTSequence=lut(square_root, 500, 12, representation))
    assert abs(pixels_of(data) - to_8_bit(expected, expected.min(), expected.max())).max() <= 1


def test_tables_of_big_endian_files_are_read_as_such() -> None:
    square_root = (np.sqrt(np.arange(4096) / 4096) * 4095).astype(np.uint16)
    little = made(radiograph(12), bits=12, VOILUTSequence=lut(square_root, 0, 12))
    big = made(radiograph(12), ExplicitVRBigEndian, 12, VOILUTSequence=lut(square_root.byteswap(), 0, 12))
    assert np.array_equal(pixels_of(big), pixels_of(little))


def test_a_table_of_8_bits_may_be_packed() -> None:
    table = np.arange(255, -1, -1).astype(np.uint8)
    data = made(radiograph(8), VOILUTSequence=lut(table, 0, 8))
    assert np.array_equal(pixels_of(data), 255 - radiograph(8).astype(int))


def test_a_table_may_begin_below_zero() -> None:
    values = radiograph(12).astype(np.int16) - 2048
    table = np.arange(4096).astype(np.uint16)
    data = made(values, bits=12, VOILUTSequence=lut(table, 65_536 - 2048, 12))
    assert np.array_equal(pixels_of(data), to_8_bit(values, -2048, 2047))


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("syntax", UNCOMPRESSED[:2])
def test_a_table_of_signed_pixels_may_have_more_than_32_767_entries(syntax: pydicom.uid.UID, sequence: str) -> None:
    values = np.linspace(-20_000, 19_999, 40_000).astype(np.int16).reshape(200, 200)
    table = lut(np.arange(40_000).astype(np.uint16), 65_536 - 20_000, 16)
    data = made(values, syntax, None, **{sequence: table})
    # Values behind a modality table are spread, so that black and white are not quite at the ends.
    assert abs(pixels_of(data) - to_8_bit(values.astype(int), -20_000, 19_999)).max() <= 5


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1500, "WindowWidth": 2000}], ids=["range", "window"])
def test_both_depictions_of_a_radiograph_are_the_same_image(window: dict[str, Any]) -> None:
    values = radiograph(12)
    turned: dict[str, Any] = {"WindowCenter": 4095 - 1500 + 1, "WindowWidth": 2000} if window else {}
    bright = made(values, bits=12, **window)
    dark = made(4095 - values, bits=12, PhotometricInterpretation="MONOCHROME1", **turned)
    assert abs(pixels_of(bright) - pixels_of(dark)).max() <= 1


def test_what_is_inverted_twice_over_is_inverted_once() -> None:
    data = made(radiograph(8), PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert np.array_equal(pixels_of(data), 255 - radiograph(8).astype(int))


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, JPEGLSLossless])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count(kind: str, syntax: pydicom.uid.UID) -> None:
    values = np.clip(radiograph(12), 200, 3000)
    values[:, :9], values[:, 9:12] = 4095, 4000
    data = made(values, syntax, 12, PhotometricInterpretation=kind, PixelPaddingValue=4095, PixelPaddingRangeLimit=4000)
    expected = to_8_bit(values, 200, 3000)
    expected = 255 - expected if kind == "MONOCHROME1" else expected
    expected[:, :12] = 0
    assert np.array_equal(pixels_of(data), expected)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_padding_may_be_negative(syntax: pydicom.uid.UID) -> None:
    values = np.clip(radiograph(12).astype(np.int16) - 1000, 0, 1000)
    values[0] = -2000
    data = made(values, syntax, PixelPaddingValue=-2000)
    assert np.array_equal(pixels_of(data), to_8_bit(values, 0, 1000))


@pytest.mark.parametrize(("value", "written"), [(-2000, "<2sHH"), (63_536, "<2sHh")])
def test_padding_may_be_written_with_the_other_sign(value: int, written: str) -> None:
    values = radiograph(12).astype(np.int32)
    expected = to_8_bit(values[1:], values[1:].min(), values[1:].max())
    values[0] = value
    data = made(values.astype(np.int16 if value < 0 else np.uint16), bits=16)
    kind, number = (b"US", 63_536) if value < 0 else (b"SS", -2000)
    element = b"\x28\0\x20\x01" + struct.pack(written, kind, 2, number)
    place = data.index(b"\xe0\x7f\x10\0O")
    pixels = pixels_of(data[:place] + element + data[place:])
    assert not pixels[0].any()
    assert np.array_equal(pixels[1:], expected)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@pytest.mark.parametrize("limit", [{}, {"PixelPaddingRangeLimit": 0xFFF0}], ids=["value", "range"])
def test_padding_may_need_more_bits_than_are_stored(syntax: pydicom.uid.UID, limit: dict[str, Any]) -> None:
    values = radiograph(12)
    expected = to_8_bit(values, 0, 4095)
    assert (values == 0xFFF).any()  # what is left of the padding in the bits that are stored
    values[:, :9], expected[:, :9] = 0xFFFF, 0
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    data = made(values, syntax, BitsStored=12, HighBit=11, PixelPaddingValue=0xFFFF, **limit, **window)
    assert np.array_equal(pixels_of(data), expected)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_padding_of_signed_pixels_may_have_more_bits_than_are_stored(syntax: pydicom.uid.UID) -> None:
    values = radiograph(12).astype(np.int16) - 2048
    values[values == -1] = 0
    expected = to_8_bit(values, -2048, 2047)
    values[:, :9], expected[:, :9] = -1, 0
    data = made(values, syntax, 12, WindowCenter=0, WindowWidth=4096)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    length = struct.pack("<I", 2) if syntax == ImplicitVRLittleEndian else b"US" + struct.pack(order + "H", 2)
    element = struct.pack(order + "HH", 0x28, 0x120) + length + struct.pack(order + "H", 65_535)
    place = data.index(struct.pack(order + "HH", 0x28, 0x1050))  # of the window, which comes next
    assert np.array_equal(pixels_of(data[:place] + element + data[place:]), expected)


@pytest.mark.parametrize("padding", [{}, {"PixelPaddingValue": 7}], ids=["image", "nothing but padding"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 7, "WindowWidth": 10}], ids=["range", "window"])
def test_an_image_of_one_value_is_refused(padding: dict[str, Any], window: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match="shows nothing"):
        decode(made(np.full((3, 4), 7, np.uint16), **padding, **window))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGBaseline8Bit])
@pytest.mark.parametrize("allocated", [np.uint8, np.uint16])
def test_8_bits_without_a_window_stay_as_they_are(syntax: pydicom.uid.UID, allocated: type) -> None:
    values: Pixels = np.clip(radiograph(8), 40, 200).astype(np.uint8 if syntax == JPEGBaseline8Bit else allocated)
    shown = pixels_of(made(values, syntax, 8))
    assert abs(shown - values).max() <= (4 if syntax == JPEGBaseline8Bit else 0)


def test_8_bits_with_a_sign_or_another_meaning_are_spread() -> None:
    values = np.clip(radiograph(8), 40, 200)
    signed = (values.astype(int) - 128).astype(np.int8)
    assert np.array_equal(pixels_of(made(signed, bits=8)), to_8_bit(values, 40, 200))
    assert np.array_equal(pixels_of(made(values, RescaleSlope=2, RescaleIntercept=5)), to_8_bit(values, 40, 200))


def test_a_table_that_declares_more_bits_than_it_holds_is_as_bright_as_one_that_does_not() -> None:
    table = np.arange(4096).astype(np.uint16)
    right, wrong = (pixels_of(made(radiograph(12), bits=12, VOILUTSequence=lut(table, 0, bits))) for bits in (12, 16))
    assert np.array_equal(right, wrong)
    assert right.max() == 255


@pytest.mark.parametrize("center", ["-5000", "40000"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
def test_a_window_beside_all_values_is_none(center: str, function: str) -> None:
    without = pixels_of(made(radiograph(12), bits=12))
    window: dict[str, Any] = {"WindowCenter": center, "WindowWidth": "400", "VOILUTFunction": function}
    assert np.array_equal(pixels_of(made(radiograph(12), bits=12, **window)), without)


def test_one_defect_of_the_detector_does_not_darken_the_rest() -> None:
    values = radiograph(12)
    expected = pixels_of(made(values, bits=16))
    values[30, 20] = 65_535
    found = pixels_of(made(values, bits=16))
    assert found[30, 20] == 255
    found[30, 20] = expected[30, 20]
    assert abs(found - expected).max() <= 1


@pytest.mark.parametrize("bits", [8, 12])
def test_a_palette_that_declares_more_bits_than_it_holds_is_as_bright_as_one_that_does_not(bits: int) -> None:
    ramps = {"Red": np.arange(256), "Green": 255 - np.arange(256), "Blue": np.arange(256) // 2}
    right = made(radiograph(8), **palettes({color: 257 * ramp for color, ramp in ramps.items()}, 0))
    wrong = made(radiograph(8), **palettes({color: 257 * ramp >> 16 - bits for color, ramp in ramps.items()}, 0))
    assert np.array_equal(pixels_of(wrong), pixels_of(right))
    dark = made(radiograph(8), **palettes({color: 257 * ramp // 8 for color, ramp in ramps.items()}, 0))
    assert pixels_of(dark).max() == 255 // 8


def palettes(ramps: dict[str, Pixels], first: int, kind: str = "") -> dict[str, Any]:
    """Return the elements of palettes whose entries have 16 bits."""
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for color, ramp in ramps.items():
        entries = 256 if kind else len(ramp) % 65_536
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [entries, first, 16]
        elements[f"{kind}{color}PaletteColorLookupTableData"] = ramp.astype("<u2").tobytes()
    return elements


@pytest.mark.parametrize("representation", ["OW", "US"])
@pytest.mark.parametrize("syntax", UNCOMPRESSED[:2])
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_entries_of_8_bits_may_be_packed(sequence: str, syntax: pydicom.uid.UID, representation: str) -> None:
    table = 255 - np.arange(256, dtype=np.uint8)
    data = made(radiograph(8), syntax, 8, **{sequence: lut(table, 0, 8, representation)})
    assert abs(pixels_of(data) - (255 - radiograph(8).astype(int))).max() <= 1


@pytest.mark.parametrize("groups", ["Shared", "PerFrame"])
@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_what_is_told_of_the_one_frame_counts(syntax: pydicom.uid.UID, groups: str) -> None:
    rescale = {"RescaleSlope": "-2", "RescaleIntercept": "9000"}
    window = {"WindowCenter": "4000", "WindowWidth": "3000", "VOILUTFunction": "SIGMOID"}
    group = Dataset()
    for name, elements in (("PixelValueTransformationSequence", rescale), ("FrameVOILUTSequence", window)):
        item = Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        setattr(group, name, Sequence([item]))
    inner: dict[str, Any] = {f"{groups}FunctionalGroupsSequence": Sequence([group])}
    expected = pixels_of(made(radiograph(12), syntax, 12, **rescale, **window))
    assert np.array_equal(pixels_of(made(radiograph(12), syntax, 12, **inner)), expected)
    assert not np.array_equal(pixels_of(made(radiograph(12), syntax, 12)), expected)
    outer = made(radiograph(12), syntax, 12, WindowCenter=1500, WindowWidth=2000, RescaleSlope="1", **inner)
    assert not np.array_equal(pixels_of(outer), expected)


def test_a_window_and_its_function_are_told_in_one_place() -> None:
    item, group = Dataset(), Dataset()
    item.WindowCenter, item.WindowWidth, item.VOILUTFunction = "9", "9", "SIGMOID"
    group.FrameVOILUTSequence = Sequence([item])
    inner: dict[str, Any] = {"PerFrameFunctionalGroupsSequence": Sequence([group])}
    window: dict[str, Any] = {"WindowCenter": "1500", "WindowWidth": "2000"}
    assert np.array_equal(pixels_of(made(radiograph(12), **window, **inner)), pixels_of(made(radiograph(12), **window)))
    empty: dict[str, Any] = {"WindowCenter": "", "WindowWidth": "", "VOILUTFunction": "LINEAR"}
    expected = pixels_of(made(radiograph(12), WindowCenter="9", WindowWidth="9", VOILUTFunction="SIGMOID"))
    assert np.array_equal(pixels_of(made(radiograph(12), **empty, **inner)), expected)


@pytest.mark.parametrize("inner", [[], [Dataset()]], ids=["no frame", "a frame without a word"])
def test_groups_that_say_nothing_change_nothing(inner: list[Dataset]) -> None:
    groups: dict[str, Any] = {"SharedFunctionalGroupsSequence": Sequence(inner)}
    assert np.array_equal(pixels_of(made(radiograph(12), **groups)), pixels_of(made(radiograph(12))))


def test_a_palette_gives_colors() -> None:
    ramps = {"Red": np.arange(256), "Green": 255 - np.arange(256), "Blue": np.arange(256) // 2}
    expected = np.stack([ramp[radiograph(8)] for ramp in ramps.values()], axis=-1)
    elements = palettes({color: 257 * ramp for color, ramp in ramps.items()}, 0)
    assert np.array_equal(pixels_of(made(radiograph(8), **elements)), expected)


@pytest.mark.parametrize(("entries", "first"), [(65_536, 0), (40_000, 0), (4096, 100)])
@pytest.mark.parametrize("syntax", UNCOMPRESSED[:2])
def test_a_palette_may_have_16_bits(entries: int, first: int, syntax: pydicom.uid.UID) -> None:
    ramp = np.linspace(0, 65_535, entries).astype(int)
    elements = palettes({"Red": ramp, "Green": ramp[::-1], "Blue": ramp // 3}, first)
    index = np.clip(radiograph(16).astype(int) - first, 0, entries - 1)
    expected = np.stack([ramp[index] >> 8, ramp[::-1][index] >> 8, ramp[index] // 3 >> 8], axis=-1)
    assert np.array_equal(pixels_of(made(radiograph(16), syntax, **elements)), expected)


def test_a_palette_of_signed_pixels_has_no_negative_number_of_entries() -> None:
    ramp = np.linspace(0, 65_535, 40_000).astype(int)
    elements = palettes(dict.fromkeys(("Red", "Green", "Blue"), ramp), 0)
    for color in ("Red", "Green", "Blue"):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [40_000, 0, 16]
    shown = pixels_of(made(radiograph(12), ImplicitVRLittleEndian, PixelRepresentation=1, **elements))
    assert np.array_equal(shown[..., 0], ramp[radiograph(12)] >> 8)


def test_a_palette_may_be_told_in_segments() -> None:
    segments = np.array([0, 2, 0, 0, 1, 127, 0x7F00, 0, 1, 0x8000, 1, 126, 0xFE00])
    ramp = np.concatenate([[0, 0], np.linspace(0, 0x7F00, 128)[1:], [0x8000], np.linspace(0x8000, 0xFE00, 127)[1:]])
    elements = palettes(dict.fromkeys(("Red", "Green", "Blue"), segments), 0, "Segmented")
    expected = ramp.round().astype(int)[radiograph(8)] >> 8
    shown = pixels_of(made(radiograph(8), **elements))
    assert abs(shown - expected[..., None]).max() == 0
    for broken in ([1, 4, 9], [7, 7, 7], [0]):
        elements = palettes(dict.fromkeys(("Red", "Green", "Blue"), np.array(broken)), 0, "Segmented")
        with pytest.raises(ImageError, match="is broken"):
            decode(made(radiograph(8), **elements))
    elements = palettes(dict.fromkeys(("Red", "Green", "Blue"), np.array([0, 1, 5, 2, 1, 0, 0])), 0, "Segmented")
    with pytest.raises(UnsupportedImageError, match="indirect segments, which are not read"):
        decode(made(radiograph(8), **elements))


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": "NaN", "RescaleIntercept": "0"},
        {"RescaleSlope": "1e308", "RescaleIntercept": "0"},
        {"RescaleSlope": "1", "RescaleIntercept": "inf"},
        {"VOILUTSequence": lut(np.arange(256).astype(np.uint16), 0, 0)},
        {"VOILUTSequence": lut(np.arange(256).astype(np.uint16), 0, 17)},
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused(elements: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match="is broken"):
        decode(made(radiograph(8), **elements))


def test_a_table_that_is_shorter_than_it_says_is_read_as_it_is() -> None:
    table = lut(np.linspace(0, 65_535, 256).astype(np.uint16), 0, 16)
    whole = pixels_of(made(radiograph(8), VOILUTSequence=table))
    table[0].LUTDescriptor = [400, 0, 16]
    assert np.array_equal(pixels_of(made(radiograph(8), VOILUTSequence=table)), whole)
