"""Files: where the package's own are, reading plain ones, locking, and writing whole or not at all."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pneumonia.errors import DataError, keeping

if sys.platform != "win32":
    import fcntl

ABANDONED_SECONDS = 900  # as long as a Lambda invocation can last
LOCK_PAUSE = 0.05  # seconds between two tries
SPARE = 1.05  # of the bytes to write: what a file system needs besides


class NotPlainError(OSError):
    """A path names a folder, a pipe, a socket or a device where a plain file is needed."""


def shipped(name: str) -> Path:
    """Return a folder that comes with the package: inside it if it is installed, beside it in a checkout.

    Args:
        name: `weights` or `docs`, as pyproject.toml lists them.
    """
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file's path beside `path`; rename it to `path` on success, remove it on any error.

    The temporary file has a unique name, so that two processes can write at once.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `filename` says where.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:  # which has the temporary file's name
        error.filename = str(path.parent if isinstance(error, FileNotFoundError) else path)
        raise
    os.close(descriptor)
    temporary = Path(name)
    try:
        with naming(path, temporary):
            yield temporary
            temporary.chmod(0o644)  # mkstemp leaves it readable by its owner alone
            sync(temporary)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Give the disk's errors the name of the file that they are about.

    Args:
        path: what is written. An error without a name, as that of a full disk, gets this one.
        temporary: what is to become `path`. An error with its name, or one in it, gets the name to come.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # it does not come from the disk
            raise
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        if named is None:
            error.filename = str(path)
        elif temporary and named.is_relative_to(temporary):
            error.filename = str(path / named.relative_to(temporary))
        raise


def sync(path: Path) -> None:
    """Wait until a file is whole on the disk: a power cut could leave its name on an empty one.

    Raises:
        OSError: the disk is full.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def locked(folder: Path, seconds: float = 0) -> Iterator[None]:
    """Lock a folder until the block or the process ends; others may still use it, but not lock it.

    Args:
        folder: an existing one.
        seconds: how long to wait for another process.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: it cannot be opened.
    """
    if sys.platform == "win32":  # where folders cannot be opened
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, folder, seconds)
        yield
    finally:
        os.close(descriptor)


def lock(file: int | BinaryIO, path: Path, seconds: float = 0) -> None:
    """Lock an open file or folder until it is closed; do nothing on systems and disks without locks.

    Args:
        file: it, or its descriptor.
        path: its path, for the error.
        seconds: as for `locked`.

    Raises:
        BlockingIOError: another process has locked it.
    """
    if sys.platform == "win32":
        return
    end = time.monotonic() + seconds
    while not _locks(file):
        if time.monotonic() >= end:
            raise BlockingIOError(errno.EAGAIN, "another process is writing there", str(path))
        time.sleep(LOCK_PAUSE)


def _locks(file: int | BinaryIO) -> bool:
    """Lock an open file or folder; return whether no other process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file for reading, without waiting.

    A pipe opens only when somebody writes into it, and a device may have no end.

    Raises:
        NotPlainError: it is something else.
        OSError: the file cannot be read.
    """
    _check_plain(path.stat(), path)  # before it is opened, as that rewinds a tape
    with open(path, "rb", opener=_open_without_waiting) as file:  # Path.open takes no opener
        _check_plain(os.fstat(file.fileno()), path)  # it may have been replaced meanwhile
        yield file


def read_plain(path: Path, most: int) -> bytes:
    """Return the bytes of a plain file, all by one opening.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        NotPlainError: as `open_plain`.
        OSError: it cannot be read, or it has more bytes.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= most else b""
        if len(data) > size:  # it grows meanwhile, or is one of /proc's, which declare no size
            data += file.read(most + 1 - len(data))
    if max(size, len(data)) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows lacks, as it lacks such pipes


def _check_plain(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise NotPlainError(errno.EINVAL, f"it is not a plain file but {kind}", str(path))


def is_address(name: str) -> bool:
    """Return whether a name is an address, such as `s3://bucket/folder`, and not the path of a file or a folder."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", name))


def is_there(path: Path) -> bool:
    """Return whether something has this name, be it a link to nothing; True if the system does not say.

    Whoever opens it then is told what is wrong with it. Path.exists raises some of these errors, and hides others.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last of a NUL, which no name has
        return False
    except OSError:
        return True
    return True


def real(path: Path) -> Path:
    """Return a path without links; Path.resolve raises RuntimeError where they lead in a circle."""
    return Path(os.path.realpath(path))


def check_unused(folder: Path) -> None:
    """Check that `filling` may create a folder: nothing is there, or an empty folder.

    Raises:
        DataError: something is there already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} already exists and nothing is overwritten: name a new folder or empty it.")


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; rename it to `folder` on success, remove it on any error.

    Raises:
        DataError: something is there already.
        OSError: the parent folder cannot be written, or the disk is full; `filename` has the names to come.
    """
    check_unused(folder)
    place = real(folder)  # a folder cannot replace a link, but it can replace the link's target
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        with keeping(lambda: f"{folder} is made whole or not at all: nothing of it is left."), naming(folder, whole):
            yield whole
            whole.replace(place)


def check_space(destination: Path, size: int) -> None:
    """Check that a disk has space for so many bytes.

    Args:
        destination: a path on it, of which some parent exists.
        size: in bytes.

    Raises:
        OSError: it has not.
    """
    folder = next(parent for parent in real(destination).parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if free < size * SPARE:
        reason = f"there is space for {free / 1e9:.1f} GB, and this takes {size * SPARE / 1e9:.1f} GB"
        raise OSError(errno.ENOSPC, reason, str(folder))


def remove_abandoned(path: Path, older_than: float = ABANDONED_SECONDS) -> None:
    """Remove what killed processes left beside `path`: files of `replacing`.

    Those younger than `older_than` seconds stay, as they may be in use.

    Raises:
        OSError: the folder cannot be read or written.
    """
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        # Another process may do the same, and nobody may remove another user's files in /tmp.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if time.time() - part.stat().st_mtime > older_than:
                part.unlink()


def write_json(path: Path, content: object) -> None:
    """Write indented JSON, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
