"""Images of 25 million pixels in files of at most 20 MiB, in the codings that take longest."""

from collections.abc import Callable

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from tests.builders.dicom_files import dicom
from tests.builders.images import encoded
from tests.builders.multiplied import scans
from tests.builders.tiff_files import tiff

SIDE = 5000


def _noise(bits: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 2**bits, (SIDE, SIDE), np.uint8)


def _picture(bits: int) -> Image.Image:
    return Image.fromarray(_noise(bits) << (8 - bits))


LARGE: dict[str, dict[str, Callable[[], bytes]]] = {
    "JPEG": {
        "25 million pixels": lambda: encoded(_picture(4), "JPEG", quality=90),
        "25 million pixels, progressive": lambda: encoded(_picture(4), "JPEG", quality=90, progressive=True),
        "25 million pixels in 100 scans": lambda: scans(36, SIDE),
        "25 million pixels, lossless": lambda: bytes(imagecodecs.ljpeg_encode(_noise(3))),
    },
    "PNG": {
        "25 million pixels": lambda: encoded(_picture(4), "PNG", compress_level=1),
        "25 million pixels of 3 x 16 bits": lambda: bytes(
            imagecodecs.png_encode(np.stack([_noise(1).astype(np.uint16) << 15] * 3, axis=-1), level=1)
        ),
    },
    "WebP": {
        "25 million pixels": lambda: encoded(_picture(4), "WEBP", quality=50, method=0),
        "25 million pixels, lossless": lambda: encoded(_picture(2), "WEBP", lossless=True, quality=0, method=0),
    },
    "BMP": {"20 million pixels": lambda: encoded(Image.fromarray(_noise(8)[:4000]), "BMP")},
    "TIFF": {
        "25 million pixels, LZW": lambda: tiff(_noise(2), 5),
        "25 million pixels of 3 x 16 bits, Deflate": lambda: tiff(
            np.stack([_noise(1).astype(np.uint16) << 15] * 3, axis=-1), 8
        ),
    },
    "DICOM": {
        "25 million pixels, JPEG 2000": lambda: dicom(_noise(3), JPEG2000Lossless),
        "25 million pixels, JPEG-LS": lambda: dicom(_noise(3), JPEGLSLossless),
        "25 million pixels, lossless JPEG": lambda: dicom(_noise(3), JPEGLosslessSV1),
    },
}
