"""Training data: the three channels, and the split that makes them.

`python -m pneumonia.training.channels split SOURCE DEST` turns a folder with NORMAL/ and PNEUMONIA/ into train/, val/
and test/, no patient in two of them.
"""

import argparse
import hashlib
import math
import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from pneumonia.errors import ConfigurationError, DataError, ImageError, exit_status
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import SIZE, resize
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
        """Return whose each image is; an image whose name tells no patient counts as one of its own."""
        return [patient_of(path) or str(path) for path in self.paths]


@dataclass(frozen=True)
class Images:
    """A decoded split.

    Attributes:
        pixels: uint8, shape (N, 1, SIZE, SIZE) where all images are gray, as radiographs are, else (N, 3, SIZE, SIZE).
        labels: int64, shape (N,), indices in CLASSES.
        digests: SHA-256 of each file, in the order of the images.
    """

    pixels: Tensor
    labels: Tensor
    digests: list[str]

    def __len__(self) -> int:
        return len(self.labels)


def scan_channels(folders: dict[str, Path]) -> dict[str, Channel]:
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


def load_channel(
    channel: Channel,
    workers: int,
    progress: Callable[[Iterable[object], int], Iterable[object]],
    memory: int | None = None,
) -> Images:
    """Decode every image of a channel once: 50 KB an image, or 150 KB where one has colours.

    Args:
        channel: the files.
        workers: threads that decode; Pillow lets them run side by side.
        progress: wraps the iteration, given it and its length, to show how far it is.
        memory: bytes that the pixels may take; more than that goes to a file without a name in the temporary folder,
            which the system keeps in memory as far as there is room. By default half of what is free, which torchrun's
            processes divide among them.

    Raises:
        DataError: images that cannot be read, by name.
        OSError: the temporary folder cannot be written, or is full; `filename` tells where it is.
    """
    if memory is None:
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's processes on this machine
        memory = psutil.virtual_memory().available // 2 // beside
    try:
        return _load(channel, _room(len(channel.paths), 1, memory), workers, progress)
    except _ColouredError:
        return _load(channel, _room(len(channel.paths), 3, memory), workers, progress)


def fingerprint(splits: Mapping[str, Iterable[tuple[int, str]]]) -> str:
    """Return a SHA-256 over which image is in which split under which class, whatever the files are called.

    Args:
        splits: split name to the (label, digest) of each image.
    """
    lines = sorted(f"{name} {CLASSES[label]} {digest}\n" for name, images in splits.items() for label, digest in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def split_by_patient(files: Sequence[tuple[str, Path]], fractions: dict[str, float], seed: int) -> dict[str, list[int]]:
    """Divide labelled files into splits: no patient in two of them, the classes' shares alike in all.

    Images with the same bytes count as one patient's, whatever their names say. Groups are dealt in random order,
    large ones first, each to the split that lacks most of it.

    Args:
        files: (class, path) pairs.
        fractions: split name to its share of the images; the shares sum to 1.
        seed: the same seed and files give the same split.

    Returns:
        Split name to indices into `files`.
    """
    groups = _group_by_patient(files)
    random.Random(seed).shuffle(groups)
    groups.sort(key=len, reverse=True)  # stable: equal sizes stay shuffled
    lacking = {
        name: Counter({label: share * n for label, n in Counter(label for label, _ in files).items()})
        for name, share in fractions.items()
    }
    chosen: dict[str, list[int]] = {name: [] for name in fractions}
    for group in groups:
        content = Counter(files[index][0] for index in group)
        # Relative to the split's share, else the largest split would take all until the end.
        name = max(
            chosen, key=lambda name: sum(lacking[name][label] * n for label, n in content.items()) / fractions[name]
        )
        chosen[name] += group
        lacking[name].subtract(content)
    return chosen


def patient_of(path: Path) -> str | None:
    """Return the patient that a file's name tells, None where it tells none."""
    match = _PATIENT.match(path.name)
    return f"{match[1]}{int(match[2])}" if match else None


class _ColouredError(Exception):
    """An image has colours, and only one channel was kept for it."""


def _room(count: int, depth: int, memory: int) -> Tensor:
    """Return room for decoded images, uint8, shape (count, depth, SIZE, SIZE)."""
    shape = (count, depth, SIZE, SIZE)
    if math.prod(shape) <= memory:
        return torch.empty(shape, dtype=torch.uint8)
    try:
        with tempfile.NamedTemporaryFile(prefix="pneumonia-images-") as file:  # the mapping outlives the name
            for _ in range(count):  # into a file with holes a full disk would end the process with SIGBUS
                file.write(bytes(math.prod(shape[1:])))
            file.flush()
            return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=torch.uint8).view(shape)
    except OSError as error:
        error.filename = error.filename or tempfile.gettempdir()  # a full disk is told without a name
        raise


def _load(
    channel: Channel, pixels: Tensor, workers: int, progress: Callable[[Iterable[object], int], Iterable[object]]
) -> Images:
    images = Images(pixels, torch.tensor(channel.labels), [""] * len(channel.paths))
    depth = pixels.shape[1]

    def load(index: int) -> str | None:
        path = channel.paths[index]
        try:
            data = path.read_bytes()
            image = resize(decode(data).image)
        except (ImageError, OSError) as error:
            return f"{channel.name}/{path.relative_to(channel.root)} ({error})"
        if depth == 1 and not (torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])):
            raise _ColouredError
        pixels[index] = image[:depth]
        images.digests[index] = hashlib.sha256(data).hexdigest()
        return None

    with ThreadPoolExecutor(workers) as pool:
        try:
            results = progress(pool.map(load, range(len(channel.paths))), len(channel.paths))
            broken = [problem for problem in results if problem]
        except _ColouredError:
            pool.shutdown(cancel_futures=True)
            raise
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise DataError(f"Images cannot be read, remove or replace them: {'; '.join(map(str, broken[:3]))}{more}")
    return images


def _scan_channel(name: str, root: Path) -> Channel:
    if not root.is_dir():
        raise DataError(
            f"Channel '{name}' is missing: {root} is not a folder. Pass --{name} or set SM_CHANNEL_{name.upper()}."
        )
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    wanted = f"exactly the folders {' and '.join(CLASSES)}"
    if missing := [label for label in CLASSES if label not in folders]:
        found = f"it has {', '.join(folders)}" if folders else "it has no folder at all"
        raise DataError(f"{root} lacks {' and '.join(missing)}: it must hold {wanted}, and {found}.")
    if extra := [folder for folder in folders if folder not in CLASSES]:
        raise DataError(f"{root} has more than two classes: it must hold {wanted}, remove {', '.join(extra)}.")
    paths: list[Path] = []
    labels: list[int] = []
    for index, label in enumerate(CLASSES):
        files = sorted(path for path in (root / label).iterdir() if not path.name.startswith("."))
        _check_not_swapped(name, label, files)
        paths += files
        labels += [index] * len(files)
    return Channel(name, root, paths, labels)


def _check_not_swapped(channel: str, label: str, files: list[Path]) -> None:
    for other, pattern in _NAMED_BY_CLASS.items():
        if other != label and files and all(pattern.match(path.name) for path in files):
            raise DataError(
                f"The class folders look swapped: every file of {channel}/{label} is named as {other} are, "
                f"{files[0].name} among them. Exchange the folders, or rename the files if they lie right."
            )


def _group_by_patient(files: Sequence[tuple[str, Path]]) -> list[list[int]]:
    group_of: dict[str, list[int]] = {}
    by_bytes: dict[str, list[int]] = {}
    for index, (_, path) in enumerate(files):
        patient = patient_of(path) or str(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        group = group_of.setdefault(patient, [])
        group.append(index)
        twin = by_bytes.setdefault(digest, group)
        if twin is not group:  # the same picture under two patients: they become one
            group += twin
            for table in (group_of, by_bytes):
                table.update({key: group for key, value in table.items() if value is twin})
    return list({id(group): group for group in group_of.values()}.values())


def _split_command(arguments: argparse.Namespace) -> None:
    source, destination = Path(arguments.source), Path(arguments.destination)
    fractions = {"train": 1 - arguments.val - arguments.test, "val": arguments.val, "test": arguments.test}
    if not min(fractions.values()) > 0:  # "not above" rather than "below": NaN compares false
        raise ConfigurationError("--val and --test must be above 0 and leave something for training.")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise DataError(f"{destination} is there already and nothing is overwritten: name a new folder or empty it.")
    if not source.is_dir():
        raise DataError(f"{source} is not a folder: name one with {' and '.join(CLASSES)}.")
    channel = scan_channels({"source": source})["source"]
    files = [(CLASSES[label], path) for label, path in zip(channel.labels, channel.paths, strict=True)]
    splits = split_by_patient(files, fractions, arguments.seed)
    for name, indices in splits.items():
        if missing := set(CLASSES) - {files[index][0] for index in indices}:
            raise DataError(f"Too few patients: {name} would get no {' and no '.join(sorted(missing))}.")

    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as temporary:
        whole = Path(temporary) / "split"
        for name, indices in splits.items():
            for label in CLASSES:
                (whole / name / label).mkdir(parents=True)
            for label, path in (files[index] for index in indices):
                _place(path, whole / name / label / path.name, link=arguments.link)
        whole.replace(destination)
    _report(files, splits)


def _place(source: Path, destination: Path, *, link: bool) -> None:
    if link:
        destination.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, destination)


def _report(files: Sequence[tuple[str, Path]], splits: dict[str, list[int]]) -> None:
    print(f"{'split':<6} {'patients':>9} " + " ".join(f"{label:>9}" for label in CLASSES))
    for name, indices in splits.items():
        patients = len({patient_of(files[index][1]) or files[index][1] for index in indices})
        counts = Counter(files[index][0] for index in indices)
        print(f"{name:<6} {patients:>9} " + " ".join(f"{counts[label]:>9}" for label in CLASSES))
    if unnamed := sum(patient_of(path) is None for _, path in files):
        print(f"{unnamed} file names tell no patient; each of these images was taken for a patient of its own.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `split`; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pneumonia.training.channels", description="Prepare training data.")
    split = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "split", help="divide a labelled folder into train/, val/ and test/ by patient"
    )
    split.add_argument("source", metavar="SOURCE", help="folder with NORMAL/ and PNEUMONIA/")
    split.add_argument("destination", metavar="DEST", help="folder to make; never overwritten")
    split.add_argument("--val", type=float, default=0.15, help="share of the images for validation (%(default)s)")
    split.add_argument("--test", type=float, default=0.15, help="share of the images for the test (%(default)s)")
    split.add_argument("--seed", type=int, default=0, help="same seed, same split (%(default)s)")
    split.add_argument("--link", action="store_true", help="make symbolic links instead of copies")
    return exit_status(lambda: _split_command(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
