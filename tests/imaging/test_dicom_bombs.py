"""Small DICOM files that would take much time or memory, and any broken ones."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from tests.builders.dicom_bombs import BOMBS, decoded, deflated
from tests.builders.dicom_files import (
    COLUMNS,
    ENCODERS,
    ROWS,
    UNCOMPRESSED,
    colors,
    data_set_of,
    in_fragments,
    lut,
    radiograph,
)
from tests.builders.dicom_files import dicom as made


@pytest.fixture(scope="module")
def defused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What became of each bomb."""
    folder = tmp_path_factory.mktemp("bombs")
    for number, (data, _) in enumerate(BOMBS.values()):
        (folder / f"{number}.dcm").write_bytes(data)
    told = decoded(*(folder / f"{number}.dcm" for number in range(len(BOMBS))))
    return dict(zip(BOMBS, told, strict=True))


@pytest.mark.processes
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_seconds_and_little_memory(name: str, defused: dict[str, list[str]]) -> None:
    error = BOMBS[name][1]
    told, grown = defused[name]
    assert told == (error.__name__ if error else str((COLUMNS, ROWS)))
    assert int(grown) < 200_000  # KiB


def frame_of(syntax: pydicom.uid.UID) -> bytes:
    return bytes(ENCODERS[syntax](radiograph(8)))


def in_boxes(stream: bytes) -> bytes:
    return b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I", len(stream) + 8) + b"jp2c" + stream


def coded_view() -> Sequence:
    view, modifier = Dataset(), Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "R-10236", "SRT", "left lateral"
    modifier.CodeValue = "R-102C1"
    view.ViewModifierCodeSequence = Sequence([modifier])
    return Sequence([view])


GOOD = [
    *(made(radiograph(8), syntax, WindowCenter=100, WindowWidth=90) for syntax in (*UNCOMPRESSED, *ENCODERS)),
    made(radiograph(8), VOILUTSequence=lut(np.arange(256).astype(np.uint16), 0, 8)),
    made(colors(), RLELossless),
    *(data_set_of(made(radiograph(8), syntax)) for syntax in UNCOMPRESSED),
    deflated(data_set_of(made(radiograph(8)))),
    made(radiograph(8), JPEG2000Lossless, PixelData=encapsulate([in_boxes(frame_of(JPEG2000Lossless))])),
    made(radiograph(8), ViewCodeSequence=coded_view(), AnatomicRegionSequence=coded_view()),
]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(0, len(GOOD) - 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_changed_file_is_answered_or_refused(number: int, changes: list[tuple[float, int]]) -> None:
    data = bytearray(GOOD[number])
    for where, value in changes:
        start = 128 if data[128:132] == b"DICM" else 0
        data[start + int(where * (len(data) - start))] = value
    with contextlib.suppress(ImageError):
        assert decode(bytes(data)).image.mode in {"L", "RGB"}


@settings(max_examples=200)
@given(where=st.integers(132, 700), inserted=st.binary(min_size=1, max_size=12))
def test_a_header_with_more_bytes_is_answered_or_refused(where: int, inserted: bytes) -> None:
    data = GOOD[1][:where] + inserted + GOOD[1][where:]
    with contextlib.suppress(ImageError):
        decode(data)


TAGS = st.sampled_from(
    [
        *(0x00080005, 0x0008103E, 0x00082218, 0x00185101, 0x00280002, 0x00280010, 0x00280100, 0x00280101, 0x00281050),
        *(0x00281051, 0x00283010, 0x00283002, 0x00283006, 0x00540220, 0x00080104, 0x7FE00010, 0x00091010),
        *(0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD),
    ]
)
KINDS = st.sampled_from([b"", b"OB", b"OW", b"SQ", b"UN", b"US", b"DS", b"LO", b"CS", b"??"])
LENGTHS = st.sampled_from([None, None, 0, 2, 8, 0xFFFF, 0xFFFFFFFE, 0xFFFFFFFF])


@st.composite
def element(draw: st.DrawFn) -> bytes:
    """Draw an element of a tag that is looked for, or a delimiter, of any representation and length."""
    tag, kind, length = draw(TAGS), draw(KINDS), draw(LENGTHS)
    value = draw(st.binary(max_size=12))
    said = len(value) if length is None else length
    head = struct.pack("<HH", *divmod(tag, 2**16)) + kind
    if kind in {b"OB", b"OW", b"SQ", b"UN"}:
        return head + b"\0\0" + struct.pack("<I", said) + value
    return head + (struct.pack("<H", said % 2**16) if kind else struct.pack("<I", said)) + value


@settings(max_examples=400)
@given(syntax=st.sampled_from(UNCOMPRESSED[:2]), elements=st.lists(element(), max_size=8), where=st.integers(0, 30))
def test_any_elements_are_answered_or_refused(syntax: pydicom.uid.UID, elements: list[bytes], where: int) -> None:
    data = made(radiograph(8), syntax)
    tags = (b"\x08\0\x16\0", b"\x28\0\x02\0", b"\x28\0\x01\1", b"\xe0\x7f\x10\0")
    place = data.index(tags[where % 4])
    with contextlib.suppress(ImageError):
        decode(data[:place] + b"".join(elements) + data[place:])
    with contextlib.suppress(ImageError):
        decode(b"".join(elements))


@settings(max_examples=400)
@given(
    syntax=st.sampled_from([RLELossless, JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1]),
    cuts=st.lists(st.integers(0, 4000), max_size=4),
    changes=st.lists(st.tuples(st.integers(0, 6000), st.binary(max_size=4)), max_size=2),
)
def test_any_fragments_are_answered_or_refused(
    syntax: pydicom.uid.UID, cuts: list[int], changes: list[tuple[int, bytes]]
) -> None:
    frame, ends = frame_of(syntax), sorted(cuts)
    pieces = [frame[start:end] for start, end in zip([0, *ends], [*ends, len(frame)], strict=True)]
    pixels = b"".join(b"\xfe\xff\0\xe0" + struct.pack("<I", len(piece)) + piece for piece in [b"", *pieces])
    for where, changed in changes:
        pixels = pixels[:where] + changed + pixels[where + len(changed) // 2 :]
    with contextlib.suppress(ImageError):
        assert decode(in_fragments(syntax, pixels)).image.size == (COLUMNS, ROWS)


@pytest.mark.processes
def test_the_largest_image_takes_no_more_memory_than_others_may(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(made(np.tile(radiograph(12) & 0xFC0, (83, 100)), JPEGLSLossless, 12))
    ((told, grown),) = decoded(path)
    assert told == str((COLUMNS * 100, ROWS * 83))
    assert int(grown) < 400_000  # KiB
