"""Values of files that Pillow cannot read in full: 16-bit colour, signed, 32 bits, floating point, deep JPEG.

Only these files need this module, which imports imagecodecs.
"""

from typing import Any

import imagecodecs
import numpy as np

from pneumonia.errors import ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging.depth import Values
from pneumonia.imaging.jpeg import Header
from pneumonia.imaging.jpeg_ends import check_ends
from pneumonia.imaging.limits import MAX_DEEP_BYTES
from pneumonia.imaging.tiff import GRAY, Page

_RGB = {2}  # PhotometricInterpretation


def png_values(data: bytes) -> Values:
    """Return the values of a 16-bit PNG without its transparency: uint16, shape (height, width) or (height, width, 3).

    Raises:
        Exception: whatever the decoder raises on broken data.
    """
    return _without_alpha(imagecodecs.png_decode(data))


def jpeg_values(data: bytes, header: Header) -> Values:
    """Return the values of a lossless or 12-bit JPEG of one channel: uint8 or uint16, shape (height, width).

    Raises:
        ImageError: it is damaged.
        Exception: whatever the decoder raises on broken data.
    """
    # The decoder refuses to fill an array of another shape: it cannot take more memory than was checked.
    shape, dtype = (header.height, header.width), np.uint8 if header.bits <= 8 else np.uint16

    def decode(data: bytes) -> Any:  # noqa: ANN401  # an array
        return imagecodecs.jpeg8_decode(data, out=np.empty(shape, dtype))

    values: Values = decode(data)
    check_ends(data, decode, values, header)
    return values


def tiff_values(data: bytes, page: Page) -> Values:
    """Return the values of a page of a TIFF without its transparency, shape (height, width) or (height, width, 3).

    Raises:
        ImageTooLargeError: values that take more than MAX_DEEP_BYTES bytes.
        UnsupportedImageError: neither gray nor RGB.
        Exception: whatever the decoder raises on broken data.
    """
    colors = 1 if page.photometric in GRAY else 3
    if page.photometric not in GRAY | _RGB or not colors <= page.samples <= colors + 1:
        raise UnsupportedImageError(
            "A TIFF with values of this kind must be gray or RGB, with alpha at most: save the X-ray as gray."
        )
    shape = (page.height, page.width, page.samples)
    if page.is_separate:
        shape = (page.samples, page.height, page.width)
    if np.prod(shape) * page.bits // 8 > MAX_DEEP_BYTES:
        raise ImageTooLargeError(
            f"The image takes more than {MAX_DEEP_BYTES:,} bytes: save it with 8 or 16 bits per value."
        )
    # The decoder refuses to fill an array of another shape: it cannot take more memory than was checked.
    array = np.empty(shape if page.samples > 1 else (page.height, page.width), page.dtype)
    imagecodecs.tiff_decode(data, index=page.number, out=array)
    values = np.moveaxis(array, 0, -1) if page.is_separate and page.samples > 1 else array
    return _without_alpha(_divided_by_alpha(values) if page.is_premultiplied and page.samples > colors else values)


def _without_alpha(values: Values) -> Values:
    if values.ndim == 2:
        return values
    return values[..., 0] if values.shape[2] < 3 else values[..., :3]


def _divided_by_alpha(values: Values) -> Values:
    """Return gray or colours, divided by the alpha beside them, which they are multiplied by; zero where it is zero."""
    most = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
    colors, alpha = values[..., :-1], values[..., -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        divided = np.where(alpha > 0, colors * (most / alpha), 0)
    return divided.clip(None, most).astype(values.dtype)
