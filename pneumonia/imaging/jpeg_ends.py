"""Notice damage in JPEG codestreams whose decoder does not report it: lossless ones, and those of more than 8 bits.

The decoder fills missing data and skips surplus data. So the codestream is decoded a second time, with other last bytes
in each restart interval, and some more after them. If it is whole, this changes only the interval's last few pixels. If
nothing changes, there was too much data; if the change begins earlier, too little.
"""

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from pneumonia.errors import ImageError
from pneumonia.imaging.jpeg import LOSSLESS, Header, is_ordinary
from pneumonia.imaging.kinds import BROKEN
from pneumonia.imaging.limits import MAX_INTERVALS, check_count

Array = Any  # boolean, or of the values that are decoded
LAST = 3  # bytes that are replaced; the last one may be only padding
MOST_PIXELS, MOST_BLOCKS = 8 * LAST + 1, 4 * LAST + 1  # in so many bytes: each takes at least one bit, or two
MASKS = (0xA5, 0xC3, 0x99, 0x87)  # tried until something changes: in 12-bit files, black may stay black
_END, _RESTART = b"\xff\xd9", re.compile(rb"(\xff[\xd0-\xd7])")


def check_ends(data: bytes, decode: Callable[[bytes], Array], decoded: Array, header: Header) -> None:
    """Check that decoding a codestream takes all of its bytes, and no more.

    Ordinary files are not checked, as `jpeg_pixels` does so; nor are those in several scans.

    Args:
        data: the codestream.
        decode: decodes a codestream to an array, shape (height, width) or (height, width, channels).
        decoded: what it returns for this one.
        header: what `jpeg.header_of` reads from this one.

    Raises:
        ImageTooLargeError: more than MAX_INTERVALS restart markers.
        ImageError: it is damaged.
    """
    if is_ordinary(header) or header.is_progressive or not header.is_one_scan:
        return
    check_restart_markers(restart_markers(data, header))
    is_lossless = header.frame == LOSSLESS
    masks = MASKS[:1] if is_lossless else MASKS
    changes = (decode(with_other_ends(data, header.data, mask)) != decoded for mask in masks)
    changed = next(filter(np.any, changes), np.zeros(decoded.shape, bool))
    if changed.ndim == 3:
        changed = changed.any(axis=2)
    units = changed.ravel() if is_lossless else _blocks(changed)
    most, interval = MOST_PIXELS if is_lossless else MOST_BLOCKS, header.interval or units.size
    for start in range(0, min(units.size, MAX_INTERVALS * interval), interval):
        part = units[start : start + interval]
        if not part.any() or part.size - part.argmax() > most:
            raise ImageError(BROKEN)


def restart_markers(data: bytes, header: Header) -> int:
    """Return how many restart markers a codestream has, at most one more than are allowed."""
    return sum(1 for _ in itertools.islice(_RESTART.finditer(data, header.data), MAX_INTERVALS + 1))


def check_restart_markers(count: int) -> None:
    """Check that codestreams have no more restart markers than can be looked after.

    Raises:
        ImageTooLargeError: more than MAX_INTERVALS.
    """
    check_count(count, MAX_INTERVALS, "restart markers in JPEG")


def with_other_ends(data: bytes, start: int, mask: int) -> bytes:
    """Return a codestream with other bytes before each restart marker and the end, given where the data start."""
    pieces = _RESTART.split(data[start : data.rindex(_END)])
    pieces[::2] = [_with_other_end(piece, mask) for piece in pieces[::2]]
    return data[:start] + b"".join(pieces) + _END


def _with_other_end(piece: bytes, mask: int) -> bytes:
    data = piece.rstrip(b"\xff").replace(b"\xff\0", b"\xff")  # before a marker, FF is filling
    # The masks change the first bit, and so the first value. No byte becomes FF, which would need a zero after it.
    last = bytes(min(byte ^ mask, 0xFE) for byte in data[-LAST:])
    return data[:-LAST].replace(b"\xff", b"\xff\0") + last * 20


def _blocks(changed: Array) -> Array:
    """Return for each block of 8 x 8 pixels, row by row, whether any of its pixels changed."""
    for axis in (0, 1):
        changed = np.logical_or.reduceat(changed, range(0, changed.shape[axis], 8), axis=axis)
    return changed.ravel()
