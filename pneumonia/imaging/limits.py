"""How large a file and its image may be, and the errors for larger ones. DICOM's own limits stand beside its reader.

Every limit is checked before anything is decoded: a small file must not take minutes or gigabytes.
"""

import struct

from pneumonia.errors import ImageTooLargeError, UnsupportedImageError

MAX_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 25_000_000  # the largest radiographs have about 20 million; decoding takes up to 400 MB
MAX_SIDE = 65_535  # pixels, the limit of JPEG and DICOM; the heatmap of a longer side would be larger than its image
MAX_SCANS = 100  # of a progressive JPEG, which usually has 10; thousands would take minutes to decode
MAX_STRIPS = 65_536  # strips or tiles of a TIFF, usually some hundreds; opening it, Pillow makes an object for each
RUN_LENGTH_CODED = (b"\1\0\0\0", b"\2\0\0\0")  # BMP's compression: Pillow decodes these a byte at a time
TOO_MANY_PIXELS = f"The image has more than {MAX_PIXELS:,} pixels: send a smaller one."  # where their number is unknown


def too_many_bytes(what: str) -> str:
    """Return what is said of a "file" or an "upload" with more than MAX_BYTES bytes."""
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


def check_scans(data: bytes) -> None:
    """Check that a JPEG has at most MAX_SCANS scans; other files pass.

    Raises:
        ImageTooLargeError: more than MAX_SCANS.
    """
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_SCANS:
        raise ImageTooLargeError(
            f"The JPEG has more than {MAX_SCANS} scans, and each takes time to decode: save it anew."
        )


def check_effort(data: bytes) -> None:
    """Check that Pillow will not decode a small file for minutes.

    Args:
        data: the bytes of any file that Pillow may open.

    Raises:
        ImageTooLargeError: a JPEG of too many scans, or a TIFF of too many strips or tiles.
        UnsupportedImageError: a run-length encoded BMP.
    """
    check_scans(data)
    if data.startswith(b"BM") and data[30:34] in RUN_LENGTH_CODED:
        raise UnsupportedImageError("Run-length encoded BMP files are not read: save the X-ray as JPEG or PNG.")
    if _tiff_pieces(data) > MAX_STRIPS:
        raise ImageTooLargeError(f"The TIFF is in more than {MAX_STRIPS:,} pieces: save it in fewer strips.")


def _tiff_pieces(data: bytes) -> int:
    """Return how many strips or tiles a TIFF declares for its first image, 0 for other files (TIFF 6.0)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    try:
        if not order:
            return 0
        (offset,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, offset)
        fields = [struct.unpack_from(f"{order}HHI", data, offset + 2 + 12 * number) for number in range(entries)]
    except struct.error:  # cut off: decoding says so
        return 0
    return max((count for tag, _, count in fields if tag in {273, 324}), default=0)
