"""Mutated image files for fuzzers, and what must come of them."""

import zlib

from hypothesis import strategies as st

from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from tests.builders.uploads import is_sentence


@st.composite
def mutated(draw: st.DrawFn, good: list[bytes], most: int = 6) -> bytes:
    """Return one of these with bytes changed, cut out, repeated or put in, or with its end cut off or another's."""
    data = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(1, most))):
        # Most that matters to a decoder stands at the beginning.
        place = draw(st.integers(0, min(len(data), 120)) | st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        match draw(st.sampled_from(["flip", "flip", "write", "cut", "repeat", "insert", "truncate", "splice"])):
            case "flip":
                data = data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
            case "write":
                number = draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\1\0\0\0"]))
                data = data[:place] + number + data[place + 4 :]
            case "cut":
                data = data[:place] + data[place + length :]
            case "repeat":
                data = data[:place] + data[place : place + length] * 3 + data[place + length :]
            case "insert":
                data = data[:place] + draw(st.binary(max_size=40)) + data[place:]
            case "truncate":
                data = data[: max(place, 8)]
            case "splice":
                other = draw(st.sampled_from(good))
                data = data[:place] + other[place:]
    return data


def check_decode(data: bytes) -> None:
    """Check that bytes are decoded to what the network is made for, or refused in a sentence."""
    try:
        image = decode(data).image
    except ImageError as error:
        assert is_sentence(str(error))  # noqa: PT017  # either may happen
    else:
        assert image.mode in {"L", "RGB"}
        assert len(image.tobytes()) == image.width * image.height * len(image.getbands())


def with_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks have the right checksums, so that decoders read what is wrong in them."""
    at, found = 8, [data[:8]]
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        found += [data[at:end], zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")]
        at = end + 4
    return b"".join(found)
