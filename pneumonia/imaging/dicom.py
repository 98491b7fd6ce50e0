"""DICOM: from a file's bytes to an 8-bit image, and what its header says against an answer.

C.… are sections of https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

import io
import logging
import warnings

import pydicom.config
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging.dicom_pixels import DECODERS, TO_RGB, UNCOMPRESSED, stored_bands
from pneumonia.imaging.dicom_values import shown_by_palette, shown_in_gray
from pneumonia.imaging.limits import check_pixels

# pydicom's warnings and log lines quote what it finds wrong, which may be a patient's name.
warnings.filterwarnings("ignore", module="pydicom")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

PREFIX_BYTES = 132  # preamble and "DICM"
MAX_READS = 100_000  # of a header; ordinary ones take some hundreds, and each takes time, however little it reads

RADIOGRAPHY = {"CR", "DX", "DR", "RG"}  # C.7.3.1.1.1; DR is not one of its terms, but files have it
UNTOLD = {"", "OT"}  # "other" is what conversion from films and pictures leaves
CHEST = ("CHEST", "THORA", "TORAX", "LUNG")  # anywhere in the name of a body part, as in PORT CHEST
# C.8.1.4.1.1 and C.8.11.5; also decubitus, in which air and fluid lie as in no image that the model has seen.
NOT_FRONTAL = {"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "LAT"}
NOT_FRONTAL_WORDS = ("LATERAL", "OBLIQUE", "DECUBITUS")

_META = 0x0002  # the group of the file's own elements, always little endian with explicit VR
_PIXELS = 0x7FE00010
_EXAMINATION = [0x00080060, 0x00180015, 0x00185101, 0x00200020]
_ELEMENTS = [
    *_EXAMINATION,
    *(0x00280000 + element for element in (0x0002, 0x0004, 0x0006, 0x0008, 0x0010, 0x0011)),
    *(0x00280000 + element for element in (0x0100, 0x0101, 0x0102, 0x0103, 0x0120, 0x0121)),
    *(0x00280000 + element for element in (0x1050, 0x1051, 0x1052, 0x1053, 0x1056, 0x3000, 0x3010)),
    *(0x00280000 + element for element in (0x1101, 0x1102, 0x1103, 0x1201, 0x1202, 0x1203)),
    0x20500020,
    _PIXELS,
]


def decode(data: bytes) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a DICOM file's image as it is meant to be shown, and read what its header says against an answer.

    The image is neither rotated nor, if its pixels are not square, rescaled.

    Returns:
        The image, mode "L", or "RGB" if it has colours; and the warnings, as `_warnings` gives them.

    Raises:
        ImageTooLargeError: more than MAX_PIXELS pixels, or a header or image of too many pieces.
        UnsupportedImageError: no image, several frames, or an unsupported kind of pixels or compression.
        ImageError: a broken file.
    """
    try:
        syntax, header = _read(data)
        return _image(syntax, header), _warnings(header)
    except (ImageError, MemoryError):
        raise
    except Exception:  # pydicom and the decoders raise nearly anything on broken data, and may quote it
        raise ImageError("The DICOM file is broken: its image cannot be decoded, export it anew.") from None


def _image(syntax: UID, header: Dataset) -> Image.Image:
    size = _checked_size(header, syntax)
    bands = stored_bands(header[_PIXELS].value, size, syntax, header)
    if len(bands) == 3:
        return _rgb(bands, syntax, header)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        return shown_by_palette(bands[0], header)
    return shown_in_gray(bands[0], syntax, header)


def _rgb(bands: list[Image.Image], syntax: UID, header: Dataset) -> Image.Image:
    if header.PhotometricInterpretation == "YBR_FULL" and syntax not in TO_RGB:
        return Image.merge("YCbCr", bands).convert("RGB")
    return Image.merge("RGB", bands)


def _warnings(header: Dataset) -> tuple[str, ...]:
    """Return what a header says against the answer; an element that is missing, or says "other", says nothing.

    Returns:
        `dicom_not_a_chest_radiograph` if the modality is not radiography or the body part is not the chest;
        `dicom_not_a_frontal_view` if the view position or the patient's orientation is that of another view.
    """
    modality, part, view = (_text(header, name) for name in ("Modality", "BodyPartExamined", "ViewPosition"))
    directions = _text(header, "PatientOrientation").split("\\")
    is_other_part = bool(part) and not any(word in part for word in CHEST)
    is_other_view = view in NOT_FRONTAL or any(word in view for word in NOT_FRONTAL_WORDS)
    # C.7.6.1.1.1: where rows and columns run to; in a frontal view left or right, and foot or head.
    is_other_view |= any(direction[:1] in {"A", "P"} for direction in directions)
    found = {
        "dicom_not_a_chest_radiograph": modality not in RADIOGRAPHY | UNTOLD or is_other_part,
        "dicom_not_a_frontal_view": is_other_view,
    }
    return tuple(name for name, holds in found.items() if holds)


class _Header(io.BytesIO):
    """A file that raises an error after MAX_READS reads."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise ImageTooLargeError("The DICOM header has too many elements: export the image with fewer.")
        return super().read(size)


def _read(data: bytes) -> tuple[UID, Dataset]:
    """Return the transfer syntax, and the few elements that are needed; none is about the patient."""
    file = _Header(data)
    file.seek(PREFIX_BYTES)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != _META)  # noqa: FBT003  # pydicom's
    syntax = UID(str(meta.get("TransferSyntaxUID", "")))
    if not syntax:
        raise UnsupportedImageError("The DICOM file names no transfer syntax: export it anew.")
    if syntax not in UNCOMPRESSED | {RLELossless} | DECODERS.keys():
        raise UnsupportedImageError(
            "The DICOM file's compression is not supported: export it uncompressed, or as RLE, JPEG, JPEG-LS or JPEG "
            "2000."
        )
    header = read_dataset(
        file,
        syntax == ImplicitVRLittleEndian,
        syntax != ExplicitVRBigEndian,
        stop_when=lambda tag, *_: tag > _PIXELS,
        specific_tags=_ELEMENTS,
    )
    return syntax, header


def _text(header: Dataset, name: str) -> str:
    value = header.get(name)
    return "\\".join(map(str, value if isinstance(value, MultiValue) else [value or ""])).upper().strip()


def _checked_size(header: Dataset, syntax: UID) -> tuple[int, int]:
    """Return the image's width and height, after checking that images of its kind can be read."""
    if "Rows" not in header or _PIXELS not in header:
        raise UnsupportedImageError("The DICOM file holds no image, or ends before it: send the file with the X-ray.")
    if (header.get("NumberOfFrames") or 1) > 1:
        raise UnsupportedImageError("The DICOM file holds several frames: send a radiograph of one frame.")
    width, height = header.Columns, header.Rows
    check_pixels(width, height)
    kind, samples, bits = header.PhotometricInterpretation, header.get("SamplesPerPixel", 1), header.BitsAllocated
    kinds = {1: {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}, 3: {"RGB", "YBR_FULL"}}
    if syntax in TO_RGB:
        kinds[3] |= {"YBR_FULL_422", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT"}
    if kind not in kinds.get(samples, set()) or bits not in ({8, 16} if samples == 1 else {8}):
        raise UnsupportedImageError(
            "The DICOM image has an unsupported kind of pixels: send 8 or 16 bits of gray, or 8 bits per color."
        )
    if not 1 <= header.BitsStored <= bits or width * height == 0:
        raise ValueError
    return width, height
