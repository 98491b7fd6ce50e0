"""How fast training is, against a straightforward loop and against what the device could do at most.

`python benchmarks/training.py FOLDER` trains on up to `--images` files of FOLDER/{NORMAL,PNEUMONIA} in these ways, each
in a process of its own, in turn, `--rounds` times over, and prints a Markdown table of medians:

straightforward  what tutorials show: ImageFolder, DataLoader with a worker for each core, float32; files decoded at
                 every epoch
ours             train_model.py's own loop at 224 pixels: images decoded once, varied in batches on the device
ours, small      the same at the size of the first two thirds of its epochs
ceiling          the network, loss and optimiser of ours on one batch that lies on the device already: nothing is
                 loaded or varied
ceiling, small   the same at the smaller size

The first epoch of ours includes decoding, as nobody can train before. Images per second of processor time, summed over
all cores and processes, can be compared even on a busy machine if OMP_WAIT_POLICY=passive keeps waiting threads from
using any. Peak memory is measured for the process, for it and its workers together (Linux, sampled), and on the GPU
where there is one.

`--steps N` ends each epoch after N steps, to measure memory with many images; the first epoch of ours decodes them all.
`--profile WAY` prints instead which operations an epoch's time goes to.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
import torchvision
from torch.nn import functional
from torch.utils.data import DataLoader, Subset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parent.parent))
# Tutorials do not ask for huge pages. Importing train_model.py does, unless the variable is set before.
os.environ["THP_MEM_ALLOC_ENABLE"] = "0" if "straightforward" in sys.argv else "1"
import train_model
from pneumonia.imaging.preprocessing import MEAN, SIZE, STD
from pneumonia.memory import spare_memory_in_training
from pneumonia.training.batches import Split, load_splits, shuffled_batches
from pneumonia.training.channels import scan_channels
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.pretrained import build_network
from pneumonia.training.processes import Processes
from pneumonia.training.run import Run, training_precision

BATCH_SIZE = 32
SAMPLED = 0.5  # seconds between two looks at the memory of a training's processes


def straightforward(folder: Path, images: int, steps: int, _: torch.dtype) -> Callable[[], int]:
    """Return what trains an epoch of so many steps as tutorials do, and returns the number of images it saw."""
    transform = [transforms.Resize((SIZE, SIZE)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    dataset = torchvision.datasets.ImageFolder(str(folder), transforms.Compose(transform))
    chosen = Subset(dataset, evenly(len(dataset), images))
    loader = DataLoader(
        chosen, BATCH_SIZE, shuffle=True, num_workers=os.cpu_count() or 1, pin_memory=torch.cuda.is_available()
    )
    place = device()
    model = torchvision.models.resnet18(num_classes=2).to(place)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> int:
        model.train()
        total = 0.0
        for pixels, labels in itertools.islice(loader, steps):
            loss = functional.cross_entropy(model(pixels.to(place)), labels.to(place))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        return min(len(chosen), steps * BATCH_SIZE)

    return epoch


def ours(folder: Path, images: int, steps: int, precision: torch.dtype, size: int) -> Callable[[], int]:
    """Return what trains an epoch with train_model.py's loop; the first one decodes the images."""
    processes = Processes(1, 0, device())
    channel = scan_channels({"train": folder})["train"]
    chosen = evenly(len(channel.paths), images)
    channel = dataclasses.replace(
        channel, paths=[channel.paths[index] for index in chosen], labels=[channel.labels[index] for index in chosen]
    )
    run = started_run(len(chosen), precision, processes)
    split: Split | None = None

    def epoch() -> int:
        nonlocal split
        split = split or load_splits({"train": channel}, os.cpu_count() or 1, processes)["train"]
        batches = shuffled_batches(split, BATCH_SIZE, processes, "epoch")
        train_model.train_one_epoch(run, itertools.islice(batches, steps), size)
        return min(len(chosen), steps * BATCH_SIZE)

    return epoch


def ceiling(_: Path, images: int, steps: int, precision: torch.dtype, size: int) -> Callable[[], int]:
    """Return what takes an epoch's optimiser steps on one batch."""
    processes = Processes(1, 0, device())
    run = started_run(images, precision, processes)
    batch = torch.randn(BATCH_SIZE, 3, size, size, device=processes.device).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.arange(BATCH_SIZE, device=processes.device) % 2

    def epoch() -> int:
        run.model.train()
        for _ in range(steps):
            run.step(batch, labels)
        if processes.device.type == "cuda":
            torch.cuda.synchronize()
        return steps * BATCH_SIZE

    return epoch


def started_run(images: int, precision: torch.dtype, processes: Processes) -> Run:
    """Return train_model.py's network and optimiser, random at the start, for many epochs; spare memory as it does."""
    if processes.device.type == "cpu":
        spare_memory_in_training()
    chosen = Hyperparameters(learning_rate=1e-4, weight_decay=0.01, epochs=1000, batch_size=BATCH_SIZE)
    run = Run.start(build_network("none")[0], (), chosen, images, processes)
    return dataclasses.replace(run, precision=precision)


def device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def evenly(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` indices, spread over all of `count`, so that both classes are among them."""
    return [index * count // min(count, wanted) for index in range(min(count, wanted))]


WAYS: dict[str, Callable[[Path, int, int, torch.dtype], Callable[[], int]]] = {
    "straightforward": straightforward,
    "ours": functools.partial(ours, size=SIZE),
    "ours, small": functools.partial(ours, size=train_model.SMALL_SIZE),
    "ceiling": functools.partial(ceiling, size=SIZE),
    "ceiling, small": functools.partial(ceiling, size=train_model.SMALL_SIZE),
}


def measure(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train in one way; return images per second of the first epoch, the later ones and processor time, and peak MB."""
    torch.manual_seed(0)
    epoch = WAYS[way](args.folder, args.images, steps_of(args), precision_of(args))
    rates, by_processor = [], []
    for _ in range(args.epochs):
        started, used = time.perf_counter(), processor_seconds()
        count = epoch()
        rates.append(count / (time.perf_counter() - started))
        by_processor.append(count / (processor_seconds() - used))
    return {
        "first": rates[0],
        "later": statistics.median(rates[1:]),
        "by_processor": statistics.median(by_processor[1:]),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "gpu_memory": torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0,
    }


def precision_of(args: argparse.Namespace) -> torch.dtype:
    """Return the type of ours' matrix products."""
    return torch.float32 if args.float32 else training_precision(device())


def steps_of(args: argparse.Namespace) -> int:
    """Return the number of steps of an epoch."""
    return min(args.steps or sys.maxsize, math.ceil(args.images / BATCH_SIZE))


def processor_seconds() -> float:
    """Return the processor time that this process and its children that have ended have used."""
    return sum(os.times()[:4])


def profile(way: str, args: argparse.Namespace) -> str:
    """Train in one way for two epochs; return a table of the second one's operations."""
    torch.manual_seed(0)
    epoch = WAYS[way](args.folder, args.images, steps_of(args), precision_of(args))
    epoch()
    with torch.profiler.profile() as profiler:
        epoch()
    return profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40)


def measure_apart(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure in a new process, so that one way's memory and threads do not touch another's."""
    options = ["--images", str(args.images), "--epochs", str(args.epochs), "--way", way]
    options += ["--float32"] if args.float32 else []
    options += ["--steps", str(args.steps)] if args.steps else []
    command = [sys.executable, __file__, str(args.folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        peak = peak_memory(process)
        output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{way}: training ended with exit status {process.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])  # before it the network tells of its weights
    print(f"{way}: {result}", file=sys.stderr, flush=True)
    return {**result, "all_memory": peak}


def peak_memory(process: "subprocess.Popen[bytes]") -> float:
    """Wait for a process to end; return the most MB that it and those that it started have held together, as sampled.

    0 where the system is not Linux.
    """
    peak = 0.0
    while process.poll() is None:
        with contextlib.suppress(OSError, KeyError, psutil.Error):  # one of them has ended meanwhile
            root = psutil.Process(process.pid)
            peak = max(peak, memory_of([root.pid, *(child.pid for child in root.children(recursive=True))]))
        time.sleep(SAMPLED)
    return peak


def memory_of(pids: Sequence[int]) -> float:
    """Return the MB that processes hold together; what they share counts once.

    The pages of files, which are those of libraries, count as the process has them that has most. Their proportional
    share, as psutil's `pss` has it, would be less if other programs on the machine use the same libraries.

    Raises:
        OSError, KeyError: a process has ended.
    """
    own = [sizes_in(Path(f"/proc/{pid}/smaps_rollup")) for pid in pids]
    files = [sizes_in(Path(f"/proc/{pid}/status"))["RssFile"] for pid in pids]
    return sum(sizes["Pss_Anon"] + sizes["Pss_Shmem"] for sizes in own) + max(files)


def sizes_in(file: Path) -> dict[str, float]:
    """Return the sizes, in MB, that a file of /proc tells in lines such as `RssFile:  1234 kB`."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return {line[0].rstrip(":"): int(line[1]) * 1024 / 1e6 for line in lines if line[-1:] == ["kB"]}


def parse_arguments() -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument("--images", type=int, default=256, metavar="N", help="use at most so many (%(default)s)")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="end an epoch after so many, on a CPU (after all images)"
    )
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="2 or more (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(%(default)s)")
    parser.add_argument("--float32", action="store_true", help="ours in float32, whatever the device is fastest in")
    parser.add_argument("--way", choices=WAYS, help="measure this one here, and print JSON")
    parser.add_argument("--profile", choices=WAYS, metavar="WAY", help="print the operations of an epoch of this one")
    args = parser.parse_args()
    if args.epochs < 2:
        parser.error("--epochs must be 2 or more: the first epoch is told apart from the later ones")
    if args.steps is not None and args.steps < 1:
        parser.error("--steps must be 1 or more")
    if args.steps and torch.cuda.is_available():
        parser.error("--steps is for a CPU: on a GPU, ours varies the images of several steps at once")
    return args


def main() -> None:
    """Measure and print."""
    args = parse_arguments()
    if args.profile:
        print(profile(args.profile, args))
        return
    if args.way:
        print(json.dumps(measure(args.way, args)))
        return
    rounds = [{way: measure_apart(way, args) for way in WAYS} for _ in range(args.rounds)]
    medians = {
        way: {name: statistics.median(one[way][name] for one in rounds) for name in rounds[0][way]} for way in WAYS
    }
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    precision = str(precision_of(args)).removeprefix("torch.")
    print(
        f"{name} ({platform.machine()}), ours in {precision}, Python {platform.python_version()}, torch "
        f"{torch.__version__}; {args.images} images, batches of {BATCH_SIZE}, "
        f"{args.epochs} epochs of {steps_of(args)} steps, medians of {args.rounds} rounds.\n"
    )
    print(
        "| way | images/s, first epoch | images/s, later | of straightforward | of the ceiling "
        "| images per processor second | of straightforward's | MB | MB of all processes | MB of the GPU |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for way, one in medians.items():
        top = medians["ceiling, small" if way.endswith("small") else "ceiling"]
        slow, most = (one["later"] / other["later"] for other in (medians["straightforward"], top))
        by_processor = one["by_processor"] / medians["straightforward"]["by_processor"]
        print(
            f"| {way} | {one['first']:.1f} | {one['later']:.1f} | {slow:.2f} | {most:.2f} "
            f"| {one['by_processor']:.1f} | {by_processor:.2f} "
            f"| {one['memory']:.0f} | {one['all_memory']:.0f} | {one['gpu_memory']:.0f} |"
        )


if __name__ == "__main__":
    main()
