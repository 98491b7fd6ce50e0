"""The markers of JPEG and JPEG-LS: the header of an image, its kind, and whether it has all its scans."""

import itertools
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pneumonia.errors import ImageError, UnsupportedImageError
from pneumonia.imaging.kinds import BROKEN
from pneumonia.imaging.limits import (
    MAX_EXIF_SEGMENTS,
    MAX_FILLING,
    MAX_SCANS,
    MAX_SEGMENTS,
    MAX_TABLES,
    check_count,
    check_metadata_bytes,
    too_many,
)
from pneumonia.imaging.tiff_directories import EXIF, check_exif

# ISO/IEC 10918-1, tables B.1 and B.2, and for JPEG-LS ISO/IEC 14495-1.
_END, _SCAN, _INTERVAL, _LS_FRAME, _JFIF, _EXIF, _ADOBE = 0xD9, 0xDA, 0xDD, 0xF7, 0xE0, 0xE1, 0xEE
_METADATA = {*range(0xE0, 0xF0), 0xFE}
_UNKNOWN = {0xC8, 0xDE, 0xDF, *range(0xF0, 0xFE)}  # to libjpeg, at least; Pillow looks for segments within most of them
_FRAMES = {*range(0xC0, 0xD0), _LS_FRAME} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
LOSSLESS, _EXTENDED, ARITHMETIC_PROGRESSIVE = 0xC3, 0xC1, 0xCA
_UNREAD = {
    _LS_FRAME: "JPEG-LS",
    LOSSLESS: "Lossless JPEG",
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "Hierarchical JPEG"),
    **dict.fromkeys(
        (0xC9, ARITHMETIC_PROGRESSIVE, 0xCB), "Arithmetically coded JPEG"
    ),  # libjpeg does not notice where they are cut
}
# Fill bytes may stand before a marker, FF00 and restart markers within a scan. In a header, only markers that have a
# length are accepted: a decoder might skip others differently, and find another header behind them.
_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xd9-\xfe])")
_MARKER_AFTER_DATA = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")


@dataclass(frozen=True)
class Header:
    """The header of a JPEG or JPEG-LS image: all that is before the data of its first scan.

    Attributes:
        frame: the marker of the frame, which says how the image is coded.
        bits: of a sample.
        height: in pixels.
        width: in pixels.
        components: for each channel its number, and how many of its blocks a unit has in width and in height.
        interval: units between two restart markers, 0 without such markers.
        scanned: the numbers of the channels in the first scan.
        colours: "RGB" or "YCbCr" if the header says which of them three channels are, "untransformed" if it says that
            they were not converted, else "".
        data: where the first scan's data begin.
        filling: how many fill bytes there are before them.
        segments: how many segments there are before them.
    """

    frame: int
    bits: int
    height: int
    width: int
    components: tuple[tuple[int, int, int], ...]
    interval: int
    scanned: tuple[int, ...]
    colours: str
    data: int
    filling: int
    segments: int

    @property
    def kind(self) -> str:
        """The compression: "JPEG", "lossless JPEG" or "JPEG-LS"."""
        return {_LS_FRAME: "JPEG-LS", LOSSLESS: "lossless JPEG"}.get(self.frame, "JPEG")

    @property
    def is_progressive(self) -> bool:
        """Whether the coefficients come in several scans."""
        return self.frame in _PROGRESSIVE

    @property
    def is_one_scan(self) -> bool:
        """Whether the first scan has all channels."""
        return {number for number, _, _ in self.components} == set(self.scanned)

    @property
    def row_height(self) -> int:
        """How many rows of pixels are decoded together."""
        return 8 * max(above for _, _, above in self.components)

    @property
    def units_per_row(self) -> int:
        """How many units a row of that height has; restart markers stand between units."""
        if len(self.components) == 1:  # units of one block, however the sampling is written
            return self.components[0][2] * math.ceil(self.width / 8)
        return math.ceil(self.width / (8 * max(beside for _, beside, _ in self.components)))


def header_of(data: bytes) -> Header:
    """Read the header of a JPEG file, or of a JPEG or JPEG-LS codestream.

    Raises:
        ImageTooLargeError: more than MAX_SEGMENTS segments.
        ImageError: a damaged header, or none.
    """
    found: dict[int, bytes] = {}
    filling, last, colours = 0, 2, ""
    for number, (marker, start, end) in enumerate(segments(data), 1):
        found[marker] = data[start:end]
        filling, last = filling + start - 4 - last, end
        colours = _named_colours(marker, data[start:end]) or colours
        if marker == _SCAN:
            try:
                return _header(found, colours, end, filling, number)
            except (ValueError, struct.error) as error:
                raise ImageError(BROKEN) from error
    raise ImageError(BROKEN)


def _header(found: dict[int, bytes], colours: str, data: int, filling: int, total: int) -> Header:
    """Return a header, given the last segment of each marker up to the first scan: ISO/IEC 10918-1, B.2.2 to B.2.4."""
    (frame,) = found.keys() & _FRAMES
    bits, height, width, count = struct.unpack_from(">BHHB", found[frame])
    parts = struct.unpack_from(f">{3 * count}B", found[frame], 6)
    pairs = zip(parts[::3], parts[1::3], strict=True)
    components = tuple((number, sampling >> 4, sampling & 15) for number, sampling in pairs)
    (interval,) = struct.unpack(">H", found.get(_INTERVAL, b"\0\0"))
    colours = "RGB" if bytes(parts[::3]) in {b"RGB", b"rgb"} else colours
    scanned = tuple(found[_SCAN][1:-3:2])
    return Header(frame, bits, height, width, components, interval, scanned, colours, data, filling, total)


def _named_colours(marker: int, segment: bytes) -> str:
    """Return the colours that a segment names: JFIF (ITU-T T.871) allows one kind, Adobe's segment says which."""
    if marker == _JFIF and segment.startswith(b"JFIF\0"):
        return "YCbCr"
    if marker == _ADOBE and segment.startswith(b"Adobe") and len(segment) >= 12:
        return "YCbCr" if segment[11] else "untransformed"
    return ""


def is_deep(header: Header) -> bool:
    """Return whether a JPEG is of one of the kinds that hold deep gray images: 12 bits in one scan, or lossless."""
    is_gray = len(header.components) == 1
    return is_gray and (header.frame == LOSSLESS or (header.frame == _EXTENDED and header.bits == 12))


def check_kind(header: Header) -> None:
    """Check that a JPEG file is of a kind that Pillow reads: baseline or progressive, 8 bits, Huffman codes.

    Raises:
        UnsupportedImageError: another kind.
    """
    kind, channels = _UNREAD.get(header.frame), len(header.components)
    if header.frame == LOSSLESS and channels > 1:
        kind = f"Lossless JPEG of {channels} channels"
    elif header.bits != 8 and not kind:
        kind = f"{'Progressive ' if header.is_progressive else ''}{header.bits}-bit JPEG"
    if kind:
        raise UnsupportedImageError(f"{kind} files are not read: save the X-ray as an ordinary JPEG or as PNG.")
    if channels not in {1, 3, 4}:
        raise UnsupportedImageError(f"JPEG files of {channels} channels are not read: save the X-ray as gray or RGB.")


def check_metadata(data: bytes, header: Header) -> None:
    """Check that Pillow will not take long to open a JPEG.

    Args:
        data: the bytes of a JPEG file.
        header: what `header_of` reads from them.

    Raises:
        ImageTooLargeError: before the first scan, more bytes than MAX_METADATA or MAX_TABLES; or EXIF in more than
            MAX_EXIF_SEGMENTS segments, or larger than `check_exif` allows.
        ImageError: more than MAX_FILLING fill bytes, or a marker that libjpeg refuses and Pillow takes for another.
    """
    if header.filling > MAX_FILLING:
        raise ImageError(BROKEN)
    check_metadata_bytes(header.data, "JPEG")
    tables = 0
    for marker, start, end in _segments_before_data(data):
        if marker in _UNKNOWN and header.frame != _LS_FRAME:
            raise ImageError(BROKEN)
        tables += 0 if marker in _METADATA else end - start
    check_count(tables, MAX_TABLES, "bytes of JPEG tables")
    check_exif(exif_of(data))


def exif_of(data: bytes) -> bytes:
    """Return the EXIF metadata of a JPEG, put together from its segments as Pillow does, b"" if it has none.

    Raises:
        ImageTooLargeError: more than MAX_EXIF_SEGMENTS segments of EXIF.
    """
    found = (data[start:end] for marker, start, end in _segments_before_data(data) if marker == _EXIF)
    pieces = [segment for segment in found if segment.startswith(EXIF)]
    check_count(len(pieces), MAX_EXIF_SEGMENTS, "JPEG segments of EXIF")
    return b"".join([*pieces[:1], *(piece[len(EXIF) :] for piece in pieces[1:])])


def _segments_before_data(data: bytes) -> Iterator[tuple[int, int, int]]:
    return itertools.takewhile(lambda segment: segment[0] != _SCAN, segments(data))


def is_ordinary(header: Header) -> bool:
    """Return whether a JPEG is baseline or progressive, with 8 bits and Huffman codes."""
    return header.frame not in _UNREAD and header.bits == 8


def check_scans(data: bytes, header: Header) -> None:
    """Check that a JPEG has every channel's coefficients, in at most MAX_SCANS scans.

    A progressive JPEG that ends between two scans decodes without a warning, but blurred. Thumbnails in the metadata do
    not count, nor does anything after the end.

    Args:
        data: the bytes of a JPEG file or codestream.
        header: what `header_of` reads from them.

    Raises:
        ImageTooLargeError: more than MAX_SCANS scans or MAX_SEGMENTS segments.
        ImageError: it ends too early.
    """
    missing = {number: set(range(64)) for number, _, _ in header.components}  # in the order of the zigzag
    if header.is_one_scan and not header.is_progressive:
        return  # the first scan has everything, as usual: there is no need to search its data
    scans = (data[start:end] for marker, start, end in segments(data) if marker == _SCAN)
    for count, scan in enumerate(scans):
        check_count(count + 1, MAX_SCANS, "JPEG scans")
        completed = _completed(scan) if header.is_progressive else range(64)
        for number in scan[1:-3:2]:
            missing.get(number, set()).difference_update(completed)
    if any(missing.values()):
        raise ImageError(BROKEN)


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment up to the end marker, as libjpeg finds them.

    Raises:
        ImageTooLargeError: more than MAX_SEGMENTS.
        ImageError: something else stands where a marker should before the first scan, or the end marker is missing.
    """
    at, find = 2, _MARKER.match
    for _ in range(MAX_SEGMENTS):
        found = find(data, at)
        if found and found[1][0] == _END:
            return
        if not found or found.end() + 2 > len(data):
            raise ImageError(BROKEN)
        at = found.end() + struct.unpack_from(">H", data, found.end())[0]
        yield found[1][0], found.end() + 2, at
        if found[1][0] == _SCAN:
            find = _MARKER_AFTER_DATA.search
    raise too_many(MAX_SEGMENTS, "JPEG segments")


def _completed(scan: bytes) -> range:
    """Return the coefficients that a progressive scan completes: ISO/IEC 10918-1, B.2.3 and G.1.1.1.

    Raises:
        ImageError: no header of a scan.
    """
    if len(scan) < 6:
        raise ImageError(BROKEN)
    first, last, bits = scan[-3:]
    return range(0) if bits & 15 else range(first, last + 1)  # lower bits come in a later scan
