"""Check a TIFF's strips or tiles. Pillow ignores missing ones, and libtiff Deflate's checksums and JPEG's warnings.

TIFF 6.0, and its supplement 2 of 2002 for both compressions.
"""

import itertools
import math
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from pneumonia.errors import ImageError
from pneumonia.imaging.jpeg import header_of, is_deep, is_ordinary, segments
from pneumonia.imaging.jpeg_ends import check_restart_markers, restart_markers
from pneumonia.imaging.jpeg_pixels import check_whole
from pneumonia.imaging.kinds import BROKEN, broken_is_named, unread_tiff
from pneumonia.imaging.limits import (
    MAX_DEEP_BYTES,
    MAX_PIECE_BYTES,
    MAX_PIECE_SEGMENTS,
    MAX_PIECES,
    MAX_PIXELS,
    MAX_TABLES,
    MAX_UNPACKED,
    check_count,
)
from pneumonia.imaging.optional import deep_files
from pneumonia.imaging.tiff import Page, is_beyond_pillow
from pneumonia.imaging.tiff_directories import FAX, OLD_JPEG, WEBP, Values, sole_values_of

_PACKED, _UNPACKED = 2**16, 2**20  # bytes that are unpacked at a time, and that they are unpacked to
_PLACES, _LENGTHS, _COMPRESSION, _TABLES = (273, 324), (279, 325), 259, 347
_ROWS, _TILE_WIDTH, _TILE_HEIGHT, _PREDICTOR, _SUBSAMPLING = 278, 322, 323, 317, 530
_TAGS = (*_PLACES, *_LENGTHS, _COMPRESSION, _TABLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT, _PREDICTOR, _SUBSAMPLING)
_SEGMENTS = "segments of JPEG in TIFF strips or tiles"
_NONE, _DEFLATE, _JPEG, _PACKBITS = 1, {8, 32946}, 7, 32773
_JPEG_BITS = 12  # that libtiff reads
_YCBCR = 6  # PhotometricInterpretation
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Layout(NamedTuple):
    """How a page is divided.

    Attributes:
        width: of a strip or tile, in pixels.
        height: of it, in pixels; that of the last strip may be smaller.
        across: how many there are beside each other.
        down: how many there are below each other.
        planes: how often that is repeated, once for each sample if these are separate.
        samples: of each pixel of a strip or tile.
        is_tiled: whether these are tiles.
    """

    width: int
    height: int
    across: int
    down: int
    planes: int
    samples: int
    is_tiled: bool

    @classmethod
    def of(cls, page: Page, values: Values) -> "_Layout":
        """Return the layout of a page, given the values of its tags."""

        def first(tag: int, default: int) -> int:
            return values.get(tag, (0,))[0] or default

        is_tiled = _PLACES[0] not in values or _TILE_WIDTH in values  # so libtiff decides
        width = first(_TILE_WIDTH, page.width) if is_tiled else page.width
        height = first(_TILE_HEIGHT, page.height) if is_tiled else min(first(_ROWS, page.height), page.height)
        across, down = math.ceil(page.width / width), math.ceil(page.height / height)
        planes, samples = (page.samples, 1) if page.is_separate else (1, page.samples)
        return cls(width, height, across, down, planes, samples, is_tiled)

    @property
    def pieces(self) -> int:
        """How many strips or tiles there are."""
        return self.across * self.down * self.planes

    def rows(self, number: int, page: Page) -> int:
        """Return how many rows a strip or tile has, given its number: the last strip has those that are left."""
        if self.is_tiled:
            return self.height
        return min(self.height, page.height - number % self.down * self.height)

    def size(self, number: int, page: Page) -> int:
        """Return how many bytes a strip or tile has once it is unpacked, given its number."""
        return math.ceil(self.width * self.samples * page.bits / 8) * self.rows(number, page)


def check_pieces(data: bytes, page: Page) -> None:
    """Check that strips or tiles of a page that has pixels are not too much to decode, and that they are whole.

    Uncompressed ones are checked to be there, those of Deflate and JPEG to be undamaged; libtiff checks the others.

    Raises:
        ImageTooLargeError: more than MAX_PIECE_BYTES bytes, MAX_PIECE_SEGMENTS segments of JPEG, or MAX_TABLES bytes of
            tables that all JPEGs share; tiles that take more than MAX_DEEP_BYTES each, or MAX_UNPACKED in all.
        UnsupportedImageError: fax codes, and what Pillow or libtiff would misread or not check.
        ImageError: a damaged or missing one.
    """
    try:
        values = sole_values_of(data, page.entries, _TAGS, MAX_PIECES)
    except (struct.error, OverflowError) as error:
        raise ImageError(BROKEN) from error
    if values is None or values.keys() >= set(_PLACES) or not page.samples:
        raise ImageError(BROKEN)
    (compression,) = values.get(_COMPRESSION, (_NONE,))[:1]
    if _is_unread(compression, values, page):
        raise unread_tiff(data, page.entries)
    layout = _Layout.of(page, values)
    if layout.is_tiled:
        _check_tiles(layout, page)
    if compression == _NONE:
        _check_complete(values, page, layout)
        if not is_beyond_pillow(data, page):
            return  # Pillow reads as many bytes as the pixels have
    pieces = _pieces(data, values)
    check_count(sum(map(len, pieces)), MAX_PIECE_BYTES, "bytes in TIFF strips or tiles")
    if compression in _DEFLATE:
        _check_deflated(pieces, is_mirrored=page.is_mirrored)
    if compression == _JPEG:
        tables = bytes(values.get(_TABLES, ()))
        check_count(len(tables), MAX_TABLES, "bytes of JPEG tables")
        _check_jpegs(data, page, layout, pieces, tables)


def _is_unread(compression: int, values: Values, page: Page) -> bool:
    """Return whether a page is of a kind that Pillow or libtiff would misread, or of which neither notices damage."""
    if compression in FAX:  # no radiograph is black and white alone, and libtiff prints a line for each damaged row
        return True
    if compression == _NONE and page.photometric == _YCBCR:  # Pillow takes each pixel for three bytes
        return page.is_separate or values.get(_SUBSAMPLING, (2, 2)) != (1, 1)
    if compression == _PACKBITS:  # libtiff ignores the predictor
        return values.get(_PREDICTOR, (1,))[0] != 1
    return compression in {OLD_JPEG, WEBP}  # libtiff does not notice where the one is cut off, and lacks the other


def _check_tiles(layout: _Layout, page: Page) -> None:
    """Check that tiles do not take too much: they may be much larger than the image, and each is decoded whole."""
    size = layout.size(0, page)
    check_count(size, MAX_DEEP_BYTES, "bytes in a TIFF tile")
    check_count(size * layout.pieces, MAX_UNPACKED, "bytes in TIFF tiles")


def _check_complete(values: Values, page: Page, layout: _Layout) -> None:
    """Check that each strip or tile has a place, and room before the next one.

    Pillow would leave pixels black, or take the header or another's pixels for them.
    """
    places = _given(values, _PLACES)
    if len(places) < layout.pieces or 0 in places:
        raise ImageError(BROKEN)
    ends = sorted((place, place + layout.size(number, page)) for number, place in enumerate(places[: layout.pieces]))
    if any(end > following for (_, end), (following, _) in itertools.pairwise(ends)):
        raise ImageError(BROKEN)


def _pieces(data: bytes, values: Values) -> list[memoryview]:
    """Return the strips or tiles as they are stored. If the file tells no lengths, each may go on to its end."""
    places, lengths = _given(values, _PLACES), _given(values, _LENGTHS)
    if len(places) != len(lengths):
        lengths = (len(data),) * len(places)
    view = memoryview(data)
    return [view[place : place + length] for place, length in zip(places, lengths, strict=True)]


def _given(values: Values, tags: Iterable[int]) -> tuple[int, ...]:
    """Return the values of the first of the tags that a page has; none if it has none."""
    return next((values[tag] for tag in tags if tag in values), ())


def _check_deflated(pieces: Iterable[memoryview], *, is_mirrored: bool) -> None:
    unpacked = 0
    for piece in filter(len, pieces):
        inflater, waiting, at = zlib.decompressobj(), b"", 0
        while not inflater.eof:
            if not waiting:
                waiting, at = bytes(piece[at : at + _PACKED]), at + _PACKED
                waiting = waiting.translate(_MIRRORED) if is_mirrored else waiting
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


def _check_jpegs(data: bytes, page: Page, layout: _Layout, pieces: list[memoryview], tables: bytes) -> None:
    shared = sum(1 for _ in segments(tables)) if tables else 0
    check_count(shared * len(pieces), MAX_PIECE_SEGMENTS, _SEGMENTS)
    pixels = count = restarts = 0
    for number, piece in enumerate(pieces):
        if not piece:
            continue
        stream = tables[:-2] + piece[2:] if tables else bytes(piece)
        header = header_of(stream)
        pixels, count = pixels + header.width * header.height, count + header.segments
        if pixels > 2 * MAX_PIXELS:  # tiles may extend beyond the image, but not that far
            raise ImageError(BROKEN)
        check_count(count, MAX_PIECE_SEGMENTS, _SEGMENTS)
        is_reduced = page.photometric == _YCBCR and number >= layout.pieces // layout.planes  # a plane of chrominance
        if not is_reduced and (header.width < layout.width or header.height < layout.rows(number, page)):
            raise ImageError(BROKEN)  # libtiff would leave the rest as it was
        if is_ordinary(header):
            check_whole(stream)
        elif is_deep(header) and header.bits <= _JPEG_BITS:
            restarts += restart_markers(stream, header)
            check_restart_markers(restarts)
            with broken_is_named():
                deep_files().jpeg_values(stream, header)
        else:  # libjpeg does not notice where it is cut off
            raise unread_tiff(data, page.entries)
