"""Image files for uploads."""

import io
from random import Random

from PIL import Image

from pneumonia.training.synthetic import draw_radiograph


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


XRAY = encoded(draw_radiograph(Random(0), "PNEUMONIA"), "JPEG")
