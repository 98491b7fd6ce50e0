"""How far the heatmap lies from the evidence: patches of X-rays are covered, and the change is drawn as a heatmap.

`python benchmarks/heatmap_offset.py FOLDER` covers, in each X-ray below FOLDER, one square of 16 pixels of the
network's 224 at a time with the X-ray's mean brightness. By how much the released model's evidence changes at each
position is drawn as heatmaps are. Printed is how far the middle of that drawing lies from the square, below it and to
its right, in pixels of 224: the mean over all X-rays with its 95% interval. Squares count by how much they change. They
lie at random, but not near the edges, where half of the change would lie outside the image.
"""

import argparse
import statistics
import sys
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import SIZE, preprocess
from pneumonia.network.heatmap import draw_heatmap
from pneumonia.network.outputs import Engine, Floats
from pneumonia.releases.loading import load

PATCH = 16  # pixels a side
EDGE = 48  # pixels along each edge that no patch touches


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="X-rays, at full size or squashed to 224")
    parser.add_argument("--patches", type=int, default=128, help="in each X-ray (default: %(default)s)")
    args = parser.parse_args()
    engine, random = load().engine, Random(0)
    paths = sorted(path for path in args.folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    offsets = [offset_in(engine, preprocess(decode(path.read_bytes()).image), args.patches, random) for path in paths]
    print(f"| {len(paths)} X-rays | pixels of {SIZE} | 95% interval |\n|---|---|---|")
    for direction, values in zip(("below", "to the right"), zip(*offsets, strict=True), strict=True):
        mean, half = statistics.mean(values), 1.96 * statistics.stdev(values) / len(values) ** 0.5
        print(f"| {direction} | {mean:+.1f} | {mean - half:+.1f} to {mean + half:+.1f} |")


def offset_in(engine: Engine, pixels: Floats, count: int, random: Random) -> tuple[float, float]:
    """Return how far below the patches of one X-ray, and how far right of them, the changes are drawn.

    Args:
        engine: runs the network.
        pixels: the X-ray, float32, shape (1, 3, SIZE, SIZE).
        count: number of patches.
        random: chooses where they are.
    """
    places = [(_place(random), _place(random)) for _ in range(count)]
    covered = np.repeat(pixels, count, axis=0)
    for one, (row, column) in zip(covered, places, strict=True):
        one[:, row : row + PATCH, column : column + PATCH] = pixels.mean((0, 2, 3)).reshape(3, 1, 1)
    before = engine(pixels).evidence[0]
    below, right, weights = 0.0, 0.0, 0.0
    for after, (row, column) in zip(engine(covered).evidence, places, strict=True):
        change = np.abs(after - before)
        drawn, weight = middle(change), float(change.sum())
        below += weight * (drawn[0] - row - PATCH / 2)
        right += weight * (drawn[1] - column - PATCH / 2)
        weights += weight
    return below / weights, right / weights


def _place(random: Random) -> int:
    return random.randint(EDGE, SIZE - EDGE - PATCH)


def middle(change: Floats) -> tuple[float, float]:
    """Return the distance from the top edge, and from the left edge, of the middle of what is drawn, in pixels."""
    alpha = draw_heatmap(change, (SIZE, SIZE)).convert("RGBA").getchannel("A")
    opacity = np.asarray(alpha, np.float64)
    centres = np.arange(SIZE) + 0.5
    total = opacity.sum()
    return float(opacity.sum(1) @ centres / total), float(opacity.sum(0) @ centres / total)


if __name__ == "__main__":
    main()
