"""From the pixel data of a DICOM file to the bands that are stored in it.

How the pixels are compressed is detected from the data, because some files name another compression.

Pillow and imagecodecs decode. GDCM would be smaller, but its JPEG decoders end the process on some broken files.
"""

import struct
from dataclasses import replace
from typing import Any

import imagecodecs
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
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

from pneumonia.errors import UnsupportedImageError
from pneumonia.imaging.codestream import Codestream, begins_codestream, read_codestream
from pneumonia.imaging.dicom_elements import ITEM, PixelData, fragments
from pneumonia.imaging.jpeg import ARITHMETIC_PROGRESSIVE, header_of
from pneumonia.imaging.jpeg_ends import check_ends
from pneumonia.imaging.jpeg_pixels import check_whole

UNCOMPRESSED = {
    "",  # not said
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
}
COMPRESSED = {
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
}
UNSUPPORTED = (
    "The DICOM file's compression is not supported: export it uncompressed, or as RLE, JPEG, JPEG-LS or JPEG 2000."
)
GE_BIG_ENDIAN_PIXELS = "1.2.840.113619.5.2"  # GE's own: little endian, but for the pixels
LOSSLESS = {JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless}  # overlays may lie in the bits above


def stored_bands(pixels: PixelData, syntax: str, header: Dataset) -> list[Image.Image]:
    """Return an image's one or three bands as stored: mode "L" for 8 bits, else "I" with values below 2 ** 16.

    Args:
        pixels: the element PixelData.
        syntax: the transfer syntax that the file names, or "".
        header: the elements that describe the pixels, completed. HighBit and PhotometricInterpretation are set to
            those of the decoded pixels.

    Raises:
        ImageTooLargeError: compressed pixels of too many pieces.
        UnsupportedImageError: a compression that is not read.
        Exception: whatever the decoders raise on broken data.
    """
    if _is_uncompressed(pixels, syntax, header):
        return _uncompressed(pixels, syntax, header)
    frame = _frame(pixels)
    if begins_codestream(frame):
        return _decoded(read_codestream(frame), syntax, header)
    if syntax not in UNCOMPRESSED | COMPRESSED:
        raise UnsupportedImageError(UNSUPPORTED)
    return _run_lengths(frame, header)


def _is_uncompressed(pixels: PixelData, syntax: str, header: Dataset) -> bool:
    """Return whether pixels are uncompressed: as the file says, unless there are too few of them for that."""
    if pixels.fragments is not None:
        return False
    size = header.Rows * header.Columns * header.SamplesPerPixel * header.BitsAllocated // 8
    is_coded = pixels.value.startswith(ITEM) or begins_codestream(pixels.value)
    return not is_coded or (syntax in UNCOMPRESSED and len(pixels.value) >= size)


def _frame(pixels: PixelData) -> bytes:
    """Return the compressed image, put together from its fragments, of which the first is a table of offsets."""
    pieces = pixels.fragments
    if pieces is None:
        pieces = fragments(pixels.value, 0)[0] if pixels.value.startswith(ITEM) else [pixels.value]
    has_table = len(pieces) > 1 and not begins_codestream(pieces[0])
    return b"".join(pieces[1:] if has_table else pieces)


def _decoded(stream: Codestream, syntax: str, header: Dataset) -> list[Image.Image]:
    """Decode a codestream, after checking that its own header agrees with the file's."""
    size, samples = (header.Columns, header.Rows), header.SamplesPerPixel
    if (stream.width, stream.height, stream.samples) != (*size, samples):
        raise ValueError("another size")  # decoders reserve memory for the stream's size
    jpeg = header_of(stream.data) if stream.kind in {"JPEG", "lossless JPEG"} else None
    if jpeg:
        if jpeg.frame == ARITHMETIC_PROGRESSIVE:  # libjpeg does not notice where its scans end
            raise UnsupportedImageError(UNSUPPORTED)
        check_whole(stream.data)
    array = _decode(stream, header)
    if jpeg:
        check_ends(stream.data, lambda data: _decode(replace(stream, data=data), header), array, jpeg)
    expected = size[::-1] if samples == 1 else (*size[::-1], samples)
    if array.shape != expected or array.itemsize > (2 if samples == 1 else 1):
        raise ValueError("another kind of pixels")
    if header.HighBit >= stream.bits:  # the stream has only the bits that are stored
        header.HighBit = header.BitsStored - 1
    if samples == 1 and array.dtype.kind == "u" and header.PixelRepresentation == 0 and syntax not in LOSSLESS:
        array = array.clip(max=2 ** (header.HighBit + 1) - 1)  # lossy compression may exceed the largest value
    if samples == 1:
        return [_band(array.tobytes(), size, 8 * array.itemsize)]
    header.PhotometricInterpretation = _colours(stream, header)
    return list(Image.frombytes("RGB", size, array.tobytes()).split())


def _colours(stream: Codestream, header: Dataset) -> str:
    """Return the photometric interpretation of decoded colours: what the stream says overrides the header."""
    kind = str(header.PhotometricInterpretation)
    if stream.kind == "JPEG" or stream.colours == "RGB" or kind in {"YBR_ICT", "YBR_RCT"}:
        return "RGB"  # the decoder has converted them
    return "YBR_FULL" if stream.colours == "YCbCr" else kind


def _decode(stream: Codestream, header: Dataset) -> Any:  # noqa: ANN401  # an array of NumPy, which is not imported
    """Decode a codestream by imagecodecs, which imports a library when its function is looked up."""
    if stream.kind == "JPEG-LS":
        return imagecodecs.jpegls_decode(stream.data)
    if stream.kind == "JPEG 2000":
        return imagecodecs.jpeg2k_decode(stream.data)
    is_rgb = header.PhotometricInterpretation == "RGB" and not stream.colours
    if stream.samples == 3 and (stream.kind == "lossless JPEG" or is_rgb):  # libjpeg would convert it
        return imagecodecs.jpeg8_decode(stream.data, colorspace="RGB", outcolorspace="RGB")
    return imagecodecs.jpeg8_decode(stream.data)


def _uncompressed(pixels: PixelData, syntax: str, header: Dataset) -> list[Image.Image]:
    size, bits, area = (header.Columns, header.Rows), header.BitsAllocated, header.Columns * header.Rows
    value = pixels.value
    is_big = not header.original_encoding[1]
    if (is_big and (bits == 16 or pixels.kind == b"OW")) or (syntax == GE_BIG_ENDIAN_PIXELS and bits == 16):
        value = _swapped(value)
    if header.SamplesPerPixel == 1:
        return [_band(value, size, bits)]
    if header.PhotometricInterpretation in {"YBR_FULL_422", "YBR_PARTIAL_422"} and len(value) < 3 * area:
        return [_band(plane, size, bits) for plane in _spread(value)]
    if header.PlanarConfiguration == 1:
        return [_band(value[start : start + area], size, bits) for start in (0, area, 2 * area)]
    return list(Image.frombytes("RGB", size, value).split())


def _spread(pixels: bytes) -> list[bytes]:
    """Return the luminance and the two chrominances of each pixel; every two pixels share chrominances, C.7.6.3.1.2."""
    luminance = bytearray(len(pixels) // 4 * 2)
    luminance[0::2], luminance[1::2] = pixels[0::4], pixels[1::4]
    blue, red = bytearray(luminance), bytearray(luminance)
    blue[0::2] = blue[1::2] = pixels[2::4]
    red[0::2] = red[1::2] = pixels[3::4]
    return [bytes(luminance), bytes(blue), bytes(red)]


def _swapped(pixels: bytes) -> bytes:
    words = bytearray(pixels)
    end = len(words) // 2 * 2
    words[0:end:2], words[1:end:2] = words[1:end:2], words[0:end:2]
    return bytes(words)


def _run_lengths(frame: bytes, header: Dataset) -> list[Image.Image]:
    """Decode RLE, PS3.5 annex G: each byte of a sample has a PackBits segment, the upper byte first."""
    size, samples, bits = (header.Columns, header.Rows), header.SamplesPerPixel, header.BitsAllocated
    count, *starts = struct.unpack_from("<16I", frame)
    if count != samples * bits // 8:
        raise ValueError
    ends = [*starts[1:count], len(frame)]
    area = size[0] * size[1]
    # As a single row, because runs may continue over the end of an image's row, where Pillow would cut them off.
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
