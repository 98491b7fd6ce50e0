"""TIFF: which page of a file is the radiograph, and the values of pixels that Pillow does not read as they are.

The numbers of fields are those of TIFF 6.0; BigTIFF has the same with longer offsets.
"""

import itertools
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pneumonia.errors import UnsupportedImageError

MAX_PAGES = 64  # of a file; a pyramid of 25 million pixels has some ten
MAX_FIELDS = 1000  # of a page; ordinary ones have twenty
_ORDERS = {b"II": "<", b"MM": ">"}
BIG_ENDIAN_BIG = b"MM\0+\0\x08\0\0"  # a BigTIFF that Pillow takes for a TIFF; with offsets of 8 bytes, as all have
_SMALL, _BIG = (b"*\0", b"\0*"), (b"+\0", b"\0+")
_TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}  # of the fields that are read
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4  # SampleFormat
_NUMBERS = {_UNSIGNED: "u", _UNDEFINED: "u", _SIGNED: "i", _FLOAT: "f"}
_BITS = {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}

Fields = dict[int, tuple[int, ...]]  # values by the number of the field


class _Entry(NamedTuple):
    """A field of a directory: byte order and type of its values, their number, and where in the file they begin."""

    form: str
    length: int
    place: int


@dataclass(frozen=True)
class Page:
    """An image of a TIFF, as its fields describe it.

    Attributes:
        number: of the page, from 0.
        place: of its directory in the file.
        width: in pixels, as stored.
        height: in pixels, as stored.
        bits: of each value.
        samples: values of each pixel.
        number_format: SampleFormat.
        photometric: PhotometricInterpretation; 0 if white is zero.
        orientation: as in EXIF.
        is_separate: whether each sample has a plane of its own.
        is_reduced: whether the file says that this is a smaller copy, or a mask, of another page.
        has_children: whether there are images within this page, as in raw photographs.
    """

    number: int
    place: int
    width: int
    height: int
    bits: int
    samples: int
    number_format: int
    photometric: int
    orientation: int
    is_separate: bool
    is_reduced: bool
    has_children: bool

    @classmethod
    def of(cls, number: int, place: int, fields: Fields) -> "Page":
        """Return a page, given the values of its fields."""

        def first(tag: int, default: int) -> int:
            return fields.get(tag, (default,))[0]

        return cls(
            number,
            place,
            width=first(256, 0),
            height=first(257, 0),
            bits=max(fields.get(258, (1,))),
            samples=first(277, 1),
            number_format=first(339, _UNSIGNED),
            photometric=first(262, 0),
            orientation=first(274, 1),
            is_separate=first(284, 1) == 2,
            is_reduced=first(254, 0) & 0b101 > 0 or first(255, 1) == 2,
            has_children=330 in fields,
        )

    @property
    def is_narrowed(self) -> bool:
        """Whether Pillow would not read the values as they are: all of more than 8 bits, but plain 16-bit gray."""
        if _NUMBERS.get(self.number_format) != "u":
            return True
        return self.bits > 16 or (self.bits == 16 and self.samples > 1)

    @property
    def dtype(self) -> str:
        """The type of the values, in NumPy's words.

        Raises:
            UnsupportedImageError: none that is read.
        """
        kind = _NUMBERS.get(self.number_format, "")
        if self.bits not in _BITS.get(kind, ()):
            raise UnsupportedImageError(
                f"TIFF images of this number format with {self.bits} bits per value are not read: save the X-ray with "
                "8 or 16 bits of gray."
            )
        return f"{kind}{self.bits // 8}"

    def is_copy_of(self, other: "Page") -> bool:
        """Return whether this is a smaller copy of another page: the file says so, or only its size is another."""
        if self.is_reduced:
            return True
        is_smaller = 2 * self.width <= other.width and 2 * self.height <= other.height
        return is_smaller and abs(self.width * other.height - other.width * self.height) <= max(
            other.width, other.height
        )


def is_tiff(data: bytes) -> bool:
    """Return whether a file begins as a TIFF or BigTIFF does."""
    return data[:2] in _ORDERS and data[2:4] in _SMALL + _BIG


def radiograph(data: bytes) -> Page | None:
    """Return the page that is the radiograph: the largest, if the others are smaller copies of it.

    Returns:
        The page, or None if the file is too broken to find one.

    Raises:
        UnsupportedImageError: several images, or one that lies within another.
    """
    pages = list(itertools.islice(_pages(data), MAX_PAGES + 1))
    if not pages:
        return None
    largest = max(pages, key=lambda page: (not page.is_reduced, page.width * page.height))
    if largest.is_reduced and largest.has_children:
        raise UnsupportedImageError("The TIFF holds only a preview in its pages: save the X-ray as one image.")
    if len(pages) > MAX_PAGES or not all(page is largest or page.is_copy_of(largest) for page in pages):
        raise UnsupportedImageError("The TIFF holds several images: send each radiograph as a file of its own.")
    return largest


def _pages(data: bytes) -> Iterator[Page]:
    """Yield the pages up to the first that is broken."""
    order = _ORDERS[data[:2]]
    number, visited = 0, set()
    try:
        form, start = ("Q", 8) if data[2:4] in _BIG else ("I", 4)
        (at,) = struct.unpack_from(order + form, data, start)
        while at and at not in visited:
            visited.add(at)
            entries, following = _directory(data, at)
            yield Page.of(number, at, {tag: _values(data, entry, 4) for tag, entry in entries.items()})
            at = following
            number += 1
    except (struct.error, OverflowError):
        return


def fields_of(data: bytes, page: Page, tags: Collection[int], most: int) -> Fields:
    """Return the values of fields of a page, at most so many of each.

    Raises:
        struct.error: values that lie outside of the file.
    """
    entries, _ = _directory(data, page.place)
    return {tag: _values(data, entries[tag], most) for tag in tags if tag in entries}


def _directory(data: bytes, at: int) -> tuple[dict[int, _Entry], int]:
    """Return the fields of a page, and where the next page begins."""
    order, is_big = _ORDERS[data[:2]], data[2:4] in _BIG
    count_format, offset, entry = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    (count,) = struct.unpack_from(order + count_format, data, at)
    if count > MAX_FIELDS:
        raise struct.error("more fields than a page has")
    start = at + struct.calcsize(order + count_format)
    (following,) = struct.unpack_from(order + offset, data, start + count * entry)
    entries = {}
    for place in range(start, start + count * entry, entry):
        tag, kind, length = struct.unpack_from(f"{order}HH{offset}", data, place)
        if kind not in _TYPES or not length:
            continue
        value = place + entry - struct.calcsize(offset)
        if length * struct.calcsize(order + _TYPES[kind]) > struct.calcsize(order + offset):
            (value,) = struct.unpack_from(order + offset, data, value)
        entries[tag] = _Entry(order + _TYPES[kind], length, value)
    return entries, following


def _values(data: bytes, entry: _Entry, most: int) -> tuple[int, ...]:
    count = min(entry.length, most)
    return struct.unpack_from(f"{entry.form[0]}{count}{entry.form[1]}", data, entry.place)
