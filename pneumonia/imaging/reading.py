"""Reading an image file from a disk."""

import errno
import os
from pathlib import Path

from pneumonia.errors import ImageError, ImageTooLargeError
from pneumonia.files import NotPlainError, is_address, read_plain
from pneumonia.imaging.limits import MAX_BYTES, too_many_bytes


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return an image file's bytes.

    Args:
        path: as the user named it; a `Path` of an address lacks a slash, and looks like a missing file.

    Raises:
        ImageTooLargeError: more than MAX_BYTES bytes.
        ImageError: an address; or not a plain file but, for example, a pipe, which might never end.
        OSError: the file cannot be read.
    """
    if isinstance(path, str) and is_address(path):
        advice = ", or use `pneumonia batch`, which reads S3" if path.startswith("s3://") else ""
        raise ImageError(f"{path} is an address: name a file of this machine{advice}.")
    try:
        return read_plain(Path(path), MAX_BYTES)
    except ValueError as error:
        raise ImageError(f"No file can have this name ({error}): name an image.") from error
    except NotPlainError as error:
        raise ImageError("This is not a plain file: name an image.") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ImageTooLargeError(too_many_bytes("file")) from error
        raise
