"""From an image file's bytes to 8-bit pixels, for training, evaluation and serving alike."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, ImagePalette, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import COLORMAP, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging import dicom_prefix
from pneumonia.imaging.chunks import check_png, check_rows, check_webp, exif_in_png, is_webp
from pneumonia.imaging.depth import Values, to_8_bits
from pneumonia.imaging.jpeg import Header, check_kind, check_metadata, check_scans, exif_of, header_of, is_deep
from pneumonia.imaging.jpeg_pixels import JpegFile, loaded
from pneumonia.imaging.kinds import BROKEN, PNG, READABLE, broken_is_named, unidentified, unread_tiff
from pneumonia.imaging.limits import TOO_MANY_PIXELS, check_bmp, check_bytes, check_pixels
from pneumonia.imaging.optional import deep_files, dicom
from pneumonia.imaging.tiff import Page, is_beyond_pillow, radiograph
from pneumonia.imaging.tiff_directories import check_size, is_tiff
from pneumonia.imaging.tiff_pieces import check_pieces
from pneumonia.imaging.transport import check_transport

# Pillow's warnings quote damaged metadata, a line for each tag, and a tag's text may be a patient's name.
warnings.filterwarnings("ignore", module=r"PIL\.")
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_JPEG = b"\xff\xd8\xff"
_DEEP_COLORS = (b"\x10\2", b"\x10\4", b"\x10\6")  # 16 bits of RGB, gray and alpha, or RGBA, of which Pillow keeps 8
_XMP = ("xmp", "XML:com.adobe.xmp")  # what Pillow calls it

_TURNS = {  # by Exif's Orientation, what makes an image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        image: 8 bits per channel, upright, mode "L" (grayscale) or "RGB".
        warnings: reasons to doubt the answer in the file itself; only DICOM headers have any.
    """

    image: Image.Image
    warnings: tuple[str, ...] = ()


def decode(data: bytes) -> Decoded:
    """Decode an image file to 8 bits per channel.

    Values of 8 bits stay as they are, and `imaging.depth` converts those of more bits. Transparency is dropped.

    Args:
        data: the bytes of a JPEG, PNG, BMP, TIFF, WebP or DICOM file. A TIFF may hold smaller copies of its image. A
            DICOM file is recognised by its beginning; `imaging.dicom` reads it.

    Raises:
        ImageTooLargeError: more than MAX_BYTES bytes, MAX_PIXELS pixels, or MAX_SIDE on one side.
        UnsupportedImageError: an image of another kind, or several images.
        ImageError: not an image, a broken one, or one whose values are all the same or not finite.
    """
    check_bytes(len(data))
    if not data:
        raise ImageError(f"The file is empty: send a chest X-ray as {READABLE}.")
    check_transport(data)
    if dicom_prefix.beginning(data) is not None:
        return Decoded(*dicom().decode(data))
    if data.startswith(_JPEG):
        return _jpeg(data)
    if is_tiff(data):
        return _tiff(data)
    _check_others(data)
    with _opened(io.BytesIO(data)) as image:
        if image.format in {"PNG", "WEBP"} and getattr(image, "n_frames", 1) > 1:
            raise UnsupportedImageError("The file is an animation: send each radiograph as a file of its own.")
        if data.startswith(PNG) and data[24:26] in _DEEP_COLORS:
            return Decoded(_deep_png(data, image))
        decoded = from_pillow(image)
        if data.startswith(PNG) and _may_lack_rows(data, image):
            with broken_is_named():
                check_rows(data)
        return decoded


def _check_others(data: bytes) -> None:
    if data.startswith(b"BM"):
        check_bmp(data)
    if data.startswith(PNG):
        check_png(data)
    if is_webp(data):
        check_webp(data)


def _may_lack_rows(data: bytes, image: Image.Image) -> bool:
    """Return whether what Pillow has read of a PNG last is black, as what it lacks would be."""
    is_interlaced = data[28] != 0
    return is_interlaced or not any(image.crop((0, image.height - 1, image.width, image.height)).tobytes())


def _tiff(data: bytes) -> Decoded:
    check_size(data)
    page = radiograph(data)
    if not page:  # cut off: many writers put the directory at the end. Pillow might read it all the same, unchecked
        raise ImageError(BROKEN)
    _check_size(page.width, page.height)
    check_pieces(data, page)
    if is_beyond_pillow(data, page):
        return Decoded(_deep_tiff(data, page))
    with _opened(io.BytesIO(data)) as image:
        _turn_to(image, page, data)
        _widen_palette(image)
        return from_pillow(image)


def _widen_palette(image: Image.Image) -> None:
    """Correct a TIFF's palette whose entries have 8 to 12 bits: Pillow takes the upper 8 of 16, which are black."""
    if isinstance(image, TiffImageFile) and image.mode in {"P", "PA"}:
        colors = image.tag_v2[COLORMAP]
        if (brightest := max(colors)) < 4096:
            image.palette = ImagePalette.raw(
                "RGB;L", tuple(color >> max(0, brightest.bit_length() - 8) for color in colors)
            )


def _turn_to(image: Image.Image, page: Page, data: bytes) -> None:
    try:
        image.seek(page.number)
    except MemoryError:
        raise
    except Exception as error:  # Pillow opens a TIFF by its first page, and raises anything at another that it cannot
        raise unread_tiff(data, page.entries) from error


def _jpeg(data: bytes) -> Decoded:
    header, file = header_of(data), JpegFile(data)
    check_metadata(data, header)
    if not header.height:  # libjpeg does not read it
        raise UnsupportedImageError(
            "JPEG files that tell their height only after the pixels are not read: save the X-ray as an ordinary JPEG."
        )
    _check_size(header.width, header.height)
    check_scans(data, header)
    if is_deep(header):
        return Decoded(_deep_jpeg(data, header))
    check_kind(header)
    with _opened(file) as image, broken_is_named():
        return from_pillow(loaded(image, file, header))


def _opened(file: io.BytesIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except MemoryError:  # a full memory is not the image's fault
        raise
    except UnidentifiedImageError as error:
        raise unidentified(file.getvalue()) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(TOO_MANY_PIXELS) from error
    except Exception as error:  # Pillow raises nearly anything on broken data
        if str(error).startswith("Unsupported BMP"):
            raise UnsupportedImageError(
                "BMP files of this kind are not read: save the X-ray as JPEG or PNG."
            ) from error
        raise ImageError(BROKEN) from error


def from_pillow(image: Image.Image) -> Decoded:
    """Convert an image that Pillow has opened as `decode` does, and load its pixels if necessary.

    Pillow keeps 8 of 16 bits of colours, and of gray with alpha: such an image is refused, unless it is already loaded.
    Otherwise Pillow's reading counts: it overlooks damage, and misreads rare kinds of values, where `decode` does not.

    Raises:
        ImageTooLargeError: more than MAX_PIXELS pixels, or MAX_SIDE on one side.
        UnsupportedImageError: an unsupported kind of pixels.
        ImageError: no pixels, broken ones, or values that are all the same or not finite.
    """
    if _is_narrowed(image):
        raise UnsupportedImageError(
            "Pillow keeps 8 of this image's 16 bits: give the file's path or its bytes instead."
        )
    _check_size(*image.size)  # Pillow's own guard only warns below twice its limit; this is before any is decoded
    with broken_is_named():
        with _without_xmp(image):
            image.load()
        pixels = _to_8_bit(_upright(image))
        return Decoded(ImageOps.invert(pixels) if _is_negative(image) else pixels)


def _is_narrowed(image: Image.Image) -> bool:
    """Return whether Pillow will keep the upper 8 of 16 bits when it loads an image."""
    waiting = getattr(image, "tile", ())  # empty once it is loaded
    modes = [str(part.args) for part in waiting]  # BGR;16 is 16 bits for three colours
    return not image.mode.startswith("I") and any(";16" in mode and "BGR;16" not in mode for mode in modes)


def _deep_tiff(data: bytes, page: Page) -> Image.Image:
    with broken_is_named():
        image = _shown(deep_files().tiff_values(data, page))
        return _turned(ImageOps.invert(image) if page.photometric == 0 else image, page.orientation)


def _deep_jpeg(data: bytes, header: Header) -> Image.Image:
    with broken_is_named():
        image = _shown(deep_files().jpeg_values(data, header))
        return _turned(image, _orientation(lambda: _jpeg_exif(data)))


def _jpeg_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(exif_of(data))
    return exif


def _deep_png(data: bytes, image: Image.Image) -> Image.Image:
    _check_size(*image.size)
    with broken_is_named():
        return _turned(_shown(deep_files().png_values(data)), _orientation(lambda: _png_exif(image, data)))


def _png_exif(image: Image.Image, data: bytes) -> Image.Exif:
    """Return the metadata of a PNG, which Pillow would read only after decoding all pixels."""
    if found := exif_in_png(data):
        image.info["exif"] = found
    with _without_xmp(image):
        return Image.Image.getexif(image)


def _check_size(width: int, height: int) -> None:
    check_pixels(width, height)
    if not width * height:
        raise ImageError("The image has no pixels: send one that has.")


def _is_negative(image: Image.Image) -> bool:
    # Pillow inverts TIFFs in which white is zero, but only up to 8 bits.
    if not isinstance(image, TiffImageFile) or not image.mode.startswith(("I", "F")):
        return False
    return bool(image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0)


def _upright(image: Image.Image) -> Image.Image:
    with _without_xmp(image):
        return _turned(image, _orientation(image.getexif))


@contextmanager
def _without_xmp(image: Image.Image) -> Iterator[None]:
    """Hide XMP from Pillow, which takes an orientation from it where EXIF has none; browsers do not."""
    hidden: dict[str | tuple[int, int], Any] = {name: image.info.pop(name) for name in _XMP if name in image.info}
    try:
        yield
    finally:
        image.info.update(hidden)


def _orientation(read_exif: Callable[[], Image.Exif]) -> int:
    try:
        return int(read_exif().get(Base.Orientation, 1))
    except MemoryError:  # or the answer would be about an image that lies on its side
        raise
    except Exception:  # broken metadata does not spoil the pixels
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return a copy that is upright. ImageOps.exif_transpose would write all of the metadata anew, for seconds."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image.copy()


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode in {"L", "RGB"}:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _shown(_values(image))
    if image.mode in {"La", "RGBa"}:
        image = image.convert(image.mode.upper())
    image.info.pop("transparency", None)  # or Pillow would warn that it is dropped, which is intended
    # Pillow turns the two-level "1" to 0 and 255, and grayscale with alpha loses nothing as "L".
    return image.convert("L" if image.mode in {"1", "LA"} else "RGB")


def _values(image: Image.Image) -> Values:
    """Return the values of an image of mode "I;16", "I" or "F", and of their variants, shape (height, width)."""
    return np.asarray(image if image.mode in {"F", "I;16", "I"} else image.convert("I"))


def _shown(values: Values) -> Image.Image:
    return Image.fromarray(values if values.dtype == np.uint8 else to_8_bits(values))
