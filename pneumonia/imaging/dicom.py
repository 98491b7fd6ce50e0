"""DICOM: from a file's bytes to an image of 8 bits, and what its header says against the answer.

pydicom reads the few elements that this takes, of which none is about the patient. Pillow and imagecodecs decode; GDCM
would be smaller, but its JPEG decoders end the process on some broken files. A grayscale image goes through one table,
which has the 8-bit value of every word that a pixel can be stored as.

C.… are sections of https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

import contextlib
import io
import logging
import math
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import imagecodecs
import pydicom.config
import torch
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from torch import Tensor

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging.codestream import Shape, shape_of
from pneumonia.imaging.decoding import MAX_PIXELS, refuse_many_scans

# pydicom tells what it finds wrong, and quotes it, to Python's warnings and to its logger: it may be a patient's name.
warnings.filterwarnings("ignore", module="pydicom")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

Number = TypeVar("Number", int, Tensor)

PREFIX_BYTES = 132  # preamble and "DICM"
MAX_READS = 100_000  # of a header; ordinary ones take some hundreds, and each takes time, however little it reads
MAX_FRAGMENTS = 65_536  # of the pixels, usually one
ITEM = b"\xfe\xff\x00\xe0"  # what each of them begins with

RADIOGRAPHY = {"CR", "DX", "DR", "RG"}  # C.7.3.1.1.1; DR is none of its terms, but written nevertheless
UNTOLD = {"", "OT"}  # "other" is what conversion from films and pictures leaves
CHEST = ("CHEST", "THORA", "TORAX", "LUNG")  # in whatever else a body part is called, as in PORT CHEST
# C.8.1.4.1.1 and C.8.11.5; decubitus among them, in which air and fluid lie as in no image that the model has seen.
NOT_FRONTAL = {"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO", "LAT"}
NOT_FRONTAL_WORDS = ("LATERAL", "OBLIQUE", "DECUBITUS")

_DECODERS = {  # functions of imagecodecs, which imports a library when its function is asked for
    JPEGBaseline8Bit: "jpeg8_decode",
    JPEGExtended12Bit: "jpeg8_decode",
    JPEGLossless: "jpeg8_decode",
    JPEGLosslessSV1: "jpeg8_decode",
    JPEGLSLossless: "jpegls_decode",
    JPEGLSNearLossless: "jpegls_decode",
    JPEG2000Lossless: "jpeg2k_decode",
    JPEG2000: "jpeg2k_decode",
}
_UNCOMPRESSED = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian}
_TO_RGB = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000Lossless, JPEG2000}  # their decoders do that
_META = 0x0002  # the group of the file's own elements, always little endian with explicit VR
_PIXELS = 0x7FE00010
_EXAMINATION = [0x00080060, 0x00180015, 0x00185101, 0x00200020]
_IMAGE = [
    *(0x00280000 + element for element in (0x0002, 0x0004, 0x0006, 0x0008, 0x0010, 0x0011)),
    *(0x00280000 + element for element in (0x0100, 0x0101, 0x0102, 0x0103, 0x0120, 0x0121)),
    *(0x00280000 + element for element in (0x1050, 0x1051, 0x1052, 0x1053, 0x1056, 0x3000, 0x3010)),
    *(0x00280000 + element for element in (0x1101, 0x1102, 0x1103, 0x1201, 0x1202, 0x1203)),
    0x20500020,
    _PIXELS,
]


def decode(data: bytes) -> Image.Image:
    """Decode a DICOM file's one image, as it is meant to be shown: mode "L", or "RGB" where it has colours.

    Stored values go through the modality LUT or rescale, then through the first VOI LUT or window; where there is none,
    the smallest value becomes 0 and the largest 255. MONOCHROME1 is inverted, and padding becomes black. The image lies
    as it is stored, and pixels that are not square stay so.

    Raises:
        ImageTooLargeError: more than MAX_PIXELS pixels, or a header or image of more pieces than is sensible.
        UnsupportedImageError: no image, several frames, or a kind of pixels or compression that is not read.
        ImageError: a broken file.
    """
    with _broken_where_it_fails():
        syntax, header = _read(data, _IMAGE)
        size = _checked(header, syntax)
        bands = _bands(header[_PIXELS].value, size, syntax, header)
        if len(bands) == 3:
            return _rgb(bands, syntax, header)
        if header.PhotometricInterpretation == "PALETTE COLOR":
            return Image.merge("RGB", [_apply(table, bands[0]) for table in _palettes(header, bands[0])])
        return _apply(_gray_table(bands[0], syntax, header), bands[0])


def warnings_of(data: bytes) -> list[str]:
    """Return what the header of a DICOM file that can be decoded says against the answer.

    What is not told, or told as "other", counts for nothing.

    Returns:
        `dicom_not_a_chest_radiograph` where the modality is not radiography or the body part is another;
        `dicom_not_a_frontal_view` where the view position or the patient's orientation is of another view.

    Raises:
        ImageError: as `decode`.
    """
    with _broken_where_it_fails():
        _, header = _read(data, _EXAMINATION)
        modality, part, view = (_text(header, name) for name in ("Modality", "BodyPartExamined", "ViewPosition"))
        directions = _text(header, "PatientOrientation").split("\\")
    is_other_part = bool(part) and not any(word in part for word in CHEST)
    is_other_view = view in NOT_FRONTAL or any(word in view for word in NOT_FRONTAL_WORDS)
    # C.7.6.1.1.1: what rows and columns run towards, in a frontal view left or right and foot or head.
    is_other_view |= any(direction[:1] in {"A", "P"} for direction in directions)
    found = {
        "dicom_not_a_chest_radiograph": modality not in RADIOGRAPHY | UNTOLD or is_other_part,
        "dicom_not_a_frontal_view": is_other_view,
    }
    return [name for name, holds in found.items() if holds]


@contextlib.contextmanager
def _broken_where_it_fails() -> Iterator[None]:
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception:  # pydicom and the decoders raise nearly anything on broken data, and may quote it
        raise ImageError("The DICOM file is broken: its image cannot be decoded, export it anew.") from None


class _Header(io.BytesIO):
    """A file of which nobody reads endlessly many elements."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise ImageTooLargeError("The DICOM header has more elements than are read: export the image without them.")
        return super().read(size)


def _read(data: bytes, tags: Sequence[int]) -> tuple[UID, Dataset]:
    """Return the transfer syntax, and the elements with these tags."""
    file = _Header(data)
    file.seek(PREFIX_BYTES)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != _META)  # noqa: FBT003  # pydicom's
    syntax = UID(str(meta.get("TransferSyntaxUID", "")))
    if not syntax:
        raise UnsupportedImageError("The DICOM file does not say how it is compressed, if at all: export it anew.")
    if syntax not in _UNCOMPRESSED | {RLELossless} | _DECODERS.keys():
        raise UnsupportedImageError(
            "The DICOM file is compressed in a way that is not read: export it uncompressed, or as RLE, JPEG, JPEG-LS "
            "or JPEG 2000."
        )
    last = max(tags)
    header = read_dataset(
        file,
        syntax == ImplicitVRLittleEndian,
        syntax != ExplicitVRBigEndian,
        stop_when=lambda tag, *_: tag > last,
        specific_tags=list(tags),
    )
    return syntax, header


def _text(header: Dataset, name: str) -> str:
    value = header.get(name)
    return "\\".join(map(str, value if isinstance(value, MultiValue) else [value or ""])).upper().strip()


def _checked(header: Dataset, syntax: UID) -> tuple[int, int]:
    """Return the image's width and height, once all that it is said to be can be read."""
    if "Rows" not in header or _PIXELS not in header:
        raise UnsupportedImageError("The DICOM file holds no image, or ends before it: send the one with the X-ray.")
    if (header.get("NumberOfFrames") or 1) > 1:
        raise UnsupportedImageError("The DICOM file holds several frames: send a radiograph, which is one.")
    width, height = header.Columns, header.Rows
    if width * height > MAX_PIXELS:
        raise ImageTooLargeError(
            f"The image has {width} x {height} pixels and at most {MAX_PIXELS:,} are read: send a smaller one."
        )
    kind, samples, bits = header.PhotometricInterpretation, header.get("SamplesPerPixel", 1), header.BitsAllocated
    kinds = {1: {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}, 3: {"RGB", "YBR_FULL"}}
    if syntax in _TO_RGB:
        kinds[3] |= {"YBR_FULL_422", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT"}
    if kind not in kinds.get(samples, set()) or bits not in ({8, 16} if samples == 1 else {8}):
        raise UnsupportedImageError(
            "The DICOM image has pixels of a kind that is not read: send 8 or 16 bits of gray, or 8 bits a color."
        )
    if not 1 <= header.BitsStored <= bits or width * height == 0:
        raise ValueError
    return width, height


def _bands(pixels: bytes, size: tuple[int, int], syntax: UID, header: Dataset) -> list[Image.Image]:
    """Return the image's one or three bands, as stored: mode "L" for 8 bits, else "I", values below 2 ** 16."""
    if syntax in _UNCOMPRESSED:
        return _uncompressed(pixels, size, syntax, header)
    if pixels.count(ITEM) > MAX_FRAGMENTS:
        raise ImageTooLargeError(f"The DICOM image is in more than {MAX_FRAGMENTS:,} fragments: export it in fewer.")
    _, *fragments = generate_fragments(pixels)  # the first is a table of where frames begin
    frame = b"".join(fragments)
    if syntax == RLELossless:
        return _run_lengths(frame, size, header)
    samples = header.get("SamplesPerPixel", 1)
    if shape_of(frame) != Shape(*size, samples):  # decoders reserve what the frame says, whatever the header does
        raise ValueError
    if _DECODERS[syntax] == "jpegls_decode" and not frame.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ValueError  # CharLS would look for seconds for bits beyond the end of what is cut off
    refuse_many_scans(frame)
    array = getattr(imagecodecs, _DECODERS[syntax])(frame)
    expected = size[::-1] if samples == 1 else (*size[::-1], samples)
    if array.shape != expected or array.itemsize > (2 if samples == 1 else 1):
        raise ValueError
    if samples == 3:
        return list(Image.frombytes("RGB", size, array.tobytes()).split())
    return [_band(array.tobytes(), size, 8 * array.itemsize)]


def _uncompressed(pixels: bytes, size: tuple[int, int], syntax: UID, header: Dataset) -> list[Image.Image]:
    width, height = size
    samples, bits = header.get("SamplesPerPixel", 1), header.BitsAllocated
    if syntax == ExplicitVRBigEndian and (bits == 16 or header[_PIXELS].VR == "OW"):
        pixels = _swapped(pixels)
    if samples == 1:
        return [_band(pixels, size, bits)]
    if header.get("PlanarConfiguration"):
        area = width * height
        return [_band(pixels[start : start + area], size, bits) for start in (0, area, 2 * area)]
    return list(Image.frombytes("RGB", size, pixels).split())


def _swapped(pixels: bytes) -> bytes:
    words = bytearray(pixels)
    words[0::2], words[1::2] = words[1::2], words[0::2]
    return bytes(words)


def _run_lengths(frame: bytes, size: tuple[int, int], header: Dataset) -> list[Image.Image]:
    """Decode RLE, PS3.5 annex G: for each sample a segment a byte, the upper byte first, each coded as PackBits."""
    samples, bits = header.get("SamplesPerPixel", 1), header.BitsAllocated
    count, *starts = struct.unpack_from("<16I", frame)
    if count != samples * bits // 8:
        raise ValueError
    ends = [*starts[1:count], len(frame)]
    area = size[0] * size[1]
    # As one row: runs may go over the end of an image's rows, and Pillow would cut them off there.
    segments = [
        Image.frombytes("L", (area, 1), frame[start:end], "packbits", "L").tobytes()
        for start, end in zip(starts, ends, strict=False)
    ]
    if bits == 8:
        return [_band(segment, size, bits) for segment in segments]
    words = bytearray(2 * area)
    words[1::2], words[0::2] = segments
    return [_band(bytes(words), size, bits)]


def _band(words: bytes, size: tuple[int, int], bits: int) -> Image.Image:
    return Image.frombytes("L", size, words) if bits == 8 else Image.frombytes("I", size, words, "raw", "I;16")


def _rgb(bands: list[Image.Image], syntax: UID, header: Dataset) -> Image.Image:
    if header.PhotometricInterpretation == "YBR_FULL" and syntax not in _TO_RGB:
        return Image.merge("YCbCr", bands).convert("RGB")
    return Image.merge("RGB", bands)


def _apply(table: Tensor, band: Image.Image) -> Image.Image:
    return band.point(table.tolist(), "L")


def _gray_table(band: Image.Image, syntax: UID, header: Dataset) -> Tensor:
    """Return the 8-bit value of every word that a pixel can be stored as."""
    stored = _stored_values(_words(band), syntax, header)
    is_padding = _is_padding(stored, header)
    values = _modality(stored, header)
    shown = _shown(values, header, lambda: _present(band) & ~is_padding)
    if not (values.isfinite().all() and shown.isfinite().all()):
        raise ValueError
    table = (shown.clamp(0, 1) * 255).round().to(torch.uint8)
    if header.PhotometricInterpretation == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE":
        table = 255 - table
    return table.masked_fill(is_padding, 0)


def _words(band: Image.Image) -> Tensor:
    return torch.arange(256 if band.mode == "L" else 65_536)


def _present(band: Image.Image) -> Tensor:
    """Tell of every word whether there is a pixel with it."""
    if band.mode == "L":
        return torch.tensor(band.histogram()) > 0
    found = torch.zeros(65_536, dtype=torch.bool)
    rows = max(1, 2**20 // band.width)  # as indices, a word is eight bytes
    for top in range(0, band.height, rows):
        strip = band.crop((0, top, band.width, min(top + rows, band.height)))
        found[torch.frombuffer(bytearray(strip.tobytes()), dtype=torch.int32).long()] = True
    return found


def _stored_values(words: Tensor, syntax: UID, header: Dataset) -> Tensor:
    """Return the value that each word holds, C.7.6.3.1: of its bits those that are said to count, with their sign."""
    bits, lowest = int(header.BitsStored), 0
    if syntax in _UNCOMPRESSED | {RLELossless}:
        lowest = int(header.get("HighBit", bits - 1)) - bits + 1
    if not 0 <= lowest <= header.BitsAllocated - bits:
        raise ValueError
    return _held(words >> lowest, header)


def _held(values: Number, header: Dataset) -> Number:
    """Return what the lowest bits of integers mean, as many as are stored, with the sign that pixels have."""
    bits = int(header.BitsStored)
    values = values & (1 << bits) - 1
    return values - (values >> bits - 1 << bits) if header.get("PixelRepresentation") == 1 else values


def _as_stored(value: int, header: Dataset) -> int:
    """Return a number as pixels with its bits hold it: some files write a signed one as unsigned, or the reverse."""
    bits = int(header.BitsStored)
    return _held(value, header) if -(1 << bits - 1) <= value < 1 << bits else value


def _is_padding(stored: Tensor, header: Dataset) -> Tensor:
    """Tell which stored values fill up what is no image, C.7.5.1.1.2."""
    given = (header.get(f"PixelPadding{name}") for name in ("Value", "RangeLimit"))
    bounds = [_as_stored(int(value), header) for value in given if value is not None]
    if not bounds:
        return torch.zeros_like(stored, dtype=torch.bool)
    return (stored >= min(bounds)) & (stored <= max(bounds))


def _modality(stored: Tensor, header: Dataset) -> Tensor:
    """Return what the stored values mean, C.11.1."""
    if sequence := header.get("ModalityLUTSequence"):
        return _lut(sequence[0], stored)[0]
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    return stored.double() * float(slope or 1) + float(intercept or 0)


def _shown(values: Tensor, header: Dataset, present: Callable[[], Tensor]) -> Tensor:
    """Return how bright values are to be shown, 0 to 1, C.11.2."""
    if sequence := header.get("VOILUTSequence"):
        found, brightest = _lut(sequence[0], values)
        return found / brightest
    center, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = header.get("VOILUTFunction") or "LINEAR"
    if center is not None and width is not None and (width > 0 if function != "LINEAR" else width >= 1):
        return _windowed(values, center, width, function)
    there = values[present()]
    if not len(there):
        return torch.zeros_like(values)
    return (values - there.min()) / (there.max() - there.min()).clamp(min=1e-9)


def _windowed(values: Tensor, center: float, width: float, function: str) -> Tensor:
    if function == "SIGMOID":  # C.11.2.1.3.1
        return torch.sigmoid(4 * (values - center) / width)
    if function == "LINEAR_EXACT":  # C.11.2.1.3.2
        return (values - center) / width + 0.5
    if width == 1:
        return (values > center - 0.5).double()
    return (values - (center - 0.5)) / (width - 1) + 0.5  # C.11.2.1.2.1


def _first(value: Any) -> float | None:  # noqa: ANN401  # pydicom has a type for each number and for several of them
    several = value if isinstance(value, MultiValue) else [value]
    if not several or several[0] is None or several[0] == "" or not math.isfinite(float(several[0])):
        return None
    return float(several[0])


def _lut(item: Dataset, values: Tensor) -> tuple[Tensor, int]:
    """Return what a look-up table, C.11.1.1, has for values, and the largest that it can have."""
    table, first, bits = _table(item, "LUT")
    first -= 65_536 if values.min() < 0 and first >= 32_768 else 0
    return table[(values.round().long() - first).clamp(0, len(table) - 1)].double(), (1 << bits) - 1


def _palettes(header: Dataset, band: Image.Image) -> list[Tensor]:
    """Return the 8-bit red, green and blue of every word, C.7.6.3.1.5."""
    palettes = []
    for color in ("Red", "Green", "Blue"):
        table, first, bits = _table(header, f"{color}PaletteColorLookupTable")
        found = table[(_words(band) - first).clamp(0, len(table) - 1)]
        palettes.append(found >> max(0, bits - 8) & 255)
    return palettes


def _table(dataset: Dataset, name: str) -> tuple[Tensor, int, int]:
    """Return a look-up table, the value that its first entry is for, and the bits that its entries have."""
    entries, first, bits = _numbers(dataset, f"{name}Descriptor")
    entries = entries or 65_536
    if not 8 <= bits <= 16:
        raise ValueError
    data = dataset[f"{name}Data"].value
    # Entries of 8 bits may be packed, two to a word.
    is_packed = isinstance(data, bytes) and len(data) == entries + entries % 2
    numbers = list(data) if is_packed else _numbers(dataset, f"{name}Data")
    return torch.tensor(numbers[:entries]), first, bits


def _numbers(dataset: Dataset, name: str) -> list[int]:
    """Return an element's numbers, which some of its possible types hold as bytes."""
    value = dataset[name].value
    if isinstance(value, bytes):
        order = ">" if dataset.original_encoding[1] is False else "<"
        return list(struct.unpack(f"{order}{len(value) // 2}H", value))
    return [int(number) for number in value]
