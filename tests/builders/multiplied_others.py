"""Small images with one element of their format's grammar as many times as one likes: TIFF and DICOM."""

import struct
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import imagecodecs
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.builders.dicom_bombs import ITEM, ROWS_TAG, before, deflated, segments
from tests.builders.dicom_files import ENCODERS, data_set_of, dicom, in_fragments, radiograph
from tests.builders.images import encoded
from tests.builders.multiplied import GRAY, Multiplied

ROW = GRAY.tobytes()[:16]
CODINGS: dict[str, tuple[int, bytes, bytes]] = {  # compression, a coded row, and what may stand before it many times
    "uncompressed": (1, ROW, b""),
    "PackBits": (32773, bytes(imagecodecs.packbits_encode(ROW)), b"\x80"),
    "LZW": (5, bytes(imagecodecs.lzw_encode(ROW)), b""),
    "Deflate": (8, zlib.compress(ROW), b""),
    "JPEG": (7, encoded(Image.frombytes("L", (16, 1), ROW), "JPEG"), b""),
}
_EMPTY_BLOCK, _SHORT, _LONG, _FRACTION, _BYTE = b"\0\0\0\xff\xff", 3, 4, 5, 7


class Field(NamedTuple):
    """An entry of a directory: its numbers, or its bytes."""

    tag: int
    kind: int
    values: Sequence[int] | bytes


def tiff(fields: list[Field], *, rows: int = 16, is_big: bool = False, next_: bytes = b"") -> bytes:
    """Return a TIFF whose strips, unless the fields name others, or tiles, are those of GRAY.

    Args:
        fields: of the page, besides or instead of the usual ones.
        rows: of the page.
        is_big: whether this is a BigTIFF.
        next_: directories that follow, the first of which begins where the last one of the page ends.
    """
    offset, count, word = ("Q", "Q", 8) if is_big else ("I", "H", 4)
    body = bytearray(b"II+\0\x08\0\0\0" + bytes(8) if is_big else b"II*\0" + bytes(4)) + GRAY.tobytes()
    start = 16 if is_big else 8
    usual = {
        256: [16],
        257: [rows],
        258: [8],
        259: [1],
        262: [1],
        273: [start],
        277: [1],
        278: [rows],
        279: [16 * rows],
    }
    given = {field.tag for field in fields}
    given |= {273, 278, 279} if 324 in given else set()
    all_fields = [Field(tag, _LONG, value) for tag, value in usual.items() if tag not in given] + fields
    entries = []
    for tag, kind, values in all_fields:
        letter = {_SHORT: "H", _LONG: "I", _FRACTION: "I", _BYTE: "B"}[kind]
        value = bytes(values) if kind == _BYTE else struct.pack(f"<{len(values)}{letter}", *values)
        number = len(values) // 2 if kind == _FRACTION else len(values)
        if len(value) > word:
            place, value = len(body), struct.pack(f"<{offset}", len(body)) + value
            body += value[word:]
            assert place == len(body) - len(value) + word
        entries.append(struct.pack(f"<HH{offset}", tag, kind, number) + value[:word].ljust(word, b"\0"))
    struct.pack_into(f"<{offset}", body, 8 if is_big else 4, len(body))
    end = len(body) + struct.calcsize(f"<{count}") + sum(map(len, entries)) + word
    body += struct.pack(f"<{count}", len(entries)) + b"".join(entries)
    return bytes(body) + struct.pack(f"<{offset}", end if next_ else 0) + next_


def strips(coding: str, count: int, tables: bytes = b"", noise: bytes = b"", *, apart: bool = True) -> bytes:
    """Return a TIFF of strips of one row: `apart`, or all of them in the same place."""
    compression, coded, _ = CODINGS[coding]
    coded = coded[:2] + noise + coded[2:] if coding == "Deflate" else noise + coded
    start, count = 8 + 256 + 4 + 0, min(count, 65_500)
    data = coded * count if apart else coded
    places = [start + number * len(coded) if apart else start for number in range(count)]
    fields = [
        Field(40_000, _BYTE, bytes(4) + data),
        Field(259, _SHORT, [compression]),
        Field(273, _LONG, places),
        Field(278, _LONG, [1]),
        Field(279, _LONG, [len(coded)] * count),
    ]
    return tiff(fields + ([Field(347, _BYTE, tables)] if tables else []), rows=count)


def _tiles(count: int) -> bytes:
    side = max(1, min(311, int(count**0.5)))
    tiles = [Field(322, _LONG, [16]), Field(323, _LONG, [16]), Field(256, _LONG, [16 * side])]
    places = [8 + number % 16 for number in range(side * side)]
    return tiff([*tiles, Field(324, _LONG, places), Field(325, _LONG, [240] * side * side)], rows=16 * side)


def _pointers(count: int) -> bytes:
    """Return a TIFF with so many places of EXIF, in each of which a directory of so many tags begins."""
    tags = min(count, 60_000)
    entry = struct.pack("<HHII", 0x0101, 0x0101, 0, 0x01010101)
    long = struct.pack("<H", tags) + entry * tags + bytes(4 + count)
    return tiff([Field(40_000, _BYTE, bytes(4) + long), *(Field(34665, _LONG, [268 + at]) for at in range(tags))])


def _pages(count: int) -> bytes:
    """Return a TIFF with so many smaller copies of its page."""
    start = len(tiff([]))
    directory = struct.pack("<HHHIIHHIIHHIIHHII", 0, *(254, 4, 1, 1), *(256, 4, 1, 4), *(257, 4, 1, 4), *(273, 4, 1, 8))
    one = struct.pack("<H", 4) + directory[2:]
    return tiff(
        [],
        next_=b"".join(one + struct.pack("<I", start + (len(one) + 4) * n) for n in range(1, count)) + one + bytes(4),
    )


def _tags(numbers: range | list[int], *, is_big: bool = False, coding: str = "uncompressed") -> bytes:
    compression, coded, _ = CODINGS[coding]
    fields = [Field(tag, _SHORT, [1]) for tag in list(numbers)[:65_000]]
    if coding == "uncompressed":
        return tiff(fields, is_big=is_big)
    kept = [Field(40_000, _BYTE, bytes(4) + coded), Field(259, _SHORT, [compression]), Field(273, _LONG, [268])]
    return tiff([*kept, Field(279, _LONG, [len(coded)]), *fields], rows=1)


OF_TIFF: dict[str, Multiplied] = {
    "tags": lambda n: _tags(range(42_000, 42_000 + min(n, 20_000))),
    "tags of BigTIFF": lambda n: _tags(range(42_000, 42_000 + min(n, 20_000)), is_big=True),
    "tags, compressed": lambda n: _tags(range(42_000, 42_000 + min(n, 20_000)), coding="LZW"),
    "equal tags": lambda n: _tags([42_000] * n),
    "values": lambda n: tiff([Field(320, _SHORT, range(1, 2) if n == 1 else [1] * n)]),
    "bits": lambda n: tiff([Field(258, _SHORT, [8] * n)]),
    "fractions": lambda n: tiff([Field(282, _FRACTION, [1, 1] * n), Field(283, _FRACTION, [1, 1])]),
    "fractions of EXIF": lambda n: tiff([Field(33434, _FRACTION, [1, 1] * n)]),
    "bytes of XMP": lambda n: tiff([Field(700, _BYTE, b"<" * n)]),
    "bytes of Photoshop": lambda n: tiff([Field(34377, _BYTE, b"8BIM\4\4\0\0\0\0\0\0" * n)]),
    "pages": _pages,
    "images in a page": lambda n: tiff([Field(330, _LONG, [8] * n)]),
    "places of EXIF, and tags in each": _pointers,
    "tiles": _tiles,
    **{f"strips, {coding}": partial(strips, coding) for coding in CODINGS},
    **{f"strips in one place, {coding}": partial(strips, coding, apart=False) for coding in CODINGS},
    "strips in one place, and nothing in them, PackBits": lambda n: strips(
        "PackBits", n, noise=b"\x80" * n, apart=False
    ),
    "strips in one place, and nothing in them, Deflate": lambda n: strips(
        "Deflate", n, noise=_EMPTY_BLOCK * n, apart=False
    ),
    "strips, and comments in their tables": lambda n: strips(
        "JPEG", n, b"\xff\xd8" + b"\xff\xfe\0\2" * min(n, 9_000) + b"\xff\xd9"
    ),
}


def element(tag: int, value: bytes) -> bytes:
    """Return an element of a data set without representations."""
    return struct.pack("<HHI", *divmod(tag, 2**16), len(value)) + value


def item(*elements: bytes) -> bytes:
    return ITEM[:4] + struct.pack("<I", len(b"".join(elements))) + b"".join(elements)


def with_element(added: bytes, characters: bytes = b"") -> bytes:
    data = before(ROWS_TAG, added, ImplicitVRLittleEndian)
    if not characters:
        return data
    place = data.index(b"\x08\0\x16\0")
    return data[:place] + element(0x00080005, characters) + data[place:]


def _views(count: int, text: bytes, characters: bytes) -> bytes:
    """Return a file with so many views, of as many modifiers."""
    side = max(1, int(count**0.5))
    code = element(0x00080100, b"\xff ") + element(0x00080104, text)
    modified = item(code, element(0x00540222, item(code) * side))
    return with_element(element(0x00540220, modified * side), characters)


def _coded(syntax: UID, inserted: bytes) -> bytes:
    coded = bytes(ENCODERS[syntax](radiograph(12)))
    return dicom(radiograph(12), syntax, PixelData=encapsulate([coded[:-2] + inserted + coded[-2:]]))


_PIXELS = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
_LUT = item(element(0x00283006, bytes(2**18 - 2)))
_PRIVATE = b"\x09\0\x10\x10LO\0\0"


def _sequences(count: int) -> bytes:
    begin, end = struct.pack("<HHI", 8, 0x1140, 2**32 - 1) + ITEM[:4] + b"\xff" * 4, b"\xfe\xff\x0d\xe0\0\0\0\0" + _END
    return with_element(begin * count + end * count)


def _numbers(name: int) -> Callable[[int], bytes]:
    return lambda n: with_element(element(name, b"1" + b"\\1" * (n - 1)))


OF_DICOM: dict[str, Multiplied] = {
    "elements": lambda n: with_element(element(0x00091010, b"") * n),
    # More than may be inflated: 20 MB of deflated elements would take all memory before they are a file.
    "elements, inflated": lambda n: deflated(data_set_of(before(ROWS_TAG, _PRIVATE * min(n, 10_000_000)))),
    "delimiters": lambda n: with_element(b"\xfe\xff\x0d\xe0\0\0\0\0" * n),
    "sequences in sequences": _sequences,
    "items": lambda n: with_element(element(0x00081140, item() * n)),
    "items of undefined length": lambda n: with_element(
        struct.pack("<HHI", 8, 0x1140, 2**32 - 1) + (ITEM[:4] + b"\xff" * 4 + b"\xfe\xff\x0d\xe0\0\0\0\0") * n + _END
    ),
    "views, and modifiers of each": lambda n: _views(n, b"\xff", b"ISO_IR 100"),
    "views, and character sets": lambda n: _views(n, b"\xff", (b"ISO 2022 IR 6\\" * n)[: 2**18]),
    "views, and changes of the character set": lambda n: _views(
        n, b"\x1b(I\xb1" * 200, b"ISO 2022 IR 6\\ISO 2022 IR 13\\ISO 2022 IR 87 "
    ),
    "tables of values": lambda n: with_element(element(0x00283010, _LUT * max(1, n // 50))),
    "windows": lambda n: with_element(element(0x00281050, b"1\\" * n) + element(0x00281051, b"9\\" * n)),
    "directions": _numbers(0x00200020),
    "frames": _numbers(0x00280008),
    "fragments": lambda n: in_fragments(
        RLELossless, ITEM + _in_pieces(bytes(ENCODERS[RLELossless](radiograph(8)))) + ITEM * n + _END
    ),
    "images": lambda n: dicom(radiograph(8)) + (_PIXELS + ITEM * 20 + _END) * n,
    "bytes after the image": lambda n: dicom(radiograph(8)) + bytes(n),
    "JPEG segments": lambda n: segments(JPEGBaseline8Bit, b"\xff\xe1\0\2", n),
    "JPEG-LS segments": lambda n: segments(JPEGLSLossless, b"\xff\xfe\0\2", n),
    "JPEG 2000 segments": lambda n: segments(JPEG2000Lossless, b"\xff\x64\0\4\0\0", n),
    "restart markers, 12 bits": lambda n: _coded(JPEGExtended12Bit, b"\xff\xd0" * n),
    "restart markers, lossless": lambda n: _coded(JPEGLosslessSV1, b"\0\xff\xd0" * n),
}


def _in_pieces(data: bytes) -> bytes:
    return ITEM[:4] + struct.pack("<I", len(data)) + data
