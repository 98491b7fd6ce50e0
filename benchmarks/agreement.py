"""Whether answers depend on how the same radiograph is stored.

`python benchmarks/agreement.py FIRST.csv SECOND.csv` compares two `predictions.csv` that
`python -m pneumonia.training.evaluate` wrote for folders of the same images, at full size in one and squashed to 224
pixels in the other say, by file name, and prints JSON: images in both, share of
them with the same class, mean and largest difference of P(PNEUMONIA), and the names that changed class.
"""

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows by file name without folder and ending."""
    with path.open(newline="", encoding="utf-8") as file:
        return {Path(row["file"]).stem: row for row in csv.DictReader(file)}


def compare(first: dict[str, dict[str, str]], second: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return how far two sets of answers agree on the images that are in both."""
    common = sorted(first.keys() & second.keys())
    differences = [abs(float(first[name]["probability"]) - float(second[name]["probability"])) for name in common]
    changed = [name for name in common if first[name]["prediction"] != second[name]["prediction"]]
    return {
        "images": len(common),
        "same_class": 1 - len(changed) / len(common),
        "mean_difference": statistics.mean(differences),
        "largest_difference": max(differences),
        "changed": changed,
    }


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("Two files are expected: python benchmarks/agreement.py FIRST.csv SECOND.csv")
    print(json.dumps(compare(*(read(Path(name)) for name in sys.argv[1:])), indent=2))
