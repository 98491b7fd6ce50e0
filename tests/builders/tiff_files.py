"""TIFF files of any type of value, byte order and compression, written field by field."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy.typing as npt
from PIL import Image

Values = npt.NDArray[Any]

COMPRESSIONS: dict[int, Callable[[bytes], bytes]] = {
    1: bytes,
    5: lambda data: bytes(imagecodecs.lzw_encode(data)),
    8: zlib.compress,
    32773: lambda data: bytes(imagecodecs.packbits_encode(data)),
}


def tiff(
    values: Values,
    compression: int = 1,
    fields: dict[int, int | list[int] | None] | None = None,
    before: Image.Image | None = None,
    coded: list[bytes] | None = None,
    *,
    order: str | None = None,
    is_big: bool = False,
    is_separate: bool = False,
    tile: int = 0,
) -> bytes:
    """Return a TIFF file.

    Args:
        values: shape (height, width) or (height, width, samples), in the byte order of the file.
        compression: a key of COMPRESSIONS, or any if `coded` is given.
        fields: what the page has otherwise, or besides, by tag: a number or several, or None for nothing.
        coded: the strips or tiles as they are stored, if they are not to be the values, coded by COMPRESSIONS.
        before: an 8-bit image as a page before this one, which is said to be a reduced copy.
        order: the byte order, "<" or ">"; by default that of the values.
        is_big: whether this is a BigTIFF.
        is_separate: whether each sample has a plane of its own.
        tile: the side of tiles, which divides height and width, or 0 for one strip.
    """
    order = order or (">" if values.dtype.byteorder == ">" else "<")
    height, width, *rest = values.shape
    samples = rest[0] if rest else 1
    planes = [values[..., sample] for sample in range(samples)] if is_separate and rest else [values]
    sides = [range(0, side, tile or side) for side in (height, width)]
    corners = [(plane, y, x) for plane in planes for y in sides[0] for x in sides[1]]
    pieces = [plane[y : y + (tile or height), x : x + (tile or width)] for plane, y, x in corners]
    coded = coded or [COMPRESSIONS[compression](piece.tobytes()) for piece in pieces]
    found: dict[int, list[int]] = {
        254: [0],
        256: [width],
        257: [height],
        258: [8 * values.itemsize] * samples,
        259: [compression],
        262: [2 if samples in {3, 4} else 1],
        277: [samples],
        278: [height],
        284: [2 if is_separate else 1],
        339: [{"u": 1, "i": 2, "f": 3, "c": 6}[values.dtype.kind]] * samples,
    }
    if samples in {2, 4}:
        found[338] = [2]
    for tag, value in (fields or {}).items():
        found.pop(tag, None)
        if value is not None:
            found[tag] = value if isinstance(value, list) else [value]
    file = _File(order, is_big=is_big)
    if before:
        reduced = {254: [1], 256: [before.width], 257: [before.height], 258: [8], 259: [1], 262: [1], 277: [1]}
        file.add(reduced | {278: [before.height]}, [before.tobytes()])
    if tile:
        del found[278]
        found |= {322: [tile], 323: [tile]}
    file.add(found, coded)
    return bytes(file.data)


class _File:
    def __init__(self, order: str, *, is_big: bool) -> None:
        self._order, self._is_big = order, is_big
        self._offset, self._count = ("Q", "Q") if is_big else ("I", "H")
        magic = b"II" if order == "<" else b"MM"
        self.data = bytearray(magic + struct.pack(f"{order}H", 43 if is_big else 42))
        self.data += struct.pack(f"{order}HHQ", 8, 0, 0) if is_big else bytes(4)
        self._link = len(self.data) - struct.calcsize(self._offset)  # where the next page's place is to be written

    def add(self, fields: dict[int, list[int]], strips: list[bytes]) -> None:
        offsets = []
        for strip in strips:
            offsets.append(len(self.data))
            self.data += strip + bytes(len(strip) % 2)
        tags = (324, 325) if 322 in fields else (273, 279)
        fields = dict(zip(tags, (offsets, [len(strip) for strip in strips]), strict=True)) | fields
        entries = b"".join(self._entry(tag, numbers) for tag, numbers in sorted(fields.items()))
        struct.pack_into(self._order + self._offset, self.data, self._link, len(self.data))
        self.data += struct.pack(self._order + self._count, len(fields)) + entries
        self._link = len(self.data)
        self.data += bytes(struct.calcsize(self._offset))

    def _entry(self, tag: int, numbers: list[int]) -> bytes:
        kind, letter = (4, "I") if max(numbers) > 65_535 or tag in {273, 279, 324, 325} else (3, "H")
        value = struct.pack(f"{self._order}{len(numbers)}{letter}", *numbers)
        room = struct.calcsize(self._offset)
        if len(value) > room:
            place = len(self.data)
            self.data += value + bytes(len(value) % 2)
            value = struct.pack(self._order + self._offset, place)
        return struct.pack(f"{self._order}HH{self._offset}", tag, kind, len(numbers)) + value.ljust(room, b"\0")
