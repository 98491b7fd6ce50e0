"""Image files, and parts of them."""

import io
import struct
import zlib
from random import Random

from PIL import Image

from pneumonia.training.synthetic import draw_radiograph


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes = b"") -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


XRAY = encoded(draw_radiograph(Random(0), "PNEUMONIA"), "JPEG")
