"""Runs over folds of a data set: which images each sees, their results and the table."""

import hashlib
import json
import os
import statistics
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.files import sha256, write_json
from pneumonia.training.channels import scan_folder
from pneumonia.training.split import labelled_files, split_by_patient

DIGITS = 12  # of a SHA-256, in settings
Figures = dict[str, float]
Labelled = Sequence[tuple[str, Path]]  # class and path of each file


def folds_of(files: Labelled, count: int) -> list[list[int]]:
    """Divide files into folds, no patient in two of them; return the indices of each fold's files."""
    return list(split_by_patient(files, {str(number): 1 / count for number in range(count)}, seed=0).values())


def splits_of(
    number: int, folds: Sequence[Sequence[int]], files: Labelled, held_out: Collection[int]
) -> dict[str, list[int]]:
    """Return the indices of the files that a run trains, validates and tests on.

    It validates on one fold, tests on the next and trains on the others. Every run tests on all files that are held
    out, and no run trains or validates on one. Of its test fold it keeps only files of classes that no held-out file
    has.

    Args:
        number: that of the run, from 0; after the last fold it begins again.
        folds: three or more, as `folds_of` returns them.
        files: all files.
        held_out: indices of those that are held out.
    """
    validated, tested = number % len(folds), (number + 1) % len(folds)
    here = [[index for index in fold if index not in held_out] for fold in folds]
    train = [index for fold, part in enumerate(here) if fold not in (validated, tested) for index in part]
    classes = {files[index][0] for index in held_out}
    test = [index for index in here[tested] if files[index][0] not in classes] + sorted(held_out)
    return {"train": train, "val": here[validated], "test": test}


def images_of(folder: Path) -> str:
    """Return a labelled folder's name, and a digest of its images: their classes, names and bytes.

    Training's fingerprint leaves the names out; here they decide which patient, and so which fold, an image is of.

    Raises:
        DataError, OSError: as `scan_folder`, or a file that cannot be read.
    """
    channel = scan_folder(folder)
    lines = "".join(f"{label}/{path.name} {sha256(path)}\n" for label, path in labelled_files(channel))
    return f"{channel.name} {hashlib.sha256(os.fsencode(lines)).hexdigest()[:DIGITS]}"


def weights_of(weights: str) -> str:
    """Return what `--weights` names: imagenet, none, or the name of a file and a digest of its bytes.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(weights)
    return weights if weights in {"imagenet", "none"} else f"{path.name} {sha256(path)[:DIGITS]}"


def completed(
    path: Path, settings: Mapping[str, Any], names: Sequence[str], count: int, figures_of: Callable[[str, int], Figures]
) -> dict[str, list[Figures]]:
    """Make the runs that a file lacks, and write it after each.

    Args:
        path: the JSON file; it gets settings and results.
        settings: what all runs in it have in common.
        names: what there are runs of.
        count: how many of each there are to be.
        figures_of: makes a run: from a name and the run's number, from 0, to its figures.

    Returns:
        The figures of all runs in the file, in order.

    Raises:
        SystemExit: the runs in the file had other settings.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"settings": settings, "results": {}}
    if report.get("settings") != settings:
        found = report.get("settings", "settings that it does not name")
        sys.exit(f"{path} is of runs with {found}, not {settings}: name another --output.")
    results: dict[str, list[Figures]] = report["results"]
    for number in range(count):
        for name in names:
            runs = results.setdefault(name, [])
            if len(runs) <= number:
                runs.append(figures_of(name, number))
                write_json(path, report)
    return results


def mean_and_spread(values: Sequence[float]) -> str:
    """Return the mean, and the standard deviation where there are several values."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def table(kind: str, results: Mapping[str, Sequence[Figures]], columns: Mapping[str, str]) -> str:
    """Return mean and standard deviation of runs as a Markdown table.

    Args:
        kind: what the runs of a row have in common.
        results: the runs' figures of each row.
        columns: the figures' names, and what they are called in the table.
    """
    lines = [f"| {kind} | runs | " + " | ".join(columns.values()) + " |", "|---" * (2 + len(columns)) + "|"]
    for row, runs in results.items():
        cells = [mean_and_spread([one[name] for one in runs]) for name in columns]
        lines.append(f"| {row} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
