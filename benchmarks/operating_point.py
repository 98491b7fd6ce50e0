"""Which rule for the operating point serves best on images of another collection.

`python benchmarks/operating_point.py DIR` reads the answers that `benchmarks/recipe.py --output DIR` kept. Each rule
chooses an operating point on a run's validation images, and is judged on the same run's test images. The script prints
a Markdown table of mean and standard deviation over the runs, and writes JSON where --output says.
"""

import argparse
import csv
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from recipe import answers_file
from runs import Figures, table

from pneumonia.files import write_json
from pneumonia.training.fitting import at_sensitivity

FIGURES = ("balanced_accuracy", "sensitivity", "specificity")


def larger_output(odds: Tensor, _: Tensor) -> Tensor:
    """Return even odds, whatever the images."""
    return torch.zeros_like(odds[0])


def most_balanced_accuracy(odds: Tensor, pneumonia: Tensor) -> Tensor:
    """Return the log-odds, between two images, at which balanced accuracy is highest; of several the middle one."""
    ascending, order = odds.sort()
    is_pneumonia = pneumonia[order]
    missed = is_pneumonia.cumsum(0)[:-1] / is_pneumonia.sum()
    right = (~is_pneumonia).cumsum(0)[:-1] / (~is_pneumonia).sum()
    gain = torch.where(ascending.diff() > 0, right - missed, -1.0)  # between equal images there is no room
    best = torch.isclose(gain, gain.max()).nonzero()
    place = int(best[len(best) // 2])
    return ascending[place : place + 2].mean()


RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the larger output": larger_output,
    "most balanced accuracy": most_balanced_accuracy,
    **{
        f"{share:.0%} sensitivity": functools.partial(at_sensitivity, sensitivity=share)
        for share in (0.99, 0.98, 0.97, 0.96, 0.95, 0.94)
    },
}


def read(path: Path) -> tuple[Tensor, Tensor]:
    """Return log-odds of PNEUMONIA, float64, and whether it is one, bool, each of shape (N,)."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    probabilities = torch.tensor([float(row["probability"]) for row in rows], dtype=torch.float64)
    return probabilities.logit(eps=1e-9), torch.tensor([row["label"] == "PNEUMONIA" for row in rows])


def judge(threshold: Tensor, odds: Tensor, pneumonia: Tensor) -> Figures:
    """Return FIGURES of the answers at a threshold."""
    found = odds >= threshold
    sensitivity = found[pneumonia].double().mean().item()
    specificity = (~found)[~pneumonia].double().mean().item()
    return dict(zip(FIGURES, ((sensitivity + specificity) / 2, sensitivity, specificity), strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Judge every rule on every run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="what benchmarks/recipe.py wrote")
    parser.add_argument("--variant", default="recipe", metavar="NAME", help="whose runs (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="gets the figures as JSON")
    args = parser.parse_args(argv)
    runs = json.loads((args.folder / "recipe.json").read_text())["results"].get(args.variant, [])
    files = [
        [answers_file(args.folder, args.variant, number, split) for split in ("val", "test")]
        for number in range(len(runs))
    ]
    if not files or not all(file.exists() for pair in files for file in pair):
        parser.error(f"{args.folder / 'answers'} has not all runs of {args.variant!r}: repeat benchmarks/recipe.py")
    results: dict[str, list[Figures]] = {rule: [] for rule in RULES}
    for pair in files:
        validation, test = map(read, pair)
        for rule, choose in RULES.items():
            results[rule].append(judge(choose(*validation), *test))
    print(table("rule", results, {name: name for name in FIGURES}))
    if args.output:
        write_json(args.output, {"variant": args.variant, "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
