"""How large a file and its image may be, how many pieces of each kind it may have, and the errors for larger ones.

Every limit is checked before anything is decoded: a small file must not take minutes or gigabytes. Pieces are counted
by kind, because decoders take time for each piece, or even for each pair of them, however few bytes these have.
"""

from pneumonia.errors import ImageTooLargeError, UnsupportedImageError

MAX_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 25_000_000  # the largest radiographs have about 20 million; decoding takes up to 400 MB
MAX_SIDE = 65_535  # pixels, the limit of JPEG and DICOM; the heatmap of a longer side would be larger than its image
MAX_METADATA = 8 * 1024 * 1024  # bytes of a file that are no pixels, usually some kilobytes; Pillow copies them often
MAX_EXIF = 2**20  # bytes of EXIF, usually some kilobytes; Pillow makes objects of the values that it looks up

# JPEG
MAX_SEGMENTS = 10_000  # tables and metadata, usually about ten; Pillow keeps a list of them
MAX_EXIF_SEGMENTS = 64  # usually one; Pillow copies all that it has at each
MAX_TABLES = 65_536  # bytes before the first scan that are no metadata, usually hundreds; Pillow makes lists of them
MAX_FILLING = 10_000  # fill bytes before markers, usually none; Pillow reads them one by one
MAX_SCANS = 100  # of a progressive JPEG, which usually has 10; thousands would take minutes to decode
MAX_INTERVALS = 65_536  # between restart markers of lossless and 12-bit JPEG; usually one, or one for each row

# JPEG 2000
MAX_HEADERS = 65_536  # segments and tile-parts in headers; ordinary images have tens, and each takes time
MAX_BOXES = 1000  # before the codestream; ordinary files have four
MAX_TILES = 4096  # each takes some kilobytes before it is decoded
MAX_CODE_BLOCKS = 200_000  # with precincts; each takes some hundred bytes; ordinary images have thousands
MAX_LAYERS = 1024  # of each code-block; ordinary images have one to fifty

# PNG and WebP
MAX_CHUNKS = 65_536  # usually some hundreds; Pillow reads those of a PNG one by one

# TIFF, and EXIF, which is a TIFF without pixels
MAX_PAGES = 64  # a pyramid of 25 million pixels has some ten
MAX_TAGS = 1024  # of a directory, usually some twenty; libtiff sorts all that it has at each that it does not know
MAX_ENTRIES = 65_536  # of all directories together, one for each page and for EXIF
MAX_VALUES = 524_288  # of all entries: a table for 16-bit colours has 196,608; Pillow makes an object for each
MAX_FRACTIONS = 16_384  # among those values; each takes a hundred times as long
MAX_PIECES = 65_536  # strips or tiles, usually some hundreds; opening a TIFF, Pillow makes an object for each
MAX_DEEP_BYTES = 8 * MAX_PIXELS  # of decoded values of more than 8 bits: four channels of 16
MAX_UNPACKED = 400_000_000  # bytes of strips or tiles; no image of MAX_PIXELS has more, so the rest is not checked
MAX_PIECE_BYTES = 4 * MAX_BYTES  # of all strips or tiles: they might share bytes, which are decoded for each
MAX_PIECE_SEGMENTS = 131_072  # of all strips or tiles that are JPEGs, usually some ten each

# DICOM
MAX_ELEMENTS = 100_000  # of a data set; ordinary ones have some hundreds, and each takes time, however little it holds
MAX_VALUE = 2**18  # bytes of a wanted element other than the pixels; the largest tables have half as many
MAX_ITEMS = 8  # of a sequence that is wanted, which usually has one; others are skipped
MAX_DEPTH = 32  # of sequences in sequences; ordinary ones are three or four deep
MAX_FRAGMENTS = 65_536  # of the pixels, usually one
MAX_INFLATED = 3 * MAX_PIXELS + 2**20  # bytes of a deflated data set: the largest pixels, and a header
MAX_TEXT = 256  # bytes of a text that are read; the standard allows 64 letters
MAX_CHARACTER_SETS = 8  # of a text that are tried; the standard has ten that can be mixed

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


def check_count(count: int, most: int, what: str) -> None:
    """Check that a file has at most so many pieces of a kind.

    Args:
        count: how many it has.
        most: how many it may have, one of the limits above.
        what: the pieces are, such as "JPEG segments".

    Raises:
        ImageTooLargeError: more than `most`.
    """
    if count > most:
        raise too_many(most, what)


def too_many(most: int, what: str) -> ImageTooLargeError:
    """Return the error for a file with more than `most` pieces of a kind, such as "JPEG segments"."""
    return ImageTooLargeError(f"The image has more than {most:,} {what}: save it anew.")


def check_bmp(data: bytes) -> None:
    """Check that Pillow will not decode a BMP a byte at a time.

    Raises:
        UnsupportedImageError: a run-length encoded BMP.
    """
    if data[14:18] != OLDEST_BMP and data[30:34] in RUN_LENGTH_CODED:
        raise UnsupportedImageError("Run-length encoded BMP files are not read: save the X-ray as JPEG or PNG.")
