"""DICOM files against pydicom's own processing of pixels, and whatever may be wrong with them."""

import contextlib
import csv
import io
import json
import logging
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mangum import Mangum
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pneumonia.__main__ import main
from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import resize
from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.predictor import Predictor
from pneumonia.training.channels import scan_channels
from pneumonia.training.images import load_channel
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.dicom_files import ENCODERS, PATIENT, UNCOMPRESSED, Pixels, frame
from tests.builders.dicom_files import dicom as made
from tests.builders.images import encoded
from tools.stand_ins.events import function_url_event, multipart

ROWS, COLUMNS = 60, 50
LOSSY = {JPEG2000, JPEGBaseline8Bit, JPEGLSNearLossless}


def radiograph(bits: int = 12) -> Pixels:
    """Return a smooth image with some noise, which uses all of so many bits."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    smooth = (np.sin(x / 7) + np.cos(y / 9) + 2) / 4 + np.random.default_rng(0).uniform(-0.01, 0.01, (ROWS, COLUMNS))
    scaled = (smooth - smooth.min()) / np.ptp(smooth) * (2**bits - 1)
    pixels: Pixels = scaled.round().astype(np.uint8 if bits <= 8 else np.uint16)
    return pixels


def pixels_of(data: bytes) -> Pixels:
    return np.asarray(decode(data).image).astype(int)


def to_8_bit(values: Pixels, low: float, high: float) -> Pixels:
    return (np.clip((values - low) / (high - low), 0, 1) * 255).round().astype(int)


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, *ENCODERS], ids=lambda syntax: syntax.keyword)
def test_every_transfer_syntax_gives_the_same_image(syntax: pydicom.uid.UID) -> None:
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    expected = to_8_bit(radiograph(bits), 0, 2**bits - 1)
    shown = pixels_of(made(radiograph(bits), syntax, bits))
    assert decode(made(radiograph(bits), syntax, bits)).image.mode == "L"
    assert abs(shown - expected).max() <= (4 if syntax in LOSSY else 1)


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 15, 16])
def test_every_depth_is_spread_over_8_bits(bits: int, syntax: pydicom.uid.UID) -> None:
    expected = to_8_bit(radiograph(bits), 0, 2**bits - 1)
    assert np.array_equal(pixels_of(made(radiograph(bits), syntax, bits)), expected)


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, RLELossless, JPEG2000Lossless])
def test_signed_values_have_a_sign(syntax: pydicom.uid.UID) -> None:
    values = radiograph(12).astype(np.int16) - 2048
    window: dict[str, Any] = {"WindowCenter": -500, "WindowWidth": 1000}
    expected = apply_voi_lut(values, dataset_of(made(values, bits=12, **window)))
    assert np.array_equal(pixels_of(made(values, syntax, 12)), to_8_bit(values, -2048, 2047))
    assert abs(pixels_of(made(values, syntax, 12, **window)) - to_8_bit(expected, -2048, 2047)).max() <= 1


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, RLELossless])
def test_bits_that_are_not_stored_do_not_count(syntax: pydicom.uid.UID) -> None:
    values = radiograph(10)
    garbage = np.random.default_rng(1).integers(0, 2**16, values.shape).astype(np.uint16)
    above = values | (garbage & 0xFC00)
    around = (values << 2) | (garbage & 0xF003)
    expected = pixels_of(made(values, bits=10))
    assert np.array_equal(pixels_of(made(above, syntax, 10)), expected)
    assert np.array_equal(pixels_of(made(around, syntax, 10, HighBit=11)), expected)


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


def lut(table: Pixels, first: int, bits: int, representation: str = "OW") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(table) % 65_536, first, bits])
    item.add_new("LUTData", representation, table.tobytes() if representation == "OW" else table.tolist())
    return Sequence([item])


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


def colors() -> Pixels:
    return np.stack([radiograph(8), radiograph(8).T.reshape(ROWS, COLUMNS), radiograph(8)[::-1]], axis=-1)


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_colors_stay(syntax: pydicom.uid.UID) -> None:
    image = decode(made(colors(), syntax)).image
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), colors())


def test_colors_may_lie_one_after_the_other() -> None:
    planes = np.moveaxis(colors(), -1, 0).tobytes()
    assert np.array_equal(pixels_of(made(colors(), PlanarConfiguration=1, PixelData=planes)), colors())


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_luminance_and_chrominance_become_colors(syntax: pydicom.uid.UID) -> None:
    stored = np.asarray(Image.fromarray(colors()).convert("YCbCr"))
    shown = pixels_of(made(stored, syntax, PhotometricInterpretation="YBR_FULL"))
    assert abs(shown - colors()).max() <= 3


def test_a_color_jpeg_tells_its_own_colors() -> None:
    smooth = np.asarray(Image.fromarray(colors()).resize((5, 6)).resize((COLUMNS, ROWS)))
    shown = pixels_of(made(smooth, JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422"))
    assert abs(shown - smooth).mean() < 4


def test_a_palette_gives_colors() -> None:
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    ramps = {"Red": np.arange(256), "Green": 255 - np.arange(256), "Blue": np.arange(256) // 2}
    for color, ramp in ramps.items():
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{color}PaletteColorLookupTableData"] = (ramp.astype("<u2") * 257).tobytes()
    expected = np.stack([ramp[radiograph(8)] for ramp in ramps.values()], axis=-1)
    assert np.array_equal(pixels_of(made(radiograph(8), **elements)), expected)


@pytest.mark.parametrize(
    ("elements", "error", "sentence"),
    [
        ({"NumberOfFrames": 2}, UnsupportedImageError, "several frames"),
        ({"PixelData": None}, UnsupportedImageError, "holds no image"),
        ({"Rows": None}, UnsupportedImageError, "holds no image"),
        ({"BitsAllocated": 32}, UnsupportedImageError, "unsupported kind of pixels"),
        ({"BitsAllocated": 1}, UnsupportedImageError, "unsupported kind of pixels"),
        ({"PhotometricInterpretation": "HSV"}, UnsupportedImageError, "unsupported kind of pixels"),
        ({"SamplesPerPixel": 4}, UnsupportedImageError, "unsupported kind of pixels"),
        ({"Rows": 60_000, "Columns": 60_000}, ImageTooLargeError, "60000 x 60000 pixels"),
        ({"Rows": 0}, ImageError, "is broken"),
        ({"BitsStored": 17}, ImageError, "is broken"),
        ({"BitsStored": 0}, ImageError, "is broken"),
        ({"HighBit": 3}, ImageError, "is broken"),
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


@pytest.mark.parametrize("syntax", [MPEG2MPML, DeflatedExplicitVRLittleEndian])
def test_other_transfer_syntaxes_are_refused(syntax: pydicom.uid.UID) -> None:
    with pytest.raises(UnsupportedImageError, match="compression is not supported"):
        decode(made(None, syntax))


@pytest.mark.processes
def test_where_pydicom_is_missing_a_sentence_says_so(tmp_path: Path) -> None:
    path = tmp_path / "xray.dcm"
    path.write_bytes(made(radiograph(8)))
    program = """
import pathlib, sys
sys.modules["pydicom"] = None
from pneumonia.errors import UnsupportedImageError
from pneumonia.imaging.decoding import decode
try:
    decode(pathlib.Path(sys.argv[1]).read_bytes())
except UnsupportedImageError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(path)]
    printed = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    assert printed.startswith("Reading DICOM files needs pydicom and imagecodecs: install them")


def test_a_report_is_no_image() -> None:
    with pytest.raises(UnsupportedImageError, match="holds no image"):
        decode(made(None, Modality="SR"))


@pytest.mark.parametrize("start", [0, 128, 132], ids=["DICM cut off", "preamble cut off", "both"])
def test_dicom_without_its_first_bytes_is_named(start: int) -> None:
    data = made(radiograph(8))
    data = data[:128] + data[132:] if start == 0 else data[start:]
    with pytest.raises(ImageError) as caught:
        decode(data)
    named = "DICOM without its 132 first bytes" in str(caught.value)
    assert named == (start == 132)


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


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_a_frame_of_another_size_is_broken(syntax: pydicom.uid.UID) -> None:
    other = frame(np.zeros((900, 900), np.uint16), syntax)
    with pytest.raises(ImageError, match="is broken"):
        decode(made(radiograph(12), syntax, 12, PixelData=other))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, *ENCODERS], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("percent", range(10, 100, 10))
def test_a_truncated_file_is_refused(syntax: pydicom.uid.UID, percent: int) -> None:
    data = made(radiograph(8), syntax)
    with pytest.raises(ImageError):
        decode(data[: len(data) * percent // 100])


def elements(count: int) -> bytes:
    """Return the beginning of a file, with so many elements that are of no use."""
    head = made(None)
    return head[: head.index(b"\x10\0\x10\0PN")] + b"\x09\0\x10\0LO\0\0" * count


def nested(depth: int) -> bytes:
    """Return the beginning of a file, with sequences in sequences."""
    head = made(None, ImplicitVRLittleEndian)
    start = head.index(b"\x10\0\x10\0")
    return head[:start] + (b"\x08\0\x40\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth


def fragments(count: int) -> bytes:
    return made(radiograph(8), RLELossless, PixelData=b"\xfe\xff\0\xe0\0\0\0\0" * count)


def scans(count: int) -> bytes:
    image = bytes(ENCODERS[JPEGBaseline8Bit](radiograph(8)))
    return made(radiograph(8), JPEGBaseline8Bit, PixelData=encapsulate([image + b"\xff\xda\0\2" * count]))


def of_size(coded: bytes, syntax: pydicom.uid.UID, width: int, height: int) -> bytes:
    """Return a file whose header says that the coded image has this size."""
    return made(radiograph(8), syntax, Rows=height, Columns=width, PixelData=encapsulate([coded]))


def hidden_header(side: int) -> bytes:
    """Return a JPEG that libjpeg decodes to side x side pixels.

    Who takes every marker to have a length skips the true header after FF01, and finds another one of 100 x 100.
    """
    small = bytes(ENCODERS[JPEGBaseline8Bit](radiograph(8)))
    start = small.index(b"\xff\xc0")
    tables, rest = small[:start], small[start : start + 5] + struct.pack(">HH", side, side) + small[start + 9 :]
    coded = tables + b"\xff\x01" + rest
    coded += bytes(len(tables) + 2 + 0xFFC0 - len(coded))
    coded += b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", 100, 100) + b"\1\1\x11\0\xff\xd9"
    return of_size(coded, JPEGBaseline8Bit, 100, 100)


def jpeg_2000(
    *,
    samples: int = 1,
    layers: int = 1,
    block: int = 4,
    precinct: int | None = None,
    tile: int = 5000,
    late: bool = False,
) -> bytes:
    """Return a JPEG 2000 image of 5000 x 5000 pixels and little data; `late`: its coding stands in its tile."""
    grid = struct.pack(">H8IH", 0, 5000, 5000, 0, 0, tile, tile, 0, 0, samples) + bytes([7, 1, 1]) * samples
    levels = 5
    cod = struct.pack(">BBHBBBBBB", precinct is not None, 2, layers, 0, levels, block, block, 0, 1)
    cod += b"" if precinct is None else bytes([precinct | precinct << 4] * (levels + 1))
    plain = struct.pack(">BBHBBBBBB", 0, 2, 1, 0, levels, 4, 4, 0, 1)
    quantised = b"\x40" + bytes([8 << 3]) * (3 * levels + 1)

    def segment(kind: int, content: bytes) -> bytes:
        return struct.pack(">HH", kind, len(content) + 2) + content

    main = [(0xFF51, grid), (0xFF52, plain if late else cod), (0xFF5C, quantised)]
    tile_header = segment(0xFF52, cod) if late else b""
    data = tile_header + b"\xff\x93" + bytes(2000)
    start = struct.pack(">HHHIBB", 0xFF90, 10, 0, 12 + len(data), 0, 1)
    coded = b"\xff\x4f" + b"".join(segment(*one) for one in main) + start + data + b"\xff\xd9"
    return of_size(coded, JPEG2000Lossless, 5000, 5000)


def deflated() -> bytes:
    """Return a file of 100 kB that unpacks to 100 MB."""
    head = made(None, DeflatedExplicitVRLittleEndian)
    squeeze = zlib.compressobj(wbits=-15)
    return head[: 132 + 12 + struct.unpack_from("<I", head, 140)[0]] + squeeze.compress(bytes(10**8)) + squeeze.flush()


# Decodes each file in a process of its own. It is a fork, as a process that is started anew begins with the peak of the
# one that started it, and whatever stays below that of the tests is not seen to grow.
DECODE = """
import imagecodecs, os, pathlib, resource, sys
from pneumonia.imaging import dicom
from pneumonia.imaging.decoding import decode

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

imagecodecs.jpegls_decode
for path in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    before = peak()
    try:
        told = decode(pathlib.Path(path).read_bytes()).image.size
    except Exception as error:
        told = type(error).__name__
    print(told, peak() - before, sep="\t", flush=True)
    os._exit(0)
"""


def decoded(*files: Path) -> list[list[str]]:
    """Return the size or the error of each file, and by how many KiB memory grew."""
    command = [sys.executable, "-c", DECODE, *map(str, files)]
    printed = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in printed.splitlines()]


BOMBS: dict[str, tuple[bytes, type[ImageError] | None]] = {
    "two million elements": (elements(2_000_000), ImageTooLargeError),
    "a million sequences in each other": (nested(1_000_000), ImageError),
    "a million fragments": (fragments(1_000_000), ImageTooLargeError),
    "a thousand scans": (scans(1_000), ImageTooLargeError),
    "a JPEG header behind a marker without a length": (hidden_header(20_000), ImageError),
    "JPEG 2000 of thirty samples a pixel": (jpeg_2000(samples=30), ImageError),
    "JPEG 2000 of tiny precincts": (jpeg_2000(precinct=1), ImageTooLargeError),
    "the same, told in the tile": (jpeg_2000(precinct=1, late=True), ImageTooLargeError),
    "JPEG 2000 of tiny code-blocks": (jpeg_2000(block=0), ImageTooLargeError),
    "JPEG 2000 of 65,535 layers": (jpeg_2000(layers=65_535), ImageTooLargeError),
    "JPEG 2000 of 250,000 tiles": (jpeg_2000(tile=10), ImageTooLargeError),
    "unpacks endlessly": (deflated(), UnsupportedImageError),
    "more bytes promised than there are": (
        made(radiograph(8)).replace(b"OB\0\0" + struct.pack("<I", ROWS * COLUMNS), b"OB\0\0\xfe\xff\xff\xff"),
        None,
    ),
}


@pytest.fixture(scope="module")
def defused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What became of each bomb."""
    folder = tmp_path_factory.mktemp("bombs")
    for number, (data, _) in enumerate(BOMBS.values()):
        (folder / f"{number}.dcm").write_bytes(data)
    told = decoded(*(folder / f"{number}.dcm" for number in range(len(BOMBS))))
    return dict(zip(BOMBS, told, strict=True))


@pytest.mark.processes
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_seconds_and_little_memory(name: str, defused: dict[str, list[str]]) -> None:
    error = BOMBS[name][1]
    told, grown = defused[name]
    assert told == (error.__name__ if error else str((COLUMNS, ROWS)))
    assert int(grown) < 200_000  # KiB


GOOD = [
    *(made(radiograph(8), syntax, WindowCenter=100, WindowWidth=90) for syntax in (*UNCOMPRESSED, *ENCODERS)),
    made(radiograph(8), VOILUTSequence=lut(np.arange(256).astype(np.uint16), 0, 8)),
    made(colors(), RLELossless),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(0, len(GOOD) - 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_changed_file_is_answered_or_refused(number: int, changes: list[tuple[float, int]]) -> None:
    data = bytearray(GOOD[number])
    for where, value in changes:
        data[128 + int(where * (len(data) - 128))] = value
    with contextlib.suppress(ImageError):
        assert decode(bytes(data)).image.mode in {"L", "RGB"}


@settings(max_examples=200, deadline=None)
@given(where=st.integers(132, 700), inserted=st.binary(min_size=1, max_size=12))
def test_a_header_with_more_bytes_is_answered_or_refused(where: int, inserted: bytes) -> None:
    data = GOOD[1][:where] + inserted + GOOD[1][where:]
    with contextlib.suppress(ImageError):
        decode(data)


OTHER, SIDE = "dicom_not_a_chest_radiograph", "dicom_not_a_frontal_view"


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, []),
        ({"Modality": "CR", "ViewPosition": "AP"}, []),
        ({"Modality": "RG", "BodyPartExamined": "THORAX"}, []),
        ({"Modality": "OT", "BodyPartExamined": "", "ViewPosition": ""}, []),
        ({"Modality": None, "BodyPartExamined": None, "ViewPosition": None}, []),
        ({"BodyPartExamined": "Port Chest"}, []),
        ({"Modality": "CT"}, [OTHER]),
        ({"Modality": "MG"}, [OTHER]),
        ({"BodyPartExamined": "HAND"}, [OTHER]),
        ({"ViewPosition": "LL"}, [SIDE]),
        ({"ViewPosition": "Lateral"}, [SIDE]),
        ({"ViewPosition": "RLD"}, [SIDE]),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, [SIDE]),
        ({"ViewPosition": None, "PatientOrientation": ["L", "F"]}, []),
        ({"ViewPosition": None, "PatientOrientation": ""}, []),
        ({"Modality": "US", "ViewPosition": "LL"}, [OTHER, SIDE]),
    ],
)
def test_the_header_warns_of_what_is_no_frontal_chest_radiograph(elements: dict[str, Any], expected: list[str]) -> None:
    assert list(decode(made(radiograph(8), **elements)).warnings) == expected


def test_other_kinds_of_files_have_no_words_to_warn_with() -> None:
    assert decode(encoded(Image.new("L", (2, 2)), "PNG")).warnings == ()


@pytest.fixture(scope="module")
def client(weights: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Predictor(Weights(weights)))) as client:
        yield client


def full_range() -> Image.Image:
    """Return a drawn radiograph that uses all of 8 bits, so that showing it as DICOM changes nothing of it."""
    image = draw_radiograph(Random(0), "PNEUMONIA")
    image.putpixel((0, 0), 0)
    image.putpixel((1, 0), 255)
    return image


def test_the_api_answers_for_dicom_as_for_the_same_image(client: TestClient) -> None:
    png = client.post("/predict", files={"file": encoded(full_range(), "PNG")}).json()
    answer = client.post("/predict", files={"file": ("whatever.jpg", made(np.asarray(full_range())))}).json()
    assert answer == png

    lateral = made(np.asarray(full_range()), RLELossless, Modality="CT", ViewPosition="LL")
    parameters = {"explain": "true", "preview": "true"}
    shown = client.post("/predict", files={"file": lateral}, params=parameters).json()
    assert shown["probabilities"] == png["probabilities"]
    assert shown["warnings"] == [*png["warnings"], OTHER, SIDE]
    assert {"heatmap", "preview"} <= shown.keys()

    files = [("file", lateral), ("file", made(None)), ("file", encoded(full_range(), "PNG"))]
    first, second, third = client.post("/predict/batch", files=files).json()["results"]
    assert first["warnings"] == [*png["warnings"], OTHER, SIDE]
    assert (second["status"], third["warnings"]) == (415, png["warnings"])


def test_the_schema_tells_what_the_warnings_mean(client: TestClient) -> None:
    fields = client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]["properties"]
    assert all(f"`{name}`" in fields["warnings"]["description"] for name in (OTHER, SIDE))


def test_a_lambda_event_may_bring_dicom(weights: Path) -> None:
    body, content_type = multipart(
        "file", "xray.dcm", made(np.asarray(full_range()), JPEGLSLossless), "application/dicom"
    )
    event = function_url_event("POST", "/predict", body, {"Content-Type": content_type})
    context = SimpleNamespace(aws_request_id="1", get_remaining_time_in_millis=lambda: 60_000)
    response = Mangum(create_app(Predictor(Weights(weights))), lifespan="off")(event, context)
    assert (response["statusCode"], json.loads(response["body"])["warnings"]) == (200, [])


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


def test_nothing_about_the_patient_is_logged_or_answered(
    client: TestClient, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    good = made(radiograph(8), RLELossless, Modality="CT", SpecificCharacterSet=PATIENT)
    # A name wherever the reader looks: as the modality, as a number, in an element of an unknown type, cut off within.
    files = [
        good,
        made(radiograph(8), Modality=PATIENT),
        made(radiograph(8), StudyDate=PATIENT[:8]),
        replaced(made(radiograph(8), WindowCenter="1", WindowWidth="1"), b"DS\x02\x001 ", b"DS\x02\x00Zw"),
        made(radiograph(8), PhotometricInterpretation=PATIENT[:14]),
        replaced(good, b"\x10\0\x10\0PN", b"\x10\0\x10\0??"),
        replaced(good, b"\x28\0\x10\0US", b"\x28\0\x10\0PN"),
        *(good[: len(good) * percent // 100] for percent in range(10, 100, 10)),
        good[: good.index(PATIENT.encode()) + 5],
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings(
            "ignore", module="pydicom"
        )  # as importing pneumonia.imaging.dicom has it outside of tests
        answers = [client.post("/predict", files={"file": data}).text for data in files]
    written = capfd.readouterr()
    for text in [*answers, caplog.text, written.out, written.err]:
        assert not any(name.lower() in text.lower() for name in ("Zwiebel", "Eulalia", "4711-0815"))


def test_a_batch_answers_for_dicom_and_tells_its_warnings(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "IM000001").write_bytes(made(np.asarray(full_range()), ViewPosition="LL"))
    (folder / "same.png").write_bytes(encoded(full_range(), "PNG"))
    (folder / "film.dcm").write_bytes(made(radiograph(8), NumberOfFrames=2))
    assert main(["batch", str(folder), str(tmp_path / "answers.csv"), "--weights", str(weights)]) == 3
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    image, png = rows["IM000001"], rows["same.png"]
    assert "several frames" in rows["film.dcm"]["error"]
    assert image["probability_pneumonia"] == png["probability_pneumonia"]
    assert image["warnings"].split() == [*png["warnings"].split(), SIDE]


def test_a_channel_may_hold_dicom(tmp_path: Path) -> None:
    for label in ("NORMAL", "PNEUMONIA"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.dcm").write_bytes(made(np.asarray(full_range()), RLELossless))
    images = load_channel(scan_channels({"train": tmp_path})["train"], 1)
    assert torch.equal(images.pixels[0], resize(full_range())[:1])


@pytest.mark.processes
def test_the_largest_image_takes_no_more_memory_than_others_may(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(made(np.tile(radiograph(12) & 0xFC0, (83, 100)), JPEGLSLossless, 12))
    ((told, grown),) = decoded(path)
    assert told == str((COLUMNS * 100, ROWS * 83))
    assert int(grown) < 400_000  # KiB
