"""Decode JPEG files so that damage is noticed. The pixels are those of Pillow alone, bit for bit.

libjpeg only warns of damage and fills the missing part with gray, and Pillow hides the warnings. But libjpeg draws a
row of blocks as soon as it has read the row's last bit. So Pillow gets the data in pieces: before the last bytes of a
restart interval, the interval's last row must not be drawn yet; after them, it must be. This needs no other package and
hardly any time. Progressive and some other files are not drawn row by row. simplejpeg decodes them: it wraps the same
library and reports the warnings, but imports NumPy.
"""

import io
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageChops

from pneumonia.errors import ImageError
from pneumonia.imaging.jpeg import Header, check_scans, header_of, is_ordinary
from pneumonia.imaging.kinds import BROKEN

MARKS = (37, 219, 73)  # written into rows before decoding; no radiograph has these values at the start of a row
HELD_BACK = 2  # bytes at the end of an interval; the last one may be only padding
AHEAD = b"\xff\0" * 8  # libjpeg may read 64 bits ahead; before a marker, what it does not need is skipped
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_FIRST_RESTART = 0xD0  # the first of eight markers that take turns

_COLORS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_HARMLESS = (  # what simplejpeg says of files that are unusual but whole
    "tjDecompressHeader3(): Could not determine subsampling",
    "Invalid SOS parameters for sequential JPEG",
    "Unknown Adobe color transform code",
    "Warning: unknown JFIF revision",
)


class JpegFile(io.BytesIO):
    """A JPEG file that can be handed out in pieces.

    Attributes:
        pieces: what reading returns from now on, one after the other.
    """

    pieces: Iterator[bytes] | None = None

    def read(self, size: int | None = -1) -> bytes:
        """Return the next piece, or bytes as any file does."""
        return super().read(size) if self.pieces is None else next(self.pieces, b"")


def loaded(image: Image.Image, file: JpegFile, header: Header) -> Image.Image:
    """Return a JPEG with its pixels.

    Args:
        image: the JPEG as Pillow opened it, of a kind that `jpeg.check_kind` lets pass.
        file: the file from which it was opened.
        header: the file's.

    Returns:
        The same image, or another with the same metadata. Damage stays unnoticed where simplejpeg would be needed and
        is not installed, as in SageMaker's training container, or cannot decode the file.

    Raises:
        ImageError: it is damaged.
        Exception: whatever Pillow raises on broken data.
    """
    rows = _rows_per_interval(header)
    if not rows:
        return _by_simplejpeg(image, file.getvalue())
    ends = _interval_ends(file.getvalue(), header, math.ceil(_rows(header) / rows))
    file.pieces = _pieces(image, file.getvalue(), ends, _last_rows(header, rows))
    image.load()
    for _ in file.pieces:  # Pillow stops as soon as everything is drawn, even if that is too early
        pass
    return image


def check_whole(data: bytes) -> None:
    """Check that a gray or colour codestream has all its scans and, if Pillow could read it, decodes without a warning.

    Raises:
        ImageTooLargeError: more scans or segments than `jpeg` allows.
        ImageError: a damaged one.
    """
    header = header_of(data)
    check_scans(data, header)
    if is_ordinary(header):
        _simplejpeg(data, "GRAY")


def _rows(header: Header) -> int:
    """Return how many rows of blocks the image has."""
    return math.ceil(header.height / header.row_height)


def _rows_per_interval(header: Header) -> int:
    """Return how many rows a restart interval has; 0 if the rows do not show how much has been read."""
    if header.is_progressive or not header.is_one_scan or header.width < len(MARKS):
        return 0
    if not header.interval:
        return _rows(header)
    rows, rest = divmod(header.interval, header.units_per_row)
    return 0 if rest else rows


def _last_rows(header: Header, rows: int) -> list[int]:
    """Return the first line of pixels of each interval's last row."""
    count, height = _rows(header), header.row_height
    return [(min(first + rows, count) - 1) * height for first in range(0, count, rows)]


def _interval_ends(data: bytes, header: Header, count: int) -> list[int]:
    """Return where each interval's data end.

    Raises:
        ImageError: not so many intervals, or with other markers between them.
    """
    ends = []
    for number, found in enumerate(itertools.islice(_MARKER.finditer(data, header.data), count)):
        ends.append(found.start())
        if found[1][0] != _FIRST_RESTART + number % 8 and number < count - 1:
            break
    if len(ends) < count or found[1][0] in range(_FIRST_RESTART, _FIRST_RESTART + 8):
        raise ImageError(BROKEN)
    return ends


def _pieces(image: Image.Image, data: bytes, ends: list[int], lines: list[int]) -> Iterator[bytes]:
    """Yield a file's bytes, and check after each piece what Pillow has drawn.

    Raises:
        ImageError: an interval has too little data, or too much.
    """
    pixels = image.im
    marks = [value if image.mode == "L" else (value,) * len(image.mode) for value in MARKS]
    for (x, mark), line in itertools.product(enumerate(marks), lines):
        pixels.putpixel((x, line), mark)

    def is_drawn(line: int) -> bool:
        return pixels.getpixel((0, line)) != marks[0] or [pixels.getpixel((x, line)) for x in (1, 2)] != marks[1:]

    at = 0
    for end, line in zip(ends, lines, strict=True):
        held = _without_filling(data, at, end) - HELD_BACK
        yield data[at:held]
        if is_drawn(line):
            raise ImageError(BROKEN)
        yield data[held:end] + AHEAD
        if not is_drawn(line):
            raise ImageError(BROKEN)
        at = end
    yield data[at:]


def _without_filling(data: bytes, start: int, end: int) -> int:
    """Return where data end, before the fill bytes that may precede a marker."""
    return end if data[end - 1] != 0xFF else start + len(data[start:end].rstrip(b"\xff"))


def _by_simplejpeg(image: Image.Image, data: bytes) -> Image.Image:
    pixels = _simplejpeg(data, _COLORS[image.mode])
    if pixels is None:
        return image
    decoded = Image.fromarray(pixels[:, :, 0] if image.mode == "L" else pixels, image.mode)
    if image.mode == "CMYK":  # stored inverted, as Adobe does
        decoded = ImageChops.invert(decoded)
    decoded.info = image.info
    return decoded


def _simplejpeg(data: bytes, colors: str) -> Any:  # noqa: ANN401  # NumPy is not imported for its type
    """Return a JPEG's pixels as an array, None where simplejpeg cannot decode it or is not installed.

    Raises:
        ImageError: a damaged one.
    """
    try:
        import simplejpeg  # noqa: PLC0415  # a tenth of a second with NumPy, for few files
    except ModuleNotFoundError:
        return None
    try:
        return simplejpeg.decode_jpeg(data, colors)
    except ValueError as error:
        if str(error).startswith(_HARMLESS):
            return None
        raise ImageError(BROKEN) from error
