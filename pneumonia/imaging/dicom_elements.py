"""From a DICOM file's bytes to the few elements that are needed, none of them about the patient.

Files that break the standard are read: with or without preamble and meta header, in the byte order and representation
that the data set really has, with elements out of order, missing or stray delimiters, and wrong lengths of sequences.

PS3.5 is https://dicom.nema.org/medical/dicom/current/output/html/part05.html
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from pneumonia.errors import ImageTooLargeError
from pneumonia.imaging.dicom_prefix import LONG_REPRESENTATIONS, REPRESENTATIONS
from pneumonia.imaging.limits import MAX_DEPTH, MAX_ELEMENTS, MAX_FRAGMENTS, MAX_ITEMS, MAX_VALUE, too_many

# The elements to be read; for a sequence, those of its items.
Wanted: TypeAlias = Mapping[int, "Wanted | None"]

_TRANSFER_SYNTAX = 0x00020010
_PIXELS = 0x7FE00010
_DELIMITERS = 0xFFFE  # the group of these, which have no value representation
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
ITEM, _ITEMS_END = b"\xfe\xff\0\xe0", b"\xfe\xff\xdd\xe0"  # the same in compressed pixels, always little endian
_UNDEFINED = 0xFFFFFFFF  # the length of what ends with a delimiter


_NOTHING = Dataset()  # for items that are skipped; making a new one would take longer than skipping the item


class PixelData(NamedTuple):
    """The element PixelData.

    Attributes:
        value: its bytes; empty where it has fragments.
        fragments: the fragments of compressed pixels; None where it has a length.
        kind: its value representation, or b"".
    """

    value: bytes
    fragments: list[bytes] | None
    kind: bytes


class _Place(NamedTuple):
    """Where an element lies: its value has `length` bytes, from `start`; `kind` is its value representation."""

    tag: int
    kind: bytes
    length: int
    start: int


def read_meta(data: bytes, at: int) -> tuple[str, int]:
    """Return the transfer syntax that a file's meta header names, or "", and where the data set begins.

    Args:
        data: the file.
        at: its `beginning`.

    Raises:
        ImageTooLargeError: more than MAX_ELEMENTS elements.
    """
    reader, syntax = _Reader(data, "<"), ""
    while data[at : at + 2] == b"\2\0" and len(data) >= at + 8:
        place = reader.place(at, is_explicit=True)
        at = place.start + place.length
        if place.tag == _TRANSFER_SYNTAX:
            syntax = data[place.start : at].decode("ascii", "replace").strip("\0 ")
    return syntax, at


def read_data_set(data: bytes, at: int, wanted: Wanted) -> tuple[Dataset, PixelData | None]:
    """Read the wanted elements of a data set, and its pixels.

    Args:
        data: the file, or what a deflated data set unpacks to.
        at: where the data set begins.
        wanted: the elements to read besides PixelData.

    Returns:
        The elements; and the pixels, or None if they are missing.

    Raises:
        ImageTooLargeError: more than MAX_ELEMENTS elements, MAX_FRAGMENTS fragments or MAX_VALUE bytes of an element.
        ValueError: sequences more than MAX_DEPTH deep.
    """
    group = data[at : at + 2]
    reader = _Reader(data, ">" if group < group[::-1] else "<")  # the first group is a small number
    return reader.data_set(at, len(data), wanted)[0], reader.pixels


def fragments(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the items of compressed pixels, PS3.5, A.4, and where they end.

    If no item or delimiter follows an item, its length was wrong, and it continues to the end of the data.

    Raises:
        ImageTooLargeError: more than MAX_FRAGMENTS.
    """
    found: list[bytes] = []
    start = at
    while data.startswith(ITEM, at):
        if len(found) == MAX_FRAGMENTS:
            raise too_many(MAX_FRAGMENTS, "DICOM fragments")
        start = at + 8
        at = start + int.from_bytes(data[at + 4 : start], "little")
        found.append(data[start:at])
    if data.startswith(_ITEMS_END, at):
        return found, at + 8
    if found:
        found[-1] = data[start:]
    return found, len(data)


class _Reader:
    """Reads the elements of a data set.

    Attributes:
        pixels: what PixelData holds, once it was read.
    """

    def __init__(self, data: bytes, order: str) -> None:
        self.pixels: PixelData | None = None
        self._data = data
        self._order = order
        self._left = MAX_ELEMENTS

    def place(self, at: int, *, is_explicit: bool) -> _Place:
        """Return where the element lies that begins there, PS3.5, 7.1."""
        self._left -= 1
        if self._left < 0:
            raise too_many(MAX_ELEMENTS, "DICOM elements")
        group, element, kind, short = struct.unpack_from(f"{self._order}HH2sH", self._data, at)
        if group == _DELIMITERS or not is_explicit or not kind.isalpha() or not kind.isupper():
            kind, start = b"", at + 8
            (length,) = struct.unpack_from(f"{self._order}I", self._data, at + 4)
        elif kind in LONG_REPRESENTATIONS:
            start = at + 12
            (length,) = struct.unpack(f"{self._order}I", self._data[at + 8 : start].ljust(4, b"\0"))
        else:
            start, length = at + 8, short
        return _Place(group << 16 | element, kind, length, start)

    def data_set(self, at: int, end: int, wanted: Wanted, depth: int = 0) -> tuple[Dataset, int]:
        """Read a data set or an item up to its end or delimiter; return also where that is."""
        if depth > MAX_DEPTH:
            raise ValueError("sequences in sequences")
        is_explicit = self._data[at + 4 : at + 6] in REPRESENTATIONS
        found = Dataset() if wanted else _NOTHING
        if wanted:
            found.set_original_encoding(not is_explicit, self._order == "<")
        while at + 8 <= end:
            place = self.place(at, is_explicit=is_explicit)
            if place.tag >> 16 == _DELIMITERS:
                if depth:  # of the item, or without it of the sequence
                    return found, place.start if place.tag == _ITEM_END else at
                at = place.start  # it belongs to nothing
            elif not depth and place.tag == _PIXELS:
                at = self._read_pixels(place)
            elif not depth and self.pixels is not None and (place.tag == 0 or place.start + place.length > end):
                break  # something else follows the data set
            else:
                at = self._read_element(place, end, wanted, found, depth)
        return found, end

    def _read_element(self, place: _Place, end: int, wanted: Wanted, found: Dataset, depth: int) -> int:
        """Read an element into `found`, if it is wanted; return where the next one begins."""
        inner = wanted.get(place.tag)
        is_wanted = place.tag in wanted and place.tag not in found
        if place.length == _UNDEFINED or (is_wanted and inner):
            stop = end if place.length == _UNDEFINED else min(end, place.start + place.length)
            items, at = self._items(place.start, stop, inner or {}, depth)
            if is_wanted and inner:
                found[place.tag] = DataElement(place.tag, "SQ", Sequence(items))
            return at if place.length == _UNDEFINED else stop
        at = place.start + place.length
        if is_wanted and at <= end:
            found[place.tag] = self._raw(place, at, found)
        return at

    def _raw(self, place: _Place, end: int, found: Dataset) -> RawDataElement:
        if place.length > MAX_VALUE:
            raise ImageTooLargeError(f"The DICOM header has an element of over {MAX_VALUE:,} bytes: export it anew.")
        kind = place.kind.decode() if place.kind in REPRESENTATIONS else None
        value = self._data[place.start : end]
        is_implicit, is_little = found.original_encoding
        return RawDataElement(
            Tag(place.tag), kind, place.length, value, place.start, bool(is_implicit), bool(is_little)
        )

    def _items(self, at: int, end: int, wanted: Wanted, depth: int) -> tuple[list[Dataset], int]:
        """Read a sequence's items; return also where it ends, which is the next element if its delimiter is missing."""
        items: list[Dataset] = []
        while at + 8 <= end:
            place = self.place(at, is_explicit=False)
            if place.tag == _SEQUENCE_END:
                return items, place.start
            if place.tag == _ITEM_END:  # it belongs to nothing
                at = place.start
                continue
            if place.tag != _ITEM:
                return items, at
            stop = end if place.length == _UNDEFINED else min(end, place.start + place.length)
            inner = wanted if len(items) < MAX_ITEMS else {}
            if inner or place.length == _UNDEFINED:
                item, at = self.data_set(place.start, stop, inner, depth + 1)
            if inner:
                items.append(item)
            if place.length != _UNDEFINED:
                at = stop
        return items, at

    def _read_pixels(self, place: _Place) -> int:
        """Read PixelData; return where it ends. Only the first counts."""
        value, pieces, at = b"", None, place.start + place.length
        if place.length == _UNDEFINED:
            pieces, at = fragments(self._data, place.start)
        else:
            value = self._data[place.start : at]
        self.pixels = self.pixels or PixelData(value, pieces, place.kind)
        return at
