"""Check the compressed strips or tiles of a TIFF: libtiff ignores the checksums of Deflate and the warnings of JPEG.

TIFF 6.0, and its supplement 2 of 2002 for both compressions.
"""

import struct
import zlib
from collections.abc import Iterator

from pneumonia.errors import ImageError
from pneumonia.imaging.jpeg import header_of
from pneumonia.imaging.jpeg_pixels import check_whole
from pneumonia.imaging.kinds import BROKEN
from pneumonia.imaging.limits import MAX_PIXELS
from pneumonia.imaging.tiff import Page
from pneumonia.imaging.tiff_directories import MAX_PIECES, Values, values_of

MAX_UNPACKED = 400_000_000  # bytes; no image of MAX_PIXELS has more, so the rest is not checked
_AT_ONCE = 2**20  # bytes that are unpacked at a time
_PLACES, _LENGTHS, _COMPRESSION, _TABLES = (273, 324), (279, 325), 259, 347
_TAGS = (*_PLACES, *_LENGTHS, _COMPRESSION, _TABLES)
_DEFLATE, _JPEG = {8, 32946}, 7


def check_pieces(data: bytes, page: Page) -> None:
    """Check that strips or tiles of Deflate or JPEG are whole. Other compressions have nothing to check.

    Raises:
        ImageError: a damaged one.
    """
    try:
        values = values_of(data, (entry for entry in page.entries if entry.tag in _TAGS), MAX_PIECES)
    except (struct.error, OverflowError) as error:
        raise ImageError(BROKEN) from error
    (compression,) = values.get(_COMPRESSION, (1,))[:1]
    if compression in _DEFLATE:
        _check_deflated(_pieces(data, values))
    if compression == _JPEG:
        _check_jpegs(_pieces(data, values), bytes(values.get(_TABLES, ())))


def _pieces(data: bytes, values: Values) -> Iterator[bytes]:
    places, lengths = (next((values[tag] for tag in tags if tag in values), ()) for tags in (_PLACES, _LENGTHS))
    if len(places) == len(lengths):  # otherwise libtiff works out the lengths
        yield from (data[place : place + length] for place, length in zip(places, lengths, strict=True) if length)


def _check_deflated(pieces: Iterator[bytes]) -> None:
    unpacked = 0
    for piece in pieces:
        inflater, rest = zlib.decompressobj(), piece
        while not inflater.eof:
            try:
                part = inflater.decompress(rest, _AT_ONCE)
            except zlib.error as error:
                raise ImageError(BROKEN) from error
            rest, unpacked = inflater.unconsumed_tail, unpacked + len(part)
            if not part and not inflater.eof:
                raise ImageError(BROKEN)
            if unpacked > MAX_UNPACKED:
                return


def _check_jpegs(pieces: Iterator[bytes], tables: bytes) -> None:
    pixels = 0
    for piece in pieces:
        stream = tables[:-2] + piece[2:] if tables else piece
        header = header_of(stream)
        pixels += header.width * header.height
        if pixels > 2 * MAX_PIXELS:  # tiles may extend beyond the image, but not that far
            raise ImageError(BROKEN)
        check_whole(stream)
