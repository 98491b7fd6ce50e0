"""The directories of a TIFF, read before Pillow opens the file: how large they are, and which kind of TIFF it is.

TIFF 6.0, section 2; BigTIFF has the same with longer numbers. The header is read as Pillow reads it, which accepts more
than the standard allows.
"""

import contextlib
import struct
from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

from pneumonia.imaging.limits import (
    MAX_ENTRIES,
    MAX_EXIF,
    MAX_FRACTIONS,
    MAX_PIECES,
    MAX_TAGS,
    MAX_VALUES,
    check_count,
    too_many,
)

EXIF = b"Exif\0\0"  # what EXIF begins with, before the TIFF
BIG_ENDIAN_BIG = b"MM\0+\0\x08\0\0"  # a BigTIFF that Pillow takes for a TIFF; with offsets of 8 bytes, as all have
_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
_BIG = 43  # the version of a BigTIFF
_VERSIONS = {b"*\0", b"\0*", b"+\0", b"\0+"}
_STRIPS, _TILES, _BITS, _COMPRESSION, _COLOURS = 273, 324, 258, 259, 262
_DIRECTORIES = {34665, 34853, 40965}  # of EXIF: entries whose value is where another directory is
_FRACTIONS = {5, 10}  # the types of an entry that Pillow makes fractions of
_BYTES = {1, 2, 6, 7}  # the types of an entry that Pillow keeps as bytes
_TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}  # of the entries whose values are read
_SMALL = 12 * MAX_TAGS  # bytes, too few for more than is allowed: an entry has 12
# Types of signed numbers, and of unsigned ones that are the same if they are positive.
_UNSIGNED = {6: 1, 8: 3, 9: 4, 17: 16}
FAX, OLD_JPEG, WEBP = {2, 3, 4, 32771}, 6, 50001
_COMPRESSIONS = {
    **dict.fromkeys(FAX, "fax codes"),
    OLD_JPEG: "old-style JPEG",
    7: "JPEG",
    32773: "PackBits",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    WEBP: "WebP",
}
_COLOUR_SPACES = {
    4: "a mask",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "a colour filter array",
    32844: "LogL",
}

Values = dict[int, tuple[int, ...]]  # of entries, by tag


class Entry(NamedTuple):
    """An entry of a directory.

    Attributes:
        tag: what it says about the image.
        kind: the type of its values.
        length: how many values it has.
        value: the values, or where they are if they need more bytes than this.
    """

    tag: int
    kind: int
    length: int
    value: bytes


class Directory(NamedTuple):
    """A directory, which describes a page.

    Attributes:
        entries: those that are in the file.
        is_whole: whether the file is not cut off before the directory's end.
    """

    entries: list[Entry]
    is_whole: bool


def is_tiff(data: bytes) -> bool:
    """Return whether a file begins as a TIFF or BigTIFF does."""
    return data[:2] in _BYTE_ORDERS and data[2:4] in _VERSIONS


def check_size(data: bytes) -> None:
    """Check that no directory of a TIFF would take Pillow or libtiff much time or memory.

    Raises:
        ImageTooLargeError: more than MAX_TAGS entries of a directory, or MAX_ENTRIES, MAX_VALUES or MAX_FRACTIONS of
            all; or more than MAX_PIECES strips or tiles.
    """
    count = values = fractions = 0
    for directory in _with_exif(data):
        entries = directory.entries
        check_count(len(entries), MAX_TAGS, "TIFF or EXIF tags in a directory")
        count += max(1, len(entries))
        check_count(count, MAX_ENTRIES, "entries of TIFF or EXIF directories")
        pieces = max((entry.length for entry in entries if entry.tag in {_STRIPS, _TILES}), default=0)
        check_count(pieces, MAX_PIECES, "TIFF strips or tiles")
        held = [entry for entry in entries if entry.length <= len(data)]  # Pillow skips the others
        fractions += sum(entry.length for entry in held if entry.kind in _FRACTIONS)
        check_count(fractions, MAX_FRACTIONS, "fractions in TIFF or EXIF metadata")
        values += sum(1 if entry.kind in _BYTES else entry.length for entry in held)
        check_count(values, MAX_VALUES, "values in TIFF or EXIF metadata")


def check_exif(data: bytes) -> None:
    """Check that Pillow will not take long to read EXIF metadata, which is a TIFF without pixels.

    Raises:
        ImageTooLargeError: more than MAX_EXIF bytes, or more in it than `check_size` allows.
    """
    check_count(len(data), MAX_EXIF, "bytes of EXIF")
    found = data.removeprefix(EXIF).removeprefix(EXIF)  # Pillow takes off two as well
    if len(found) > _SMALL and is_tiff(found):
        check_size(found)


def _with_exif(data: bytes) -> Iterator[Directory]:
    """Yield the directories of all pages, and those of EXIF, which Pillow reads as well. None is yielded twice."""
    starts: list[int | None] = [None]
    seen = set[int]()
    for start in starts:
        for directory in directories(data, start):
            yield directory
            places = {_place(data, entry) for entry in directory.entries if entry.tag in _DIRECTORIES} - seen - {0}
            starts += places
            seen |= places


def _place(data: bytes, entry: Entry) -> int:
    """Return the place that an entry names, 0 if that is told outside of the file."""
    with contextlib.suppress(struct.error):
        return values_of(data, [entry], 1).get(entry.tag, (0,))[0]
    return 0


def kind_of(data: bytes, entries: list[Entry]) -> str:
    """Return what distinguishes a page of a TIFF: bits per sample, a rare compression or colours, byte order."""
    found = values_of(data, entries, 1)

    def number(tag: int) -> int:
        return found.get(tag, (0,))[0]

    words = [f"{number(_BITS)} bits per sample" if number(_BITS) else ""]
    words.append(_COMPRESSIONS.get(number(_COMPRESSION), ""))
    words.append(_COLOUR_SPACES.get(number(_COLOURS), ""))
    return ", ".join([*filter(None, words), "little-endian" if data[:2] == b"II" else "big-endian"])


def directories(data: bytes, at: int | None = None) -> Iterator[Directory]:
    """Yield the directories of a TIFF, up to where the file is cut off.

    Args:
        data: the bytes of the file.
        at: where the first is; by default, where the file's header says.

    Raises:
        ImageTooLargeError: more than MAX_ENTRIES entries or directories.
    """
    is_big = data[2] == _BIG or data.startswith(BIG_ENDIAN_BIG)
    count_format, entry_format, offset_format = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHL4s", "L")
    order = _BYTE_ORDERS[data[:2]]
    size = struct.calcsize(order + entry_format)
    left, seen = MAX_ENTRIES, set[int]()
    try:
        if at is None:
            (at,) = struct.unpack_from(order + offset_format, data, 8 if is_big else 4)
        while at and at not in seen:
            seen.add(at)
            (count,) = struct.unpack_from(order + count_format, data, at)
            at += struct.calcsize(order + count_format)
            there = min(count, (len(data) - at) // size)
            left -= max(1, there)
            if left < 0:
                raise too_many(MAX_ENTRIES, "entries of TIFF or EXIF directories")
            entries = [Entry(*one) for one in struct.iter_unpack(order + entry_format, data[at : at + there * size])]
            end = at + count * size
            yield Directory(entries, is_whole=end + struct.calcsize(order + offset_format) <= len(data))
            (at,) = struct.unpack_from(order + offset_format, data, end)
    except (struct.error, OverflowError):
        return


def sole_values_of(data: bytes, entries: Iterable[Entry], tags: Container[int], most: int) -> Values | None:
    """Return the values of some tags, at most so many of each; None if decoders may read one in another way.

    That is one that comes twice, of which decoders take one or the other, or that is no whole number.

    Raises:
        struct.error: values that are outside of the file.
    """
    wanted = [entry for entry in entries if entry.tag in tags and entry.length]
    values = values_of(data, wanted, most)
    return values if len(values) == len(wanted) else None


def values_of(data: bytes, entries: Iterable[Entry], most: int) -> Values:
    """Return the values of entries by tag, those that are whole numbers, and at most so many of each.

    Signed numbers are taken for unsigned ones, which negative ones make too large for anything.

    Raises:
        struct.error: values that are outside of the file.
    """
    order, found = _BYTE_ORDERS[data[:2]], {}
    numbers = (entry._replace(kind=_UNSIGNED.get(entry.kind, entry.kind)) for entry in entries if entry.length)
    last = {entry.tag: entry for entry in numbers if entry.kind in _TYPES}
    for tag, kind, length, value in last.values():  # a tag may come thousands of times
        source, at = value, 0
        if length * struct.calcsize(order + _TYPES[kind]) > len(value):
            source, at = data, int.from_bytes(value, "little" if order == "<" else "big")
        found[tag] = struct.unpack_from(f"{order}{min(length, most)}{_TYPES[kind]}", source, min(at, len(source)))
    return found
