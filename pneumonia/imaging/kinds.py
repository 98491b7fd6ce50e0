"""The kinds of files that are read, and the errors for others."""

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pneumonia.errors import ImageError, UnsupportedImageError
from pneumonia.imaging.tiff_directories import Entry, directories, is_tiff, kind_of

READABLE = "JPEG, PNG, BMP, TIFF, WebP or DICOM"
NO_IMAGE = f"The file is not an image: send a chest X-ray as {READABLE}."
BROKEN = "The image is broken: part of its data is missing or changed. Send it again, or export it anew."

_UNREAD = (
    ("GIF", 0, b"GIF8"),
    ("PDF", 0, b"%PDF-"),
    ("JPEG 2000", 4, b"jP  \r\n\x87\n"),
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("JPEG XL", 4, b"JXL "),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("Photoshop", 0, b"8BPS"),
    ("ICO", 0, b"\0\0\1\0"),
    ("HEIC, AVIF and MP4", 4, b"ftyp"),
    ("NIfTI", 344, b"n+1\0"),
    ("NIfTI", 344, b"ni1\0"),
    ("NIfTI", 4, b"n+2\0"),
    ("NRRD", 0, b"NRRD"),
    ("MetaImage", 0, b"ObjectType"),
    ("MetaImage", 0, b"NDims"),
    ("HDF5 and MATLAB", 0, b"\x89HDF\r\n"),
    ("HDF5 and MATLAB", 512, b"\x89HDF\r\n"),
    ("MATLAB", 0, b"MATLAB "),
    ("NumPy", 0, b"\x93NUMPY"),
    ("FITS", 0, b"SIMPLE  ="),
    ("OpenEXR", 0, b"\x76\x2f\x31\x01"),
    ("JPEG XR", 0, b"II\xbc\x01"),
    ("DDS", 0, b"DDS "),
    ("EPS and PostScript", 0, b"%!PS"),
    ("ICNS", 0, b"icns"),
    ("GIMP", 0, b"gimp xcf"),
    ("Targa", -18, b"TRUEVISION-XFILE"),
    ("Word, Excel and PowerPoint", 0, b"\xd0\xcf\x11\xe0"),
)
_PORTABLE = re.compile(rb"(?:P[1-7]|P[Ff])\s")  # bitmaps, graymaps and the like
PNG = b"\x89PNG\r\n\x1a\n"
_DAMAGED = (("PNG", 0, PNG), ("WebP", 8, b"WEBPVP8"))  # read, if they are whole
_MARKUP = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+)?(html|svg)\b", re.IGNORECASE)
_ARCHIVES = (
    ("zip", 0, b"PK\3\4"),
    ("gzip", 0, b"\x1f\x8b"),
    ("bzip2", 0, b"BZh"),
    ("xz", 0, b"\xfd7zXZ\0"),
    ("7z", 0, b"7z\xbc\xaf\x27\x1c"),
    ("RAR", 0, b"Rar!"),
    ("tar", 257, b"ustar"),
    ("Zstandard", 0, b"\x28\xb5\x2f\xfd"),
)


@contextmanager
def broken_is_named() -> Iterator[None]:
    """Turn whatever a decoder raises on broken data into the sentence for a broken image.

    Raises:
        ImageError: the block raised it, or anything else but a MemoryError.
        MemoryError: the block raised it: a full memory is not the image's fault.
    """
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(BROKEN) from error


def unidentified(data: bytes) -> ImageError:
    """Return the error for a file that is not read: an UnsupportedImageError where its kind is known.

    Args:
        data: the bytes of the file; of a TIFF, one that has a whole page.
    """
    if is_tiff(data):
        return unread_tiff(data, next(directories(data)).entries)
    if archive := _named(data, _ARCHIVES):
        return UnsupportedImageError(f"The file is packed ({archive}): unpack it, and send the X-ray as {READABLE}.")
    if _named(data, _DAMAGED):
        return ImageError(BROKEN)
    if kind := _named(data, _UNREAD) or ("PNM" if _PORTABLE.match(data) else _markup(data)):
        return UnsupportedImageError(f"{kind} files are not read: send the X-ray as {READABLE}.")
    return ImageError(NO_IMAGE)


def unread_tiff(data: bytes, entries: list[Entry]) -> UnsupportedImageError:
    """Return the error for a TIFF of a kind that is not read, given the entries of its page."""
    return UnsupportedImageError(
        f"TIFF files of this kind are not read ({kind_of(data, entries)}): save the X-ray as PNG with 8 or 16 bits."
    )


def _named(data: bytes, kinds: tuple[tuple[str, int, bytes], ...]) -> str | None:
    return next((kind for kind, offset, magic in kinds if data.startswith(magic, offset)), None)


def _markup(data: bytes) -> str | None:
    found = _MARKUP.match(data.removeprefix(codecs.BOM_UTF8)[:1000])
    return found[1].decode().upper() if found else None
