"""Small files that would take much time or memory, in every variant that Pillow opens, and kinds that are not read."""

import gzip
import io
import struct
import zipfile
import zlib

import pytest
from PIL import Image
from PIL.TiffImagePlugin import PREFIXES

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging.decoding import decode
from tests.builders.images import chunk, encoded

PICTURE = Image.linear_gradient("L").resize((16, 16))
PNG = encoded(PICTURE, "PNG")
Fields = dict[int, tuple[int, int, int]]
PLAIN: Fields = {  # type, count and value of each
    256: (4, 1, 16),
    257: (4, 1, 16),
    258: (3, 1, 8),
    259: (3, 1, 1),
    262: (3, 1, 1),
    273: (4, 1, 1000),
    277: (3, 1, 1),
    278: (4, 1, 16),
    279: (4, 1, 256),
}


def tiff(prefix: bytes, fields: Fields = {}, *, rest: bytes = b"") -> bytes:  # noqa: B006
    """Return a TIFF with these fields beside, or instead of, those of PICTURE."""
    order, is_big = "<" if prefix.startswith(b"II") else ">", prefix[2] == 43
    all_fields = sorted((PLAIN | fields).items())
    if is_big:
        head = prefix + struct.pack(f"{order}HHQQ", 8, 0, 16, len(all_fields))
    else:
        head = prefix + struct.pack(f"{order}IH", 8, len(all_fields))
    for tag, (kind, count, value) in all_fields:
        short = kind == 3 and count == 1
        head += struct.pack(f"{order}HH{'Q' if is_big else 'I'}", tag, kind, count)
        head += struct.pack(f"{order}{'H' if short else 'Q' if is_big else 'I'}", value).ljust(
            8 if is_big else 4, b"\0"
        )
    return head.ljust(1000, b"\0") + PICTURE.tobytes() + rest


@pytest.mark.parametrize("prefix", PREFIXES)
def test_each_variant_of_tiff_is_read(prefix: bytes) -> None:
    assert decode(tiff(prefix)).image.tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("tag", [273, 324])
def test_endless_pieces_are_refused_in_each_variant_of_tiff(prefix: bytes, tag: int) -> None:
    with pytest.raises(ImageTooLargeError, match="more than 65,536 TIFF strips or tiles"):
        decode(tiff(prefix, {tag: (4, 1_100_000, 1256)}, rest=bytes(4_400_000)))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    ("tag", "kind"), [(256, 4), (258, 3), (282, 5), (274, 3), (320, 3), (339, 3), (700, 3), (37000, 12)]
)
def test_endless_values_are_refused_in_each_variant_of_tiff(prefix: bytes, tag: int, kind: int) -> None:
    with pytest.raises(ImageTooLargeError, match=r"more than .* in TIFF or EXIF metadata"):
        decode(tiff(prefix, {tag: (kind, 600_000, 1256)}, rest=bytes(4_800_000)))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_endless_values_in_the_exif_directory_of_a_tiff_are_refused(prefix: bytes) -> None:
    order, is_big = "<" if prefix.startswith(b"II") else ">", prefix[2] == 43
    entries = [(37_000, 5, 300_000, 2000), (37_001, 5, 300_000, 2000)]  # together more than is allowed
    form = ("Q", "HHQQ") if is_big else ("H", "HHII")
    directory = struct.pack(order + form[0], 2) + b"".join(struct.pack(order + form[1], *entry) for entry in entries)
    with pytest.raises(ImageTooLargeError, match=r"more than .* in TIFF or EXIF metadata"):
        decode(tiff(prefix, {34_665: (4, 1, 1256)}, rest=directory + bytes(2_500_000)))


def test_tables_that_come_thousands_of_times_are_read_once() -> None:
    tables = struct.pack("<HHQQ", 347, 7, 65_536, 8) * 60_000
    compression = struct.pack("<HHQQ", 259, 3, 1, 7)
    with pytest.raises(ImageError):
        decode(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 60_001) + compression + tables + bytes(100))


def test_endless_entries_of_a_tiff_are_refused() -> None:
    entries = b"".join(struct.pack("<HHQQ", number % 65_536, 3, 1, 8) for number in range(70_000))
    with pytest.raises(ImageTooLargeError, match="more than 65,536 entries"):
        decode(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 70_000) + entries)


def test_endless_directories_without_entries_are_refused() -> None:
    directories = b"".join(struct.pack("<HI", 0, 8 + 6 * number) for number in range(1, 70_000))
    with pytest.raises(ImageTooLargeError, match="more than 65,536 entries"):
        decode(b"II*\0\x08\0\0\0" + directories + bytes(6))


def test_endless_chunks_of_a_png_are_refused() -> None:
    few, many = (PNG[:33] + chunk(b"prIv") * count + PNG[33:] for count in (1000, 70_000))
    assert decode(few).image.tobytes() == PICTURE.tobytes()
    with pytest.raises(ImageTooLargeError, match="more than 65,536 PNG chunks"):
        decode(many)


@pytest.mark.parametrize("at", [2**31, 2**63 - 1, 2**64 - 1])
def test_an_offset_that_no_file_has_room_for_is_refused(at: int) -> None:
    for data in (b"II+\0\x08\0\0\0" + struct.pack("<Q", at), tiff(b"II+\0", {273: (16, 2, at)})):
        with pytest.raises(ImageError):
            decode(data)


@pytest.mark.parametrize("tag", [34665, 34853])
@pytest.mark.parametrize(("kind", "count"), [(1, 100), (3, 100), (4, 2), (16, 1)])
def test_a_tiff_whose_exif_lies_outside_of_it_is_refused(tag: int, kind: int, count: int) -> None:
    with pytest.raises(ImageError):
        decode(tiff(b"II*\0", {tag: (kind, count, 2**32 - 1)}))


def webp(more: bytes = b"") -> bytes:
    """Return a WebP with these chunks after its pixels."""
    data = encoded(PICTURE, "WEBP") + more
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def test_endless_metadata_of_a_jpeg_is_refused() -> None:
    data = encoded(PICTURE, "JPEG")
    segment = b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527)
    assert decode(data[:2] + segment * 15 + data[2:]).image.size == PICTURE.size
    with pytest.raises(ImageTooLargeError, match="more than 8,388,608 bytes of metadata"):
        decode(data[:2] + segment * 200 + data[2:])


def test_endless_metadata_of_a_png_or_webp_is_refused() -> None:
    exif = b"MM\0*\0\0\0\x08\0\0\0\0\0\0".ljust(9_000_000, b"\0")
    few, many = (webp(b"EXIF" + struct.pack("<I", size) + exif[:size]) for size in (1000, 9_000_000))
    for data, longer in ((PNG[:33] + chunk(b"eXIf", exif) + PNG[33:], PNG), (many, few)):
        assert decode(longer).image.size == PICTURE.size
        with pytest.raises(ImageTooLargeError, match="more than 8,388,608 bytes of metadata"):
            decode(data)


def test_metadata_of_an_image_that_lies_on_its_side_is_not_written_anew() -> None:
    count = 4_000  # fractions; a million of them take Pillow ten seconds to write
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHHHIII", 2, 274, 3, 1, 6, 0, 34665, 4, 1, 38, 0)
    exif += struct.pack(">HHHIII", 1, 37500, 5, count, 56, 0) + b"\0\0\0\1" * 2 * count
    upright = PICTURE.transpose(Image.Transpose.ROTATE_270)
    assert decode(PNG[:33] + chunk(b"eXIf", exif) + PNG[33:]).image.tobytes() == upright.tobytes()


def test_endless_chunks_of_a_webp_are_refused() -> None:
    with pytest.raises(ImageTooLargeError, match="more than 65,536 WebP chunks"):
        decode(webp(b"XXXX\0\0\0\0" * 2_000_000))


@pytest.mark.parametrize("rest", [b"\n", b"\x07" * 9_000_000, b"XXXX\0\0\0\0" * 70_000], ids=["1", "many", "chunks"])
def test_what_follows_the_end_of_a_webp_does_not_count(rest: bytes) -> None:
    assert decode(webp() + rest).image.tobytes() == decode(webp()).image.tobytes()


def test_a_webp_whose_last_chunk_is_cut_off_is_called_broken() -> None:
    with pytest.raises(ImageError, match="broken"):
        decode(webp(b"EXIF" + struct.pack("<I", 9_000_000) + bytes(1000)))


def test_endless_pieces_of_jpeg_in_a_tiff_are_refused() -> None:
    stream = encoded(Image.new("L", (4000, 4000)), "JPEG")
    fields = {259: (3, 1, 7), 273: (4, 100, 4000), 279: (4, 100, 8000), 278: (3, 1, 1), 257: (4, 1, 100)}
    data = tiff(b"II*\0", fields).ljust(4000, b"\0")
    data += struct.pack("<1000I", *[12_000] * 1000) + struct.pack("<1000I", *[len(stream)] * 1000) + stream
    with pytest.raises(ImageError, match="is broken"):
        decode(data)


def test_strips_that_unpack_to_gigabytes_are_no_work() -> None:
    packed = zlib.compress(bytes(100_000_000))
    fields = {259: (3, 1, 8), 273: (4, 800, 4000), 279: (4, 800, 8000), 278: (3, 1, 1), 257: (4, 1, 800)}
    data = tiff(b"II*\0", fields).ljust(4000, b"\0")
    data += struct.pack("<1000I", *[12_000] * 1000) + struct.pack("<1000I", *[len(packed)] * 1000) + packed
    assert decode(data).image.size == (16, 800)


@pytest.mark.parametrize("compression", [1, 2])
def test_the_oldest_kind_of_bmp_is_no_run_length_code(compression: int) -> None:
    palette = bytes(12) + bytes([compression, 0, 0, 0]).ljust(3 * 256 - 4, b"\0")
    header = struct.pack("<IHHHH", 12, 16, 16, 1, 8)
    pixels = bytes(256)
    start = 14 + len(header) + 3 * 256
    data = (
        b"BM"
        + struct.pack("<IHHI", start + 256, 0, 0, start)
        + header
        + palette[: 3 * 256].ljust(3 * 256, b"\0")
        + pixels
    )
    assert decode(data).image.size == (16, 16)


def packed() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xray.png", PNG)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (packed(), r"The file is packed \(zip\): unpack it"),
        (gzip.compress(PNG), r"The file is packed \(gzip\): unpack it"),
        (b"xray.png".ljust(257, b"\0") + b"ustar\x0000", r"The file is packed \(tar\): unpack it"),
        (b"\x5c\1\0\0" + bytes(340) + b"n+1\0", "NIfTI files are not read"),
        (b"\0\0\x01\x5c" + bytes(340) + b"ni1\0", "NIfTI files are not read"),
        (b"\x93NUMPY\1\0", "NumPy files are not read"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 and MATLAB files are not read"),
        (b"NRRD0004\n", "NRRD files are not read"),
        (tiff(b"MM\0*", {258: (3, 1, 12)}), r"TIFF files of this kind are not read \(12 bits per sample, big-endian\)"),
        (tiff(b"II*\0", {262: (3, 1, 10)}), r"\(8 bits per sample, ITULab, little-endian\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # archives hold the time
)
def test_kinds_that_are_not_read_are_named(data: bytes, sentence: str) -> None:
    with pytest.raises(UnsupportedImageError, match=sentence):
        decode(data)
