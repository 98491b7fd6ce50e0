"""Reading an image file from a disk."""

import os
from pathlib import Path

from pneumonia.errors import ImageError
from pneumonia.files import NotPlainError, open_plain
from pneumonia.imaging.limits import MAX_BYTES, check_bytes


def read_file(path: Path) -> bytes:
    """Return an image file's bytes.

    Raises:
        ImageTooLargeError: more than MAX_BYTES bytes.
        ImageError: not a plain file but, for example, a pipe, which might never end.
        OSError: the file cannot be read.
    """
    try:
        with open_plain(path) as file:
            check_bytes(os.fstat(file.fileno()).st_size)
            data = file.read(MAX_BYTES + 1)  # it may grow meanwhile, and files of /proc declare no size
    except ValueError as error:
        raise ImageError(f"No file can have this name ({error}): name an image.") from error
    except NotPlainError as error:
        raise ImageError("This is not a plain file: name an image.") from error
    check_bytes(len(data))
    return data
