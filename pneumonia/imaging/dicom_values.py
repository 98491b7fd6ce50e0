"""From the values that a DICOM file stores to the 8 bits that are shown.

A grayscale image goes through one table, which has the 8-bit value of every word that a pixel can be stored as.

C.… are sections of https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

import math
import struct
from typing import TypeVar

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from pneumonia.errors import UnsupportedImageError
from pneumonia.imaging.depth import Values, blocks, value_range
from pneumonia.imaging.dicom_layout import decimals

_INDIRECT = 2  # of a palette's segments, the kind that repeats others
Number = TypeVar("Number", int, Values)


def shown_in_gray(band: Image.Image, header: Dataset) -> Image.Image:
    """Return a stored band as it is meant to be shown, mode "L".

    Stored values go through the modality LUT or rescale, then through the first VOI LUT or window. If there is none, or
    it makes everything black or white, 8 bits stay as they are, and `imaging.depth` converts other values to 8 bits.
    MONOCHROME1 is inverted, and padding becomes black.

    Args:
        band: as `stored_bands` gives it.
        header: the elements that describe the pixels, completed.

    Raises:
        Exception: whatever a broken header leads to.
    """
    return _apply(_gray_table(band, header), band)


def shown_by_palette(band: Image.Image, header: Dataset) -> Image.Image:
    """Return a stored band of palette indices in its colours, mode "RGB"; arguments and errors as above."""
    return Image.merge("RGB", [_apply(table, band) for table in _palettes(header, band)])


def _apply(table: Values, band: Image.Image) -> Image.Image:
    return band.point(table.tolist(), "L")


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused
def _gray_table(band: Image.Image, header: Dataset) -> Values:
    """Return the 8-bit value of every word that a pixel can be stored as."""
    words = _words(band)
    stored = _stored_values(words, header)
    is_padding = _is_padding(words, stored, header)
    values = _modality(stored, header)
    if not np.isfinite(values).all():
        raise ValueError
    found = _blocks(band, is_padding)
    shown = _shown_by_header(values, header)
    if shown is None or not _shows_anything(shown[found]):
        low, high = (0.0, 255.0) if _has_8_bits(values, stored, header) else value_range(values[found])
        shown = (values - low) / (high - low)
    if not np.isfinite(shown).all():
        raise ValueError
    table = np.rint(shown.clip(0, 1) * 255).astype(np.uint8)
    if header.PhotometricInterpretation == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE":
        table = 255 - table
    return np.where(is_padding, 0, table)


def _words(band: Image.Image) -> Values:
    return np.arange(256 if band.mode == "L" else 65_536)


def _blocks(band: Image.Image, is_padding: Values) -> Values:
    """Return the words of blocks of neighbouring pixels, none of them padding, as `imaging.depth` looks at them."""
    found = blocks(np.asarray(band if band.mode == "L" else band.convert("I;16")))
    return found[:, ~is_padding[found].any(0)]


def _has_8_bits(values: Values, stored: Values, header: Dataset) -> bool:
    """Return whether values are those of an 8-bit image, from 0 to 255."""
    return int(header.BitsStored) == 8 and bool(stored.min() == 0) and np.array_equal(values, stored)


def _shows_anything(shown: Values) -> bool:
    """Return whether not all is black, or all white: the windows of some files lie outside of their values."""
    return shown.size > 0 and bool(shown.clip(0, 1).max() > shown.clip(0, 1).min())


def _stored_values(words: Values, header: Dataset) -> Values:
    """Return the value that each word stores, C.7.6.3.1: the bits that the header names, with their sign."""
    return _held(words >> int(header.HighBit) - int(header.BitsStored) + 1, header)


def _held(values: Number, header: Dataset) -> Number:
    """Return the values in the lowest BitsStored bits of integers, signed if the pixels are."""
    bits = int(header.BitsStored)
    values = values & (1 << bits) - 1
    return values - (values >> bits - 1 << bits) if header.PixelRepresentation == 1 else values


def _is_padding(words: Values, stored: Values, header: Dataset) -> Values:
    """Return which words are padding, given the values that they store, C.7.5.1.1.2.

    Some files write signed numbers as unsigned, or the reverse: a number means the value that has its bits. If it does
    not fit into the bits that are stored, it is compared with whole words instead.
    """
    given = (header.get(f"PixelPadding{name}") for name in ("Value", "RangeLimit"))
    bounds = [int(value) for value in given if value is not None]
    if not bounds:
        return np.zeros_like(words, dtype=bool)
    bits = int(header.BitsStored)
    if header.PixelRepresentation == 1:
        bounds = [bound - 2**16 if bound >= 2**15 else bound for bound in bounds]
    if all(-(1 << bits - 1) <= bound < 1 << bits for bound in bounds):
        bounds = [_held(bound, header) for bound in bounds]
        return (stored >= min(bounds)) & (stored <= max(bounds))
    bounds = [bound % 2**16 for bound in bounds]
    return (words >= min(bounds)) & (words <= max(bounds))


def _modality(stored: Values, header: Dataset) -> Values:
    """Return what the stored values mean, C.11.1."""
    if item := _complete_item(header, "ModalityLUTSequence"):
        return _lut(item, stored)[0]
    slope, intercept = (decimals(header, f"Rescale{name}")[:1] for name in ("Slope", "Intercept"))
    return stored.astype(np.float64) * ((slope or [1.0])[0] or 1) + (intercept or [0.0])[0]


def _shown_by_header(values: Values, header: Dataset) -> Values | None:
    """Return the brightness of values by the first VOI LUT or window, 0 to 1, C.11.2; None if there is neither."""
    if item := _complete_item(header, "VOILUTSequence"):
        # Some files declare 16 bits for entries of 12. So the brightest entry is white, not the largest possible one.
        found, brightest = _lut(item, values)
        return found / max(1, brightest)
    function = header.get("VOILUTFunction") or "LINEAR"
    window = _window(header, 1e-9 if function in {"LINEAR_EXACT", "SIGMOID"} else 1)
    return _windowed(values, *window, function) if window else None


def _windowed(values: Values, center: float, width: float, function: str) -> Values:
    if function == "SIGMOID":  # C.11.2.1.3.1
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR_EXACT":  # C.11.2.1.3.2
        return (values - center) / width + 0.5
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return (values - (center - 0.5)) / (width - 1) + 0.5  # C.11.2.1.2.1


def _window(header: Dataset, narrowest: float) -> tuple[float, float] | None:
    """Return the center and width of the first window that has both."""
    centers, widths = decimals(header, "WindowCenter"), decimals(header, "WindowWidth")
    windows = zip(centers, widths, strict=False)
    return next(((c, w) for c, w in windows if math.isfinite(c) and narrowest <= w < math.inf), None)


def _complete_item(header: Dataset, name: str) -> Dataset | None:
    """Return a sequence's first item that has a look-up table and its description."""
    items = header.get(name) or ()
    return next((item for item in items if item.get("LUTDescriptor") and item.get("LUTData")), None)


def _lut(item: Dataset, values: Values) -> tuple[Values, int]:
    """Return a look-up table's entries for values, C.11.1.1, and its largest entry."""
    table, first, _ = _table(item, "LUT")
    first -= 65_536 if values.min() < 0 and first >= 32_768 else 0
    return table[(np.rint(values) - first).clip(0, len(table) - 1).astype(np.intp)].astype(np.float64), int(table.max())


def _palettes(header: Dataset, band: Image.Image) -> list[Values]:
    """Return the 8-bit red, green and blue of every word, C.7.6.3.1.5."""
    tables = [_table(header, f"{color}PaletteColorLookupTable") for color in ("Red", "Green", "Blue")]
    brightest = max(int(table.max()) for table, _, _ in tables)
    palettes = []
    for table, first, declared in tables:
        # Some files declare more bits than their entries have: the image would be nearly black.
        bits = declared if brightest >> declared - 4 else max(8, brightest.bit_length())
        found = table[(_words(band) - first).clip(0, len(table) - 1)]
        palettes.append(found >> bits - 8 & 255)
    return palettes


def _table(dataset: Dataset, name: str) -> tuple[Values, int, int]:
    """Return a look-up table, the value of its first entry, and the number of bits of its entries."""
    entries, first, bits = _numbers(dataset, f"{name}Descriptor")
    entries = entries % 65_536 or 65_536  # for signed pixels, pydicom may read large ones as negative
    if not 8 <= bits <= 16:
        raise ValueError
    if f"{name}Data" not in dataset:
        return np.array(_expanded(_numbers(dataset, f"Segmented{name}Data"), entries)), first, bits
    numbers = _numbers(dataset, f"{name}Data")
    if 2 * len(numbers) == entries + entries % 2:  # entries of 8 bits may be packed, two to a word
        numbers = list(struct.pack(f"{_order(dataset)}{len(numbers)}H", *numbers))
    return np.array(numbers[:entries]), first, bits


def _expanded(words: list[int], entries: int) -> list[int]:
    """Return the entries of a palette that is stored in segments, C.7.9.2.

    Raises:
        UnsupportedImageError: segments that repeat others.
        ValueError: broken ones.
    """
    found: list[int] = []
    at = 0
    while at < len(words) and len(found) < entries:
        kind, count = words[at : at + 2]
        if kind == 0:
            found += words[at + 2 : at + 2 + count]
            at += 2 + count
        elif kind == 1 and found:
            start, step = found[-1], (words[at + 2] - found[-1]) / max(1, count)
            found += [round(start + step * number) for number in range(1, count + 1)]
            at += 3
        elif kind == _INDIRECT:
            raise UnsupportedImageError(
                "The DICOM image's palette has indirect segments, which are not read: export it in gray or RGB."
            )
        else:
            raise ValueError("another kind of segment")
    return found


def _numbers(dataset: Dataset, name: str) -> list[int]:
    """Return an element's numbers, which some value representations hold as bytes."""
    value = dataset[name].value
    if isinstance(value, bytes):
        return list(struct.unpack(f"{_order(dataset)}{len(value) // 2}H", value))
    return [int(number) for number in value]


def _order(dataset: Dataset) -> str:
    return ">" if dataset.original_encoding[1] is False else "<"
