import os

import pytest

from pneumonia.engines.cores import threads

MEMORY = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"


@pytest.mark.parametrize(
    ("memory", "wanted", "expected"),
    [("1769", "", 1), ("3538", "", 2), ("512", "4", 1), ("3538", "1", 2), ("", "3", 3)],
)
def test_threads_are_those_paid_for_or_asked_for(
    monkeypatch: pytest.MonkeyPatch, memory: str, wanted: str, expected: int
) -> None:
    monkeypatch.setenv(MEMORY, memory)
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert threads() == expected


@pytest.mark.parametrize("wanted", ["", "0", "many", "4,2", "-1"])
def test_threads_are_the_cores_of_this_process_by_default(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.delenv(MEMORY, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert threads() == len(os.sched_getaffinity(0))
