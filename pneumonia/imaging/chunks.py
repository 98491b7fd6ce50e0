"""The chunks of PNG and WebP: how much metadata they hold, and whether a PNG's checksums are right.

ISO/IEC 15948, 5.3, and RFC 9649, 2.3.
"""

import contextlib
import math
import struct
import zlib
from collections.abc import Iterator

from pneumonia.errors import ImageError
from pneumonia.imaging.kinds import BROKEN, PNG
from pneumonia.imaging.limits import (
    MAX_CHUNKS,
    MAX_EXIF,
    MAX_METADATA,
    check_count,
    check_metadata_bytes,
    check_pixels,
    too_many,
)
from pneumonia.imaging.tiff_directories import check_exif

_PACKED = {b"zTXt", b"iTXt", b"iCCP"}  # chunks whose content may be deflated
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_EXIF_TEXTS = (b"Raw profile type exif", b"exif")  # names of texts that Pillow takes for EXIF
_UNPACKED = 2**16  # bytes that are unpacked at a time
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's pixel, by its kind of colours
# First column and row of each pass of an interlaced PNG, and the steps to the next ones: ISO/IEC 15948, 8.2.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_WEBP_PIXELS = {b"VP8 ", b"VP8L", b"ALPH", b"ANMF"}


def check_png(data: bytes) -> None:
    """Check that a PNG does not take long to open, and that each chunk of pixels agrees with its checksum.

    Pillow checks only the checksums of the other chunks.

    Raises:
        ImageTooLargeError: more than MAX_CHUNKS chunks, or more than MAX_METADATA bytes in those without pixels once
            they are unpacked, or EXIF that is larger than `check_exif` allows.
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
            check_metadata_bytes(metadata, "PNG")  # before anything is copied
            metadata += _checked_metadata(kind, data[at + 8 : end])
            check_metadata_bytes(metadata, "PNG")
        elif zlib.crc32(view[at + 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            raise ImageError(BROKEN)
        at = end + 4
    raise too_many(MAX_CHUNKS, "PNG chunks")


def _checked_metadata(kind: bytes, content: bytes) -> int:
    """Return how many bytes a PNG's chunk unpacks to, 0 if it is not deflated, after checking the EXIF in it."""
    unpacked = _unpacked_size(_deflated(kind, content)) if kind in _PACKED else 0
    if kind == b"eXIf":
        check_exif(content)
    if kind in _TEXTS and content.startswith(_EXIF_TEXTS):
        check_count(len(content) + unpacked, MAX_EXIF, "bytes of EXIF")
    return unpacked


def _deflated(kind: bytes, content: bytes) -> bytes:
    """Return the deflated part of a chunk of text or of a colour profile: ISO/IEC 15948, 11.3.3.3 and 11.3.4."""
    rest = content.partition(b"\0")[2]
    if kind != b"iTXt":
        return rest[1:]
    return b"" if rest.startswith(b"\0") else rest[2:].split(b"\0", 2)[-1]


def _unpacked_size(packed: bytes) -> int:
    """Return how many bytes are unpacked until the end or the first damage, or until they are too many."""
    inflater, size = zlib.decompressobj(), 0
    with contextlib.suppress(zlib.error):
        while size <= MAX_METADATA and (part := inflater.decompress(packed, _UNPACKED)):
            packed, size = inflater.unconsumed_tail, size + len(part)
    return size


def check_rows(data: bytes) -> None:
    """Check that a PNG that Pillow has read has all its rows. Pillow leaves those black that follow the end.

    Raises:
        ImageError: the pixels end earlier.
    """
    inflater, missing = zlib.decompressobj(), _filtered_size(data)
    for pixels in _pixels_of(data):
        waiting = pixels
        while missing > 0 and not inflater.eof and (part := inflater.decompress(waiting, _UNPACKED)):
            waiting, missing = inflater.unconsumed_tail, missing - len(part)
        if missing <= 0 or inflater.eof:  # what follows does not count, and zlib would copy it again and again
            break
    if missing > 0:
        raise ImageError(BROKEN)


def _filtered_size(data: bytes) -> int:
    """Return how many bytes the rows of a PNG have, each after a byte that names its filter: ISO/IEC 15948, 7.2."""
    width, height, depth, kind, _, _, is_interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    passes = _PASSES if is_interlaced else ((0, 0, 1, 1),)
    sides = ((math.ceil((width - x) / dx), math.ceil((height - y) / dy)) for x, y, dx, dy in passes)
    return sum(rows * (1 + math.ceil(columns * _CHANNELS[kind] * depth / 8)) for columns, rows in sides if columns > 0)


def _pixels_of(data: bytes) -> Iterator[bytes]:
    at = len(PNG)
    while (kind := data[at + 4 : at + 8]) not in {b"IEND", b""}:
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IDAT":
            yield data[at + 8 : end]
        at = end + 4


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
        ImageTooLargeError: more than MAX_CHUNKS chunks, more than MAX_METADATA bytes in those without pixels, EXIF that
            is larger than `check_exif` allows, or a canvas that is larger than `check_pixels` allows.
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
        if kind == b"EXIF":
            check_exif(data[at + 8 : at + 8 + size])
        if kind == b"VP8X" and size >= 10:
            check_pixels(*(int.from_bytes(data[place : place + 3], "little") + 1 for place in (at + 12, at + 15)))
        at += 8 + size + size % 2
    raise too_many(MAX_CHUNKS, "WebP chunks")
