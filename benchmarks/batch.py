"""How fast `python -m pneumonia.batch.command` is, against what it cannot be much faster than.

`python benchmarks/batch.py FOLDER` answers for a folder's images, `--repeat` times over, in these ways, taking turns
within a round, and prints a Markdown table of medians:

ours            all of pneumonia.batch.command but the imports: listing, loading the model, journal, progress bar, CSV
bare            each file decoded and preprocessed, one after the other, and the same network in batches
bare, threads   the same with a batch's files decoded on all cores; the network waits meanwhile
bare, at once   the same with files decoded on all cores while the network runs
one by one      each file decoded and given to the network alone, as /predict does
network         the network alone on batches that are decoded already: nothing can be faster
"""

import argparse
import contextlib
import io
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.batch.command import answer_all
from pneumonia.batch.sources import files_below
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import preprocess
from pneumonia.network.classifier import BATCH_SIZE, Classifier
from pneumonia.network.outputs import Floats
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.releases.loading import load

Way = Callable[[], None]


def pixels_of(path: Path) -> Floats:
    """Return the network's input for one file, shape (1, 3, SIZE, SIZE)."""
    return preprocess(decode(path.read_bytes()).image)


def batches(paths: list[Path], size: int) -> Iterator[list[Path]]:
    """Yield so many paths at a time."""
    return (paths[start : start + size] for start in range(0, len(paths), size))


def bare(model: Classifier, paths: list[Path], size: int = BATCH_SIZE) -> None:
    """Decode and run the network, straightforwardly."""
    for some in batches(paths, size):
        model.engine(np.concatenate([pixels_of(path) for path in some]))


def bare_threads(model: Classifier, paths: list[Path]) -> None:
    """Decode a batch on all cores, run the network, and so on."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for some in batches(paths, BATCH_SIZE):
            model.engine(np.concatenate(list(pool.map(pixels_of, some))))


def bare_at_once(model: Classifier, paths: list[Path]) -> None:
    """Decode on all cores, and run the network meanwhile."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = pool.map(pixels_of, paths)
        for some in batches(paths, BATCH_SIZE):
            model.engine(np.concatenate(list(itertools.islice(images, len(some)))))


def network(model: Classifier, pixels: Floats, images: int) -> None:
    """Run the network alone on one batch, again and again."""
    for start in range(0, images, BATCH_SIZE):
        model.engine(pixels[: images - start])


def ours(paths: list[Path], folder: Path) -> None:
    """Run the command on a manifest of these files."""
    manifest, output = folder / "manifest.txt", folder / "answers.csv"
    manifest.write_text("".join(f"{path}\n" for path in paths))
    output.unlink(missing_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        if broken := answer_all(str(manifest), output, str(RELEASED_WEIGHTS)):
            raise RuntimeError(f"{broken} images are broken")


def measure(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way, round by round; a first round only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return {name: values[1:] for name, values in seconds.items()}


def table(seconds: dict[str, list[float]], images: int) -> str:
    """Return images per second, and their ratios within the same round, as Markdown."""
    lines = ["| way | images/s, median | least to most | of bare | of the network |", "|---" * 5 + "|"]
    for name, values in seconds.items():
        rates = [images / value for value in values]
        ratios = [
            statistics.median(other / value for other, value in zip(seconds[peer], values, strict=True))
            for peer in ("bare", "network")
        ]
        lines.append(
            f"| {name} | {statistics.median(rates):.1f} | {min(rates):.1f} to {max(rates):.1f} | {ratios[0]:.2f} | "
            f"{ratios[1]:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with images, and with folders of them")
    parser.add_argument("--images", type=int, default=320, metavar="N", help="different ones (%(default)s at most)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="times that each is answered (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(%(default)s)")
    args = parser.parse_args()
    paths = list(files_below(args.folder))
    paths = paths[:: max(1, len(paths) // args.images)][: args.images] * args.repeat
    model = load(RELEASED_WEIGHTS)
    one_batch = np.concatenate([pixels_of(path) for path in paths[:BATCH_SIZE]])
    with tempfile.TemporaryDirectory() as temporary:
        ways: dict[str, Way] = {
            "ours": lambda: ours(paths, Path(temporary)),
            "bare": lambda: bare(model, paths),
            "bare, threads": lambda: bare_threads(model, paths),
            "bare, at once": lambda: bare_at_once(model, paths),
            "one by one": lambda: bare(model, paths, 1),
            "network": lambda: network(model, one_batch, len(paths)),
        }
        seconds = measure(ways, args.rounds)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{os.cpu_count()} cores ({platform.machine()}), {versions}; {len(paths)} images, batches of {BATCH_SIZE}.\n")
    print(table(seconds, len(paths)))


if __name__ == "__main__":
    main()
