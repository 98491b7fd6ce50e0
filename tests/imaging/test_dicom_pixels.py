"""How DICOM stores pixels: transfer syntaxes, bits and colours."""

import io
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_voi_lut
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pneumonia.errors import ImageError, UnsupportedImageError
from pneumonia.imaging.decoding import decode
from tests.builders.dicom_files import (
    COLUMNS,
    ENCODERS,
    LOSSY,
    ROWS,
    UNCOMPRESSED,
    Pixels,
    beginning_of,
    colors,
    data_set_of,
    frame,
    pixels_of,
    radiograph,
    to_8_bit,
)
from tests.builders.dicom_files import dicom as made


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, *ENCODERS], ids=lambda syntax: syntax.keyword)
def test_every_transfer_syntax_gives_the_same_image(syntax: pydicom.uid.UID) -> None:
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    expected = to_8_bit(radiograph(bits), 0, 2**bits - 1)
    data = made(radiograph(bits), syntax, bits, WindowCenter=2 ** (bits - 1), WindowWidth=2**bits)
    shown = pixels_of(data)
    assert decode(data).image.mode == "L"
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
    expected = apply_voi_lut(values, pydicom.dcmread(io.BytesIO(made(values, bits=12, **window))))
    assert np.array_equal(pixels_of(made(values, syntax, 12)), to_8_bit(values, -2048, 2047))
    assert abs(pixels_of(made(values, syntax, 12, **window)) - to_8_bit(expected, -2048, 2047)).max() <= 1


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_bits_that_are_not_stored_do_not_count(syntax: pydicom.uid.UID) -> None:
    values = radiograph(10)
    garbage = np.random.default_rng(1).integers(0, 2**16, values.shape).astype(np.uint16)
    above = values | (garbage & 0xFC00)
    around = (values << 2) | (garbage & 0xF003)
    expected = pixels_of(made(values, bits=10))
    assert np.array_equal(pixels_of(made(above, syntax, 10)), expected)
    assert np.array_equal(pixels_of(made(around, syntax, 10, HighBit=11)), expected)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_values_may_begin_above_the_lowest_bit(syntax: pydicom.uid.UID) -> None:
    expected = pixels_of(made(radiograph(12), bits=12))
    assert np.array_equal(pixels_of(made(radiograph(12) << 4, syntax, 12, HighBit=15)), expected)


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


def test_chrominance_may_be_shared_by_two_pixels() -> None:
    stored = np.asarray(Image.fromarray(colors()).convert("YCbCr")).copy()
    stored[:, 1::2, 1:] = stored[:, 0::2, 1:]
    luminance, blue, red = stored[..., 0], stored[:, ::2, 1], stored[:, ::2, 2]
    pixels = np.stack([luminance[:, ::2], luminance[:, 1::2], blue, red], axis=-1).tobytes()
    shared = pixels_of(made(colors(), PhotometricInterpretation="YBR_FULL_422", PixelData=pixels))
    whole = pixels_of(made(stored, PhotometricInterpretation="YBR_FULL"))
    assert np.array_equal(shared, whole)
    assert np.array_equal(pixels_of(made(stored, PhotometricInterpretation="YBR_FULL_422")), whole)


def test_run_lengths_are_planes_whatever_the_header_says() -> None:
    assert np.array_equal(pixels_of(made(colors(), RLELossless, PlanarConfiguration=1)), colors())


APP0, APP14 = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0", b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"


def as_jpeg(space: str, marker: bytes = b"", identifiers: bytes = b"\1\2\3") -> bytes:
    """Return smooth colors as JPEG in a color space, with a marker that tells it or none, and other identifiers."""
    image = Image.fromarray(smooth()).convert(space)
    coded = imagecodecs.jpeg8_encode(
        np.asarray(image), level=98, colorspace="RGB", outcolorspace="RGB", subsampling="444"
    )
    at, pieces = 2, [b"\xff\xd8", marker]
    while coded[at + 1] != 0xDA:
        length = 2 + int.from_bytes(coded[at + 2 : at + 4], "big")
        piece = bytearray(coded[at : at + length])
        if piece[1] == 0xC0:
            piece[10::3] = identifiers
        pieces += [] if 0xE0 <= piece[1] <= 0xEF else [bytes(piece)]
        at += length
    scan = bytearray(coded[at:])
    scan[5:11:2] = identifiers
    return b"".join([*pieces, bytes(scan)])


def smooth() -> Pixels:
    return np.asarray(Image.fromarray(colors()).resize((5, 6)).resize((COLUMNS, ROWS)))


@pytest.mark.parametrize(
    ("kind", "coded"),
    [
        ("RGB", as_jpeg("RGB")),
        ("RGB", as_jpeg("RGB", APP14)),
        ("RGB", as_jpeg("YCbCr", APP0)),
        ("RGB", as_jpeg("YCbCr", APP14[:-1] + b"\1")),
        ("YBR_FULL", as_jpeg("YCbCr")),
        ("YBR_FULL_422", as_jpeg("YCbCr", APP0)),
        ("YBR_FULL_422", as_jpeg("RGB", APP14)),
        ("YBR_FULL_422", as_jpeg("RGB", identifiers=b"RGB")),
        ("RGB", as_jpeg("RGB", identifiers=b"RGB")),
    ],
    ids=str,
)
def test_a_jpeg_that_tells_its_colors_is_believed_and_else_the_header(kind: str, coded: bytes) -> None:
    data = made(colors(), JPEGBaseline8Bit, PhotometricInterpretation=kind, PixelData=encapsulate([coded]))
    assert abs(pixels_of(data) - smooth()).mean() < 3


@pytest.mark.parametrize(("kind", "space"), [("RGB", "RGB"), ("YBR_FULL", "YCbCr"), ("YBR_FULL_422", "YCbCr")])
@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_colors_are_as_the_header_says(kind: str, space: str, syntax: pydicom.uid.UID) -> None:
    stored = np.asarray(Image.fromarray(colors()).convert(space))
    frame = bytes(ENCODERS[syntax](stored))
    if syntax == JPEG2000Lossless:
        frame = bytes(imagecodecs.jpeg2k_encode(stored, codecformat="j2k", level=0, reversible=True, mct=False))
    frame = frame.replace(b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0").replace(b"R\0G\0B\0", b"\1\0\2\0\3\0")
    data = made(colors(), syntax, PhotometricInterpretation=kind, PixelData=encapsulate([frame]))
    assert abs(pixels_of(data) - colors()).max() <= 3


@pytest.mark.parametrize("kind", ["RGB", "YBR_RCT", "YBR_FULL"])
def test_transformed_jpeg_2000_decodes_to_rgb(kind: str) -> None:
    frame = bytes(imagecodecs.jpeg2k_encode(colors(), codecformat="j2k", level=0, reversible=True, mct=True))
    data = made(colors(), JPEG2000Lossless, PhotometricInterpretation=kind, PixelData=encapsulate([frame]))
    assert np.array_equal(pixels_of(data), colors())


@pytest.mark.parametrize("bytes_per_pixel", [2, 3])
def test_colors_of_partial_range_are_refused(bytes_per_pixel: int) -> None:
    pixels = bytes(128 * 128 * bytes_per_pixel)
    data = made(np.zeros((128, 128, 3), np.uint8), PhotometricInterpretation="YBR_PARTIAL_422", PixelData=pixels)
    with pytest.raises(UnsupportedImageError, match="3 x 8 bits of YBR_PARTIAL_422: send"):
        decode(data)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, "1.2.840.10008.1.2.4.203"])
def test_high_throughput_jpeg_2000_is_read(syntax: str) -> None:
    frame = bytes(imagecodecs.htj2k_encode(radiograph(12), reversible=True))
    data = made(radiograph(12), JPEG2000Lossless, 12, PixelData=encapsulate([frame]))
    assert np.array_equal(pixels_of(beginning_of(syntax) + data_set_of(data)), to_8_bit(radiograph(12), 0, 4095))
    with pytest.raises(ImageError, match="is broken"):
        decode(
            made(radiograph(12), JPEG2000Lossless, 12, PixelData=encapsulate([frame[: len(frame) // 2] + b"\xff\xd9"]))
        )


@pytest.mark.parametrize("syntax", [JPEG2000, JPEGLSNearLossless])
def test_what_lossy_compression_makes_brighter_than_white_is_white(syntax: pydicom.uid.UID) -> None:
    values = np.kron(np.random.default_rng(0).integers(0, 2, (12, 10)), np.ones((5, 5))).astype(np.uint16) * 1023
    window: dict[str, Any] = {"WindowCenter": 512, "WindowWidth": 1024}
    shown = pixels_of(made(values, syntax, 10, **window))
    assert shown[values > 0].min() > 128 > shown[values == 0].max()


def test_other_compressions_are_refused() -> None:
    with pytest.raises(UnsupportedImageError, match="compression is not supported"):
        decode(made(radiograph(8), MPEG2MPML, PixelData=encapsulate([bytes(1000)])))


def test_in_a_syntax_of_ge_only_the_pixels_are_big_endian() -> None:
    swapped = made(radiograph(12).byteswap(), ImplicitVRLittleEndian, 12)
    data = beginning_of("1.2.840.113619.5.2") + data_set_of(swapped)
    assert np.array_equal(pixels_of(data), pixels_of(made(radiograph(12), bits=12)))


def test_progressive_arithmetic_codes_are_refused() -> None:
    coded = bytes(imagecodecs.jpeg8_encode(radiograph(8))).replace(b"\xff\xc0", b"\xff\xca")
    with pytest.raises(UnsupportedImageError, match="compression is not supported"):
        decode(made(radiograph(8), JPEGBaseline8Bit, PixelData=encapsulate([coded])))


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
