"""Image files that were damaged in transport, because something on the way treated their bytes as text."""

import base64
import binascii
import codecs

from pneumonia.errors import ImageError

REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()  # EF BF BD, which stands for a byte that is not UTF-8
# The first bytes of JPEG, PNG, BMP, TIFF, BigTIFF and WebP.
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"RIFF")
HEAD = 176  # characters of base64 that hold a DICOM file's preamble and "DICM"
TURNED_TO_TEXT = (
    "The image was turned into text on its way, its bytes replaced by EF BF BD: send it as binary; an API Gateway "
    "needs multipart/form-data among its binary media types."
)
OTHER_ENCODING = "The image was turned into text on its way, its bytes encoded as characters: send it as binary."
IN_BASE64 = "The file is an image in base64: decode it, and send the bytes as they are."


def check_transport(data: bytes) -> None:
    """Check that an image's bytes were not turned into text.

    An image is never valid UTF-8 with both a NUL byte and the replacement character. Most images are invalid UTF-8
    within their first bytes, so the check takes no time.

    Raises:
        ImageError: bytes that are not UTF-8 were replaced or encoded, or the whole file is in base64.
    """
    if data.startswith((b"\xc3\xbf\xc3\x98\xc3\xbf", b"\xc2\x89PNG")):
        raise ImageError(OTHER_ENCODING)
    if not _is_utf8(data):
        return
    if REPLACEMENT in data and (data.startswith(REPLACEMENT) or b"\0" in data):
        raise ImageError(TURNED_TO_TEXT)
    if _in_base64(data[: HEAD + 100]):
        raise ImageError(IN_BASE64)


def _is_utf8(data: bytes) -> bool:
    try:
        codecs.utf_8_decode(data, "strict", False)  # noqa: FBT003  # a character may be cut off at the end
    except UnicodeDecodeError:
        return False
    return True


def _in_base64(start: bytes) -> bool:
    text = start.rpartition(b";base64,")[2] if start.startswith(b"data:") else start
    text = b"".join(text.split())[:HEAD].replace(b"-", b"+").replace(b"_", b"/")
    try:
        data = base64.b64decode(text[: len(text) // 4 * 4], validate=True)
    except binascii.Error:
        return False
    return len(data) > len(MAGIC[1]) and (data.startswith(MAGIC) or data[128:132] == b"DICM")
