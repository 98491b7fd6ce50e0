"""The pages of a TIFF: which one is the radiograph, and what its pixels are. The numbers are tags of TIFF 6.0."""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pneumonia.errors import UnsupportedImageError
from pneumonia.imaging.limits import MAX_PAGES
from pneumonia.imaging.tiff_directories import BIG_ENDIAN_BIG, Entry, Values, directories, sole_values_of

GRAY = {0, 1}  # PhotometricInterpretation: white is zero, or black
_WIDTH, _HEIGHT = 256, 257
_READ = {254, 255, _WIDTH, _HEIGHT, 258, 262, 266, 274, 277, 284, 330, 338, 339}
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4  # SampleFormat
_NUMBERS = {_UNSIGNED: "u", _UNDEFINED: "u", _SIGNED: "i", _FLOAT: "f"}
_BITS = {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}


@dataclass(frozen=True)
class Page:
    """A page of a TIFF, as its directory describes it.

    Attributes:
        number: of the page, from 0.
        entries: of its directory.
        width: in pixels, as stored.
        height: in pixels, as stored.
        bits: of each value.
        samples: values of each pixel.
        number_format: SampleFormat.
        photometric: PhotometricInterpretation; 0 if white is zero. If the file does not say, 1, or 2 for colours, as
            libtiff assumes.
        is_told: whether the file gives PhotometricInterpretation.
        orientation: as in EXIF.
        is_separate: whether each sample has a plane of its own.
        is_premultiplied: whether gray or colours are multiplied by the alpha beside them.
        is_mirrored: whether the bits of each byte are in reverse order.
        is_reduced: whether the file says that this is a smaller copy of another page, or a mask.
        has_children: whether the page has images of its own, as in raw photographs.
    """

    number: int
    entries: list[Entry]
    width: int
    height: int
    bits: int
    samples: int
    number_format: int
    photometric: int
    is_told: bool
    orientation: int
    is_separate: bool
    is_premultiplied: bool
    is_mirrored: bool
    is_reduced: bool
    has_children: bool

    @classmethod
    def of(cls, number: int, entries: list[Entry], values: Values) -> "Page":
        """Return a page, given its entries and their values."""

        def first(tag: int, default: int) -> int:
            return values.get(tag, (default,))[0]

        samples = first(277, 1)
        return cls(
            number,
            entries,
            width=first(_WIDTH, 0),
            height=first(_HEIGHT, 0),
            bits=max(values.get(258, (1,))),
            samples=samples,
            number_format=first(339, _UNSIGNED),
            photometric=first(262, 1 if samples < 3 else 2),
            is_told=262 in values,
            orientation=first(274, 1),
            is_separate=first(284, 1) == 2,
            is_premultiplied=first(338, 0) == 1,
            is_mirrored=first(266, 1) == 2,
            is_reduced=first(254, 0) & 0b101 > 0 or first(255, 1) == 2,
            has_children=330 in values,
        )

    @property
    def is_narrowed(self) -> bool:
        """Whether Pillow cannot read the values in full: signed, more than 16 bits, or 16 bits of several channels."""
        if _NUMBERS.get(self.number_format) != "u":
            return True
        return self.bits > 16 or (self.bits == 16 and self.samples > 1)

    @property
    def dtype(self) -> str:
        """The type of the values, as NumPy names it.

        Raises:
            UnsupportedImageError: a type that is not read.
        """
        kind = _NUMBERS.get(self.number_format, "")
        if self.bits not in _BITS.get(kind, ()):
            raise UnsupportedImageError(
                f"TIFF images of this number format with {self.bits} bits per value are not read: save the X-ray with "
                "8 or 16 bits of gray."
            )
        return f"{kind}{self.bits // 8}"

    def is_copy_of(self, other: "Page") -> bool:
        """Return whether this is a copy of another page: the file says so, or it is smaller and of the same shape."""
        if self.is_reduced:
            return True
        is_smaller = 2 * self.width <= other.width and 2 * self.height <= other.height
        return is_smaller and abs(self.width * other.height - other.width * self.height) <= max(
            other.width, other.height
        )


def radiograph(data: bytes) -> Page | None:
    """Return the page that is the radiograph: the largest, if the others are smaller copies of it.

    Returns:
        The page, or None if the file is too broken to find one.

    Raises:
        UnsupportedImageError: several images, or an image within a page.
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


def is_beyond_pillow(data: bytes, page: Page) -> bool:
    """Return whether `imaging.deep_files` has to read a page, because Pillow would narrow, refuse or misread it."""
    if page.is_narrowed or data.startswith(BIG_ENDIAN_BIG) or not page.is_told:
        return True
    if page.photometric not in GRAY:
        return False
    if page.is_separate and (page.samples, page.bits) not in {(1, 1), (1, 8)}:
        return True
    if page.bits == 16:
        return page.is_mirrored or (page.photometric == 0 and data.startswith(b"MM"))
    return page.bits == 8 and page.is_mirrored and page.photometric == 0


def _pages(data: bytes) -> Iterator[Page]:
    """Yield the pages up to the first that is broken."""
    try:
        for number, directory in enumerate(directories(data)):
            values = sole_values_of(data, directory.entries, _READ, 4)
            if not (directory.is_whole and values and {_WIDTH, _HEIGHT} <= values.keys()):
                return
            yield Page.of(number, directory.entries, values)
    except (struct.error, OverflowError):  # of an offset that no file has room for
        return
