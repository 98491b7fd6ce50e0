"""The chunks of PNG and WebP: how much metadata they hold, and whether a PNG's checksums are right.

ISO/IEC 15948, 5.3, and RFC 9649, 2.3.
"""

import struct
import zlib

from pneumonia.errors import ImageError, ImageTooLargeError
from pneumonia.imaging.kinds import BROKEN
from pneumonia.imaging.limits import check_metadata_bytes

PNG = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 65_536  # usually some hundreds; Pillow reads those of a PNG one by one
_WEBP_PIXELS = {b"VP8 ", b"VP8L", b"ALPH", b"ANMF"}


def check_png(data: bytes) -> None:
    """Check that a PNG does not take long to open, and that each chunk of pixels agrees with its checksum.

    Pillow checks only the checksums of the other chunks.

    Raises:
        ImageTooLargeError: more than MAX_CHUNKS chunks, or more than MAX_METADATA bytes in those without pixels.
        ImageError: a chunk of pixels is damaged or cut off.
    """
    at, metadata, view = len(PNG), 0, memoryview(data)
    for _ in range(MAX_CHUNKS):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if kind != b"IDAT":
            metadata += end - at
            check_metadata_bytes(metadata, "PNG")
        elif zlib.crc32(view[at + 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            raise ImageError(BROKEN)
        at = end + 4
    raise _too_many_chunks("PNG")


def exif_in_png(data: bytes) -> bytes:
    """Return the EXIF metadata of a PNG that `check_png` let pass, b"" if it has none."""
    at = len(PNG)
    while (kind := data[at + 4 : at + 8]) not in {b"eXIf", b"IEND", b""}:
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return data[at + 8 :][: int.from_bytes(data[at : at + 4], "big")] if kind == b"eXIf" else b""


def is_webp(data: bytes) -> bool:
    """Return whether a file begins as a WebP does."""
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def check_webp(data: bytes) -> None:
    """Check that a WebP does not take long to open. What follows its end does not count, as for decoders.

    Raises:
        ImageTooLargeError: more than MAX_CHUNKS chunks, or more than MAX_METADATA bytes in those without pixels.
        ImageError: a chunk goes on after the end of the file.
    """
    at, metadata, end = 12, 0, 8 + int.from_bytes(data[4:8], "little")
    for _ in range(MAX_CHUNKS):
        if at + 8 > min(end, len(data)):
            return
        kind, size = struct.unpack_from("<4sI", data, at)
        if at + 8 + size > len(data):
            raise ImageError(BROKEN)
        metadata += 0 if kind in _WEBP_PIXELS else size
        check_metadata_bytes(metadata, "WebP")
        at += 8 + size + size % 2
    raise _too_many_chunks("WebP")


def _too_many_chunks(kind: str) -> ImageTooLargeError:
    return ImageTooLargeError(f"The {kind} has more than {MAX_CHUNKS:,} chunks: save it anew.")
