"""How large a file and its image may be, and the errors for larger ones. A format's limits stand beside its reader.

Every limit is checked before anything is decoded: a small file must not take minutes or gigabytes.
"""

from pneumonia.errors import ImageTooLargeError, UnsupportedImageError

MAX_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 25_000_000  # the largest radiographs have about 20 million; decoding takes up to 400 MB
MAX_SIDE = 65_535  # pixels, the limit of JPEG and DICOM; the heatmap of a longer side would be larger than its image
MAX_METADATA = 8 * 1024 * 1024  # bytes of a file that are no pixels, usually some kilobytes; Pillow copies them often
OLDEST_BMP = b"\x0c\0\0\0"  # the size of the oldest header, which has no field for a compression
RUN_LENGTH_CODED = (b"\1\0\0\0", b"\2\0\0\0")  # BMP's compression: Pillow decodes these a byte at a time
TOO_MANY_PIXELS = f"The image has more than {MAX_PIXELS:,} pixels: send a smaller one."  # where their number is unknown


def too_many_bytes(what: str) -> str:
    """Return the sentence about a "file" or an "upload" with more than MAX_BYTES bytes."""
    return f"The {what} is larger than {MAX_BYTES:,} bytes: send a smaller or a compressed image."


def check_bytes(count: int) -> None:
    """Check that a file has at most MAX_BYTES bytes.

    Args:
        count: the number of the file's bytes.

    Raises:
        ImageTooLargeError: more than MAX_BYTES.
    """
    if count > MAX_BYTES:
        raise ImageTooLargeError(too_many_bytes("file"))


def check_pixels(width: int, height: int) -> None:
    """Check that an image has at most MAX_PIXELS pixels, and MAX_SIDE on a side.

    Args:
        width: in pixels.
        height: in pixels.

    Raises:
        ImageTooLargeError: more than MAX_PIXELS, or more than MAX_SIDE on one side.
    """
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS:,}"
    elif max(width, height) > MAX_SIDE:
        limit = f"{MAX_SIDE:,} a side"
    else:
        return
    raise ImageTooLargeError(
        f"The image has {width} x {height} pixels, more than the limit of {limit}: send a smaller one."
    )


def check_metadata_bytes(count: int, kind: str) -> None:
    """Check that a file has at most MAX_METADATA bytes of metadata.

    Args:
        count: the number of its bytes that are no pixels.
        kind: of the file, such as "PNG".

    Raises:
        ImageTooLargeError: more than MAX_METADATA.
    """
    if count > MAX_METADATA:
        raise ImageTooLargeError(f"The {kind} has more than {MAX_METADATA:,} bytes of metadata: save it without.")


def check_bmp(data: bytes) -> None:
    """Check that Pillow will not decode a BMP a byte at a time.

    Raises:
        UnsupportedImageError: a run-length encoded BMP.
    """
    if data[14:18] != OLDEST_BMP and data[30:34] in RUN_LENGTH_CODED:
        raise UnsupportedImageError("Run-length encoded BMP files are not read: save the X-ray as JPEG or PNG.")
