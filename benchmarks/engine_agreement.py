"""Compare P(PNEUMONIA) of both engines, image by image.

`python benchmarks/engine_agreement.py FOLDER...` classifies all images in the folders with the released model: with
PyTorch one by one, and with ONNX Runtime in batches of 1, 5 and 64, from the released ONNX file and from one in half
precision. It prints a Markdown table of how far the probabilities are from PyTorch's, and for how many images the class
changes. It ends at a file that cannot be read.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from serving_bucket import released_manifest, write_in_half
from serving_tables import headed

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.batch.sources import files_below
from pneumonia.network.calibration import is_pneumonia
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.releases.loading import load

BATCHES = (1, 5, 64)


def suspicions(engine: str, weights: Path, images: list[Path], batch: int) -> list[float]:
    """Return P(PNEUMONIA) of each image with one engine, in batches.

    Raises:
        ImageError: an image cannot be read.
    """
    os.environ["ENGINE"] = engine
    answers = []
    for answer in load(weights).predict_many(images, batch):
        if isinstance(answer, Exception):
            raise answer
        answers.append(answer.probabilities["PNEUMONIA"])
    return answers


def row(name: str, batch: int, expected: list[float], found: list[float]) -> str:
    """Return how far the probabilities found are from those expected, as a line of the table."""
    differences = [abs(one - other) for one, other in zip(expected, found, strict=True)]
    changed = sum(is_pneumonia(one) != is_pneumonia(other) for one, other in zip(expected, found, strict=True))
    return f"| {name} | {batch} | {max(differences):.6f} | {statistics.mean(differences):.6f} | {changed} |"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    images = [path for folder in parser.parse_args().folders for path in files_below(folder)]
    manifest = released_manifest()
    with tempfile.TemporaryDirectory() as temporary:
        half = Path(temporary) / "half"
        write_in_half(half, load_weights(RELEASED_WEIGHTS), manifest)
        precision = manifest.onnx.precision if manifest.onnx else "none"
        ways = {f"released, {precision}": RELEASED_WEIGHTS.parent, "half": half}
        expected = suspicions("torch", RELEASED_WEIGHTS.parent, images, 1)
        print(f"{len(images)} images, against PyTorch one by one:\n")
        print("\n".join(headed("ONNX file", "batch", "largest difference of P", "mean", "classes changed")))
        for name, folder in ways.items():
            for batch in BATCHES:
                print(row(name, batch, expected, suspicions("onnx", folder, images, batch)), flush=True)


if __name__ == "__main__":
    main()
