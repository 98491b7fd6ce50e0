"""Uploads, good and hostile: image files, and forms around them."""

import re
import struct
import zlib
from typing import Final

from PIL import Image

from tests.builders.images import XRAY, chunk, encoded

BOUNDARY: Final = "----4f1d8ab2c3"
FORM: Final = f"multipart/form-data; boundary={BOUNDARY}"
FILE: Final = 'name="file"; filename="xray.jpg"'


def part(content: bytes, disposition: str = FILE, kind: str = "image/jpeg") -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {kind}\r\n\r\n"
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def frames(kind: str) -> bytes:
    """Return an animation, or a file of many pages."""
    pages = [Image.new("RGB", (20, 20), color) for color in ("white", "black", "gray")]
    return encoded(pages[0], kind, save_all=True, append_images=pages[1:])


def png(width: int, height: int) -> bytes:
    """Return a PNG file that promises so many pixels and has some that unpack to 4 MB of zeros."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(4_000_000), 9))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def tiff(width: int, height: int) -> bytes:
    """Return a TIFF file that promises so many pixels and has 4 kB of them."""
    start, long = 128, 4
    tags = {
        256: width,
        257: height,
        258: 8,  # bits a sample
        259: 1,  # uncompressed
        262: 1,  # black is zero
        273: start,
        277: 1,  # sample a pixel
        278: height,  # rows in the one strip
        279: width * height,
    }
    entries = b"".join(struct.pack("<HHII", tag, long, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(start, b"\0") + bytes(4000)


def webp(width: int, height: int, *, canvas: bool) -> bytes:
    """Return a WebP file that promises so many pixels: of its one image, or of the canvas of an animation."""
    size = (width - 1) | (height - 1) << 14
    image = b"VP8L" + struct.pack("<I", 1005) + b"\x2f" + struct.pack("<I", size) + bytes(1001)
    if canvas:
        extent = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        image = b"VP8X" + struct.pack("<I", 10) + bytes(4) + extent + image
    return b"RIFF" + struct.pack("<I", len(image) + 4) + b"WEBP" + image


GOOD = form(part(XRAY))


def is_sentence(detail: object) -> bool:
    """Return whether this is one line that ends as a sentence, and no traceback."""
    return (
        isinstance(detail, str) and bool(re.fullmatch(r"[A-Z'][^\n\r]{20,200}\.", detail)) and "Traceback" not in detail
    )
