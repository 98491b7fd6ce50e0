"""Files with one element of their format's grammar many times: work stays in proportion to the file, or it is refused.

Work is counted as calls and bytes allocated. What libraries in C do cannot be counted: for that, the largest files that
may be sent are decoded in processes whose time is limited.
"""

import contextlib
import subprocess
import sys

import pytest

from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from tests.builders.checkout import PROJECT
from tests.builders.effort import GRAMMARS, SECONDS, work
from tests.builders.large import LARGE
from tests.builders.multiplied import Multiplied

pytestmark = pytest.mark.filterwarnings("ignore")  # of what is wrong in a file

FEW, MANY = 100, 400
READ_AHEAD = 2**16  # bytes that Pillow reads at each strip, if the file has so many
PIECES = [
    pytest.param(build, id=f"{kind}: {name}") for kind, grammar in GRAMMARS.items() for name, build in grammar.items()
]
NEVER_READ = ("PNG: frames", "JPEG: EXIF within")  # animations; and markers that no decoder reads


@pytest.mark.parametrize("build", PIECES)
def test_an_element_is_read_once(build: Multiplied, request: pytest.FixtureRequest) -> None:
    if not any(name in request.node.name for name in NEVER_READ):
        assert decode(build(1)).image.size in {(16, 16), (16, 1), (50, 60)}


@pytest.mark.slow
@pytest.mark.parametrize("build", PIECES)
def test_work_grows_no_faster_than_the_number_of_an_element(build: Multiplied) -> None:
    with contextlib.suppress(ImageError):
        decode(build(1))  # imports what is needed
    few, many = work(build(FEW)), work(build(MANY))
    assert many.calls <= 1.25 * MANY / FEW * few.calls + 1000
    assert many.allocated <= 1.25 * MANY / FEW * few.allocated + READ_AHEAD * MANY
    assert many.calls <= 1000 * MANY
    assert many.allocated <= 500_000 * MANY


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("kind", GRAMMARS)
def test_the_largest_files_take_seconds_and_little_memory(kind: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.builders.effort", kind]
    printed = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    lines = [line.split("\t") for line in printed.splitlines()]
    assert {name for _, name, *_ in lines} == GRAMMARS[kind].keys() | LARGE[kind].keys()
    for *_, seconds, grown, _ in lines:
        assert float(seconds) < SECONDS
        assert int(grown) < 600_000  # KiB
