"""From the pixel data of a DICOM file to the bands that are stored in it.

Pillow and imagecodecs decode; GDCM would be smaller, but its JPEG decoders end the process on some broken files.
"""

import struct

import imagecodecs
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments
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

from pneumonia.errors import ImageTooLargeError
from pneumonia.imaging.codestream import Shape, shape_of
from pneumonia.imaging.limits import check_scans

MAX_FRAGMENTS = 65_536  # of the pixels, usually one
ITEM = b"\xfe\xff\x00\xe0"  # begins each fragment

DECODERS = {  # functions of imagecodecs, which imports a library when its function is looked up
    JPEGBaseline8Bit: "jpeg8_decode",
    JPEGExtended12Bit: "jpeg8_decode",
    JPEGLossless: "jpeg8_decode",
    JPEGLosslessSV1: "jpeg8_decode",
    JPEGLSLossless: "jpegls_decode",
    JPEGLSNearLossless: "jpegls_decode",
    JPEG2000Lossless: "jpeg2k_decode",
    JPEG2000: "jpeg2k_decode",
}
UNCOMPRESSED = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian}
TO_RGB = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000Lossless, JPEG2000}  # their decoders return RGB


def stored_bands(pixels: bytes, size: tuple[int, int], syntax: UID, header: Dataset) -> list[Image.Image]:
    """Return an image's one or three bands as stored: mode "L" for 8 bits, else "I" with values below 2 ** 16.

    Args:
        pixels: the value of the element PixelData.
        size: width and height.
        syntax: the transfer syntax.
        header: the elements that describe the pixels.

    Raises:
        ImageTooLargeError: compressed pixels of too many pieces.
        Exception: whatever pydicom and the decoders raise on broken data.
    """
    if syntax in UNCOMPRESSED:
        return _uncompressed(pixels, size, syntax, header)
    frame = _frame(pixels)
    if syntax == RLELossless:
        return _run_lengths(frame, size, header)
    return _decoded(frame, size, syntax, header.get("SamplesPerPixel", 1))


def _frame(pixels: bytes) -> bytes:
    """Return the compressed image, put together from its fragments."""
    if pixels.count(ITEM) > MAX_FRAGMENTS:
        raise ImageTooLargeError(f"The DICOM image is in more than {MAX_FRAGMENTS:,} fragments: export it in fewer.")
    _, *fragments = generate_fragments(pixels)  # the first is a table of where frames begin
    return b"".join(fragments)


def _decoded(frame: bytes, size: tuple[int, int], syntax: UID, samples: int) -> list[Image.Image]:
    """Decode a codestream, after checking that its own header agrees with the file's."""
    if shape_of(frame) != Shape(*size, samples):  # decoders reserve what the frame says, whatever the header says
        raise ValueError
    if DECODERS[syntax] == "jpegls_decode" and not frame.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ValueError  # CharLS would search for seconds beyond the end of a truncated stream
    check_scans(frame)
    array = getattr(imagecodecs, DECODERS[syntax])(frame)
    expected = size[::-1] if samples == 1 else (*size[::-1], samples)
    if array.shape != expected or array.itemsize > (2 if samples == 1 else 1):
        raise ValueError
    if samples == 3:
        return list(Image.frombytes("RGB", size, array.tobytes()).split())
    return [_band(array.tobytes(), size, 8 * array.itemsize)]


def _uncompressed(pixels: bytes, size: tuple[int, int], syntax: UID, header: Dataset) -> list[Image.Image]:
    width, height = size
    samples, bits = header.get("SamplesPerPixel", 1), header.BitsAllocated
    if syntax == ExplicitVRBigEndian and (bits == 16 or header["PixelData"].VR == "OW"):
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
    """Decode RLE, PS3.5 annex G: each byte of a sample has a PackBits segment, the upper byte first."""
    samples, bits = header.get("SamplesPerPixel", 1), header.BitsAllocated
    count, *starts = struct.unpack_from("<16I", frame)
    if count != samples * bits // 8:
        raise ValueError
    ends = [*starts[1:count], len(frame)]
    area = size[0] * size[1]
    # As one row, because runs may cross the ends of an image's rows, where Pillow would cut them off.
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
