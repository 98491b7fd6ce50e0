"""Image files for uploads."""

import io

from PIL import Image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
