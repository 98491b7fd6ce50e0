"""The channels of a training: labelled folders, their images and patients. Does not import torch."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumonia.errors import DataError
from pneumonia.files import real
from pneumonia.names import some
from pneumonia.network.contract import CLASSES
from pneumonia.training.patients import check_pattern, patient_of

SPLITS = ("train", "val", "test")
_NO = r"(?<![a-z])(?:no|non|not)[ _-]"
# What a file's name says about its class: in words, or as Kermany et al. name files, IM-0115-0001 for a normal one.
_NAMED_BY_CLASS = {
    "NORMAL": re.compile(rf"(?<![a-z])normal(?![a-z])|^IM-\d|{_NO}pneumonia(?![a-z])", re.IGNORECASE),
    "PNEUMONIA": re.compile(
        r"(?<![a-z])(?<!no[ _-])(?<!n[ot][nt][ _-])(?:pneumonia|bacteria|bacterial|virus|viral)(?![a-z])", re.IGNORECASE
    ),
}
# What Windows leaves in folders, in any case; other systems' names begin with a dot.
_LEFT_BEHIND = {"thumbs.db", "desktop.ini"}
SWAPPED_SHARE = 0.5  # of a class folder's files: if more are named as the other class, the folders look swapped


@dataclass(frozen=True)
class Channel:
    """The files of one split: `labels[i]` is the index in CLASSES of `paths[i]`; `pattern` finds patients in names."""

    name: str
    root: Path
    paths: list[Path]
    labels: list[int]
    pattern: re.Pattern[str] | None = None

    def counts(self) -> dict[str, int]:
        """Return the number of images of each class."""
        return {label: self.labels.count(index) for index, label in enumerate(CLASSES)}

    def names(self, label: str) -> list[str]:
        """Return the names of the files of a class."""
        return [path.name for path, of in zip(self.paths, self.labels, strict=True) if CLASSES[of] == label]

    def patients(self) -> list[str]:
        """Return each image's patient; an image whose name tells none counts as a patient of its own."""
        return [patient_of(path, self.pattern) or str(path) for path in self.paths]


def scan_channels(folders: Mapping[str, Path], pattern: re.Pattern[str] | None = None) -> dict[str, Channel]:
    """List the images of each channel, and check that every channel holds both classes.

    Args:
        folders: channel name to folder, each with one folder per class.
        pattern: where the patient is in a file's name, as `patients.pattern_of` returns it.

    Raises:
        DataError: a channel, a class folder or images are missing, swapped or unknown, or no name has a patient where
            the pattern says.
    """
    channels = {name: _scan_channel(name, root, pattern) for name, root in folders.items()}
    empty = [
        f"{channel.name}/{label}" for channel in channels.values() for label, n in channel.counts().items() if not n
    ]
    if empty:
        raise DataError(no_images(empty))
    if pattern:
        check_pattern(pattern, [path for channel in channels.values() for path in channel.paths])
    return channels


def scan_folder(folder: Path, pattern: re.Pattern[str] | None = None) -> Channel:
    """List a labelled folder's images under the folder's name.

    Raises:
        DataError: no folder, or not of images of both classes, or no name has a patient where the pattern says.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name one with {' and '.join(CLASSES)}.")
    name = real(folder).name
    return scan_channels({name: folder}, pattern)[name]


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is one that a system or a program left there, and is passed over."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


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
        found = f"it has {some(sorted(folders))}" if folders else "it has no folder at all"
        return f"{place} lacks {' and '.join(missing)}: it must hold {wanted}, and {found}."
    if extra := sorted(folder for folder in folders if folder not in CLASSES):
        return f"{place} has more than two classes: it must hold {wanted}, remove {some(extra)}."
    return None


def folders_inside(place: str, folders: Sequence[str]) -> str | None:
    """Return in a sentence that a class folder, such as `train/NORMAL`, has folders in it; None if it has none."""
    return f"{place} must hold images alone, and has the folders {some(folders)}." if folders else None


def swapped_names(channel: str, label: str, names: Sequence[str]) -> str | None:
    """Return in a sentence that most files of a class folder are named as the other class's are; None if they are not.

    Args:
        channel: the channel's name.
        label: the class of the folder.
        names: of the files, without hidden ones.
    """
    wrong = misnamed(label, names)
    if len(wrong) <= SWAPPED_SHARE * len(names):
        return None
    place = f"{channel}/{label}"
    every, most = f"every file of {place} is", f"{len(wrong):,} of {len(names):,} files of {place} are"
    return (
        f"The class folders look swapped: {every if len(wrong) == len(names) else most} named as {_other(label)} are, "
        f"{wrong[0]} among them. Exchange the folders, or rename the files if they lie right."
    )


def misnamed(label: str, names: Iterable[str]) -> list[str]:
    """Return those of a class's file names that name the other class, and not this one."""
    own, other = _NAMED_BY_CLASS[label], _NAMED_BY_CLASS[_other(label)]
    return [name for name in names if other.search(name) and not own.search(name)]


def fingerprint(splits: Mapping[str, Iterable[tuple[int, str]]]) -> str:
    """Return a SHA-256 over which image is in which split under which class, whatever the files are called.

    Args:
        splits: split name to the (label, digest) of each image.
    """
    lines = sorted(f"{name} {CLASSES[label]} {digest}\n" for name, images in splits.items() for label, digest in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _scan_channel(name: str, root: Path, pattern: re.Pattern[str] | None) -> Channel:
    if not root.is_dir():
        raise DataError(
            f"Channel '{name}' is missing: {root} is not a folder. Pass --{name} or set SM_CHANNEL_{name.upper()}."
        )
    folders = [entry.name for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name)]
    if problem := wrong_folders(str(root), folders):
        raise DataError(problem)
    paths: list[Path] = []
    labels: list[int] = []
    for index, label in enumerate(CLASSES):
        files = sorted(path for path in (root / label).iterdir() if not is_hidden(path.name))
        inside = [path.name for path in files if path.is_dir()]
        if problem := folders_inside(f"{name}/{label}", inside) or swapped_names(name, label, [p.name for p in files]):
            raise DataError(problem)
        paths += files
        labels += [index] * len(files)
    return Channel(name, root, paths, labels, pattern)


def _other(label: str) -> str:
    return CLASSES[1 - CLASSES.index(label)]
