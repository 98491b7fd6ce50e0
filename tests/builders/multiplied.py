"""Small images with one element of their format's grammar as many times as one likes: JPEG, PNG, BMP and WebP."""

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
from PIL import Image

from tests.builders.images import chunk, encoded

Multiplied = Callable[[int], bytes]

GRAY = Image.linear_gradient("L").resize((16, 16))
DEEP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 15
JPEG, PNG, WEBP = (encoded(GRAY, kind) for kind in ("JPEG", "PNG", "WEBP"))
PROGRESSIVE = encoded(GRAY, "JPEG", progressive=True)
BOMB = zlib.compress(bytes(2**20 - 1), 9)


def segment(marker: int, content: bytes = b"") -> bytes:
    """Return a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def repeated(insert: Callable[[bytes], bytes], one: bytes) -> Multiplied:
    """Return what inserts one piece many times into a file."""
    return lambda n: insert(one * n)


def put(many: Multiplied, insert: Callable[[bytes], bytes]) -> Multiplied:
    """Return what inserts a part of many pieces into a file."""
    return lambda n: insert(many(n))


def within(one: bytes, count: int, wrap: Callable[[bytes], bytes]) -> bytes:
    """Return so many pieces in as few segments as hold them."""
    most = 65_000 // len(one)
    return wrap(one * most) * (count // most) + wrap(one * (count % most))


def exif(entries: list[tuple[int, int, int, int]], rest: bytes = b"", more: int = 0) -> bytes:
    """Return EXIF of one directory, which may be followed by `more` empty ones; `rest` begins at 100,000."""
    directory = struct.pack(">H", len(entries)) + b"".join(struct.pack(">HHII", *entry) for entry in entries)
    starts = range(8 + len(directory) + 4, 8 + len(directory) + 4 + 6 * more, 6)
    chain = b"".join(struct.pack(">HI", 0, start) for start in [*starts[1:], 0][:more])
    data = b"MM\0*\0\0\0\x08" + directory + struct.pack(">I", starts[0] if more else 0) + chain
    return b"Exif\0\0" + (data.ljust(100_000, b"\0") + rest if rest else data)


EXIF: dict[str, Multiplied] = {
    "tags": lambda n: exif([(number % 2**16, 3, 1, 1) for number in range(min(n, 65_535))]),
    "tags that are too large": lambda n: exif([(number % 2**16, 3, 2**30, 1) for number in range(min(n, 65_535))]),
    "equal tags": lambda n: exif([(271, 3, 1, 1)] * min(n, 65_535)),
    "values": lambda n: exif([(274, 3, n, 100_000)], b"\0\1" * n),
    "fractions": lambda n: exif([(296, 3, 1, 1), (282, 5, n, 100_000)], b"\0\0\0\1" * 2 * n),
    "directories": lambda n: exif([(274, 3, 1, 1)], more=n),
}


def in_jpeg(inserted: bytes, at: int = 2, data: bytes = JPEG) -> bytes:
    return data[:at] + inserted + data[at:]


def _of(data: bytes, marker: int) -> bytes:
    """Return the first segment of a marker in a JPEG."""
    start = data.index(bytes([0xFF, marker]))
    return data[start : start + 2 + struct.unpack_from(">H", data, start + 2)[0]]


def _exif_segments(data: bytes) -> bytes:
    return b"".join(segment(0xE1, b"Exif\0\0" + data[at : at + 65_000]) for at in range(6, len(data), 65_000))


def _hidden(marker: int) -> Multiplied:
    return lambda n: in_jpeg(within(SEGMENTS["EXIF"], n, lambda all_: segment(marker, all_)))


def _photographs(count: int) -> bytes:
    """Return an MPO, which has a list of its pictures."""
    entries = struct.pack(">IIIHH", 0, 100, 0, 0, 0) * min(count, 4000)
    head = struct.pack(">IHHHIIHHII", 8, 2, 0xB001, 4, 1, len(entries) // 16, 0xB002, 7, len(entries), 38)
    return in_jpeg(segment(0xE2, b"MPF\0MM\0*" + head + bytes(4) + entries)) + JPEG * count


def scans(count: int, side: int = 16) -> bytes:
    """Return a progressive JPEG without contrast, of 64 scans and so many more: each is about one coefficient."""
    blocks = (side // 8) ** 2
    runs = [min(32_767, blocks - start) for start in range(0, blocks, 32_767)]
    bits = "".join(
        f"{run.bit_length() - 1:04b}{run:b}"[0:4] + f"{run:b}"[1:] for run in runs
    )  # Huffman codes of 4 bits
    zeros = _stuffed(bits)
    tables = segment(0xC4, b"\0\1" + bytes(16)) + segment(
        0xC4, b"\x10\0\0\0\x0f" + bytes(12) + bytes(range(0, 240, 16))
    )
    frame = segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0))
    first = segment(0xDA, b"\1\1\0\0\0\0") + _stuffed("0" * blocks)
    refined, rest = divmod(min(count, 63 * 13), 63)
    levels = [refined + (number < rest) for number in range(63)]
    more = (
        segment(0xDA, bytes([1, 1, 0, number, number, (level + 1 if level < top else 0) << 4 | level])) + zeros
        for number, top in enumerate(levels, 1)
        for level in range(top, -1, -1)
    )
    return b"\xff\xd8" + _of(JPEG, 0xDB) + frame + tables + first + b"".join(more) + b"\xff\xd9"


def _stuffed(bits: str) -> bytes:
    """Return bits as a JPEG's scan holds them."""
    bits = bits.ljust(-len(bits) % 8 + len(bits), "1")
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def _restarts(data: bytes, one: bytes = b"\xff\xd0") -> Multiplied:
    return lambda n: data[:-2] + one * n + data[-2:]


SEGMENTS = {
    "EXIF": segment(0xE1, b"Exif\0\0" + bytes(2000)),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
    "extended XMP": segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0<x/>"),
    "JFIF": _of(JPEG, 0xE0),
    "ICC": segment(0xE2, b"ICC_PROFILE\0\1\1x"),
    "FlashPix": segment(0xE2, b"FPXR\0"),
    "MPF": segment(0xE2, b"MPF\0MM\0*"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\0"),
    "Adobe": segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"),
    "comment": segment(0xFE, b"x"),
    "quantization table": _of(JPEG, 0xDB),
    "Huffman table": _of(JPEG, 0xC4),
    "restart interval": segment(0xDD, b"\0\0"),
    "arithmetic conditioning": segment(0xCC),
    **{f"marker {marker:X}": segment(marker) for marker in range(0xE3, 0xF0)},
}
HIDING = (0xC8, 0xDE, 0xDF, *range(0xF0, 0xFE))  # markers that libjpeg refuses, while Pillow reads on within most
OF_JPEG: dict[str, Multiplied] = {
    **{f"segments: {name}": repeated(in_jpeg, one) for name, one in SEGMENTS.items()},
    **{f"EXIF within {marker:X}": _hidden(marker) for marker in HIDING},
    **{f"EXIF {name}": put(one, lambda all_: in_jpeg(_exif_segments(all_))) for name, one in EXIF.items()},
    "frames": lambda n: in_jpeg(_of(JPEG, 0xC0) * (n - 1)),
    "tables in a segment": lambda n: in_jpeg(within(b"\0" + b"\1" * 64, n, lambda all_: segment(0xDB, all_))),
    "Photoshop blocks": lambda n: in_jpeg(
        within(b"8BIM\4\4\0\0\0\0\0\0", n, lambda all_: segment(0xED, b"Photoshop 3.0\0" + all_))
    ),
    "fill bytes": lambda n: in_jpeg(b"\xff" * n),
    "scans": scans,
    "tables between scans": lambda n: in_jpeg(_of(PROGRESSIVE, 0xC4) * n, PROGRESSIVE.rindex(b"\xff\xda"), PROGRESSIVE),
    "comments between scans": lambda n: in_jpeg(segment(0xFE, b"x") * n, PROGRESSIVE.rindex(b"\xff\xda"), PROGRESSIVE),
    "restart markers, progressive": _restarts(PROGRESSIVE),
    "restart markers, 12 bits": _restarts(bytes(imagecodecs.jpeg8_encode(DEEP, bitspersample=12))),
    "restart markers, lossless": _restarts(bytes(imagecodecs.ljpeg_encode(DEEP)), b"\0\xff\xd0"),
    "photographs": _photographs,
    "bytes after the end": lambda n: JPEG + b"\xff" * n,
}


CHUNKS = {
    "text": chunk(b"tEXt", b"a\0b"),
    "text without a name": chunk(b"tEXt"),
    "deflated text": chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b")),
    "deflated text, large": chunk(b"zTXt", b"\0\0" + BOMB),
    "international text": chunk(b"iTXt", b"a\0\0\0\0\0b"),
    "international text, large": chunk(b"iTXt", b"a\0\1\0\0\xff\0" + BOMB),
    "profile": chunk(b"iCCP", b"a\0\0" + zlib.compress(b"b")),
    "profile, large": chunk(b"iCCP", b"a\0\0" + BOMB),
    "profile, large and damaged": chunk(b"iCCP", b"a\0\0" + BOMB[:-1] + b"\xff"),
    "EXIF": chunk(b"eXIf", exif([(274, 3, 1, 1)])[6:]),
    "palette": chunk(b"PLTE", bytes(3)),
    "transparency": chunk(b"tRNS", bytes(2)),
    "gamma": chunk(b"gAMA", bytes(4)),
    "chromaticity": chunk(b"cHRM", bytes(32)),
    "sRGB": chunk(b"sRGB", b"\0"),
    "size of pixels": chunk(b"pHYs", bytes(9)),
    "time": chunk(b"tIME", bytes(7)),
    "suggested palette": chunk(b"sPLT", b"a\0\x08"),
    "private": chunk(b"prIv"),
    "private, with content": chunk(b"prIv", bytes(100)),
}
_DEEP_PNG = bytes(imagecodecs.png_encode(np.stack([DEEP] * 3, axis=-1)))
_FRAME = struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 1, 1, 0, 0)


def in_png(inserted: bytes, at: int = 33, data: bytes = PNG) -> bytes:
    return data[:at] + inserted + data[at:]


def _profile_text(exif: bytes) -> bytes:
    return chunk(b"tEXt", b"Raw profile type exif\0\nexif\n0\n" + exif.hex().encode())


def _frames(count: int) -> bytes:
    pixels = zlib.compress(bytes(17 * 16))
    pairs = (
        chunk(b"fcTL", struct.pack(">I", 2 * number + 1) + _FRAME[4:])
        + chunk(b"fdAT", struct.pack(">I", 2 * number + 2) + pixels)
        for number in range(count)
    )
    head = chunk(b"acTL", struct.pack(">II", count + 1, 0)) + chunk(b"fcTL", _FRAME)
    return in_png(b"".join(pairs), -12, in_png(head))


OF_PNG: dict[str, Multiplied] = {
    **{f"chunks before the pixels: {name}": repeated(in_png, one) for name, one in CHUNKS.items()},
    **{
        f"chunks after the pixels: {name}": repeated(lambda all_: in_png(all_, -12), one)
        for name, one in CHUNKS.items()
    },
    **{
        f"deep: {name}": repeated(lambda all_: in_png(all_, data=_DEEP_PNG), one)
        for name, one in CHUNKS.items()
        if "large" in name
    },
    **{f"EXIF {name}": put(one, lambda all_: in_png(chunk(b"eXIf", all_[6:]))) for name, one in EXIF.items()},
    **{f"text of EXIF {name}": put(one, lambda all_: in_png(_profile_text(all_))) for name, one in EXIF.items()},
    "texts of other names": lambda n: in_png(b"".join(chunk(b"tEXt", b"%d\0b" % number) for number in range(n))),
    "empty chunks of pixels": lambda n: in_png(chunk(b"IDAT") * n),
    "chunks of one byte of pixels": lambda n: (
        PNG[:33] + b"".join(chunk(b"IDAT", bytes([byte])) for byte in zlib.compress(bytes(272 + n), 0)) + PNG[-12:]
    ),
    "pixels beyond the image": lambda n: PNG[:33] + chunk(b"IDAT", zlib.compress(bytes(272) + bytes(n))) + PNG[-12:],
    "frames": _frames,
}


def _riff(*chunks: bytes) -> bytes:
    data = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(data)) + data


def _webp_chunk(name: bytes, content: bytes = b"") -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _extended(*chunks: bytes, flags: int = 0x2C) -> bytes:
    """Return a WebP with these chunks: an animation if the flags have 2, else after the pixels."""
    size = struct.pack("<I", 15)[:3]
    head = _webp_chunk(b"VP8X", struct.pack("<I", flags) + 2 * size)
    return _riff(head, *chunks) if flags & 2 else _riff(head, WEBP[12:], *chunks)


def _frame_of(more: bytes) -> bytes:
    return _webp_chunk(b"ANMF", bytes(6) + 2 * struct.pack("<I", 15)[:3] + bytes(4) + WEBP[12:] + more)


_ANIMATION = _webp_chunk(b"ANIM", bytes(6))
OF_WEBP: dict[str, Multiplied] = {
    **{
        f"chunks: {name!r}": repeated(_extended, _webp_chunk(name, b"MM"))
        for name in (b"EXIF", b"XMP ", b"ICCP", b"XXXX", b"ALPH")
    },
    **{f"EXIF {name}": put(one, lambda all_: _extended(_webp_chunk(b"EXIF", all_))) for name, one in EXIF.items()},
    "frames": lambda n: _extended(_ANIMATION, _frame_of(b"") * n, flags=2),
    "chunks in a frame": lambda n: _extended(_ANIMATION, _frame_of(_webp_chunk(b"XXXX") * n), flags=2),
}


def _colours(count: int) -> bytes:
    """Return a BMP with so many colours, which are no grays."""
    file = io.BytesIO()
    GRAY.convert("P").save(file, "BMP")
    head, pixels = file.getvalue()[:54], GRAY.tobytes()
    return (
        head[:10]
        + struct.pack("<I", 54 + 4 * count)
        + head[14:46]
        + struct.pack("<II", count, 0)
        + b"\1\2\3\0" * count
        + pixels
    )


OF_BMP: dict[str, Multiplied] = {
    "colours": _colours,
    "bytes between header and pixels": lambda n: (
        (data := encoded(GRAY, "BMP"))[:10] + struct.pack("<I", 1078 + n) + data[14:1078] + bytes(n) + data[1078:]
    ),
    "bytes after the end": lambda n: encoded(GRAY, "BMP") + bytes(n),
}
