"""Divide a labelled folder into train/, val/ and test/ so that no patient is in two of them. Does not import torch."""

import argparse
import hashlib
import random
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pneumonia.command import local_path, say
from pneumonia.errors import ConfigurationError, DataError, ImageError
from pneumonia.files import check_unused, filling, naming, real
from pneumonia.imaging.reading import read_file
from pneumonia.network.contract import CLASSES
from pneumonia.training.channels import Channel, scan_folder
from pneumonia.training.data_checking import about_names, check_labels, check_readable, tell, unreadable
from pneumonia.training.patients import PATTERN_HELP, joined, patient_of, pattern_of

EPILOG = "example: pneumonia split all_images chest_xray --val 0.1 --test 0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("source", type=local_path, metavar="SOURCE", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument("destination", type=local_path, metavar="DEST", help="folder to make; never overwritten")
    parser.add_argument(
        "--val", type=float, default=0.15, metavar="X", help="share of the images for validation (%(default)s)"
    )
    parser.add_argument(
        "--test", type=float, default=0.15, metavar="X", help="share of the images for the test (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same split (%(default)s)")
    parser.add_argument("--patients", default="", metavar="PATTERN", help=PATTERN_HELP)
    parser.add_argument("--link", action="store_true", help="make symbolic links instead of copies")


def run(args: argparse.Namespace) -> None:
    """Make the split, whole or not at all, and print what is in it.

    Raises:
        ConfigurationError: shares that leave nothing for a split, or a pattern that is none.
        DataError: a source that cannot be split, or a destination that is there already.
        OSError: a file cannot be read or written.
    """
    pattern = pattern_of(args.patients)
    fractions = {"train": 1 - args.val - args.test, "val": args.val, "test": args.test}
    if not min(fractions.values()) > 0:  # "not above" rather than "below": NaN compares false
        raise ConfigurationError("--val and --test must be above 0 and leave something for training.")
    check_unused(args.destination)
    if real(args.destination).is_relative_to(real(args.source)):
        raise ConfigurationError(f"{args.destination} would be among the images: name a folder elsewhere.")
    channel = scan_folder(args.source, pattern)
    tell(about_names([channel]), sys.stderr)
    files = labelled_files(channel)
    splits = split_by_patient(files, fractions, args.seed, pattern)
    for name, indices in splits.items():
        if missing := set(CLASSES) - {files[index][0] for index in indices}:
            raise DataError(f"Too few patients: {name} would get no {' and no '.join(sorted(missing))}.")
    with filling(args.destination) as folder:
        place(files, splits, folder, link=args.link)
    say(*table(files, splits, pattern).split("\n"))


def labelled_files(channel: Channel) -> list[tuple[str, Path]]:
    """Return the (class, path) pairs of a labelled folder."""
    return [(CLASSES[label], path) for label, path in zip(channel.labels, channel.paths, strict=True)]


def split_by_patient(
    files: Sequence[tuple[str, Path]],
    fractions: Mapping[str, float],
    seed: int,
    pattern: re.Pattern[str] | None = None,
) -> dict[str, list[int]]:
    """Divide labelled files into splits: no patient in two of them, the classes' shares alike in all.

    Images with the same bytes count as one patient's, whatever their names say. Groups are dealt in random order,
    large ones first, each to the split that lacks most of it.

    Args:
        files: (class, path) pairs.
        fractions: split name to its share of the images; the shares sum to 1.
        seed: the same seed and files give the same split.
        pattern: where the patient is in a file's name, as `pattern_of` returns it.

    Returns:
        Split name to indices into `files`.

    Raises:
        DataError: an image is in both classes, byte for byte.
    """
    groups = _group_by_patient(files, pattern)
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
                destination.symlink_to(real(path))
            else:
                data = read_file(path)
                with naming(destination):
                    destination.write_bytes(data)


def table(
    files: Sequence[tuple[str, Path]],
    splits: Mapping[str, Sequence[int]],
    pattern: re.Pattern[str] | None = None,
) -> str:
    """Return how many patients and images of each class each split has, as text for a terminal."""
    lines = [f"{'split':<6} {'patients':>9} " + " ".join(f"{label:>9}" for label in CLASSES)]
    for name, indices in splits.items():
        patients = len({patient_of(files[index][1], pattern) or files[index][1] for index in indices})
        counts = Counter(files[index][0] for index in indices)
        lines.append(f"{name:<6} {patients:>9} " + " ".join(f"{counts[label]:>9}" for label in CLASSES))
    return "\n".join(lines)


def digests_of(channel: Channel) -> list[str]:
    """Return the SHA-256 of each file of a channel.

    Raises:
        DataError: files that cannot be read, or are no images by their size or kind; it names them.
    """
    digests, broken = [], []
    for path in channel.paths:
        try:
            digests.append(hashlib.sha256(read_file(path)).hexdigest())
        except (ImageError, OSError) as error:
            broken.append(unreadable(channel, path, error))
    check_readable(broken)
    return digests


def _group_by_patient(files: Sequence[tuple[str, Path]], pattern: re.Pattern[str] | None) -> list[list[int]]:
    """Return the indices of each patient's files; patients who share an image, byte for byte, become one."""
    paths, labels = [path for _, path in files], [CLASSES.index(label) for label, _ in files]
    channel = Channel(paths[0].parent.parent.name, paths[0].parent.parent, paths, labels, pattern)
    digests = digests_of(channel)
    check_labels([(channel, digests)])
    groups: dict[str, list[int]] = {}
    for index, patient in enumerate(joined(channel.patients(), digests)):
        groups.setdefault(patient, []).append(index)
    return list(groups.values())
