"""Runs over folds of a data set, for recipe.py, ways.py and operating_point.py: their images, results and table."""

import json
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.training.split import split_by_patient

Labelled = Sequence[tuple[str, Path]]  # class and path of each file


def folds_of(files: Labelled, count: int) -> list[list[int]]:
    """Divide files into folds, no patient in two of them; return the indices of each fold's."""
    return list(split_by_patient(files, {str(number): 1 / count for number in range(count)}, seed=0).values())


def splits_of(
    run: int, folds: Sequence[Sequence[int]], files: Labelled, held_out: Collection[int]
) -> dict[str, list[int]]:
    """Return which files a run trains and validates on, and which it tests on, as indices.

    It validates on one fold, tests on the next and trains on the others. Files that are held out are only tested on, by
    every run, and with them only those files of its test fold whose class none of them has.

    Args:
        run: its number.
        folds: as `folds_of` returns them.
        files: all files.
        held_out: indices of those that are held out.
    """
    validated, tested = run % len(folds), (run + 1) % len(folds)
    here = [[index for index in fold if index not in held_out] for fold in folds]
    train = [index for number, fold in enumerate(here) if number not in (validated, tested) for index in fold]
    classes = {files[index][0] for index in held_out}
    test = [index for index in here[tested] if files[index][0] not in classes] + sorted(held_out)
    return {"train": train, "val": here[validated], "test": test}


def results_in(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings and the results of earlier runs in a file, or those settings and no results.

    Raises:
        SystemExit: the runs there had other settings.
    """
    if not path.exists():
        return {"settings": settings, "results": {}}
    report: dict[str, Any] = json.loads(path.read_text())
    if report["settings"] != settings:
        sys.exit(f"{path} is of runs with {report['settings']}: name another --output.")
    return report


def mean_and_spread(values: Sequence[float]) -> str:
    """Return the mean, and the standard deviation where there are several values."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def table(kind: str, results: Mapping[str, Sequence[Mapping[str, float]]], columns: Mapping[str, str]) -> str:
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
