"""What a DICOM file costs: importing what reads it, decoding, and memory.

`python benchmarks/dicom.py FILE.dcm...` decodes each file in a process of its own, on one core, answers with the
released model, and prints a Markdown table of medians. Memory is what the process grows by at most, above what it has
once everything is imported. The import is the first in that process, with the files in the system's cache.
"""

import argparse
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import preprocess
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.releases.loading import load


def row(path: Path, rounds: int) -> str:
    """Return the table's row for one file."""
    data = path.read_bytes()
    started = time.perf_counter()
    from pneumonia.imaging import dicom  # noqa: F401, PLC0415  # its import is measured

    imported = time.perf_counter() - started
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        image, told = decode(data)
        times.append(1000 * (time.perf_counter() - started))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    probability = load(RELEASED_WEIGHTS).answers(preprocess(image))[0].probabilities["PNEUMONIA"]
    size = f"{image.width} x {image.height}"
    header = " ".join(told) or "none"
    numbers = f"{imported:.2f} | {statistics.median(times):.1f} | {grown:.0f} | {probability:.4f}"
    return f"| {path.name} | {size} | {len(data) / 1e6:.1f} | {numbers} | {header} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=15, help="times that each is decoded (default: %(default)s)")
    args = parser.parse_args()
    print("| file | pixels | MB | import, s | decoding, ms | memory, MB | P(PNEUMONIA) | warnings |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for path in args.file:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            print(pool.submit(row, path, args.rounds).result(), flush=True)


if __name__ == "__main__":
    main()
