"""SageMaker entry script: fine-tune ResNet-18 on chest X-rays, keep the best checkpoint, test it.

Runs as well on a laptop: `python train_model.py --train DIR --val DIR --test DIR --model-dir DIR
--output-data-dir DIR`. Leaves `pneumonia_classifier.pth` and `training.json` in the model directory.
"""

import argparse
import contextlib
import copy
import dataclasses
import datetime
import json
import math
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from pneumonia.data import SPLITS, Images, fingerprint, load_channel, scan_channels
from pneumonia.errors import ConfigurationError, PneumoniaError, TrainingError, first_line
from pneumonia.files import replacing, sha256
from pneumonia.image import PREPROCESSING, normalize
from pneumonia.model import CLASSES, WEIGHTS_NAME, is_state_dict, save_weights, save_whole

Item = TypeVar("Item")
DOWNLOAD_TIMEOUT = 30  # seconds without a byte; a subnet without internet would else hang for minutes


@dataclass(frozen=True)
class Evaluation:
    """How a network did on a split: correct answers, images, and mean cross-entropy in nats per image."""

    correct: int
    count: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0 to 1."""
        return self.correct / self.count


def is_better(candidate: Evaluation, best: Evaluation | None) -> bool:
    """Tell whether a checkpoint replaces the best one: more correct, or as many with a lower loss. NaN never wins."""
    if math.isnan(candidate.loss):
        return False
    if best is None:
        return True
    return candidate.correct > best.correct or (candidate.correct == best.correct and candidate.loss < best.loss)


def train(args: argparse.Namespace) -> None:
    """Train, select, test and report, as the arguments say.

    Raises:
        PneumoniaError: bad input, or training that cannot go on.
    """
    for folder in filter(None, (args.model_dir, args.output_data_dir, args.checkpoint_dir)):
        check_writable(folder)
    channels = scan_channels({"train": args.train, "val": args.val, "test": args.test})
    torch.manual_seed(args.seed)
    model = build_network(args.weights)
    splits = {name: load_channel(channels[name], args.num_workers, Progress(f"decoding {name}")) for name in SPLITS}

    weights_path = args.model_dir / WEIGHTS_NAME
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = training_precision(device)
    print(f"device={device} precision={str(precision).removeprefix('torch.')} torch={torch.__version__}", flush=True)
    model = model.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    steps = args.epochs * math.ceil(len(splits["train"]) / args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        args.learning_rate,
        total_steps=max(steps, 11),  # with 10 it divides by its warm-up's zero steps
        pct_start=0.1,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)  # half precision alone underflows
    run = Run(model, optimizer, schedule, scaler)
    checkpoint = args.checkpoint_dir / "checkpoint.pth" if args.checkpoint_dir else None
    if checkpoint and checkpoint.exists():
        run.resume(checkpoint, settings_of(args, splits))
        if run.best_state:
            save_weights(run.best_state, weights_path)  # a new instance starts with an empty model directory
    for epoch in range(len(run.history) + 1, args.epochs + 1):
        batches = shuffled_batches(splits["train"], args.batch_size, device, Progress(f"epoch {epoch}"))
        train_loss = train_one_epoch(run, batches, precision)
        validation = evaluate(model, splits["val"], args.batch_size, device)
        if not (math.isfinite(train_loss) and math.isfinite(validation.loss)):
            raise TrainingError(
                f"The loss is no longer a number after epoch {epoch} (train {train_loss}, validation "
                f"{validation.loss}): lower --learning-rate, now {args.learning_rate:g}. The best checkpoint before "
                "it, if any, is kept."
            )
        best = is_better(validation, run.best)
        if best:
            run.best, run.best_state = validation, copy.deepcopy(model.state_dict())
            save_weights(run.best_state, weights_path)
        run.history.append(
            {
                "epoch": epoch,
                "train_loss": train_loss,
                "val_accuracy": validation.accuracy,
                "val_loss": validation.loss,
                "best": best,
            }
        )
        print(
            f"epoch={epoch} train_loss={train_loss:.4f} val_accuracy={validation.accuracy:.4f} "
            f"val_loss={validation.loss:.4f} best={'yes' if best else 'no'}",
            flush=True,
        )
        if checkpoint:
            run.save(checkpoint, settings_of(args, splits))

    # From the file, not from memory: what is tested is what will be served, its rounding to half precision included.
    model.load_state_dict(torch.load(weights_path, map_location=device, weights_only=True))
    test = evaluate(model, splits["test"], args.batch_size, device)
    print(f"test_accuracy={test.accuracy:.4f} test_loss={test.loss:.4f}", flush=True)
    write_json(args.output_data_dir / "history.json", run.history)
    write_json(args.model_dir / "training.json", training_report(args, splits, run, test))


@dataclass
class Run:
    """All that changes while training goes on, and so all that resuming needs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    best: Evaluation | None = None
    best_state: dict[str, Tensor] | None = None
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write the state after an epoch; the file there before is replaced only when the new one is whole."""
        state = {
            "settings": settings,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": dataclasses.asdict(self.best) if self.best else None,
            "best_state": self.best_state,
            "history": self.history,
            "random": torch.get_rng_state(),
        }
        save_whole(state, path)

    def resume(self, path: Path, settings: dict[str, Any]) -> None:
        """Go on from the state that `save` wrote.

        Raises:
            ConfigurationError: the state is broken, or of a run with other settings or images.
        """
        try:
            # On the CPU first: the optimizer and the network move what is theirs, the random state has to stay.
            state = torch.load(path, map_location="cpu", weights_only=True)
            before = state["settings"]
        except Exception as error:  # torch.load raises nearly anything on broken data
            raise ConfigurationError(
                f"{path} is no whole state of a run ({first_line(error)}): start with an empty checkpoint directory."
            ) from error
        changed = [name for name, value in settings.items() if before.get(name) != value]
        if changed:
            raise ConfigurationError(
                f"{path} is of a run with another {', '.join(changed)}: start with an empty checkpoint directory, or "
                "with the settings of that run."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.best = Evaluation(**state["best"]) if state["best"] else None
        self.best_state = state["best_state"]
        self.history = state["history"]
        torch.set_rng_state(state["random"])
        print(f"resumed after epoch {len(self.history)} from {path}", flush=True)


def build_network(weights: str) -> nn.Module:
    """Return torchvision's ResNet-18 with two outputs.

    Args:
        weights: "imagenet" for torchvision's weights, "none" for random ones, or a state dict's path, from which the
            tensors that fit are taken.

    Raises:
        ConfigurationError: the weights cannot be had, or none of them fit.
    """
    model = torchvision.models.resnet18(weights=None)
    model.fc = nn.Linear(model.fc.in_features, len(CLASSES))
    if weights == "none":
        print("weights: none, the network starts from random values", flush=True)
        return model
    state = imagenet_weights() if weights == "imagenet" else weights_from(Path(weights))
    own = model.state_dict()
    taken = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    if not taken:
        raise ConfigurationError(f"{weights} has no tensor that fits ResNet-18: pass a state dict with its key names.")
    model.load_state_dict(taken, strict=False)
    print(f"weights: {len(taken)} of {len(own)} tensors taken from {weights}", flush=True)
    print(
        f"weights: random, because missing or of another shape there: {listed(own.keys() - taken.keys())}", flush=True
    )
    print(f"weights: not used from there: {listed(state.keys() - taken.keys())}", flush=True)
    return model


def imagenet_weights() -> dict[str, Tensor]:
    """Download torchvision's ImageNet weights, or take them from torch hub's cache."""
    source = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        return dict(source.get_state_dict(progress=False, check_hash=True))
    except Exception as error:  # no network, a proxy's refusal, a broken download or cache
        raise ConfigurationError(
            f"The ImageNet weights cannot be downloaded from {source.url} ({first_line(error)}): pass a file with "
            "--weights PATH, or --weights none to start from random values."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def weights_from(path: Path) -> dict[str, Tensor]:
    """Read a state dict, running no code in it."""
    if not path.is_file():
        raise ConfigurationError(f"--weights {path}: there is no such file; imagenet, none or a path is expected.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly anything on broken data
        raise ConfigurationError(f"--weights {path} is no state dict that can be read: {first_line(error)}") from error
    if not is_state_dict(state):
        raise ConfigurationError(f"--weights {path} is no plain state dict: save model.state_dict().")
    return state


def training_precision(device: torch.device) -> torch.dtype:
    """Return the type that matrix products are computed in: the fastest that the device has in hardware."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return torch.bfloat16 if fast else torch.float32


def train_one_epoch(run: Run, batches: Iterable[tuple[Tensor, Tensor]], precision: torch.dtype) -> float:
    """Take one optimiser step per batch.

    Args:
        run: the network and what moves it.
        batches: uint8 images (N, 3, H, W) and int64 labels (N,), on the network's device.
        precision: type of the matrix products.

    Returns:
        Mean cross-entropy per image, in nats, while training.
    """
    run.model.train()
    total, count = torch.tensor(0.0), 0
    for images, labels in batches:
        with torch.autocast(labels.device.type, precision, enabled=precision is not torch.float32):
            loss = functional.cross_entropy(run.model(normalize(augment(images))), labels)
        run.optimizer.zero_grad()
        run.scaler.scale(loss).backward()
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.schedule.step()
        total = total.to(loss.device) + loss.detach() * len(labels)  # summed where it is: reading it would wait
        count += len(labels)
    return float(total) / count


@torch.inference_mode()
def evaluate(model: nn.Module, images: Images, batch_size: int, device: torch.device) -> Evaluation:
    """Run the network over a split, in float32 as it is served."""
    model.eval()
    loss, correct = torch.tensor(0.0, device=device), torch.tensor(0, device=device)
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        labels = images.labels[part].to(device)
        logits = model(normalize(images.pixels[part].to(device)).contiguous(memory_format=torch.channels_last))
        loss += functional.cross_entropy(logits, labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    return Evaluation(int(correct), len(images), float(loss) / len(images))


def shuffled_batches(
    images: Images, batch_size: int, device: torch.device, progress: "Progress"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all images in random order, `batch_size` at a time, on the device."""
    order = torch.randperm(len(images)).split(batch_size)
    for index in progress(order, len(order)):
        pixels, labels = images.pixels[index], images.labels[index]
        if device.type == "cuda":  # only from pinned memory does the copy run beside the computation
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
        yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def augment(images: Tensor) -> Tensor:
    """Vary each image as another exposure and another position of the patient would.

    Up to 10 degrees of rotation, 15% of size and of aspect, 6% of shift, and of brightness, contrast and gamma. No
    mirroring: the heart lies on the left.

    Args:
        images: uint8, shape (N, 3, H, W).

    Returns:
        float32 of the same shape, in [0, 255].
    """

    def between(low: float, high: float) -> Tensor:
        # Drawn on the CPU on every machine, so that a seed means the same everywhere.
        return torch.empty(len(images)).uniform_(low, high).to(images.device)

    angle, width, height = between(-0.175, 0.175), between(0.85, 1.15), between(0.85, 1.15)
    affine = torch.stack(
        [
            torch.stack([angle.cos() * width, -angle.sin() * height, between(-0.12, 0.12)], 1),
            torch.stack([angle.sin() * width, angle.cos() * height, between(-0.12, 0.12)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images.float() / 255, grid, padding_mode="zeros", align_corners=False)

    def per_image(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    gamma, contrast, brightness = between(0.7, 1.4), between(0.75, 1.25), between(-0.1, 0.1)
    exposed = moved.clamp(1e-6, 1) ** per_image(gamma)
    mean = exposed.mean((1, 2, 3), keepdim=True)
    exposed = (exposed - mean) * per_image(contrast) + mean + per_image(brightness)
    return (exposed.clamp(0, 1) * 255).contiguous(memory_format=torch.channels_last)


class Progress:
    """Shows on a terminal how far an iteration is; in a log, where a line cannot be redrawn, it stays silent."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __call__(self, items: Iterable[Item], total: int) -> Iterator[Item]:
        """Yield the items; `total` is their number."""
        shown = sys.stderr.isatty()
        for done, item in enumerate(items, start=1):
            yield item
            if shown:
                bar = "#" * (30 * done // total)
                print(f"\r{self.label} [{bar:<30}] {done}/{total}", end="", file=sys.stderr, flush=True)
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def settings_of(args: argparse.Namespace, splits: dict[str, Images]) -> dict[str, Any]:
    """Return what must be the same for a run to be resumed."""
    names = ("epochs", "batch_size", "learning_rate", "weight_decay", "weights", "seed")
    return {name: getattr(args, name) for name in names} | {"dataset": fingerprint(splits)}


def training_report(args: argparse.Namespace, splits: dict[str, Images], run: Run, test: Evaluation) -> dict[str, Any]:
    """Return what the release's manifest tells of its training."""
    if run.best is None:
        raise TrainingError("No epoch was run: --epochs must be 1 or more.")
    return {
        "weights_sha256": sha256(args.model_dir / WEIGHTS_NAME),
        "training_job": os.environ.get("TRAINING_JOB_NAME"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "classes": CLASSES,
        "preprocessing": PREPROCESSING,
        "metrics": {
            "val_accuracy": run.best.accuracy,
            "val_loss": run.best.loss,
            "test_accuracy": test.accuracy,
            "test_loss": test.loss,
        },
        "dataset": {
            "fingerprint": fingerprint(splits),
            "images": {
                name: {label: int((images.labels == index).sum()) for index, label in enumerate(CLASSES)}
                for name, images in splits.items()
            },
        },
        "settings": settings_of(args, splits) | {"weights": Path(args.weights).name, "torch": str(torch.__version__)},
    }


def write_json(path: Path, content: object) -> None:
    """Write indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def check_writable(folder: Path) -> None:
    """Make a folder and see that files can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / ".writable") as temporary:
            temporary.touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be written ({error.strerror}): name another folder with --model-dir, --output-data-dir "
            "or --checkpoint-dir."
        ) from error


def listed(names: Iterable[str]) -> str:
    """Return names for a log line, sorted."""
    return ", ".join(sorted(names)) or "none"


class ArgumentParser(argparse.ArgumentParser):
    """Reports a bad argument as every other error, so that SageMaker's failure file tells it."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process."""
        raise ConfigurationError(f"{message}. `python {self.prog} --help` lists the arguments.")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; their defaults are where SageMaker puts things."""
    parser = ArgumentParser(prog="train_model.py", description=__doc__.partition("\n")[0])
    for channel in SPLITS:
        default = os.environ.get(f"SM_CHANNEL_{channel.upper()}") or f"/opt/ml/input/data/{channel}"
        parser.add_argument(f"--{channel}", type=Path, default=default, metavar="DIR", help="(%(default)s)")
    model_dir = os.environ.get("SM_MODEL_DIR") or "/opt/ml/model"
    output_dir = os.environ.get("SM_OUTPUT_DATA_DIR") or "/opt/ml/output/data"
    checkpoint_dir = "/opt/ml/checkpoints" if os.path.isdir("/opt/ml/checkpoints") else None  # noqa: PTH112
    parser.add_argument("--model-dir", type=Path, default=model_dir, metavar="DIR", help="(%(default)s)")
    parser.add_argument("--output-data-dir", type=Path, default=output_dir, metavar="DIR", help="(%(default)s)")
    parser.add_argument(
        "--checkpoint-dir", type=Path, default=checkpoint_dir, metavar="DIR", help="to resume from (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="(%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, metavar="X", help="at its peak (%(default)s)")
    parser.add_argument("--weight-decay", type=float, default=0.01, metavar="X", help="(%(default)s)")
    parser.add_argument("--weights", default="imagenet", help="imagenet, none, or a state dict's path (%(default)s)")
    parser.add_argument(
        "--num-workers", type=int, default=os.cpu_count() or 1, metavar="N", help="decoding threads (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(%(default)s)")
    args = parser.parse_args(argv)
    for name in ("epochs", "batch_size", "num_workers", "learning_rate"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, not {getattr(args, name)}")
    if not args.weight_decay >= 0:
        parser.error(f"--weight-decay must not be below 0, and is {args.weight_decay}")
    if not 0 <= args.seed < 2**64:
        parser.error(f"--seed must be from 0 to {2**64 - 1}, not {args.seed}")
    return args


def report_failure(sentence: str) -> None:
    """Tell the log, and SageMaker, which shows the file's text as the job's failure reason."""
    print(sentence, file=sys.stderr, flush=True)
    failure = Path(os.environ.get("SM_OUTPUT_DIR", "/opt/ml/output")) / "failure"
    with contextlib.suppress(OSError):  # on a laptop there is no such folder
        failure.write_text(sentence)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit status."""
    try:
        train(parse_arguments(argv))
    except PneumoniaError as error:
        report_failure(str(error))
        return 1
    except OSError as error:
        report_failure(f"{error.filename or 'A file'} cannot be read or written: {error.strerror or error}.")
        return 1
    except Exception as error:
        report_failure(f"Training ended with {type(error).__name__}: {first_line(error)}")
        raise  # a fault of ours, or the machine's: the log gets the traceback
    return 0


if __name__ == "__main__":
    sys.exit(main())
