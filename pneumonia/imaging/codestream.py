"""Read the header of a compressed image before decoding it, so that a small file cannot take much memory.

A decoder reserves the memory that a codestream's own header asks for, whatever the file around it says. So the header
is read strictly: a decoder might skip an unknown marker differently, and find another header behind it.
"""

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pneumonia.errors import ImageTooLargeError
from pneumonia.imaging.jpeg import header_of
from pneumonia.imaging.limits import (
    MAX_BOXES,
    MAX_CODE_BLOCKS,
    MAX_HEADERS,
    MAX_LAYERS,
    MAX_TILES,
    too_many,
)

# ISO/IEC 15444-1, table A.1. After SIZ, a header may have these segments, each with its length.
_SOC_SIZ, _SOT, _SOD, _EOC, _COD, _COC = b"\xff\x4f\xff\x51", 0xFF90, 0xFF93, 0xFFD9, 0xFF52, 0xFF53
_SEGMENTS = {_COD, _COC, *(0xFF00 + kind for kind in (0x50, 0x55, 0x57, 0x58, 0x59, 0x5C, 0x5D, 0x5E, 0x5F))}
_SEGMENTS |= {0xFF00 + kind for kind in (0x60, 0x61, 0x63, 0x64, 0x74, 0x75, 0x77, 0x78)}

_END = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000; none of them has it within its coded pixels
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"  # the first box of a JPEG 2000 file, which has its codestream in a later one


@dataclass(frozen=True)
class Codestream:
    """A compressed image, and what its own header says.

    Attributes:
        data: its bytes, without what may stand around it.
        kind: "JPEG", "lossless JPEG", "JPEG-LS" or "JPEG 2000".
        width: in pixels.
        height: in pixels.
        samples: values per pixel.
        bits: of a value.
        colours: "RGB" or "YCbCr" if the header says which of them the three samples are, "untransformed" if it says
            that they were not converted, else "". It is "RGB" for JPEG 2000 whose decoder undoes a transformation.
    """

    data: bytes
    kind: str
    width: int
    height: int
    samples: int
    bits: int
    colours: str = ""


def begins_codestream(frame: bytes) -> bool:
    """Return whether bytes begin as JPEG, JPEG-LS or JPEG 2000 do."""
    return frame.startswith((b"\xff\xd8\xff", _SOC_SIZ, _JP2))


def read_codestream(frame: bytes) -> Codestream:
    """Read the headers of a JPEG, JPEG-LS or JPEG 2000 codestream.

    Bytes after the end marker are cut off, as are the boxes around JPEG 2000. If JPEG 2000 lacks the end marker, it is
    added: missing tiles are noticed here, and pixels that a tile lacks by its decoder. The other decoders do not notice
    missing pixels.

    Raises:
        ImageTooLargeError: more header segments, or JPEG 2000 in more tiles, precincts, code-blocks or layers than is
            sensible.
        ImageError, ValueError, IndexError, struct.error: not such a codestream, or one that is cut off.
    """
    data = _unboxed(frame) if frame.startswith(_JP2) else frame
    end = data.rfind(_END) + len(_END)
    if data.startswith(_SOC_SIZ):
        return _jpeg_2000(data[:end] if end > 1 else data + _END)
    if end < len(_END):
        raise ValueError("no end of the image")
    header = header_of(data[:end])
    samples = len(header.components)
    return Codestream(data[:end], header.kind, header.width, header.height, samples, header.bits, header.colours)


def _unboxed(data: bytes) -> bytes:
    """Return the codestream in the boxes of a JPEG 2000 file, ISO/IEC 15444-1, I.4."""
    at = 0
    for _ in range(MAX_BOXES):
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = at + length if length else len(data)
        if kind == b"jp2c":
            return data[start:end]
        if end < start:
            raise ValueError("a box that ends before it begins")
        at = end
    raise ValueError("no codestream among the boxes")


def _jpeg_2000(frame: bytes) -> Codestream:
    """Read the headers of a JPEG 2000 codestream: ISO/IEC 15444-1, A.5.1, A.6.1 and A.6.2."""
    length, _, *grid, samples, depth = struct.unpack_from(">HH8IHB", frame, 4)
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = grid
    width, height = right - left, bottom - top
    if width <= 0 or height <= 0 or not tile_width or not tile_height or not samples:
        raise ValueError("no pixels")
    tiles = math.ceil((right - tile_left) / tile_width) * math.ceil((bottom - tile_top) / tile_height)
    if tiles > MAX_TILES:
        raise _too_fine()
    colours, tile_parts = "", []
    for marker, segment in _jpeg_2000_segments(frame, 4 + length):
        if marker == _SOT:
            tile_parts.append(segment)
        elif marker == _COD:  # how it is coded: style, progression, layers, component transformation, then as below
            if struct.unpack_from(">H", segment, 2)[0] > MAX_LAYERS:
                raise _too_fine()
            colours = "RGB" if segment[4] else colours
            _check_pieces(segment[5:], segment[0] & 1 > 0, width, height, samples)
        elif marker == _COC:  # how one component is coded: its number, style, then as below
            style = 1 if samples < 257 else 2
            _check_pieces(segment[style + 1 :], segment[style] & 1 > 0, width, height, samples)
    _check_tile_parts(tile_parts, tiles)
    return Codestream(frame, "JPEG 2000", width, height, samples, (depth & 127) + 1, colours)


def _jpeg_2000_segments(frame: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment of the main header and of all tile-parts' headers, SOT included."""
    start, end = 0, None  # of the tile-part
    for _ in range(MAX_HEADERS):
        if at + 2 > len(frame):
            return
        (marker,) = struct.unpack_from(">H", frame, at)
        if marker == _EOC and end is None and start:
            return
        if marker == _SOT and end is None:
            start, end = at, struct.unpack_from(">I", frame, at + 6)[0]
            yield marker, frame[at + 4 : at + 12]
            at += 12
        elif marker == _SOD and end is not None:
            if end == 0:  # up to the end of the codestream
                return
            if start + end < at + 2:
                raise ValueError("a tile-part that ends before it begins")
            at, end = start + end, None
        elif marker in _SEGMENTS:
            (length,) = struct.unpack_from(">H", frame, at + 2)
            yield marker, frame[at + 4 : at + 2 + length]
            at += 2 + length
        else:
            raise ValueError("a marker that does not belong in a header")
    raise too_many(MAX_HEADERS, "JPEG 2000 segments")


def _check_tile_parts(headers: Iterable[bytes], tiles: int) -> None:
    """Check that a codestream has each part of each tile: table A.5. The decoder leaves missing tiles black.

    Args:
        headers: what follows the length in each SOT segment: tile, length, number of the part, and how many parts the
            tile has, or 0.
        tiles: how many there are.

    Raises:
        ValueError: a part is missing.
    """
    parts: dict[int, set[int]] = {}
    expected: dict[int, int] = {}
    for tile, _, number, count in map(struct.Struct(">HIBB").unpack, headers):
        parts.setdefault(tile, set()).add(number)
        expected[tile] = max(expected.get(tile, 1), count, number + 1)
    if len(parts) < tiles or any(len(parts[tile]) < expected[tile] for tile in parts):
        raise ValueError("a tile, or a part of one, is missing")


def _check_pieces(coding: bytes, has_precincts: bool, width: int, height: int, samples: int) -> None:  # noqa: FBT001
    """Check that an image has no more than MAX_CODE_BLOCKS pieces: tables A.15 and A.18 to A.21, B.6 and B.7.

    Raises:
        ImageTooLargeError: it has more.
    """
    levels, *block = coding[0], coding[1] + 2, coding[2] + 2  # a block's width and height, as powers of two
    precincts = coding[5 : 6 + levels] if has_precincts else bytes([0xFF]) * (levels + 1)
    if len(precincts) <= levels:
        raise ValueError("fewer precincts than resolutions")
    pieces = 0
    for resolution, sizes in enumerate(precincts):
        sides = [math.ceil(side / 2 ** (levels - resolution)) for side in (width, height)]
        powers = [sizes & 15, sizes >> 4]
        pieces += math.prod(math.ceil(side / 2**power) for side, power in zip(sides, powers, strict=True))
        halved = 1 if resolution else 0  # but for the smallest, a resolution is three bands of half its size
        blocks = math.prod(
            math.ceil(side / 2**halved / 2 ** max(0, min(limit, power - halved)))
            for side, limit, power in zip(sides, block, powers, strict=True)
        )
        pieces += (3 if halved else 1) * blocks
    if pieces * samples > MAX_CODE_BLOCKS:
        raise _too_fine()


def _too_fine() -> ImageTooLargeError:
    return ImageTooLargeError(
        "The JPEG 2000 image is cut into too many pieces: export it with tiles and code-blocks of 64 pixels or more, "
        "and without small precincts."
    )
