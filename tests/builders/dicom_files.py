"""DICOM files of drawn pixels, with a patient who does not exist."""

import io
import struct
from collections.abc import Callable
from typing import Any, Final

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    UID,
    DigitalXRayImageStorageForPresentation,
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

from pneumonia.imaging.decoding import decode

Pixels = npt.NDArray[Any]

PATIENT: Final = "Zwiebelfisch^Eulalia"
ROWS, COLUMNS = 60, 50
UNCOMPRESSED: Final = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def packbits(values: bytes) -> bytes:
    """Code bytes as PS3.5 G.3 has it: literal runs, and repeats of what comes three times or more."""
    coded, at = bytearray(), 0
    while at < len(values):
        length = 1
        while length < 128 and values[at : at + 1] == values[at + length : at + length + 1]:
            length += 1
        if length > 2:
            coded += bytes([257 - length, values[at]])
        else:
            length = min(128, len(values) - at)
            coded += bytes([length - 1]) + values[at : at + length]
        at += length
    return bytes(coded) + bytes(len(coded) % 2)


def run_lengths(pixels: Pixels) -> bytes:
    """Code pixels as RLE: a header of 64 bytes, and a segment for each byte of each sample."""
    planes = [pixels] if pixels.ndim == 2 else [pixels[..., sample] for sample in range(3)]
    width = pixels.dtype.itemsize
    segments = [
        packbits(plane.astype(f"<u{width}").tobytes()[byte::width])
        for plane in planes
        for byte in reversed(range(width))
    ]
    starts = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    header = np.array([len(segments), *starts, *[0] * (15 - len(segments))], "<u4").tobytes()
    return header + b"".join(segments)


ENCODERS: Final[dict[UID, Callable[[Pixels], bytes | bytearray]]] = {
    RLELossless: run_lengths,
    JPEGBaseline8Bit: lambda pixels: imagecodecs.jpeg8_encode(pixels, level=98),
    JPEGExtended12Bit: lambda pixels: imagecodecs.jpeg8_encode(
        pixels, level=98, bitspersample=12 if pixels.itemsize == 2 else 8
    ),
    JPEGLossless: lambda pixels: imagecodecs.jpeg8_encode(
        pixels, lossless=True, predictor=4, bitspersample=8 * pixels.itemsize
    ),
    JPEGLosslessSV1: lambda pixels: imagecodecs.jpeg8_encode(
        pixels, lossless=True, predictor=1, bitspersample=8 * pixels.itemsize
    ),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEGLSNearLossless: lambda pixels: imagecodecs.jpegls_encode(pixels, level=2),
    JPEG2000Lossless: lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=0, reversible=True),
    JPEG2000: lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=90),
}


LOSSY: Final = {JPEG2000, JPEGBaseline8Bit, JPEGLSNearLossless}


def frame(pixels: Pixels, syntax: UID) -> bytes:
    """Return an image as the file holds it where it is compressed."""
    return encapsulate([bytes(ENCODERS[syntax](pixels))])


def dicom(
    pixels: Pixels | None,
    syntax: UID = ExplicitVRLittleEndian,
    bits: int | None = None,
    **elements: Any,  # noqa: ANN401  # each has a type of its own
) -> bytes:
    """Return a DICOM file.

    Args:
        pixels: the words to store, of shape (rows, columns) or (rows, columns, 3); None for a file without an image.
        syntax: how they are stored; those that are not in ENCODERS are stored as they are.
        bits: of each pixel that count; by default all.
        elements: what the file has otherwise, or instead, by keyword; None for nothing.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset = FileDataset(
        "",
        {},
        preamble=bytes(128),
        file_meta=meta,
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
    )
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.PatientName, dataset.PatientID = PATIENT, "4711-0815"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    if pixels is not None:
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
        dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
        if pixels.ndim == 3:
            dataset.PlanarConfiguration = 0
        dataset.BitsAllocated = 8 * pixels.itemsize
        dataset.BitsStored = bits or dataset.BitsAllocated
        dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
        if syntax in ENCODERS:
            dataset.PixelData = frame(pixels, syntax)
        else:
            dataset.PixelData = (pixels.byteswap() if syntax == ExplicitVRBigEndian else pixels).tobytes()
        dataset["PixelData"].VR = "OW" if dataset.BitsAllocated == 16 else "OB"
        dataset["PixelData"].is_undefined_length = syntax in ENCODERS
    for name, value in elements.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def radiograph(bits: int = 12) -> Pixels:
    """Return a smooth image with some noise, and a block of the darkest and one of the brightest value."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    smooth = (np.sin(x / 7) + np.cos(y / 9) + 2) / 4 + np.random.default_rng(0).uniform(-0.01, 0.01, (ROWS, COLUMNS))
    scaled = (smooth - smooth.min()) / np.ptp(smooth) * (2**bits - 1)
    scaled[2:6, 2:6], scaled[-6:-2, -6:-2] = 0, 2**bits - 1
    pixels: Pixels = scaled.round().astype(np.uint8 if bits <= 8 else np.uint16)
    return pixels


def pixels_of(data: bytes) -> Pixels:
    return np.asarray(decode(data).image).astype(int)


def to_8_bit(values: Pixels, low: float, high: float) -> Pixels:
    return (np.clip((values - low) / (high - low), 0, 1) * 255).round().astype(int)


def lut(table: Pixels, first: int, bits: int, representation: str = "OW") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(table) % 65_536, first, bits])
    words = table.view(np.uint16)  # entries of 8 bits are packed, two to a word
    item.add_new("LUTData", representation, table.tobytes() if representation == "OW" else words.tolist())
    return Sequence([item])


def colors() -> Pixels:
    return np.stack([radiograph(8), radiograph(8).T.reshape(ROWS, COLUMNS), radiograph(8)[::-1]], axis=-1)


def data_set_of(data: bytes) -> bytes:
    """Return a file without preamble and meta header."""
    return data[132 + 12 + struct.unpack_from("<I", data, 140)[0] :]


def beginning_of(syntax: str) -> bytes:
    """Return preamble and meta header of a file in a transfer syntax."""
    head = dicom(None, UID(syntax))
    return head[: len(head) - len(data_set_of(head))]


def in_fragments(syntax: UID, pixels: bytes) -> bytes:
    """Return a file whose PixelData has no length and these bytes after it."""
    data = dicom(radiograph(8), syntax)
    place = data.index(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff")
    return data[: place + 12] + pixels
