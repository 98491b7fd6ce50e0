"""The directories of a TIFF, read before Pillow opens it: how large they are, and of which kind the file is.

TIFF 6.0, section 2, and BigTIFF. The header is read as Pillow reads it, which accepts more than the standard says.
"""

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pneumonia.errors import ImageTooLargeError
from pneumonia.imaging.tiff import BIG_ENDIAN_BIG

MAX_PIECES = 65_536  # strips or tiles, usually some hundreds; opening a TIFF, Pillow makes an object for each
MAX_VALUES = 262_144  # of any other entry: a table for 16-bit colours has 196,608; Pillow makes an object for each
MAX_ENTRIES = 65_536  # of all directories together, one for each page; usually some twenty each

_STRIPS, _TILES, _BITS, _COMPRESSION, _COLORS = 273, 324, 258, 259, 262
_BYTES = {1, 2, 6, 7}  # the types of an entry that Pillow keeps as bytes
_COMPRESSIONS = {
    6: "old-style JPEG",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
}
_COLOR_SPACES = {4: "a mask", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "a colour filter array", 32844: "LogL"}


class Entry(NamedTuple):
    """An entry of a directory: what it is, the type and number of its values, and where these are or what it is."""

    tag: int
    kind: int
    length: int
    value: bytes


def check_size(data: bytes) -> None:
    """Check that no directory of a TIFF would take Pillow much time or memory.

    Raises:
        ImageTooLargeError: more than MAX_ENTRIES entries, MAX_PIECES strips or tiles, or MAX_VALUES values.
    """
    is_big = data[2] == 43 or data.startswith(BIG_ENDIAN_BIG)
    for number, entry in enumerate(_entries(data, is_big=is_big)):
        if number == MAX_ENTRIES:
            raise ImageTooLargeError(f"The TIFF has more than {MAX_ENTRIES:,} entries of metadata: save it anew.")
        if entry.tag in {_STRIPS, _TILES} and entry.length > MAX_PIECES:
            raise ImageTooLargeError(f"The TIFF is in more than {MAX_PIECES:,} pieces: save it in fewer strips.")
        if entry.kind not in _BYTES and entry.length > MAX_VALUES:
            raise ImageTooLargeError(f"The TIFF has metadata of more than {MAX_VALUES:,} values: save it anew.")


def kind_of(data: bytes) -> str:
    """Return what distinguishes a TIFF: bits per sample, compression or colours that are rare, and byte order."""
    found = {entry.tag: entry for entry in _entries(data, is_big=43 in data[2:4])}
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(tag: int) -> int:
        return int.from_bytes(found[tag].value[:2], order) if tag in found and found[tag].length < 3 else 0

    words = [f"{number(_BITS)} bits per sample" if number(_BITS) else ""]
    words.append(_COMPRESSIONS.get(number(_COMPRESSION), ""))
    words.append(_COLOR_SPACES.get(number(_COLORS), ""))
    return ", ".join([*filter(None, words), f"{order}-endian"])


def _entries(data: bytes, *, is_big: bool) -> Iterator[Entry]:
    """Yield the entries of all directories, up to where the file is cut off: decoding says so."""
    order = "<" if data[:2] == b"II" else ">"
    count, entry, offset = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHL4s", "L")
    if len(data) < 16:
        return
    (at,) = struct.unpack_from(order + offset, data, 8 if is_big else 4)
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        try:
            (entries,) = struct.unpack_from(order + count, data, at)
            at += struct.calcsize(order + count)
            for _ in range(entries):
                yield Entry(*struct.unpack_from(order + entry, data, at))
                at += struct.calcsize(order + entry)
            (at,) = struct.unpack_from(order + offset, data, at)
        except (struct.error, OverflowError):
            return
