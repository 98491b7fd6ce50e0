"""The channels of a training: labelled folders, their images and patients. Does not import torch."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pneumonia.errors import DataError
from pneumonia.network.contract import CLASSES

SPLITS = ("train", "val", "test")
# Kermany et al. name files `person12_bacteria_34.jpeg`, `IM-0115-0001.jpeg` and `NORMAL2-IM-0529-0001.jpeg`. Numbers
# restart per organism and per folder, so the bare number groups too much rather than too little.
_PATIENT = re.compile(r"^(?:NORMAL2-)?(person|IM-)(\d+)")
_NAMED_BY_CLASS = {
    "NORMAL": re.compile(r"^(NORMAL2-)?IM-\d+"),
    "PNEUMONIA": re.compile(r"^person\d+_(bacteria|virus)_"),
}


@dataclass(frozen=True)
class Channel:
    """The files of one split: `labels[i]` is the index in CLASSES of `paths[i]`."""

    name: str
    root: Path
    paths: list[Path]
    labels: list[int]

    def counts(self) -> dict[str, int]:
        """Return the number of images of each class."""
        return {label: self.labels.count(index) for index, label in enumerate(CLASSES)}

    def patients(self) -> list[str]:
        """Return each image's patient; an image whose name tells none counts as a patient of its own."""
        return [patient_of(path) or str(path) for path in self.paths]


def scan_channels(folders: Mapping[str, Path]) -> dict[str, Channel]:
    """List the images of each channel, and check that every channel holds both classes.

    Args:
        folders: channel name to folder, each with one folder per class.

    Raises:
        DataError: a channel, a class folder or images are missing, swapped or unknown.
    """
    channels = {name: _scan_channel(name, root) for name, root in folders.items()}
    empty = [
        f"{channel.name}/{label}" for channel in channels.values() for label, n in channel.counts().items() if not n
    ]
    if empty:
        raise DataError(
            f"There are no images in {', '.join(empty)}: every channel needs images of both {' and '.join(CLASSES)}."
        )
    return channels


def patient_of(path: Path) -> str | None:
    """Return the patient that a file's name tells, None where it tells none."""
    match = _PATIENT.match(path.name)
    return f"{match[1]}{int(match[2])}" if match else None


def fingerprint(splits: Mapping[str, Iterable[tuple[int, str]]]) -> str:
    """Return a SHA-256 over which image is in which split under which class, whatever the files are called.

    Args:
        splits: split name to the (label, digest) of each image.
    """
    lines = sorted(f"{name} {CLASSES[label]} {digest}\n" for name, images in splits.items() for label, digest in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _scan_channel(name: str, root: Path) -> Channel:
    if not root.is_dir():
        raise DataError(
            f"Channel '{name}' is missing: {root} is not a folder. Pass --{name} or set SM_CHANNEL_{name.upper()}."
        )
    _check_folders(root)
    paths: list[Path] = []
    labels: list[int] = []
    for index, label in enumerate(CLASSES):
        files = sorted(path for path in (root / label).iterdir() if not path.name.startswith("."))
        _check_not_swapped(name, label, files)
        paths += files
        labels += [index] * len(files)
    return Channel(name, root, paths, labels)


def _check_folders(root: Path) -> None:
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    wanted = f"exactly the folders {' and '.join(CLASSES)}"
    if missing := [label for label in CLASSES if label not in folders]:
        found = f"it has {', '.join(folders)}" if folders else "it has no folder at all"
        raise DataError(f"{root} lacks {' and '.join(missing)}: it must hold {wanted}, and {found}.")
    if extra := [folder for folder in folders if folder not in CLASSES]:
        raise DataError(f"{root} has more than two classes: it must hold {wanted}, remove {', '.join(extra)}.")


def _check_not_swapped(channel: str, label: str, files: list[Path]) -> None:
    for other, pattern in _NAMED_BY_CLASS.items():
        if other != label and files and all(pattern.match(path.name) for path in files):
            raise DataError(
                f"The class folders look swapped: every file of {channel}/{label} is named as {other} are, "
                f"{files[0].name} among them. Exchange the folders, or rename the files if they lie right."
            )
