"""Reading an image file from a disk."""

import stat
from pathlib import Path

from pneumonia.errors import ImageError
from pneumonia.imaging.limits import check_bytes


def read_file(path: Path) -> bytes:
    """Return an image file's bytes.

    Raises:
        ImageTooLargeError: more than MAX_BYTES bytes.
        ImageError: not a plain file but, for example, a pipe, which might never end.
        OSError: the file cannot be read.
    """
    try:
        status = path.stat()
    except ValueError as error:
        raise ImageError(f"No file can have this name ({error}): name an image.") from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("This is not a plain file: name an image.")
    check_bytes(status.st_size)
    return path.read_bytes()
