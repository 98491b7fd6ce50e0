"""Check a TIFF's strips or tiles. Pillow ignores missing ones, and libtiff Deflate's checksums and JPEG's warnings.

TIFF 6.0, and its supplement 2 of 2002 for both compressions.
"""

import math
import struct
import zlib
from collections.abc import Iterable

from pneumonia.errors import ImageError
from pneumonia.imaging.jpeg import header_of, segments
from pneumonia.imaging.jpeg_pixels import check_whole
from pneumonia.imaging.kinds import BROKEN, unread_tiff
from pneumonia.imaging.limits import (
    MAX_PIECE_BYTES,
    MAX_PIECE_SEGMENTS,
    MAX_PIECES,
    MAX_PIXELS,
    MAX_TABLES,
    MAX_UNPACKED,
    check_count,
)
from pneumonia.imaging.tiff import Page, is_beyond_pillow
from pneumonia.imaging.tiff_directories import FAX, Values, values_of

_PACKED, _UNPACKED = 2**16, 2**20  # bytes that are unpacked at a time, and that they are unpacked to
_PLACES, _LENGTHS, _COMPRESSION, _TABLES = (273, 324), (279, 325), 259, 347
_ROWS, _TILE_WIDTH, _TILE_HEIGHT = 278, 322, 323
_TAGS = (*_PLACES, *_LENGTHS, _COMPRESSION, _TABLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT)
_SEGMENTS = "segments of JPEG in TIFF strips or tiles"
_NONE, _DEFLATE, _JPEG = 1, {8, 32946}, 7


def check_pieces(data: bytes, page: Page) -> None:
    """Check that strips or tiles are not too much to decode, and that they are whole.

    Uncompressed ones are checked to be there, those of Deflate and JPEG to be undamaged; libtiff checks the others.

    Raises:
        ImageTooLargeError: more than MAX_PIECE_BYTES bytes, MAX_PIECE_SEGMENTS segments of JPEG, or MAX_TABLES bytes of
            tables that all JPEGs share.
        UnsupportedImageError: fax codes.
        ImageError: a damaged or missing one.
    """
    try:
        values = values_of(data, (entry for entry in page.entries if entry.tag in _TAGS), MAX_PIECES)
    except (struct.error, OverflowError) as error:
        raise ImageError(BROKEN) from error
    (compression,) = values.get(_COMPRESSION, (_NONE,))[:1]
    if compression in FAX:  # no radiograph is black and white alone, and libtiff prints a line for each damaged row
        raise unread_tiff(data, page.entries)
    if compression == _NONE:
        _check_complete(values, page)
        if not is_beyond_pillow(data, page):
            return  # Pillow reads as many bytes as the pixels have
    pieces = _pieces(data, values)
    check_count(sum(map(len, pieces)), MAX_PIECE_BYTES, "bytes in TIFF strips or tiles")
    if compression in _DEFLATE:
        _check_deflated(pieces)
    if compression == _JPEG:
        tables = bytes(values.get(_TABLES, ()))
        check_count(len(tables), MAX_TABLES, "bytes of JPEG tables")
        _check_jpegs(pieces, tables)


def _check_complete(values: Values, page: Page) -> None:
    """Check that each strip or tile has a place. Pillow would leave pixels black, or take the header for pixels."""
    if _PLACES[0] in values:
        sides = page.width, min(values.get(_ROWS, (0,))[0] or page.height, page.height)
    else:
        sides = values.get(_TILE_WIDTH, (0,))[0] or page.width, values.get(_TILE_HEIGHT, (0,))[0] or page.height
    across, down = (math.ceil(whole / side) for whole, side in zip((page.width, page.height), sides, strict=True))
    places = _given(values, _PLACES)
    if len(places) < across * down * (page.samples if page.is_separate else 1) or 0 in places:
        raise ImageError(BROKEN)


def _pieces(data: bytes, values: Values) -> list[memoryview]:
    """Return the strips or tiles as they are stored. If the file tells no lengths, each may go on to its end."""
    places, lengths = _given(values, _PLACES), _given(values, _LENGTHS)
    if len(places) != len(lengths):
        lengths = (len(data),) * len(places)
    view = memoryview(data)
    return [view[place : place + length] for place, length in zip(places, lengths, strict=True) if length]


def _given(values: Values, tags: Iterable[int]) -> tuple[int, ...]:
    """Return the values of the first of the tags that a page has; none if it has none."""
    return next((values[tag] for tag in tags if tag in values), ())


def _check_deflated(pieces: Iterable[memoryview]) -> None:
    unpacked = 0
    for piece in pieces:
        inflater, waiting, at = zlib.decompressobj(), b"", 0
        while not inflater.eof:
            if not waiting:
                waiting, at = bytes(piece[at : at + _PACKED]), at + _PACKED
            is_fed = bool(waiting)
            try:
                part = inflater.decompress(waiting, _UNPACKED)
            except zlib.error as error:
                raise ImageError(BROKEN) from error
            if not is_fed and not part and not inflater.eof:
                raise ImageError(BROKEN)
            waiting, unpacked = inflater.unconsumed_tail, unpacked + len(part)
            if unpacked > MAX_UNPACKED:
                return


def _check_jpegs(pieces: list[memoryview], tables: bytes) -> None:
    shared = sum(1 for _ in segments(tables)) if tables else 0
    check_count(shared * len(pieces), MAX_PIECE_SEGMENTS, _SEGMENTS)
    pixels = count = 0
    for piece in pieces:
        stream = tables[:-2] + piece[2:] if tables else bytes(piece)
        header = header_of(stream)
        pixels, count = pixels + header.width * header.height, count + header.segments
        if pixels > 2 * MAX_PIXELS:  # tiles may extend beyond the image, but not that far
            raise ImageError(BROKEN)
        check_count(count, MAX_PIECE_SEGMENTS, _SEGMENTS)
        check_whole(stream)
