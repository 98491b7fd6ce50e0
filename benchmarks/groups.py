"""Which groups of images a model does worst on.

`python benchmarks/groups.py FOLDER WEIGHTS...` evaluates each weights file, its manifest beside it, on the images of
FOLDER/{NORMAL,PNEUMONIA}, as it serves, by group: what file names tell of bacteria and viruses and of the two
collections of normal images, the file's size and the mean gray level in thirds, and whether a letter is in an upper
corner (benchmarks/letters.py). It prints a Markdown table with 95% intervals, by resampling patients, and names the
groups with the lowest figures. It writes JSON where --output says.

A group of one class has the AUROC of its images against all images of the other class.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from letters import has_letter
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.files import write_json
from pneumonia.network.contract import CLASSES
from pneumonia.releases.loading import load
from pneumonia.training import metrics
from pneumonia.training.channels import Channel, scan_folder
from pneumonia.training.evaluate import Answered, answers_to
from pneumonia.training.images import Images, load_channel

Mask = npt.NDArray[np.bool_]
NAMED: dict[str, Callable[[str], bool]] = {
    "bacteria": lambda name: "bacteria" in name.lower(),
    "virus": lambda name: "virus" in name.lower(),
    "IM-": lambda name: name.startswith("IM-"),
    "NORMAL2-": lambda name: name.startswith("NORMAL2-"),
}
# Each figure, and the class that a group must have for it; AUROC is there for every group.
FIGURES = {"sensitivity": "PNEUMONIA", "specificity": "NORMAL", "auroc": None}
FEWEST = 20  # images that a figure rests on, for a group to be called the worst


def groups_of(channel: Channel, images: Images) -> dict[str, Mask]:
    """Return which images belong to each group, shape (N,); groups without images are left out."""
    sizes = [path.stat().st_size / 1000 for path in channel.paths]
    grays = images.pixels.float().mean((1, 2, 3)).tolist()
    letter = np.array([has_letter(Image.fromarray(film.numpy())) for film in images.pixels[:, 0]])
    groups = {
        "all": np.ones(len(images), bool),
        **{kind: np.array([of_kind(path.name) for path in channel.paths]) for kind, of_kind in NAMED.items()},
        **thirds("file, KB", sizes),
        **thirds("mean gray level", grays),
        "letter in a corner": letter,
        "no letter in a corner": ~letter,
    }
    return {name: mask for name, mask in groups.items() if mask.any()}


def thirds(name: str, values: Sequence[float]) -> dict[str, Mask]:
    """Return which images belong to the lowest, the middle and the highest third of a value."""
    given = np.array(values)
    first, second = np.quantile(given, [1 / 3, 2 / 3])
    return {
        f"{name}: to {first:.1f}": given <= first,
        f"{name}: {first:.1f} to {second:.1f}": (first < given) & (given <= second),
        f"{name}: above {second:.1f}": given > second,
    }


def figures(answered: Answered, group: Mask) -> dict[str, Any]:
    """Return a group's figures with their intervals; those of a class that the group lacks are None."""
    labels = answered.images.labels.numpy()
    counts = {name: int((group & (labels == label)).sum()) for label, name in enumerate(CLASSES)}
    missing = [label for label, name in enumerate(CLASSES) if not counts[name]]
    chosen = np.flatnonzero(group | np.isin(labels, missing))
    everyone = answered.channel.patients()
    patients = [everyone[index] for index in chosen]
    summary = metrics.summarize(answered.probabilities[chosen], answered.images.labels[chosen], patients)
    has = {name: needed is None or counts[needed] > 0 for name, needed in FIGURES.items()}
    return {
        "counts": counts,
        **{name: summary[name] if has[name] else None for name in FIGURES},
        "intervals": {name: summary["intervals"][name] for name in FIGURES if has[name]},
    }


def worst(groups: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return for each figure the group in which it is lowest; small groups count only if all are small."""
    found = {}
    for name, needed in FIGURES.items():
        values = {group: one[name] for group, one in groups.items() if one[name] is not None}
        large = [group for group in values if images_behind(groups[group], needed) >= FEWEST]
        found[name] = min(large or values, key=lambda group: values[group])
    return found


def images_behind(group: dict[str, Any], needed: str | None) -> int:
    """Return how many images of its smaller class, or of the needed one, a group's figure rests on."""
    counts: dict[str, int] = group["counts"]
    return counts[needed] if needed else min(count for count in counts.values() if count)


def cell(group: dict[str, Any], name: str) -> str:
    """Return a figure with its interval, none where all resamples agree; nothing where there is no figure."""
    if group[name] is None:
        return ""
    low, high = group["intervals"][name]
    return f"{group[name]:.3f} ({low:.3f} to {high:.3f})" if low < high else f"{group[name]:.3f}"


def table(releases: dict[str, dict[str, Any]]) -> str:
    """Return the figures of all models as a Markdown table, and below it the worst groups."""
    lines = ["| weights | group | normals | pneumonias | sensitivity | specificity | AUROC |", "|---" * 7 + "|"]
    for name, report in releases.items():
        for group, one in report["groups"].items():
            cells = [name, group, *map(str, one["counts"].values()), *(cell(one, figure) for figure in FIGURES)]
            lines.append("| " + " | ".join(cells) + " |")
    for name, report in releases.items():
        lowest = [
            f"{figure} {report['groups'][group][figure]:.3f} ({group})" for figure, group in report["worst"].items()
        ]
        lines += ["", f"Lowest of {name}: {', '.join(lowest)}."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate all weights on all groups."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument("weights", type=Path, nargs="+", metavar="WEIGHTS", help="weights files")
    parser.add_argument("--output", type=Path, metavar="FILE", help="gets the figures as JSON")
    args = parser.parse_args(argv)
    models = {str(path): load(path) for path in args.weights}
    channel = scan_folder(args.folder)
    images = load_channel(channel, torch.get_num_threads())
    masks = groups_of(channel, images)
    releases = {}
    for name, model in models.items():
        answered = answers_to(channel, images, model, 32)
        groups = {group: figures(answered, mask) for group, mask in masks.items()}
        releases[name] = {"groups": groups, "worst": worst(groups)}
    if args.output:
        write_json(args.output, {"folder": channel.name, "images": len(images), "releases": releases})
    print(table(releases))
    return 0


if __name__ == "__main__":
    sys.exit(main())
