"""Decoding and preprocessing: the one definition that training, evaluation and the API share.

Pillow and torch alone do the work, because importing torchvision would nearly double what a cold start imports. The
result equals torchvision's `Resize((224, 224))`, `ToTensor()`, `Normalize(MEAN, STD)` on the decoded RGB image, bit for
bit; a test holds that.
"""

import base64
import io
import struct
from types import ModuleType

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError

SIZE = 224  # pixels a side, what ResNet-18 was designed for
MEAN = (0.485, 0.456, 0.406)  # ImageNet's, per RGB channel of values in [0, 1], as torchvision's weights expect
STD = (0.229, 0.224, 0.225)
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MAX_BYTES = 20 * 1024 * 1024
MAX_SCANS = 100  # of a progressive JPEG, which usually has 10; a file of thousands would be decoded for minutes
MAX_PIECES = 65_536  # strips or tiles of a TIFF, usually some hundreds; Pillow makes an object of each as it opens it
RUN_LENGTH_CODED = (b"\1\0\0\0", b"\2\0\0\0")  # BMP's compression: Pillow decodes these a byte at a time
PREVIEW_SIDE = 1024  # pixels
MAX_SIDE = 65_535  # pixels, what JPEG and DICOM can have; a heatmap of a longer side would be larger than its image
MAX_PIXELS = 25_000_000  # the largest radiographs have about 20 million; decoding takes up to 400 MB

# The elements (0002,0000), (0008,0000), (0008,0005), (0008,0008) and (0008,0016), little endian.
HEADLESS_DICOM = (b"\2\0\0\0UL", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0")

PREPROCESSING = {
    "color": "RGB",
    "resize": [SIZE, SIZE],
    "interpolation": "bilinear, antialiased (Pillow)",
    "mean": list(MEAN),
    "std": list(STD),
}

_UNREAD_KINDS = (
    ("GIF", 0, b"GIF8"),
    ("PDF", 0, b"%PDF-"),
    # A header without what tells DICOM from anything else: it begins with one of these elements.
    *(("DICOM without its 132 first bytes", 0, tag) for tag in HEADLESS_DICOM),
    ("JPEG 2000", 4, b"jP  \r\n\x87\n"),
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("JPEG XL", 4, b"JXL "),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("Photoshop", 0, b"8BPS"),
    ("ICO", 0, b"\0\0\1\0"),
    ("HEIC, AVIF and MP4", 4, b"ftyp"),
    ("SVG", 0, b"<svg"),
)


def decode(data: bytes) -> Image.Image:
    """Decode an image file to 8 bits a channel, upright, mode "L" (grayscale) or "RGB".

    Grayscale values of more than 8 bits are divided by the smallest power of two that fits the brightest pixel, so that
    a 12-bit radiograph in a 16-bit file keeps its contrast; of 16-bit colours the upper 8 bits count. Transparency is
    dropped.

    Args:
        data: the bytes of a JPEG, PNG, BMP, TIFF, WebP or DICOM file; of an animation the first frame counts. A DICOM
            file is told by its preamble and "DICM"; `pneumonia.imaging.dicom` reads it.

    Raises:
        ImageTooLargeError: more than MAX_BYTES bytes, MAX_PIXELS pixels, or MAX_SIDE on one side.
        UnsupportedImageError: an image of another kind.
        ImageError: no image, or a broken one.
    """
    if len(data) > MAX_BYTES:
        raise ImageTooLargeError(
            f"The file has more than the {MAX_BYTES:,} bytes that are read: send a smaller or a compressed image."
        )
    if not data:
        raise ImageError("The file is empty: send a chest X-ray as JPEG, PNG, BMP, TIFF, WebP or DICOM.")
    if _is_dicom(data):
        image: Image.Image = _dicom().decode(data)
        return image
    _refuse_what_takes_endless(data)
    try:
        # Pillow's own guard only warns below twice its limit; ours comes before any pixel is decoded.
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageTooLargeError(
                    f"The image has {image.width} x {image.height} pixels and at most {MAX_PIXELS:,} are read: "
                    "send a smaller one."
                )
            if max(image.size) > MAX_SIDE:
                raise ImageTooLargeError(
                    f"The image has {image.width} x {image.height} pixels and at most {MAX_SIDE:,} a side are read: "
                    "send a smaller one."
                )
            image.load()
            pixels = _to_8_bit(_upright(image))
            return ImageOps.invert(pixels) if _is_negative(image) else pixels
    except (ImageError, MemoryError):  # the image is not to blame for a full memory
        raise
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"The image has more than {MAX_PIXELS:,} pixels: send a smaller one.") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on broken data
        raise ImageError(
            "The image is broken: it begins well but cannot be decoded to its end. Send it again, or export it anew."
        ) from error


def warnings_of(data: bytes) -> list[str]:
    """Return what a file that can be decoded says against the answer: a DICOM file alone has words for it.

    Raises:
        ImageError: as `decode`.
    """
    return list(_dicom().warnings_of(data)) if _is_dicom(data) else []


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def _dicom() -> ModuleType:
    try:
        from pneumonia.imaging import dicom  # noqa: PLC0415  # half a second and 60 MB, which other images do without
    except ModuleNotFoundError as error:  # SageMaker's training container has neither
        raise UnsupportedImageError(
            "DICOM files are not read where pydicom or imagecodecs is missing: install them, or send a JPEG or PNG."
        ) from error
    return dicom


def refuse_many_scans(data: bytes) -> None:
    """Refuse a JPEG that would be decoded for minutes.

    Raises:
        ImageTooLargeError: it has more than MAX_SCANS scans.
    """
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_SCANS:
        raise ImageTooLargeError(f"The JPEG has more than {MAX_SCANS} scans, of which each costs time: save it anew.")


def _refuse_what_takes_endless(data: bytes) -> None:
    """Refuse small files that would be decoded for minutes, before Pillow begins."""
    refuse_many_scans(data)
    if data.startswith(b"BM") and data[30:34] in RUN_LENGTH_CODED:
        raise UnsupportedImageError("Run-length encoded BMP files are not read: save the X-ray as JPEG or PNG.")
    if _tiff_pieces(data) > MAX_PIECES:
        raise ImageTooLargeError(f"The TIFF is in more than {MAX_PIECES:,} pieces: save it in fewer strips.")


def _tiff_pieces(data: bytes) -> int:
    """Return the number of strips or tiles that a TIFF's first image says it has, 0 for anything else (TIFF 6.0)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    try:
        if not order:
            return 0
        (offset,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, offset)
        fields = [struct.unpack_from(f"{order}HHI", data, offset + 2 + 12 * number) for number in range(entries)]
    except struct.error:  # cut off: decoding says so
        return 0
    return max((count for tag, _, count in fields if tag in {273, 324}), default=0)


def resize(image: Image.Image) -> torch.Tensor:
    """Squash a decoded image to the network's size.

    Args:
        image: mode "L" or "RGB", any size.

    Returns:
        uint8 tensor of shape (3, SIZE, SIZE); a grayscale image fills all three channels.
    """
    small = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
    return pixels.view(SIZE, SIZE, -1).permute(2, 0, 1).expand(3, SIZE, SIZE)


def normalize(pixels: torch.Tensor) -> torch.Tensor:
    """Turn pixel values into the network's input.

    Args:
        pixels: uint8, or float in [0, 255], of shape (…, 3, height, width), or (…, 1, height, width) of gray images.

    Returns:
        float32 tensor of shape (…, 3, height, width), zero mean and unit variance over ImageNet.
    """
    # Made on a GPU, or copied there in the ordinary way, they would let training wait for it at every step.
    mean = torch.tensor(MEAN).view(3, 1, 1).to(pixels.device, non_blocking=True)
    std = torch.tensor(STD).view(3, 1, 1).to(pixels.device, non_blocking=True)
    return pixels.float().div(255).sub(mean).div_(std)  # not sub_: one channel becomes three


def preprocess(image: Image.Image) -> torch.Tensor:
    """Return the network's input for one decoded image: float32, shape (1, 3, SIZE, SIZE)."""
    return normalize(resize(image)).unsqueeze(0)


def preview_jpeg(image: Image.Image) -> str:
    """Return a decoded image as a JPEG file in base64, reduced to PREVIEW_SIDE pixels a side where it is larger."""
    small = image.copy()
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return base64.b64encode(file.getbuffer()).decode()


def _is_negative(image: Image.Image) -> bool:
    # Pillow inverts TIFFs in which white is zero up to 8 bits, but not beyond.
    if not isinstance(image, TiffImageFile) or not image.mode.startswith("I"):
        return False
    return bool(image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:  # else the answer would be about an image that lies on its side
        raise
    except Exception:  # broken metadata say nothing about the pixels, which are loaded by now
        return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode in {"L", "RGB"}:
        return image
    if image.mode == "F":
        raise UnsupportedImageError("Floating-point images have no set range: send 8 or 16 bits a pixel.")
    if image.mode.startswith("I"):
        return _shift_to_8_bit(image)
    image.info.pop("transparency", None)  # else Pillow warns of what is meant: that it is dropped
    # Pillow turns the two-level "1" to 0 and 255, and grayscale with alpha loses nothing as "L".
    return image.convert("L" if image.mode in {"1", "LA", "La"} else "RGB")


def _shift_to_8_bit(image: Image.Image) -> Image.Image:
    wide = image.convert("I")
    brightest = int(wide.getextrema()[1])  # type: ignore[arg-type]  # "I" has one band: a pair of numbers
    step = 2 ** max(0, brightest.bit_length() - 8)
    return wide.point(lambda value: value * (1 / step)).convert("L")


def _unidentified(data: bytes) -> ImageError:
    for kind, offset, magic in _UNREAD_KINDS:
        if data[offset : offset + len(magic)] == magic:
            return UnsupportedImageError(
                f"{kind} files are not read: send the X-ray as JPEG, PNG, BMP, TIFF, WebP or DICOM."
            )
    return ImageError("The file is not an image: send a chest X-ray as JPEG, PNG, BMP, TIFF, WebP or DICOM.")
