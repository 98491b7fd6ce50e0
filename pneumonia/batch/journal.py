"""The journal of a batch: the answers so far, so that a run that was stopped can continue."""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pneumonia.batch.tables import COLUMNS, Row
from pneumonia.errors import ConfigurationError
from pneumonia.files import lock
from pneumonia.network.classifier import BATCH_SIZE


@dataclass(frozen=True)
class JournalHeader:
    """The run that a journal belongs to: a run continues only a journal with the same header.

    Attributes:
        model_version: the release that answers.
        images: the number of images.
        inputs: SHA-256 over their names, in their order.
    """

    model_version: str
    images: int
    inputs: str


@contextlib.contextmanager
def opened(journal: Path, this: JournalHeader) -> Iterator[tuple[BinaryIO, int]]:
    """Open a journal, or begin one; yield it with the number of its answers.

    The first line is the header; each other line is an image's row. After a run was killed, the rows after the last
    whole batch are cut off, so that the network sees the same batches as in an uninterrupted run.

    Raises:
        ConfigurationError: the journal belongs to another run, or to one that is still going on.
        OSError: the journal cannot be read or written.
    """
    with journal.open("ab+") as file:
        try:
            lock(file, journal)
        except BlockingIOError as error:
            raise ConfigurationError(f"{journal} is being written by another run: wait until that ends.") from error
        file.seek(0)
        first = file.readline()
        if first.endswith(b"\n"):
            check_header(first, this, journal)
            done = keep_whole_batches(file, len(first), this.images)
        else:
            file.truncate(0)
            file.write(json.dumps(vars(this)).encode() + b"\n")
            file.flush()
            done = 0
        yield file, done


def keep_whole_batches(file: BinaryIO, start: int, images: int) -> int:
    """Cut off a journal after its last whole batch; return the number of rows that are left."""
    rows, end = 0, start
    kept, kept_end = 0, start
    for line in file:
        if not is_row(line):
            break
        rows, end = rows + 1, end + len(line)
        if rows % BATCH_SIZE == 0 or rows == images:
            kept, kept_end = rows, end
    file.truncate(kept_end)
    return kept


def is_row(line: bytes) -> bool:
    """Return whether a journal's line is a complete row."""
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n") and isinstance(row, list) and len(row) == len(COLUMNS) - 1


def check_header(line: bytes, this: JournalHeader, journal: Path) -> None:
    """Check that a journal belongs to this run.

    Raises:
        ConfigurationError: it does not.
    """
    try:
        other = JournalHeader(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{journal} is not a journal of a run: remove it, or name another output.") from error
    if other.model_version != this.model_version:
        raise ConfigurationError(
            f"{journal} has answers of model {other.model_version}, but this run uses {this.model_version}: remove it "
            "to start anew, or name another output."
        )
    if other != this:
        raise ConfigurationError(
            f"{journal} has answers for another input, of {other.images:,} images: remove it to start anew, or name "
            "another output. (If the folder is still being filled, make a manifest first.)"
        )


def rows_in(file: BinaryIO) -> Iterator[Row]:
    """Yield the rows of a whole journal."""
    file.seek(0)
    file.readline()
    for line in file:
        yield json.loads(line)


def digest_of(names: Iterable[str]) -> str:
    """Return a SHA-256 over names in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(json.dumps(name).encode() + b"\n")
    return digest.hexdigest()
