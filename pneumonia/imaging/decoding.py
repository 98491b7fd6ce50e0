"""From an image file's bytes to 8-bit pixels, for training, evaluation and serving alike."""

import io
from types import ModuleType
from typing import NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging import dicom_prefix
from pneumonia.imaging.limits import TOO_MANY_PIXELS, check_bytes, check_effort, check_pixels

BROKEN = "The image is broken: it begins well but cannot be decoded to its end. Send it again, or export it anew."
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
READABLE = "JPEG, PNG, BMP, TIFF, WebP or DICOM"
NO_IMAGE = f"The file is not an image: send a chest X-ray as {READABLE}."

_UNREAD_KINDS = (
    ("GIF", 0, b"GIF8"),
    ("PDF", 0, b"%PDF-"),
    ("JPEG 2000", 4, b"jP  \r\n\x87\n"),
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("JPEG XL", 4, b"JXL "),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("Photoshop", 0, b"8BPS"),
    ("ICO", 0, b"\0\0\1\0"),
    ("HEIC, AVIF and MP4", 4, b"ftyp"),
    ("SVG", 0, b"<svg"),
)


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        image: 8 bits per channel, upright, mode "L" (grayscale) or "RGB".
        warnings: what the file itself says against an answer; only DICOM headers can say that.
    """

    image: Image.Image
    warnings: tuple[str, ...] = ()


def decode(data: bytes) -> Decoded:
    """Decode an image file to 8 bits per channel.

    Grayscale values of more than 8 bits are divided by the smallest power of two that fits the brightest pixel, so that
    a 12-bit radiograph in a 16-bit file keeps its contrast. 16-bit colours keep their upper 8 bits. Transparency is
    dropped.

    Args:
        data: the bytes of a JPEG, PNG, BMP, TIFF, WebP or DICOM file. Of an animation, the first frame is decoded. A
            DICOM file is recognised by its beginning; `imaging.dicom` reads it.

    Raises:
        ImageTooLargeError: more than MAX_BYTES bytes, MAX_PIXELS pixels, or MAX_SIDE on one side.
        UnsupportedImageError: an image of another kind.
        ImageError: not an image, or a broken one.
    """
    check_bytes(len(data))
    if not data:
        raise ImageError(f"The file is empty: send a chest X-ray as {READABLE}.")
    if dicom_prefix.beginning(data) is not None:
        return Decoded(*_dicom().decode(data))
    check_effort(data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except MemoryError:  # a full memory is not the image's fault
        raise
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(TOO_MANY_PIXELS) from error
    except Exception as error:  # Pillow raises nearly anything on broken data
        raise ImageError(BROKEN) from error
    with image:
        return from_pillow(image)


def from_pillow(image: Image.Image) -> Decoded:
    """Convert an image that Pillow has opened as `decode` does, loading its pixels if need be.

    Raises:
        ImageTooLargeError: more than MAX_PIXELS pixels, or MAX_SIDE on one side.
        UnsupportedImageError: an unsupported kind of pixels.
        ImageError: broken pixels, or none.
    """
    check_pixels(*image.size)  # Pillow's own guard only warns below twice its limit; this is before any is decoded
    if not all(image.size):
        raise ImageError("The image has no pixels: send one that has.")
    try:
        image.load()
        pixels = _to_8_bit(_upright(image))
        return Decoded(ImageOps.invert(pixels) if _is_negative(image) else pixels)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(BROKEN) from error


def _dicom() -> ModuleType:
    try:
        from pneumonia.imaging import dicom  # noqa: PLC0415  # half a second and 60 MB, for DICOM files only
    except ModuleNotFoundError as error:  # SageMaker's training container has neither
        raise UnsupportedImageError(
            "Reading DICOM files needs pydicom and imagecodecs: install them, or send a JPEG or PNG."
        ) from error
    return dicom


def _is_negative(image: Image.Image) -> bool:
    # Pillow inverts TIFFs in which white is zero, but only up to 8 bits.
    if not isinstance(image, TiffImageFile) or not image.mode.startswith("I"):
        return False
    return bool(image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:  # or the answer would be about an image that lies on its side
        raise
    except Exception:  # broken metadata does not spoil the pixels, which are loaded by now
        return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode in {"L", "RGB"}:
        return image
    if image.mode == "F":
        raise UnsupportedImageError("Floating-point images have no set range: send 8 or 16 bits per pixel.")
    if image.mode.startswith("I"):
        return _shift_to_8_bit(image)
    if image.mode in {"La", "RGBa"}:
        image = image.convert(image.mode.upper())
    image.info.pop("transparency", None)  # or Pillow would warn that it is dropped, which is intended
    # Pillow turns the two-level "1" to 0 and 255, and grayscale with alpha loses nothing as "L".
    return image.convert("L" if image.mode in {"1", "LA"} else "RGB")


def _shift_to_8_bit(image: Image.Image) -> Image.Image:
    wide = image.convert("I")
    brightest = int(wide.getextrema()[1])  # type: ignore[arg-type]  # "I" has one band: a pair of numbers
    step = 2 ** max(0, brightest.bit_length() - 8)
    return wide.point(lambda value: value * (1 / step)).convert("L")


def _unidentified(data: bytes) -> ImageError:
    for kind, offset, magic in _UNREAD_KINDS:
        if data[offset : offset + len(magic)] == magic:
            return UnsupportedImageError(f"{kind} files are not read: send the X-ray as {READABLE}.")
    return ImageError(NO_IMAGE)
