"""What a DICOM header says about its pixels, and what viewers assume if it says nothing, or the impossible.

C.… are sections of https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

import math
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pneumonia.errors import UnsupportedImageError
from pneumonia.imaging.limits import check_pixels

# Photometric interpretations that are read, by samples per pixel, C.7.6.3.1.2.
KINDS = {
    1: {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"},
    3: {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT"},
}
_OTHER_KINDS = {"HSV", "ARGB", "CMYK", "YBR_PARTIAL_420", "YBR_FULL_420", "XYB"}


def complete(header: Dataset) -> None:
    """Check that the pixels that a header describes can be read, and set missing or impossible elements.

    Afterwards the header has possible values of Rows, Columns, SamplesPerPixel, PhotometricInterpretation,
    BitsAllocated, BitsStored, HighBit, PixelRepresentation and PlanarConfiguration.

    Raises:
        ImageTooLargeError: too many pixels.
        UnsupportedImageError: no image, several frames, or an unsupported kind of pixels.
        ValueError, AttributeError: missing or impossible elements for which nothing can be assumed.
    """
    if "Rows" not in header or "Columns" not in header:
        raise UnsupportedImageError("The DICOM file holds no image, or ends before it: send the file with the X-ray.")
    if (_number(header, "NumberOfFrames") or 1) > 1:
        raise UnsupportedImageError("The DICOM file holds several frames: send a radiograph of one frame.")
    check_pixels(header.Columns, header.Rows)
    _complete_kind(header)
    _complete_bits(header)
    if header.Columns * header.Rows == 0:
        raise ValueError("no pixels")


def _complete_kind(header: Dataset) -> None:
    kind = str(header.PhotometricInterpretation).strip().upper()
    samples = _number(header, "SamplesPerPixel") or (3 if kind in KINDS[3] else 1)
    stored = _number(header, "BitsStored")
    allocated = _number(header, "BitsAllocated") or (8 if (stored or 0) <= 8 else 16)
    if kind not in KINDS.get(samples, set()) or allocated not in ({8, 16} if samples == 1 else {8}):
        raise unsupported(kind, samples, allocated)
    header.PhotometricInterpretation, header.SamplesPerPixel, header.BitsAllocated = kind, samples, allocated
    header.PlanarConfiguration = _number(header, "PlanarConfiguration") or 0


def unsupported(kind: str, samples: int, allocated: int) -> UnsupportedImageError:
    """Return the error for pixels of a photometric interpretation, samples, and bits of each, that are not read."""
    is_known = kind in _OTHER_KINDS.union(*KINDS.values())  # other text is not quoted: it might be a patient's name
    named = f"of {kind}" if is_known else f"with {'an unknown' if kind else 'no'} photometric interpretation"
    return UnsupportedImageError(
        f"The DICOM image has an unsupported kind of pixels, {samples} x {allocated} bits {named}: send MONOCHROME2 of "
        "8 or 16 bits, or RGB of 8 bits per colour."
    )


def _complete_bits(header: Dataset) -> None:
    """Set BitsStored, HighBit and PixelRepresentation, C.7.6.3.1."""
    allocated, stored = header.BitsAllocated, _number(header, "BitsStored")
    stored = allocated if stored is None else stored
    if not 1 <= stored <= allocated:
        raise ValueError("more bits than there are")
    highest = _number(header, "HighBit")
    is_possible = highest is not None and stored - 1 <= highest < allocated
    header.BitsStored, header.HighBit = stored, highest if is_possible else stored - 1
    header.PixelRepresentation = _number(header, "PixelRepresentation") or 0


def decimals(header: Dataset, name: str) -> list[float]:
    """Return an element's decimal numbers, NaN for text that is not a number. Some devices write a decimal comma."""
    element = header.get_item(name) if name in header else None
    if isinstance(element, RawDataElement) and element.VR in {None, "DS"}:
        parts: list[Any] = (element.value or b"").decode("latin-1").strip("\0 ").split("\\")
    else:
        value = header.get(name)
        parts = list(value) if isinstance(value, MultiValue | list) else [value]
    return [] if parts in ([""], [None]) else [_decimal(part) for part in parts]


def _decimal(part: Any) -> float:  # noqa: ANN401  # pydicom has a type for each representation
    try:
        return float(part.replace(",", ".") if isinstance(part, str) else part)
    except (TypeError, ValueError):
        return math.nan


def _number(header: Dataset, name: str) -> int | None:
    """Return an element's whole number, or None if it has none."""
    value = header.get(name)
    return None if value is None or value == "" else int(value)
