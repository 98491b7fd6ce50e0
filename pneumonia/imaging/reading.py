"""Reading an image file from a disk."""

import errno
from pathlib import Path

from pneumonia.errors import ImageError, ImageTooLargeError
from pneumonia.files import NotPlainError, read_plain
from pneumonia.imaging.limits import MAX_BYTES, too_many_bytes


def read_file(path: Path) -> bytes:
    """Return an image file's bytes.

    Raises:
        ImageTooLargeError: more than MAX_BYTES bytes.
        ImageError: not a plain file but, for example, a pipe, which might never end.
        OSError: the file cannot be read.
    """
    try:
        return read_plain(path, MAX_BYTES)
    except ValueError as error:
        raise ImageError(f"No file can have this name ({error}): name an image.") from error
    except NotPlainError as error:
        raise ImageError("This is not a plain file: name an image.") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ImageTooLargeError(too_many_bytes("file")) from error
        raise
