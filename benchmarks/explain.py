"""What a heatmap costs: the same request with it and without it.

`python benchmarks/explain.py XRAY...` asks the app about each X-ray in turn, plainly and with `explain=true`, within
one process and without a network, by the released model on all cores, and prints a Markdown table of medians.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.releases.fetch import RELEASED_WEIGHTS, Weights
from pneumonia.serving.predictor import Predictor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("xray", type=Path, nargs="+", help="an X-ray of ordinary size, and others")
    parser.add_argument("--rounds", type=int, default=30, help="requests of each kind (default: %(default)s)")
    args = parser.parse_args()
    predictor = Predictor(Weights(RELEASED_WEIGHTS))
    predictor.load()
    print("| pixels | plain, ms | with heatmap, ms | more, ms | KB of base64 |\n|---|---|---|---|---|")
    for path in args.xray:
        data = path.read_bytes()
        with Image.open(path) as image:
            width, height = image.size
        plain, explained, more = [], [], []
        for _ in range(args.rounds):
            started = time.perf_counter()
            predictor.predict(data)
            between = time.perf_counter()
            heatmap = predictor.explain(data).heatmap
            ended = time.perf_counter()
            plain.append(1000 * (between - started))
            explained.append(1000 * (ended - between))
            more.append(explained[-1] - plain[-1])
        medians = " | ".join(f"{statistics.median(times):.1f}" for times in (plain, explained, more))
        print(f"| {width} x {height} | {medians} | {len(heatmap or '') / 1000:.0f} |")


if __name__ == "__main__":
    main()
