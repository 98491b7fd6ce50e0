"""The file of a checkpoint: what torch.save writes, and a digest of all its bytes. Beside it lies the one before.

torch.save writes a zip archive, whose own checksums leave out its directory and the gaps between its parts. The digest
is the archive's comment, so that torch.load reads the file, too.
"""

import hashlib
import io
import os
from pathlib import Path

from pneumonia.command import say
from pneumonia.errors import CheckpointError, WeightsError, file_sentence
from pneumonia.files import read_plain, replacing
from pneumonia.network.weights_file import MAX_BYTES, saved, whole_in

SEAL = b"sha256="  # the comment's beginning
DIGITS = 64
NO_COMMENT = b"\0\0"  # at the end of what torch.save writes: the comment's length


def one_before(path: Path) -> Path:
    """Return where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}-before{path.suffix}")


def write(state: object, path: Path) -> None:
    """Write a checkpoint; the one that was there is kept as the one before, once the new one is on the disk.

    Args:
        state: tensors, numbers and strings, in dicts and lists.
        path: file to write.

    Raises:
        OSError: the file cannot be written.
    """
    data = _sealed(state)
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(one_before(path))


def read(path: Path) -> object:
    """Return what `write` wrote, or an earlier version of it, which wrote no digest.

    Raises:
        CheckpointError: the file is missing, damaged or another one, or cannot be read.
    """
    try:
        data = read_plain(path, MAX_BYTES)
        has_digest = _check_digest(data, path)
        content = whole_in(data, str(path), "a whole state of a run", is_checked=has_digest)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing.") from error
    except OSError as error:
        raise CheckpointError(file_sentence(error)) from error
    except WeightsError as error:
        raise CheckpointError(str(error)) from error
    if not has_digest:
        say(f"{path} is of an earlier version, which wrote no digest: not all damage would be noticed")
    return content


def _sealed(state: object) -> io.BytesIO:
    """Return a file's bytes."""
    file = saved(state)
    file.seek(-len(NO_COMMENT), os.SEEK_END)
    file.write((len(SEAL) + DIGITS).to_bytes(len(NO_COMMENT), "little") + SEAL)
    digest = hashlib.sha256(file.getbuffer()).hexdigest()
    file.write(digest.encode())
    return file


def _check_digest(data: bytes, path: Path) -> bool:
    """Return whether a file has a digest, after a check that it is that of its bytes.

    Raises:
        CheckpointError: it is not, or there is neither a digest nor the end of a file of an earlier version.
    """
    content, digest = memoryview(data)[:-DIGITS], data[-DIGITS:]
    if content[-len(SEAL) :] == SEAL and hashlib.sha256(content).hexdigest().encode() == digest:
        return True
    if content[-len(SEAL) :] == SEAL or (data.startswith(b"PK") and not data.endswith(NO_COMMENT)):
        raise CheckpointError(f"{path} is damaged: its bytes are not those that were written.")
    return False
