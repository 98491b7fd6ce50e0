"""How many damaged JPEG files are noticed, how many whole ones are refused, and what noticing costs.

`python benchmarks/damage.py FOLDER...` takes each JPEG in these folders as it is, and saved anew as baseline and as
progressive file. It damages each copy in several ways, at a place that is drawn for each, and counts refusals. Cost is
the processor time of decoding against that of the same without looking for damage, in turns in the same process. It
prints two Markdown tables.

`python benchmarks/damage.py --whole FOLDER...` decodes each file of any format in these folders as it is, and counts
refusals: none of a whole file is right.
"""

import argparse
import collections
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode, from_pillow

SUFFIXES = {".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".dcm"}
END = b"\xff\xd9"
DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "cut, end marker added": lambda data, at: data[:at] + END,
    "last 100 bytes missing, end marker added": lambda data, at: data[:-100] + END,  # noqa: ARG005
    "4,096 zeros inside": lambda data, at: data[:at] + bytes(4096) + data[at + 4096 :],
    "1,000 bytes removed": lambda data, at: data[:at] + data[at + 1000 :],
    "1,000 bytes repeated": lambda data, at: data[:at] + data[at - 1000 :],
    "100 bytes changed": lambda data, at: (
        data[:at] + bytes(byte ^ 0x5A for byte in data[at : at + 100]) + data[at + 100 :]
    ),
    "one byte changed": lambda data, at: data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :],
}


def is_refused(data: bytes) -> bool:
    """Return whether a file gets no answer."""
    try:
        decode(data)
    except ImageError:
        return True
    return False


def saved(data: bytes, *, progressive: bool) -> bytes:
    """Return a JPEG saved anew."""
    file = io.BytesIO()
    Image.open(io.BytesIO(data)).save(file, "JPEG", quality=90, progressive=progressive)
    return file.getvalue()


def damaged(data: bytes, damage: Callable[[bytes, int], bytes], random: Random) -> bytes:
    """Return a file that is damaged somewhere in the middle 80%."""
    return damage(data, random.randrange(len(data) // 10, len(data) * 9 // 10))


def seconds(function: Callable[[bytes], object], data: bytes) -> float:
    """Return the processor time that a call takes."""
    started = time.process_time()
    function(data)
    return time.process_time() - started


def unwatched(data: bytes) -> None:
    """Decode a file without noticing damage."""
    from_pillow(Image.open(io.BytesIO(data)))


def ratios(files: list[bytes], rounds: int) -> list[float]:
    """Return how long decoding each file takes, as a multiple of what Pillow takes: medians of alternating calls."""
    found = []
    for data in files:
        times = [(seconds(decode, data), seconds(unwatched, data)) for _ in range(rounds)]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        found.append(ours / theirs)
    return found


def count_refused(folder: Path) -> None:
    """Print how many files of a folder there are, by suffix, and which are refused."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    kinds = collections.Counter(path.suffix.lower() for path in paths)
    refused = [path for path in paths if is_refused(path.read_bytes())]
    print(f"{folder.name}: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}; {len(refused)} refused")
    for path in refused:
        print(f"  {path.relative_to(folder)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="a folder of JPEG files, searched through")
    parser.add_argument("--rounds", type=int, default=7, help="times that each is decoded (default: %(default)s)")
    parser.add_argument("--whole", action="store_true", help="only count how many files, as they are, are refused")
    args = parser.parse_args()
    if args.whole:
        for folder in args.folder:
            count_refused(folder)
        return
    paths = [path for folder in args.folder for path in sorted(folder.rglob("*")) if path.suffix in {".jpeg", ".jpg"}]
    originals = [path.read_bytes() for path in paths]
    kinds = {
        "as they are": originals,
        "baseline": [saved(data, progressive=False) for data in originals],
        "progressive": [saved(data, progressive=True) for data in originals],
    }
    print(f"| refused of {len(originals)} | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
    print(f"| whole | {' | '.join(str(sum(map(is_refused, files))) for files in kinds.values())} |", flush=True)
    for name, damage in DAMAGES.items():
        random = Random(name)
        counts = [sum(is_refused(damaged(data, damage, random)) for data in files) for files in kinds.values()]
        print(f"| {name} | {' | '.join(map(str, counts))} |", flush=True)
    print("\n| decoding time, as a multiple of decoding by Pillow alone | median | least | most |\n|---|---|---|---|")
    for name, files in kinds.items():
        found = ratios(files, args.rounds)
        print(f"| {name} | {statistics.median(found):.2f} | {min(found):.2f} | {max(found):.2f} |", flush=True)


if __name__ == "__main__":
    main()
