"""Small DICOM files that would take much time or memory if they were trusted."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from pneumonia.errors import ImageError, ImageTooLargeError
from tests.builders.checkout import PROJECT
from tests.builders.dicom_files import COLUMNS, ENCODERS, ROWS, beginning_of, data_set_of, radiograph
from tests.builders.dicom_files import dicom as made
from tests.builders.images import encoded


def elements(count: int) -> bytes:
    """Return the beginning of a file, with so many elements that are of no use."""
    head = made(None)
    return head[: head.index(b"\x10\0\x10\0PN")] + b"\x09\0\x10\0LO\0\0" * count


def nested(depth: int) -> bytes:
    """Return the beginning of a file, with sequences in sequences."""
    head = made(None, ImplicitVRLittleEndian)
    start = head.index(b"\x10\0\x10\0")
    return head[:start] + (b"\x08\0\x40\x11\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth


def fragments(count: int) -> bytes:
    return made(radiograph(8), RLELossless, PixelData=b"\xfe\xff\0\xe0\0\0\0\0" * count)


def scans(count: int) -> bytes:
    image = encoded(Image.fromarray(radiograph(8)), "JPEG", progressive=True)
    longer = image[:-2] + image[image.rindex(b"\xff\xda") : -2] * count + image[-2:]
    return made(radiograph(8), JPEGBaseline8Bit, PixelData=encapsulate([longer]))


def of_size(coded: bytes, syntax: pydicom.uid.UID, width: int, height: int) -> bytes:
    """Return a file whose header says that the coded image has this size."""
    return made(radiograph(8), syntax, Rows=height, Columns=width, PixelData=encapsulate([coded]))


def hidden_header(side: int) -> bytes:
    """Return a JPEG that libjpeg decodes to side x side pixels.

    Who takes every marker to have a length skips the true header after FF01, and finds another one of 100 x 100.
    """
    small = bytes(ENCODERS[JPEGBaseline8Bit](radiograph(8)))
    start = small.index(b"\xff\xc0")
    tables, rest = small[:start], small[start : start + 5] + struct.pack(">HH", side, side) + small[start + 9 :]
    coded = tables + b"\xff\x01" + rest
    coded += bytes(len(tables) + 2 + 0xFFC0 - len(coded))
    coded += b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", 100, 100) + b"\1\1\x11\0\xff\xd9"
    return of_size(coded, JPEGBaseline8Bit, 100, 100)


def jpeg_2000(
    *,
    samples: int = 1,
    layers: int = 1,
    block: int = 4,
    precinct: int | None = None,
    tile: int = 5000,
    late: bool = False,
) -> bytes:
    """Return a JPEG 2000 image of 5000 x 5000 pixels and little data; `late`: its coding stands in its tile."""
    grid = struct.pack(">H8IH", 0, 5000, 5000, 0, 0, tile, tile, 0, 0, samples) + bytes([7, 1, 1]) * samples
    levels = 5
    cod = struct.pack(">BBHBBBBBB", precinct is not None, 2, layers, 0, levels, block, block, 0, 1)
    cod += b"" if precinct is None else bytes([precinct | precinct << 4] * (levels + 1))
    plain = struct.pack(">BBHBBBBBB", 0, 2, 1, 0, levels, 4, 4, 0, 1)
    quantised = b"\x40" + bytes([8 << 3]) * (3 * levels + 1)

    def segment(kind: int, content: bytes) -> bytes:
        return struct.pack(">HH", kind, len(content) + 2) + content

    main = [(0xFF51, grid), (0xFF52, plain if late else cod), (0xFF5C, quantised)]
    tile_header = segment(0xFF52, cod) if late else b""
    data = tile_header + b"\xff\x93" + bytes(2000)
    start = struct.pack(">HHHIBB", 0xFF90, 10, 0, 12 + len(data), 0, 1)
    coded = b"\xff\x4f" + b"".join(segment(*one) for one in main) + start + data + b"\xff\xd9"
    return of_size(coded, JPEG2000Lossless, 5000, 5000)


def deflated(data_set: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return beginning_of(DeflatedExplicitVRLittleEndian) + squeeze.compress(data_set) + squeeze.flush()


def before(tag: bytes, element: bytes, syntax: pydicom.uid.UID = ExplicitVRLittleEndian) -> bytes:
    """Return a file with another element before the one with a tag."""
    data = made(radiograph(8), syntax)
    return data[: data.index(tag)] + element + data[data.index(tag) :]


def segments(syntax: pydicom.uid.UID, segment: bytes, count: int) -> bytes:
    """Return a file whose compressed image has so many header segments more."""
    image = bytes(ENCODERS[syntax](radiograph(8)))
    start = 2 if syntax != JPEG2000Lossless else image.index(b"\xff\x52")
    return made(radiograph(8), syntax, PixelData=encapsulate([image[:start] + segment * count + image[start:]]))


ITEM = b"\xfe\xff\0\xe0\0\0\0\0"  # with nothing in it
BOXES = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 1_000_000


# Decodes each file in a process of its own. It is a fork, as a process that is started anew begins with the peak of the
# one that started it, and whatever stays below that of the tests is not seen to grow.
DECODE = """
import imagecodecs, os, pathlib, resource, sys
from pneumonia.imaging import dicom
from pneumonia.imaging.decoding import decode

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

imagecodecs.jpegls_decode
for path in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    before = peak()
    try:
        told = decode(pathlib.Path(path).read_bytes()).image.size
    except Exception as error:
        told = type(error).__name__
    print(told, peak() - before, sep="\t", flush=True)
    os._exit(0)
"""


def decoded(*files: Path) -> list[list[str]]:
    """Return the size or the error of each file, and by how many KiB memory grew."""
    command = [sys.executable, "-c", DECODE, *map(str, files)]
    printed = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in printed.splitlines()]


ROWS_TAG = b"\x28\0\x10\0"
VIEWS = b"\x54\0\x20\x02SQ\0\0"
BOMBS: dict[str, tuple[bytes, type[ImageError] | None]] = {
    "two million elements": (elements(2_000_000), ImageTooLargeError),
    "a million sequences in each other": (nested(1_000_000), ImageError),
    "a million fragments": (fragments(1_000_000), ImageTooLargeError),
    "a thousand scans": (scans(1_000), ImageTooLargeError),
    "a JPEG header behind a marker without a length": (hidden_header(20_000), ImageError),
    "JPEG 2000 of thirty samples a pixel": (jpeg_2000(samples=30), ImageError),
    "JPEG 2000 of tiny precincts": (jpeg_2000(precinct=1), ImageTooLargeError),
    "the same, told in the tile": (jpeg_2000(precinct=1, late=True), ImageTooLargeError),
    "JPEG 2000 of tiny code-blocks": (jpeg_2000(block=0), ImageTooLargeError),
    "JPEG 2000 of 65,535 layers": (jpeg_2000(layers=65_535), ImageTooLargeError),
    "JPEG 2000 of 250,000 tiles": (jpeg_2000(tile=10), ImageTooLargeError),
    "inflates endlessly": (deflated(bytes(10**8)), ImageTooLargeError),
    "half a million elements, inflated": (deflated(data_set_of(elements(500_000))), ImageTooLargeError),
    "half a million elements, without a beginning": (data_set_of(elements(500_000)), ImageTooLargeError),
    "sequences in each other, without a beginning": (data_set_of(nested(100_000)), ImageError),
    "half a million stray delimiters": (before(ROWS_TAG, b"\xfe\xff\x0d\xe0\0\0\0\0" * 500_000), ImageTooLargeError),
    "a million coded views": (before(ROWS_TAG, VIEWS + b"\xff\xff\xff\xff" + ITEM * 1_000_000), ImageTooLargeError),
    "as many coded views as are passed over": (before(ROWS_TAG, VIEWS + b"\xff\xff\xff\xff" + ITEM * 90_000), None),
    "a million numbers in a window": (
        before(ROWS_TAG, b"\x28\0\x50\x10" + struct.pack("<I", 2_000_000) + b"1\\" * 1_000_000, ImplicitVRLittleEndian),
        ImageTooLargeError,
    ),
    "a description of two million letters": (
        before(ROWS_TAG, b"\x08\0\x3e\x10" + struct.pack("<I", 2_000_000) + b"a" * 2_000_000, ImplicitVRLittleEndian),
        ImageTooLargeError,
    ),
    "a million boxes": (made(radiograph(8), JPEG2000Lossless, PixelData=encapsulate([BOXES])), ImageError),
    "a million segments of JPEG": (segments(JPEGBaseline8Bit, b"\xff\xe1\0\2", 1_000_000), ImageTooLargeError),
    "a million segments of JPEG-LS": (segments(JPEGLSLossless, b"\xff\xfe\0\2", 1_000_000), ImageTooLargeError),
    "a million segments of JPEG 2000": (segments(JPEG2000Lossless, b"\xff\x64\0\4\0\0", 1_000_000), ImageTooLargeError),
    "ten million bytes before a marker": (segments(JPEGBaseline8Bit, b"\xff", 10_000_000), None),
    "JPEG-LS that ends after millions of zeros": (
        of_size(
            bytes(ENCODERS[JPEGLSLossless](radiograph(8)))[:-9] + bytes(10**7) + b"\xff\xd9", JPEGLSLossless, 50, 60
        ),
        ImageError,
    ),
    "zeros after the pixels": (made(radiograph(8)) + bytes(5_000_000), None),
    "more bytes promised than there are": (
        made(radiograph(8)).replace(b"OB\0\0" + struct.pack("<I", ROWS * COLUMNS), b"OB\0\0\xfe\xff\xff\xff"),
        None,
    ),
}
