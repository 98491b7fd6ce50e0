"""SageMaker's model.tar.gz: take the weights file and the training report out of it, and nothing else."""

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from pneumonia.errors import WeightsError
from pneumonia.files import naming, open_plain
from pneumonia.network import training_report
from pneumonia.network.contract import MAX_WEIGHTS, WEIGHTS_NAME
from pneumonia.network.training_report import MAX_REPORT, REPORT_NAME, TrainingReport

GZIP = b"\x1f\x8b"  # begins a gzip file
CHUNK = 1024 * 1024  # bytes read at a time
# The errors of tarfile and gzip for damaged or malicious archives, found by trying.
DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)
MAX_UNPACKED = 512 * 1024 * 1024  # bytes
MAX_MEMBERS = 1000


def extract(archive: Path, weights: Path, name: str) -> TrainingReport:
    """Write a local archive's weights to a file and return its training report, or an empty one if it has none.

    No other member is written to disk, and an archive with anything suspicious in it is refused as a whole.

    Args:
        archive: the tar.gz.
        weights: the file to write.
        name: the archive's name in the error's sentence.

    Raises:
        WeightsError: the archive is not a tar.gz, is suspicious or too large, or has no weights.
        OSError: the archive cannot be read or the disk is full.
    """
    try:
        with (
            open_plain(archive) as file,
            _LimitedGzip(file, name) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            report, names = _take(tar, weights, name)
            while stream.read(CHUNK):  # gzip's checksum comes after the end of the tar
                pass
    except DAMAGED as error:
        with archive.open("rb") as file:
            if file.read(len(GZIP)) != GZIP:
                raise WeightsError(f"{name} is not a tar.gz: name the model.tar.gz that training wrote.") from error
        raise WeightsError(f"{name} is not a whole tar.gz ({error}): fetch it again or train again.") from error
    if not weights.exists():
        raise without_weights(name, names)
    return report


def without_weights(source: str, names: Iterable[str]) -> WeightsError:
    """Return the error of an archive or a folder without weights, which says what it holds instead."""
    found = ", ".join(map(repr, sorted(names)[:5])) or "nothing"
    return WeightsError(f"{source} holds no {WEIGHTS_NAME} at its top, but {found}: was it written by train_model.py?")


def check_size(file: str, size: int, source: str) -> None:
    """Check that the weights or the training report in an archive or a folder has a size that it can have.

    Raises:
        WeightsError: it is larger.
    """
    limit = MAX_WEIGHTS if file == WEIGHTS_NAME else MAX_REPORT
    if size > limit:
        raise WeightsError(f"{source} holds {file} of {size:,} bytes; at most {limit:,} are expected.")


class _LimitedGzip(gzip.GzipFile):
    """A gzip file that raises an error after MAX_UNPACKED bytes.

    A few kilobytes of gzip can unpack to gigabytes. Counting the unpacked bytes bounds everything at once: members, the
    headers that tarfile keeps in memory, and what is skipped.

    Args:
        file: the archive.
        name: the archive's name in the error's sentence.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._shown_name = name
        self._left = MAX_UNPACKED

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes."""
        data = super().read(size)
        self._left -= len(data)
        if self._left < 0:
            raise WeightsError(f"{self._shown_name} unpacks to more than {MAX_UNPACKED:,} bytes: it is not a model.")
        return data


def _take(tar: tarfile.TarFile, weights: Path, name: str) -> tuple[TrainingReport, set[str]]:
    """Read an archive once, from front to back; return its training report and the names of its members."""
    report = TrainingReport()
    names: set[str] = set()
    for member in tar:
        _check_member(member, name)
        path = str(PurePosixPath(member.name))
        if path in names:
            raise WeightsError(f"{name} holds {path!r} twice, and either could be the right one: train again.")
        names.add(path)
        if len(names) > MAX_MEMBERS:
            raise WeightsError(f"{name} holds more than {MAX_MEMBERS:,} files: a model has a handful.")
        content = tar.extractfile(member)
        if path == WEIGHTS_NAME and content:  # a folder has none
            check_size(path, member.size, name)
            with naming(weights), weights.open("wb") as file:
                shutil.copyfileobj(content, file)
        elif path == REPORT_NAME and content:
            check_size(path, member.size, name)
            report = training_report.parse(content.read(), f"{REPORT_NAME} in {name}")
    return report, names


def _check_member(member: tarfile.TarInfo, name: str) -> None:
    """Refuse links, devices, and paths with a root, a drive or a step upwards."""
    paths = (PurePosixPath(member.name), PureWindowsPath(member.name))
    if any(path.anchor or ".." in path.parts for path in paths):
        raise WeightsError(f"{name} holds the path {member.name!r}, which leads out of its folder: it is refused.")
    if not (member.isdir() or (member.isreg() and not member.issparse())):
        raise WeightsError(f"{name} holds {member.name!r}, which is a link or not a plain file: it is refused.")
