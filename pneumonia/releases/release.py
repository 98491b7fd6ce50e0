"""A release in memory: the bytes of the file that an engine reads, and the manifest that describes this file.

Everything that answers is made from one of these, wherever it comes from. So nothing that happens to a file or to a
bucket in the meantime can mix two releases. This imports neither torch nor boto3.
"""

import errno
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from pneumonia.deadline import Deadline
from pneumonia.engines.choice import chosen_engine
from pneumonia.errors import WeightsError, WeightsUnavailableError
from pneumonia.files import NotPlainError, read_plain
from pneumonia.network.contract import MANIFEST_NAME, MAX_WEIGHTS
from pneumonia.releases.engine_file import described
from pneumonia.releases.manifest import MAX_MANIFEST, Manifest, parse

READ_SECONDS = 30.0  # for reading a release from a disk on which another process goes on writing
PAUSE = 1.0  # seconds in which a process that replaces a release does something to a file, on a busy machine too
# One of these fields in a `manifest.json` shows that it is a release's. Browsers' extensions have a version, too.
OURS = {"sha256", "preprocessing", "dataset_fingerprint", "calibration", "input_check", "training_job"}
States = list[tuple[int, ...] | None]


@dataclass(frozen=True)
class Release:
    """One release, as one engine reads it: the engine's file and the manifest.

    Attributes:
        source: the address of the engine's file, for error messages.
        weights: the bytes of the engine's file: the weights file, or the ONNX file.
        sha256: of the weights, 64 hexadecimal digits.
        manifest: None for foreign weights, of which nothing is known but themselves.
        engine: "torch" or "onnx".
    """

    source: str
    weights: bytes = field(repr=False)
    sha256: str
    manifest: Manifest | None
    engine: str

    def __post_init__(self) -> None:
        """Check that the manifest describes the weights.

        Raises:
            WeightsError: it is of other weights, or the weights are damaged, or it describes no file for this engine.
        """
        told = described(self.manifest, self.engine) if self.manifest else None
        size = len(self.weights)
        if told and (self.sha256, size) != (told.sha256, told.size):
            if self.source.startswith("s3://") and self.engine == "onnx":
                advice = f"`promote_model.py export {self.version}` writes it anew"
            elif self.source.startswith("s3://"):
                advice = "serve another release, or remove this one and promote the model again"
            else:
                advice = f"promote the model again, or remove {MANIFEST_NAME} if these weights are another model's"
            raise WeightsError(
                f"{self.source} has {size} bytes with SHA-256 {self.sha256}, but its manifest says {told.size} bytes "
                f"with {told.sha256}: {advice}."
            )

    @property
    def version(self) -> str:
        """The release's name; of foreign weights, the beginning of their digest."""
        return self.manifest.version if self.manifest else f"sha256-{self.sha256[:12]}"


def read_release(path: Path, deadline: Deadline | None = None, engine: str | None = None) -> Release:
    """Read an engine's weights and the manifest beside them, both of one release.

    While another process replaces them, they may not fit each other, or not be there. So this tries again until the
    same is wrong twice with the same files.

    Args:
        path: the file that the engine reads.
        deadline: when to give up; by default, in READ_SECONDS.
        engine: the engine's name, by default that of the chosen one.

    Raises:
        WeightsError: one of both is damaged, or of another release, or no plain file.
        WeightsUnavailableError: a file cannot be read.
    """
    deadline = deadline or Deadline.after(READ_SECONDS)
    engine = engine or chosen_engine()
    failed: object = None
    while True:
        states = _states(path)
        try:
            return _read_once(path, engine)
        except (WeightsError, OSError) as error:
            if _is_lasting(error) or failed == (states, str(error)) or not deadline.seconds_left:
                if isinstance(error, WeightsError):
                    raise
                raise _unreadable(error, path) from error
            failed = states, str(error)
        time.sleep(min(PAUSE, deadline.seconds_left))


def _read_once(path: Path, engine: str) -> Release:
    beside = path.with_name(MANIFEST_NAME)
    text = _text_of(beside)
    weights = read_plain(path, MAX_WEIGHTS)
    manifest = parse(text, str(beside)) if text is not None and _is_ours(text) else None
    if manifest is None and _text_of(beside) != text:
        raise WeightsError(f"{beside} changes all the time: try again.")
    return Release(str(path), weights, hashlib.sha256(weights).hexdigest(), manifest, engine)


def _is_lasting(error: Exception) -> bool:
    """Return whether another try, or another process, finds the same: no plain file of a possible size lies there."""
    return isinstance(error, NotPlainError) or (isinstance(error, OSError) and error.errno == errno.EFBIG)


def _unreadable(error: OSError, path: Path) -> WeightsError | WeightsUnavailableError:
    kind = WeightsError if _is_lasting(error) else WeightsUnavailableError
    return kind(f"{error.filename or path} cannot be read: {error.strerror or error}.")


def _text_of(manifest: Path) -> bytes | None:
    try:
        return read_plain(manifest, MAX_MANIFEST)
    except FileNotFoundError:
        return None


def _is_ours(text: bytes) -> bool:
    """Return whether a file is a release's manifest, damaged or not; other programs have files of that name, too."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return True
    return isinstance(content, dict) and not OURS.isdisjoint(content)


def _states(weights: Path) -> States:
    """Return what changes of the weights file and its manifest when they are written or replaced."""
    return [_state(path) for path in (weights, weights.with_name(MANIFEST_NAME))]


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # By the last, a hard link is not the same again when it was removed and has come back.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
