"""The channels of a training: labelled folders, their images and patients. Does not import torch."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
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
        raise DataError(no_images(empty))
    return channels


def no_images(places: Iterable[str]) -> str:
    """Return the sentence about class folders, such as `train/NORMAL`, without images."""
    return f"There are no images in {', '.join(places)}: every channel needs images of both {' and '.join(CLASSES)}."


def wrong_folders(place: str, folders: Collection[str]) -> str | None:
    """Return what is wrong with the folders of a channel, in a sentence; None where they are those of the classes.

    Args:
        place: where the channel lies, a folder or an address in S3.
        folders: their names, without hidden ones.
    """
    wanted = f"exactly the folders {' and '.join(CLASSES)}"
    if missing := [label for label in CLASSES if label not in folders]:
        found = f"it has {', '.join(sorted(folders))}" if folders else "it has no folder at all"
        return f"{place} lacks {' and '.join(missing)}: it must hold {wanted}, and {found}."
    if extra := sorted(folder for folder in folders if folder not in CLASSES):
        return f"{place} has more than two classes: it must hold {wanted}, remove {', '.join(extra)}."
    return None


def swapped_names(channel: str, label: str, names: Sequence[str]) -> str | None:
    """Return in a sentence that all files of a class folder are named as the other class's are; None if they are not.

    Args:
        channel: the channel's name.
        label: the class of the folder.
        names: of the files, without hidden ones.
    """
    for other, pattern in _NAMED_BY_CLASS.items():
        if other != label and names and all(pattern.match(name) for name in names):
            return (
                f"The class folders look swapped: every file of {channel}/{label} is named as {other} are, "
                f"{names[0]} among them. Exchange the folders, or rename the files if they lie right."
            )
    return None


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
    folders = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if problem := wrong_folders(str(root), folders):
        raise DataError(problem)
    paths: list[Path] = []
    labels: list[int] = []
    for index, label in enumerate(CLASSES):
        files = sorted(path for path in (root / label).iterdir() if not path.name.startswith("."))
        if problem := swapped_names(name, label, [path.name for path in files]):
            raise DataError(problem)
        paths += files
        labels += [index] * len(files)
    return Channel(name, root, paths, labels)
