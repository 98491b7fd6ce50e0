"""Small files of every format and coding, mutated: they are decoded, or refused in a sentence, and nothing else."""

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless

from tests.builders.dicom_files import dicom, radiograph
from tests.builders.fuzzing import fuzzed
from tests.builders.images import encoded
from tests.builders.mutations import check_decode, mutated, with_checksums
from tests.builders.tiff_files import COMPRESSIONS, tiff

pytestmark = pytest.mark.filterwarnings("ignore")  # of what is wrong in a file, before it is refused

GRAY = Image.linear_gradient("L").resize((40, 32))
COLORED = Image.merge("RGB", [GRAY, GRAY.rotate(180), GRAY])
DEEP = np.arange(40 * 32, dtype=np.uint16).reshape(32, 40) * 3
DEEP_COLORED = np.stack([DEEP, DEEP[::-1], DEEP], axis=-1)

JPEGS = [
    encoded(image, "JPEG", progressive=progressive, **options)
    for image in (GRAY, COLORED)
    for progressive in (False, True)
    for options in ({}, {"restart_marker_rows": 1}, {"quality": 20})
]
DEEP_JPEGS = [
    bytes(imagecodecs.jpeg8_encode(DEEP, bitspersample=12)),
    bytes(imagecodecs.ljpeg_encode(DEEP)),
    bytes(imagecodecs.jpeg8_encode(np.asarray(GRAY), lossless=True)),
    bytes(imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=16, predictor=6)),
]
PNGS = [
    encoded(GRAY, "PNG"),
    encoded(COLORED.convert("P"), "PNG"),
    bytes(imagecodecs.png_encode(DEEP)),
    bytes(imagecodecs.png_encode(DEEP_COLORED)),
]
TIFFS = [
    tiff(values, compression, is_big=is_big)
    for compression in COMPRESSIONS
    for is_big in (False, True)
    for values in (np.asarray(GRAY), DEEP, DEEP.astype(np.int16), DEEP_COLORED, DEEP.astype(">u2"))
]
TIFFS += [encoded(image, "TIFF", compression="jpeg") for image in (GRAY, COLORED)]
TIFFS += [tiff(DEEP, compression, tile=8) for compression in COMPRESSIONS]
OTHERS = [encoded(COLORED, "WEBP"), encoded(COLORED, "WEBP", lossless=True), encoded(GRAY, "BMP")]
DICOMS = [
    dicom(radiograph(12), syntax) for syntax in (JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
]


@given(mutated(JPEGS))
@fuzzed(400)
def test_mutated_jpeg_files_are_decoded_or_refused(data: bytes) -> None:
    check_decode(data)


@given(mutated(DEEP_JPEGS))
@fuzzed(300)
def test_mutated_deep_jpeg_files_are_decoded_or_refused(data: bytes) -> None:
    check_decode(data)


@given(mutated(PNGS))
@fuzzed(200)
def test_mutated_png_files_are_decoded_or_refused(data: bytes) -> None:
    check_decode(data)
    check_decode(with_checksums(data))


@given(mutated(TIFFS))
@fuzzed(600)
def test_mutated_tiff_files_are_decoded_or_refused(data: bytes) -> None:
    check_decode(data)


@given(mutated(OTHERS))
@fuzzed(200)
def test_mutated_webp_and_bmp_files_are_decoded_or_refused(data: bytes) -> None:
    check_decode(data)


@given(mutated(DICOMS))
@fuzzed(200)
def test_mutated_dicom_files_are_decoded_or_refused(data: bytes) -> None:
    check_decode(data)
