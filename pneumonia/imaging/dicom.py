"""DICOM: from a file's bytes to an 8-bit image, and what its header says against an answer.

C.… are sections of https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

import itertools
import logging
import warnings
import zlib

import pydicom.config
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging import dicom_header
from pneumonia.imaging.dicom_elements import Wanted, read_data_set, read_meta
from pneumonia.imaging.dicom_layout import complete, decimals, unsupported
from pneumonia.imaging.dicom_pixels import stored_bands
from pneumonia.imaging.dicom_prefix import beginning
from pneumonia.imaging.dicom_values import shown_by_palette, shown_in_gray
from pneumonia.imaging.limits import MAX_INFLATED

# pydicom's warnings and log lines quote what it finds wrong, which may be a patient's name.
warnings.filterwarnings("ignore", module="pydicom")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

# No element about the patient is among them.
_LUT: Wanted = {0x00283002: None, 0x00283006: None}
# Of the one frame of an enhanced image, C.7.6.16.2.9 and .10: rescale and window.
_FRAME: dict[int, Wanted] = {
    0x00289145: {0x00281052: None, 0x00281053: None},
    0x00289132: dict.fromkeys((0x00281050, 0x00281051, 0x00281056)),
}
# What of it counts only if the whole image has none.
_FRAMES = {0x00289145: ("RescaleSlope", "RescaleIntercept"), 0x00289132: ("WindowCenter", "WindowWidth")}
_WANTED: Wanted = {
    **dicom_header.WANTED,
    **dict.fromkeys(0x00280000 + element for element in (0x0002, 0x0004, 0x0006, 0x0008, 0x0010, 0x0011)),
    **dict.fromkeys(0x00280000 + element for element in (0x0100, 0x0101, 0x0102, 0x0103, 0x0120, 0x0121)),
    **dict.fromkeys(0x00280000 + element for element in (0x1050, 0x1051, 0x1052, 0x1053, 0x1056)),
    **dict.fromkeys(0x00280000 + element for element in (0x1101, 0x1102, 0x1103, 0x1201, 0x1202, 0x1203)),
    **dict.fromkeys(0x00280000 + element for element in (0x1221, 0x1222, 0x1223)),
    0x00283000: _LUT,
    0x00283010: _LUT,
    0x20500020: None,
    0x52009229: _FRAME,
    0x52009230: _FRAME,
}


def decode(data: bytes) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a DICOM file's image as it is meant to be shown, and read what its header says against an answer.

    The image is neither rotated nor, if its pixels are not square, rescaled.

    Args:
        data: a file with a `beginning`.

    Returns:
        The image, mode "L", or "RGB" if it has colours; and the warnings, as `dicom_header.warnings` gives them.

    Raises:
        ImageTooLargeError: more than MAX_PIXELS pixels, or a header or image of too many pieces.
        UnsupportedImageError: no image, several frames, or an unsupported kind of pixels or compression.
        ImageError: a broken file.
    """
    try:
        return _decode(data)
    except (ImageError, MemoryError):
        raise
    except Exception:  # pydicom and the decoders raise nearly anything on broken data, and may quote it
        raise ImageError("The DICOM file is broken: its image cannot be decoded, export it anew.") from None


def _decode(data: bytes) -> tuple[Image.Image, tuple[str, ...]]:
    syntax, at = read_meta(data, beginning(data) or 0)
    if syntax == DeflatedExplicitVRLittleEndian:
        data, at = _inflated(data[at:]), 0
    header, pixels = read_data_set(data, at, _WANTED)
    if pixels is None:
        raise UnsupportedImageError(
            "The DICOM file holds no image as PixelData, or ends before it: send the file with the X-ray."
        )
    _add_frame(header)
    complete(header)
    bands = stored_bands(pixels, syntax, header)
    return _image(bands, header), dicom_header.warnings(header)


def _add_frame(header: Dataset) -> None:
    """Add what a header says of its first frame to what it says of the whole image, which comes first."""
    groups = [header.get(f"{name}FunctionalGroupsSequence") for name in ("Shared", "PerFrame")]
    for group, (sequence, names) in itertools.product((items[0] for items in groups if items), _FRAMES.items()):
        items = group[sequence].value if sequence in group else None
        if items and not any(decimals(header, name) for name in names):  # a window and its function go together
            for tag in _FRAME[sequence]:
                header.pop(tag, None)
                if tag in items[0]:
                    header[tag] = items[0].get_item(tag)


def _inflated(data: bytes) -> bytes:
    """Return a deflated data set, PS3.5, A.5.

    Raises:
        ImageTooLargeError: it has more than MAX_INFLATED bytes.
        zlib.error: it is broken.
    """
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_INFLATED + 1)
    if len(inflated) > MAX_INFLATED:
        raise ImageTooLargeError(f"The DICOM file inflates to more than {MAX_INFLATED:,} bytes: export it without.")
    return inflated


def _image(bands: list[Image.Image], header: Dataset) -> Image.Image:
    kind = header.PhotometricInterpretation
    if len(bands) == 3:
        if kind == "YBR_PARTIAL_422":  # not converted by a decoder, and of a narrower range
            raise unsupported(kind, 3, header.BitsAllocated)
        is_rgb = kind not in {"YBR_FULL", "YBR_FULL_422"}
        return Image.merge("RGB", bands) if is_rgb else Image.merge("YCbCr", bands).convert("RGB")
    return shown_by_palette(bands[0], header) if kind == "PALETTE COLOR" else shown_in_gray(bands[0], header)
