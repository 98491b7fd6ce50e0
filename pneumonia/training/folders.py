"""Where a training reads and writes; what it writes to holds the files of one run only."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pneumonia.command import say
from pneumonia.errors import ConfigurationError
from pneumonia.files import locked, real, remove_abandoned, replacing
from pneumonia.names import some
from pneumonia.network.contract import MANIFEST_NAME, WEIGHTS_NAME
from pneumonia.network.training_report import REPORT_NAME
from pneumonia.training.checkpoint import CHECKPOINT_NAME
from pneumonia.training.processes import Processes

OUTPUTS = ("history.json", "metrics.json", "learning_curves.png", "roc.png", "confusion.png", "reliability.png")
OTHERS = "name another folder with --model-dir, --output-data-dir or --checkpoint-dir"


@dataclass(frozen=True)
class Folders:
    """Where a training reads and writes.

    Attributes:
        channels: "train", "val" and "test" to folders with NORMAL/ and PNEUMONIA/.
        model: gets the best checkpoint and training.json.
        output: gets history, figures and pictures.
        checkpoints: gets what an interrupted run goes on from; None for nothing.
    """

    channels: Mapping[str, Path]
    model: Path
    output: Path
    checkpoints: Path | None

    @property
    def weights(self) -> Path:
        """The file of the best checkpoint's weights."""
        return self.model / WEIGHTS_NAME

    @property
    def written(self) -> list[Path]:
        """The folders that are written to, each once."""
        folders = (folder for folder in (self.model, self.output, self.checkpoints) if folder)
        return list({real(folder): folder for folder in folders}.values())

    @property
    def reports(self) -> tuple[Path, ...]:
        """The files that tell something about the weights."""
        return (self.model / REPORT_NAME, *(self.output / name for name in OUTPUTS))


@contextlib.contextmanager
def claimed(folders: Folders, processes: Processes) -> Iterator[None]:
    """Keep other trainings out of the folders until the block or the process ends; the first process does it for all.

    Raises:
        ConfigurationError: one cannot be made, another training writes into it, or the model folder has a release.
    """
    with contextlib.ExitStack() as locks:
        with processes.together():
            if processes.is_first:
                for folder in folders.written:
                    _lock(folder, locks)
                _check_model_folder(folders.model)
        yield


def check_writable(folder: Path) -> None:
    """Make a folder, check that files can be written into it, and remove what a killed run left half-written.

    Raises:
        ConfigurationError: it cannot be made or written.
    """
    with _refusal(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS_NAME, REPORT_NAME, *OUTPUTS, CHECKPOINT_NAME, ".writable"):
            remove_abandoned(folder / name, older_than=-math.inf)  # nobody else trains into this folder
        with replacing(folder / ".writable") as temporary:
            temporary.touch()
        (folder / ".writable").unlink()


def remove_reports(folders: Folders) -> None:
    """Remove what tells about the weights that are there, before others replace them.

    An older run may have left it. If this run failed or were killed later, it would be taken for a report on this one.

    Raises:
        OSError: a file cannot be removed.
    """
    for report in folders.reports:
        report.unlink(missing_ok=True)


def _check_model_folder(folder: Path) -> None:
    """Check that a model folder has no release, and print what else it has.

    Raises:
        ConfigurationError: it has a manifest, which would be beside weights that it does not describe.
    """
    if (folder / MANIFEST_NAME).exists():
        raise ConfigurationError(
            f"{folder} has a release, with a {MANIFEST_NAME}: name another folder with --model-dir, as training would "
            "replace its weights."
        )
    if others := sorted(path.name for path in folder.iterdir() if path.name not in {WEIGHTS_NAME, REPORT_NAME}):
        say(f"{folder} has {some(others)} as well, which this training leaves as it is")


def _lock(folder: Path, locks: contextlib.ExitStack) -> None:
    """Make a folder, and lock it until the block of `locks` or the process ends.

    Raises:
        ConfigurationError: another process has locked it, or it cannot be made.
    """
    with _refusal(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        locks.enter_context(locked(folder))
    except BlockingIOError as error:
        raise ConfigurationError(f"Another training writes into {folder}: wait until it ends, or {OTHERS}.") from error


@contextlib.contextmanager
def _refusal(folder: Path) -> Iterator[None]:
    """Turn the system's refusal to write a folder into a sentence."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written ({error.strerror}): {OTHERS}.") from error
