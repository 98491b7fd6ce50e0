"""Divide a labelled folder into train/, val/ and test/ so that no patient is in two of them. Does not import torch."""

import argparse
import random
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pneumonia.errors import ConfigurationError, DataError
from pneumonia.files import check_unused, filling, sha256
from pneumonia.network.contract import CLASSES
from pneumonia.training.channels import patient_of, scan_channels

EPILOG = "example: pneumonia split all_images chest_xray --val 0.1 --test 0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument("destination", type=Path, metavar="DEST", help="folder to make; never overwritten")
    parser.add_argument(
        "--val", type=float, default=0.15, metavar="X", help="share of the images for validation (%(default)s)"
    )
    parser.add_argument(
        "--test", type=float, default=0.15, metavar="X", help="share of the images for the test (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same split (%(default)s)")
    parser.add_argument("--link", action="store_true", help="make symbolic links instead of copies")


def run(args: argparse.Namespace) -> None:
    """Make the split, whole or not at all, and print what is in it.

    Raises:
        ConfigurationError: shares that leave nothing for a split.
        DataError: a source that cannot be split, or a destination that is there already.
        OSError: a file cannot be read or written.
    """
    fractions = {"train": 1 - args.val - args.test, "val": args.val, "test": args.test}
    if not min(fractions.values()) > 0:  # "not above" rather than "below": NaN compares false
        raise ConfigurationError("--val and --test must be above 0 and leave something for training.")
    check_unused(args.destination)
    if args.destination.resolve().is_relative_to(args.source.resolve()):
        raise ConfigurationError(f"{args.destination} would be among the images: name a folder elsewhere.")
    files = labelled_files(args.source)
    splits = split_by_patient(files, fractions, args.seed)
    for name, indices in splits.items():
        if missing := set(CLASSES) - {files[index][0] for index in indices}:
            raise DataError(f"Too few patients: {name} would get no {' and no '.join(sorted(missing))}.")
    with filling(args.destination) as folder:
        place(files, splits, folder, link=args.link)
    print(table(files, splits))


def labelled_files(folder: Path) -> list[tuple[str, Path]]:
    """Return the (class, path) pairs of a labelled folder.

    Raises:
        DataError: no folder, or not of images of both classes.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name one with {' and '.join(CLASSES)}.")
    channel = scan_channels({"source": folder})["source"]
    return [(CLASSES[label], path) for label, path in zip(channel.labels, channel.paths, strict=True)]


def split_by_patient(
    files: Sequence[tuple[str, Path]], fractions: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
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


def place(files: Sequence[tuple[str, Path]], splits: Mapping[str, Sequence[int]], folder: Path, *, link: bool) -> None:
    """Lay out labelled files as `folder/<split>/<class>/<name>`.

    Args:
        files: (class, path) pairs.
        splits: split name to indices into `files`.
        folder: folder to write into.
        link: make symbolic links instead of copies.

    Raises:
        OSError: a file cannot be read or written.
    """
    for name, indices in splits.items():
        for label in CLASSES:
            (folder / name / label).mkdir(parents=True)
        for label, path in (files[index] for index in indices):
            destination = folder / name / label / path.name
            if link:
                destination.symlink_to(path.resolve())
            else:
                shutil.copyfile(path, destination)


def table(files: Sequence[tuple[str, Path]], splits: Mapping[str, Sequence[int]]) -> str:
    """Return how many patients and images of each class each split has, as text for a terminal."""
    lines = [f"{'split':<6} {'patients':>9} " + " ".join(f"{label:>9}" for label in CLASSES)]
    for name, indices in splits.items():
        patients = len({patient_of(files[index][1]) or files[index][1] for index in indices})
        counts = Counter(files[index][0] for index in indices)
        lines.append(f"{name:<6} {patients:>9} " + " ".join(f"{counts[label]:>9}" for label in CLASSES))
    if unnamed := sum(patient_of(path) is None for _, path in files):
        lines.append(f"{unnamed} file names tell no patient; each of these images was taken for a patient of its own.")
    return "\n".join(lines)


def _group_by_patient(files: Sequence[tuple[str, Path]]) -> list[list[int]]:
    """Return the indices of each patient's files; patients who share an image, byte for byte, become one."""
    group_of: dict[str, list[int]] = {}
    by_bytes: dict[str, list[int]] = {}
    for index, (_, path) in enumerate(files):
        patient = patient_of(path) or str(path)
        digest = sha256(path)
        group = group_of.setdefault(patient, [])
        group.append(index)
        twin = by_bytes.setdefault(digest, group)
        if twin is not group:
            group += twin
            for known in (group_of, by_bytes):
                known.update({key: group for key, value in known.items() if value is twin})
    return list({id(group): group for group in group_of.values()}.values())
