"""From stored values to what is shown, against pydicom's own processing of pixels."""

import io
import struct
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEGLSLossless,
)

from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from tests.builders.dicom_files import UNCOMPRESSED, lut, pixels_of, radiograph, to_8_bit
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


@pytest.mark.parametrize("padding", [{}, {"PixelPaddingValue": 7}], ids=["image", "nothing but padding"])
def test_an_image_of_one_value_is_black(padding: dict[str, Any]) -> None:
    assert not pixels_of(made(np.full((3, 4), 7, np.uint16), **padding)).any()


def test_a_palette_gives_colors() -> None:
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    ramps = {"Red": np.arange(256), "Green": 255 - np.arange(256), "Blue": np.arange(256) // 2}
    for color, ramp in ramps.items():
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{color}PaletteColorLookupTableData"] = (ramp.astype("<u2") * 257).tobytes()
    expected = np.stack([ramp[radiograph(8)] for ramp in ramps.values()], axis=-1)
    assert np.array_equal(pixels_of(made(radiograph(8), **elements)), expected)


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
