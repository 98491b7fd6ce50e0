"""What the command `pneumonia` says."""

import pytest

from pneumonia.__main__ import main


def sentence(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr of a command that ends with status 1 and has answered nothing."""
    assert main(argv) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err.strip()
