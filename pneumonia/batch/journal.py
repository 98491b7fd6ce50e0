"""The journal of a batch: the answers so far, so that a run that was stopped can continue."""

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pneumonia.batch.tables import Row
from pneumonia.command import say
from pneumonia.errors import ConfigurationError
from pneumonia.files import lock, naming
from pneumonia.network.classifier import BATCH_SIZE

MAX_LINE = 1024 * 1024  # bytes; a row has some hundred
DIGITS = 64


@dataclass(frozen=True)
class JournalHeader:
    """The run that a journal belongs to: a run continues only a journal with the same header.

    Attributes:
        model_version: the release that answers.
        model: what its answers depend on, as `identity_of` returns it.
        images: the number of images.
        inputs: SHA-256 over their names, in their order.
    """

    model_version: str
    model: str
    images: int
    inputs: str


class Journal:
    """An open journal: a line with the header, and one for each answer, in the order of the images.

    A line is a digest and JSON. The digest is over the line before, the image's state and the JSON, so an answer counts
    only if it, and all before it, are as they were written, for images that are as they were.

    Args:
        file: the journal, open for reading and appending.
        path: its path.
        states: the state of each image, as `sources.state_of` returns it.
    """

    def __init__(self, file: BinaryIO, path: Path, states: Sequence[str]) -> None:
        self.path = path
        self.count = 0  # answers
        self._file = file
        self._states = states
        self._last = b""  # line

    def begin(self, header: JournalHeader) -> None:
        """Write the header into an empty journal, or go on after the last whole batch of the same run's answers.

        Raises:
            ConfigurationError: the journal belongs to another run, or to one of an earlier version of this code.
        """
        own = sealed(json.dumps(vars(header)).encode())
        self._file.seek(0)
        first = self._file.readline(MAX_LINE)
        if first == own:
            self._keep_whole_batches()
        elif own.startswith(first):  # a run was killed while it wrote this line, or before
            self._file.truncate(0)
            self._write(own)
        else:
            raise refusal(first, header, self.path)

    def append(self, row: Row) -> None:
        """Write the next image's row."""
        self._write(sealed(json.dumps(row).encode(), self._last, self._states[self.count]))
        self.count += 1

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all answers.

        Raises:
            ConfigurationError: something else has changed the journal since they were written.
        """
        lines = self._sound_lines()
        for _ in range(self.count):
            if not (line := next(lines, b"")):
                raise ConfigurationError(f"{self.path} was changed while this run wrote it: start the same run again.")
            yield json.loads(text_of(line))

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        self._last = line

    def _sound_lines(self) -> Iterator[bytes]:
        """Yield the lines of answers up to the first that is not as it was written, or is of another image."""
        self._file.seek(0)
        before = self._file.readline(MAX_LINE)
        for state in self._states:
            line = self._file.readline(MAX_LINE)
            if line != sealed(text_of(line), before, state):
                return
            yield line
            before = line

    def _keep_whole_batches(self) -> None:
        """Cut off what follows the last whole batch of sound answers, so that the network sees the same batches."""
        self._file.seek(0)
        self._last = self._file.readline(MAX_LINE)
        end = sound_end = self._file.tell()
        for number, line in enumerate(self._sound_lines(), start=1):
            sound_end += len(line)
            if number % BATCH_SIZE == 0 or number == len(self._states):
                self.count, self._last, end = number, line, sound_end
        self._file.seek(sound_end)
        if self._file.readline(MAX_LINE).endswith(b"\n"):  # not merely the line that a killed run left unfinished
            say(f"{self.path} is damaged after {self.count:,} answers, or images have changed.", file=sys.stderr)
        self._file.truncate(end)


@contextlib.contextmanager
def opened(path: Path, header: JournalHeader, states: Sequence[str]) -> Iterator[Journal]:
    """Open a journal, or begin one.

    Raises:
        ConfigurationError: it belongs to another run, or to one that is still going on, or is not a plain file.
        OSError: it cannot be read or written.
    """
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} is not a plain file: remove it, or name another output.")
    with naming(path), path.open("ab+") as file:
        claim(file, path)
        journal = Journal(file, path, states)
        journal.begin(header)
        yield journal


def sealed(text: bytes, before: bytes = b"", state: str = "") -> bytes:
    """Return a journal's line: a digest, and JSON.

    Args:
        text: the JSON, in one line.
        before: the line before it; nothing for the first.
        state: the image's, as `sources.state_of` returns it.
    """
    digest = hashlib.sha256(b" ".join((before[:DIGITS], state.encode(), text)))
    return digest.hexdigest().encode() + b" " + text + b"\n"


def text_of(line: bytes) -> bytes:
    """Return the JSON of a journal's line."""
    return line[DIGITS + 1 : -1]


def refusal(first: bytes, this: JournalHeader, path: Path) -> ConfigurationError:
    """Return why a journal with another first line does not belong to this run."""
    if first.startswith(b"{"):
        return ConfigurationError(
            f"{path} is of an earlier version of this program: remove it to start anew, or name another output."
        )
    if not re.match(rb"[0-9a-f]{64} ", first):
        return ConfigurationError(f"{path} is not a journal of a run: remove it, or name another output.")
    if first != sealed(text_of(first)):
        return ConfigurationError(f"{path} is damaged in its first line: remove it, or name another output.")
    other = JournalHeader(**json.loads(text_of(first)))
    if other.model_version != this.model_version:
        what = f"has answers of model {other.model_version}, but this run uses {this.model_version}"
    elif other.model != this.model:
        what = f"has answers of model {this.model_version} with another engine, calibration, input check or code"
    else:
        return ConfigurationError(
            f"{path} has answers for another input, of {other.images:,} images: remove it to start anew, or name "
            "another output. (If the folder is still being filled, make a manifest first.)"
        )
    return ConfigurationError(f"{path} {what}: remove it to start anew, or name another output.")


def claim(file: BinaryIO, path: Path) -> None:
    """Lock a journal, so that only this process writes it while it runs.

    Raises:
        ConfigurationError: another process has locked it, or has just removed it at its end.
    """
    try:
        lock(file, path)
    except BlockingIOError as error:
        raise ConfigurationError(f"{path} is being written by another run: wait until that ends.") from error
    if os.fstat(file.fileno()).st_nlink == 0:
        raise ConfigurationError(f"{path} was written by another run, which has just ended: look for its output.")


def digest_of(names: Iterable[str]) -> str:
    """Return a SHA-256 over names in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(json.dumps(name).encode() + b"\n")
    return digest.hexdigest()
