"""What a journal keeps: answers that were written for these very images, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumonia.batch.journal import JournalHeader, claim, opened, text_of
from pneumonia.batch.tables import Row
from pneumonia.errors import ConfigurationError
from pneumonia.network.classifier import BATCH_SIZE

IMAGES = 2 * BATCH_SIZE + 5
HEADER = JournalHeader("20260101-000000-abcdef01", "1" * 64, IMAGES, "2" * 64)
STATES = [f"{number} 17" for number in range(IMAGES)]
ROWS: list[Row] = [["NORMAL", 0.9, 0.1 + number / 1000, "", HEADER.model_version, None] for number in range(IMAGES)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.csv.journal"


@pytest.fixture
def lines(path: Path) -> list[bytes]:
    """The lines of a whole journal: the header, and one for each answer."""
    with opened(path, HEADER, STATES) as journal:
        for row in ROWS:
            journal.append(row)
    return path.read_bytes().splitlines(keepends=True)


def kept_of(path: Path, states: list[str] = STATES) -> int:
    """Return how many answers are gone on after; check that they, and nothing else, are left in the journal."""
    with opened(path, HEADER, states) as journal:
        assert list(journal.rows()) == ROWS[: journal.count]
    assert path.read_bytes().count(b"\n") == 1 + journal.count
    return journal.count


def whole_batches(answers: int) -> int:
    return answers if answers == IMAGES else answers // BATCH_SIZE * BATCH_SIZE


def with_text(line: bytes, text: bytes) -> bytes:
    return line.replace(text_of(line), text)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "another number": lambda line: line.replace(b"0.9", b"0.8", 1),
    "another digest": lambda line: bytes([line[0] ^ 1]) + line[1:],
    "text for a number": lambda line: with_text(line, b'["NORMAL", "x", "y", "", "v", null]'),
    "an object": lambda line: with_text(line, b"{}"),
    "nested": lambda line: with_text(line, b"[" * 100_000),
    "a number of many digits": lambda line: with_text(line, b"[" + b"1" * 10_000 + b"]"),
    "missing": lambda _: b"",
    "empty": lambda _: b"\n",
    "not text": lambda _: b"\xff\xfe\0\n",
    "without an end": lambda line: line[:-1],
    "very long": lambda line: line[:-1] + b" " * 3_000_000 + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("number", [1, BATCH_SIZE, BATCH_SIZE + 1, BATCH_SIZE + 3, IMAGES])
def test_a_damaged_line_and_all_after_it_do_not_count(damage: str, number: int, path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join([*lines[:number], DAMAGES[damage](lines[number]), *lines[number + 1 :]]))
    assert kept_of(path) == whole_batches(number - 1)


def test_lines_twice_exchanged_or_of_another_run_do_not_count(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join([*lines[:20], *lines[19:]]))
    assert kept_of(path) == BATCH_SIZE
    path.write_bytes(b"".join([*lines[:3], lines[4], lines[3], *lines[5:]]))
    assert kept_of(path) == 0
    path.write_bytes(b"".join([*lines, lines[-1]]))
    assert kept_of(path) == IMAGES


def test_a_flipped_bit_gives_no_wrong_answer_wherever_it_is(path: Path, lines: list[bytes]) -> None:
    content = b"".join(lines)
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        if place < len(lines[0]):
            with pytest.raises(ConfigurationError, match="remove it"):
                kept_of(path)
        else:
            assert kept_of(path) == whole_batches(content[:place].count(b"\n") - 1)


def test_a_journal_cut_off_anywhere_is_gone_on_from(path: Path, lines: list[bytes]) -> None:
    content = b"".join(lines)
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        assert kept_of(path) == whole_batches(max(0, content[:size].count(b"\n") - 1))


@pytest.mark.parametrize("number", [0, BATCH_SIZE - 1, BATCH_SIZE, IMAGES - 1])
def test_the_answer_to_an_image_that_has_changed_does_not_count(
    number: int, path: Path, lines: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(lines) == 1 + IMAGES
    assert kept_of(path, [*STATES[:number], "18 18", *STATES[number + 1 :]]) == whole_batches(number)
    told = f"{path} is damaged after {whole_batches(number):,} answers, or images have changed.\n"
    assert capsys.readouterr().err == told


def test_what_a_killed_run_left_unfinished_is_not_told(
    path: Path, lines: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_bytes(b"".join(lines)[:-1])
    assert kept_of(path) == 2 * BATCH_SIZE
    path.write_bytes(b"".join(lines[: BATCH_SIZE + 3]) + bytes(700))
    assert kept_of(path) == BATCH_SIZE
    assert capsys.readouterr().err == ""


def test_a_change_while_the_run_goes_on_is_noticed(path: Path) -> None:
    with opened(path, HEADER, STATES) as journal:
        for row in ROWS:
            journal.append(row)
        path.write_bytes(path.read_bytes().replace(b"0.9", b"0.8"))
        with pytest.raises(ConfigurationError, match="was changed while this run wrote it"):
            list(journal.rows())


def test_a_run_that_waited_for_one_that_has_ended_does_not_write_into_nothing(path: Path, lines: list[bytes]) -> None:
    assert lines
    with path.open("ab+") as file:
        path.unlink()
        with pytest.raises(ConfigurationError, match="which has just ended: look for its output"):
            claim(file, path)


def test_another_file_is_refused_and_kept(path: Path) -> None:
    for content in (b"precious", b"precious\n", json.dumps(vars(HEADER)).encode(), b"{}\n", b"\0" * 100):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="remove it"):
            kept_of(path)
        assert path.read_bytes() == content
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ConfigurationError, match="is not a plain file: remove it"):
        kept_of(path)
