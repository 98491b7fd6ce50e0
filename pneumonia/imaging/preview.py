"""A decoded image as a browser can show it."""

import base64
import io

from PIL import Image

PREVIEW_SIDE = 1024  # pixels


def preview_jpeg(image: Image.Image) -> str:
    """Return a decoded image as a JPEG file in base64, reduced to PREVIEW_SIDE pixels a side if it is larger.

    Nothing but pixels is in it.
    """
    small = image.copy()
    small.info = {}  # Pillow would write a file's comment into the preview, and that may name a patient
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return base64.b64encode(file.getbuffer()).decode()
