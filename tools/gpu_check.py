"""Measure training on this machine's GPU, in nine minutes at most, and write a table for docs/performance.md.

`python -m tools.gpu_check DATA [FULL_SIZE]` runs in a checkout and downloads nothing. Python needs torch, torchvision,
numpy, pillow, psutil, scikit-learn and matplotlib, which SageMaker's PyTorch images have. Each part has a time limit;
one that fails is a row of the table with its reason, what it printed until then is kept below, and the others go on.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pneumonia.command import exit_status
from pneumonia.errors import ConfigurationError, DataError, first_line
from pneumonia.training.channels import SPLITS

PROJECT = Path(__file__).parent.parent
# Module to the name that it is installed by.
NEEDED = {name: name for name in ("torch", "torchvision", "numpy", "psutil", "matplotlib")}
NEEDED |= {"PIL": "pillow", "sklearn": "scikit-learn"}
MOST_IMAGES = 5216  # for the benchmark; so many the data set's authors train on
EPOCHS, FEW_EPOCHS = 30, 3
CPU_PATIENCE = 20  # times the limit of each part, which is meant for GPUs


class PartError(Exception):
    """A part could not be measured; `lines` is what it printed until then."""

    def __init__(self, sentence: str, lines: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.lines = lines


class Outcome(NamedTuple):
    """What a part has found: a cell of the table, and lines of Markdown for below it."""

    cell: str
    details: Sequence[str] = ()


class Part(NamedTuple):
    """Something to measure.

    Attributes:
        name: what it is.
        aim: what it should come to.
        seconds: how long it may take.
        measure: measures it; gets the moment, on `time.monotonic`'s clock, when it must be done.
    """

    name: str
    aim: str
    seconds: float
    measure: Callable[[float], Outcome]


class Row(NamedTuple):
    """A part that was tried, what came of it, and the seconds that it took."""

    part: Part
    outcome: Outcome
    seconds: float


def parts(args: argparse.Namespace, work: Path) -> list[Part]:
    """Return what there is to measure.

    Args:
        args: the command's arguments.
        work: folder for what trainings write.
    """
    ceiling, epochs = "0.90 of the ceiling", FEW_EPOCHS if args.cpu else EPOCHS
    return [
        Part("benchmark, DATA", ceiling, 120, lambda until: benchmark(args.data, until)),
        Part("benchmark, FULL_SIZE", ceiling, 150, lambda until: benchmark(args.full_size, until)),
        Part(f"{epochs} epochs", "60 s on an H100", 120, lambda until: by_the_clock(args.data, work, epochs, until)),
        Part("steps that may not wait for the GPU", "none waits", 30, lambda until: take_steps(args.cpu, until)),
        Part("killed and resumed", "as if never killed", 120, lambda until: resume_training(args.data, work, until)),
    ]


def benchmark(data: Path | None, until: float) -> Outcome:
    """Run benchmarks/training.py; return its table, and how much of the ceiling training reaches."""
    if not data:
        return Outcome("left out: no folder was named")
    options = ["--images", str(min(MOST_IMAGES, images_in(data))), "--epochs", "5", "--rounds", "1"]
    table = [line for line in run(["benchmarks/training.py", str(data / "train"), *options], until) if line[:1] == "|"]
    ours = [row.strip("| ").split(" | ") for row in table if row.startswith("| ours")]
    return Outcome("; ".join(f"{way}: {share} ({rate} images/s)" for way, _, rate, _, share, *_ in ours), table)


def images_in(data: Path) -> int:
    """Return how many images there are to train on."""
    return sum(1 for _ in (data / "train").glob("*/*"))


def by_the_clock(data: Path, work: Path, epochs: int, until: float) -> Outcome:
    """Train for some epochs; return the seconds of the whole command, and how good its network is."""
    started = time.monotonic()
    lines = run(training(data, work / "clock", epochs), until)
    seconds = time.monotonic() - started
    (test,) = [line for line in lines if line.startswith("test_")]
    log = [line for line in lines if line.startswith("epoch=")]
    return Outcome(f"{seconds:.0f} s, {test.partition(' ')[0]}", ["```", *log, test, "```"])


def take_steps(cpu: bool, until: float) -> Outcome:  # noqa: FBT001
    """Train for some steps; one that waits for the GPU is an error."""
    return Outcome("left out: there is no GPU" if cpu else run(["-m", "tools.gpu_check_sync"], until)[-1])


def resume_training(data: Path, work: Path, until: float) -> Outcome:
    """Train twice without a kill and once with one; return how far the killed run's loss is from that of the first.

    And how far the other two are apart: on a GPU two runs may differ in the last bits, as some sums are added in no
    fixed order there.
    """
    whole, again, killed = (training(data, work / name, FEW_EPOCHS) for name in ("whole", "again", "killed"))
    run(whole, until)
    run(again, until)
    run(killed, until, kill_at="epoch=2 ")
    (resumed,) = [line.partition(" from ")[0] for line in run(killed, until) if line.startswith("resumed ")]
    whole_loss, again_loss, killed_loss = (last_loss(work / name) for name in ("whole", "again", "killed"))
    off, usual = abs(killed_loss - whole_loss), abs(again_loss - whole_loss)
    return Outcome(
        f"{resumed}; validation loss of a run never killed {whole_loss:.6f}, off by {off:.1e} "
        f"(of another one never killed: {usual:.1e})"
    )


def last_loss(folder: Path) -> float:
    """Return the validation loss of the last epoch of a training."""
    return float(json.loads((folder / "output/history.json").read_text())[-1]["val_loss"])


def training(data: Path, folder: Path, epochs: int) -> list[str]:
    """Return the command that trains from random weights, or goes on where it was killed."""
    options = {f"--{channel}": data / channel for channel in SPLITS}
    options |= {"--model-dir": folder / "model", "--output-data-dir": folder / "output"}
    options |= {"--checkpoint-dir": folder / "checkpoints"}
    folders = [word for option, path in options.items() for word in (option, str(path))]
    return ["train_model.py", *folders, "--epochs", str(epochs), "--weights", "none"]


def run(command: Sequence[str], until: float, kill_at: str | None = None) -> list[str]:
    """Run Python on a command of this checkout, and return the lines that it printed.

    Args:
        command: what comes after `python`.
        until: when it is killed, on `time.monotonic`'s clock.
        kill_at: how the line begins that it is killed at on purpose.

    Raises:
        PartError: it failed, or was not done in time.
    """
    lines: list[str] = []
    with started(command) as process, killed_at_last(process, until):
        for line in process.stdout or ():
            lines.append(line.rstrip())
            if kill_at and line.startswith(kill_at):
                return lines
        process.wait()
    if process.returncode:
        reason = "not done in time" if time.monotonic() >= until else f"exit status {process.returncode}"
        raise PartError("; ".join([f"{command[0]}: {reason}", *lines[-1:]]), lines)
    return lines


def started(command: Sequence[str]) -> "subprocess.Popen[str]":
    """Start Python on a command of this checkout, so that what it starts itself can be killed with it."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@contextlib.contextmanager
def killed_at_last(process: "subprocess.Popen[str]", until: float) -> Iterator[None]:
    """Kill a process and those that it started, after the block or at a moment on `time.monotonic`'s clock."""

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    late = threading.Timer(until - time.monotonic(), kill)
    late.start()
    try:
        yield
    finally:
        late.cancel()
        kill()


def measure(part: Part, patience: float) -> Row:
    """Measure a part, whatever comes of it; `patience` lengthens its limit so many times."""
    begun = time.monotonic()
    try:
        outcome = part.measure(begun + part.seconds * patience)
    except Exception as error:
        printed = ["```", *error.lines, "```"] if isinstance(error, PartError) and error.lines else []
        outcome = Outcome(f"failed: {first_line(error)}".replace("|", "/"), printed)  # "|" would end the table's cell
    return Row(part, outcome, time.monotonic() - begun)


def report(machine: str, rows: Sequence[Row]) -> str:
    """Return the table in Markdown, and the details below it."""
    lines = [machine, "", "| part | aim | result | seconds |", "|---|---|---|---|"]
    lines += [f"| {row.part.name} | {row.part.aim} | {row.outcome.cell} | {row.seconds:.0f} |" for row in rows]
    for row in rows:
        if row.outcome.details:
            lines += ["", f"{row.part.name}:", "", *row.outcome.details]
    return "\n".join(lines) + "\n"


def machine_of(args: argparse.Namespace) -> str:
    """Return what this machine is, in a line.

    Raises:
        ConfigurationError: a package is missing, or the GPU.
    """
    if missing := [name for module, name in NEEDED.items() if not importlib.util.find_spec(module)]:
        raise ConfigurationError(f"Training needs {', '.join(missing)}: pip install {' '.join(missing)}.")
    import torch  # noqa: PLC0415  # may be missing

    if not args.cpu and not torch.cuda.is_available():
        raise ConfigurationError("There is no CUDA device: run this on a machine with an NVIDIA GPU and its driver.")
    device = "no GPU" if args.cpu else torch.cuda.get_device_name()
    return (
        f"{device}, {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, torch "
        f"{torch.__version__}; {images_in(args.data)} images to train on."
    )


def check(args: argparse.Namespace) -> None:
    """Measure all parts, and write the table anew after each.

    Raises:
        ConfigurationError: a package is missing, or the GPU.
        DataError: a folder is missing.
    """
    machine = machine_of(args)
    folders = [*(args.data / name for name in SPLITS), *([args.full_size / "train"] if args.full_size else [])]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise DataError(f"There is no folder {', '.join(missing)}: name folders that pneumonia split made.")
    if args.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as work:
        for part in parts(args, Path(work)):
            rows.append(measure(part, CPU_PATIENCE if args.cpu else 1))
            args.report.write_text(report(machine, rows), encoding="utf-8")
            print(f"{part.name}: {rows[-1].outcome.cell}", flush=True)
    print(f"{args.report} has the table.")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    help_ = "train/, val/ and test/, each with NORMAL/ and PNEUMONIA/, of 224 x 224 pixels"
    parser.add_argument("data", type=lambda name: Path(name).resolve(), metavar="DATA", help=help_)
    help_ = "the same with the images as they were published"
    parser.add_argument("full_size", nargs="?", type=lambda name: Path(name).resolve(), metavar="FULL_SIZE", help=help_)
    help_ = "Markdown file to write (%(default)s)"
    parser.add_argument("--report", type=Path, default=Path("gpu_check.md"), metavar="FILE", help=help_)
    parser.add_argument("--cpu", action="store_true", help="try the parts out without a GPU")
    args = parser.parse_args(argv)
    return exit_status(lambda: check(args))


if __name__ == "__main__":
    sys.exit(main())
