"""How DICOM stores pixels: transfer syntaxes, bits and colours."""

import io
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_voi_lut
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
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
    colors,
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


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, RLELossless])
def test_bits_that_are_not_stored_do_not_count(syntax: pydicom.uid.UID) -> None:
    values = radiograph(10)
    garbage = np.random.default_rng(1).integers(0, 2**16, values.shape).astype(np.uint16)
    above = values | (garbage & 0xFC00)
    around = (values << 2) | (garbage & 0xF003)
    expected = pixels_of(made(values, bits=10))
    assert np.array_equal(pixels_of(made(above, syntax, 10)), expected)
    assert np.array_equal(pixels_of(made(around, syntax, 10, HighBit=11)), expected)


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


def test_other_compressions_are_refused() -> None:
    with pytest.raises(UnsupportedImageError, match="compression is not supported"):
        decode(made(radiograph(8), MPEG2MPML, PixelData=encapsulate([bytes(1000)])))


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
