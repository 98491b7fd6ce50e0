"""Small DICOM files that would take much time or memory, and any broken ones."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    JPEGLSLossless,
    RLELossless,
)

from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from tests.builders.dicom_bombs import BOMBS, decoded
from tests.builders.dicom_files import (
    COLUMNS,
    ENCODERS,
    ROWS,
    UNCOMPRESSED,
    colors,
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


GOOD = [
    *(made(radiograph(8), syntax, WindowCenter=100, WindowWidth=90) for syntax in (*UNCOMPRESSED, *ENCODERS)),
    made(radiograph(8), VOILUTSequence=lut(np.arange(256).astype(np.uint16), 0, 8)),
    made(colors(), RLELossless),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(0, len(GOOD) - 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_changed_file_is_answered_or_refused(number: int, changes: list[tuple[float, int]]) -> None:
    data = bytearray(GOOD[number])
    for where, value in changes:
        data[128 + int(where * (len(data) - 128))] = value
    with contextlib.suppress(ImageError):
        assert decode(bytes(data)).image.mode in {"L", "RGB"}


@settings(max_examples=200, deadline=None)
@given(where=st.integers(132, 700), inserted=st.binary(min_size=1, max_size=12))
def test_a_header_with_more_bytes_is_answered_or_refused(where: int, inserted: bytes) -> None:
    data = GOOD[1][:where] + inserted + GOOD[1][where:]
    with contextlib.suppress(ImageError):
        decode(data)


@pytest.mark.processes
def test_the_largest_image_takes_no_more_memory_than_others_may(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(made(np.tile(radiograph(12) & 0xFC0, (83, 100)), JPEGLSLossless, 12))
    ((told, grown),) = decoded(path)
    assert told == str((COLUMNS * 100, ROWS * 83))
    assert int(grown) < 400_000  # KiB
