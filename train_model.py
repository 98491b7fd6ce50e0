"""SageMaker entry script: fine-tune ResNet-18 on chest X-rays, keep the best checkpoint, test it.

Runs as well on a laptop: `python train_model.py --train DIR --val DIR --test DIR --model-dir DIR
--output-data-dir DIR`. Leaves `pneumonia_classifier.pth` and `training.json` in the model directory.
"""

import argparse
import contextlib
import copy
import dataclasses
import datetime
import math
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn, update_bn

from pneumonia.command import progress
from pneumonia.errors import ConfigurationError, DataError, PneumoniaError, TrainingError, file_sentence, first_line
from pneumonia.files import replacing, sha256, write_json
from pneumonia.imaging.preprocessing import PREPROCESSING, SIZE, normalize
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import CLASSES, WEIGHTS_NAME
from pneumonia.network.input_check import InputCheck
from pneumonia.network.resnet import ResNet18, logits_of
from pneumonia.network.training_report import Dataset, TrainingReport
from pneumonia.network.weights_file import fits_at_rest, save_weights, save_whole
from pneumonia.training import metrics, plots
from pneumonia.training.augmentation import augment
from pneumonia.training.channels import SPLITS, Channel, fingerprint, scan_channels
from pneumonia.training.fitting import fit, input_check_of
from pneumonia.training.images import Images, load_channel
from pneumonia.training.pretrained import build_network
from pneumonia.training.processes import Processes, joined

CHECKPOINT_NAME = "checkpoint.pth"
GPU_IMAGES = 512  # varied at once on a GPU, which does the 150 small computations sooner than Python starts them
# The recipe; docs/model-card.md says what it was chosen by.
RETAKEN_SHARE = 0.5  # of the images, varied as if they had been taken otherwise
SMALL_SIZE, SMALL_SHARE = 128, 2 / 3  # the first two thirds of the epochs see small images: a third of the work
PRETRAINED_RATE = 0.4  # of the learning rate, for layers that have learned already
LABEL_SMOOTHING = 0.05
AVERAGED_SHARE = 0.05  # of all steps: how far back the moving average of the weights remembers
NORMALIZED_BY = 512  # training images that batch-norm statistics are re-estimated from


@dataclass(frozen=True)
class Evaluation:
    """How a network did on a split: correct answers, images, and mean cross-entropy in nats per image."""

    correct: int
    count: int
    loss: float

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> "Evaluation":
        """Judge logits (N, 2) by labels (N,)."""
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        return cls(int((logits.argmax(1) == labels).sum()), len(labels), float(loss) / len(labels))

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


@dataclass(frozen=True)
class Split:
    """A split of the data: what every process knows of it, and the images that this process holds."""

    channel: Channel
    images: Images

    @property
    def labels(self) -> Tensor:
        """Indices in CLASSES of all images, int64, shape (N,)."""
        return torch.tensor(self.channel.labels)


def train(args: argparse.Namespace, processes: Processes) -> None:
    """Train, select, test and report, as the arguments say.

    Raises:
        PneumoniaError: bad input, or training that cannot go on.
    """
    with processes.together():
        if processes.is_first:
            for folder in filter(None, (args.model_dir, args.output_data_dir, args.checkpoint_dir)):
                check_writable(folder)
        channels = scan_channels({"train": args.train, "val": args.val, "test": args.test})
        check_divisible(args.batch_size, channels, processes)
        torch.manual_seed(args.seed)
        model, pretrained = build_network(args.weights)
        splits = {name: load_split(channels[name], args.num_workers, processes) for name in SPLITS}
    settings = settings_of(args, splits, processes)

    device, precision = processes.device, training_precision(processes.device)
    print(
        f"device={device} processes={processes.count} precision={settings['precision']} torch={torch.__version__}",
        flush=True,
    )
    run = start_run(model.to(device), pretrained, args, len(channels["train"].paths), processes)
    weights_path = args.model_dir / WEIGHTS_NAME
    checkpoint_dir = processes.from_first(args.checkpoint_dir)  # its default depends on the machine
    checkpoint = checkpoint_dir / CHECKPOINT_NAME if checkpoint_dir else None
    torch.manual_seed((args.seed + processes.rank) % 2**64)  # each process varies its images in its own way
    if checkpoint and run.resume(checkpoint, settings, processes) and run.best_state and processes.is_first:
        save_weights(run.best_state, weights_path)  # a new instance starts with an empty model directory
    for epoch in range(len(run.history) + 1, args.epochs + 1):
        started = time.perf_counter()
        batches = shuffled_batches(splits["train"], args.batch_size, processes, f"epoch {epoch}")
        loss = train_one_epoch(run, batches, image_size(epoch, args.epochs), precision)
        train_loss = sum(processes.gather_objects(loss)) / processes.count
        images_per_second = len(channels["train"].paths) / (time.perf_counter() - started)
        reestimate_batch_norm(run.averaged, splits["train"], args.batch_size, processes)

        logits = all_logits(run.averaged, splits["val"], args.batch_size, processes)
        validation = Evaluation.of(logits, splits["val"].labels)
        finite = math.isfinite(train_loss) and math.isfinite(validation.loss)
        if not (finite and fits_at_rest(run.averaged.state_dict())):
            raise TrainingError(
                f"Training diverged in epoch {epoch}: its loss ({train_loss:g}), that of validation "
                f"({validation.loss:g}) or a weight is not finite, or a weight too large to be saved. Lower "
                f"--learning-rate, now {args.learning_rate:g}. The best checkpoint before it, if any, is kept."
            )
        best = is_better(validation, run.best)
        if best:
            run.best, run.best_state = validation, copy.deepcopy(run.averaged.state_dict())
            if processes.is_first:
                save_weights(run.best_state, weights_path)
        run.history.append(
            {
                "epoch": epoch,
                "train_loss": train_loss,
                "val_accuracy": validation.accuracy,
                "val_loss": validation.loss,
                "val_auroc": metrics.auroc(logits[:, 1] - logits[:, 0], splits["val"].labels),
                "best": best,
            }
        )
        print(epoch_line(run.history[-1], images_per_second), flush=True)
        if checkpoint:
            run.save(checkpoint, settings, processes)
    report(args, run, splits, settings, processes)


def report(
    args: argparse.Namespace, run: "Run", splits: dict[str, Split], settings: dict[str, Any], processes: Processes
) -> None:
    """Load the best checkpoint, calibrate it on validation, test it, and write what the training has to tell."""
    # From the file, not from memory: what is tested is what will be served, its rounding to half precision included.
    if processes.is_first:
        state = torch.load(args.model_dir / WEIGHTS_NAME, map_location=processes.device, weights_only=True)
        run.model.load_state_dict(state)
    processes.copy_from_first(run.model.state_dict().values())
    logits = {name: all_logits(run.model, splits[name], args.batch_size, processes) for name in ("val", "test")}
    if not all(rows.isfinite().all() for rows in logits.values()):
        raise TrainingError(
            "The best checkpoint's outputs are not finite in the half precision that it is kept in: lower "
            f"--learning-rate, now {args.learning_rate:g}."
        )
    fitted = fit(logits["val"], splits["val"].labels)
    input_check = fit_input_check_on(splits, run.model, args.batch_size, processes)
    summaries = {name: summary(logits[name], splits[name], fitted) for name in logits}
    print(test_line(summaries["test"]), flush=True)
    if processes.is_first:
        folder = args.output_data_dir
        write_json(folder / "history.json", run.history)
        write_json(folder / "metrics.json", {"calibration": dataclasses.asdict(fitted), **summaries})
        training_report(args, splits, settings, summaries, fitted, input_check).write_beside(
            args.model_dir / WEIGHTS_NAME
        )
        probabilities, labels = fitted.probabilities(logits["test"])[:, 1], splits["test"].labels
        plots.draw_learning_curves(run.history, folder / "learning_curves.png")
        plots.draw_roc(probabilities, labels, fitted, folder / "roc.png")
        plots.draw_confusion(summaries["test"]["served"]["confusion"], folder / "confusion.png")
        plots.draw_reliability(probabilities, labels, fitted, folder / "reliability.png")


def fit_input_check_on(splits: dict[str, Split], model: nn.Module, batch_size: int, processes: Processes) -> InputCheck:
    """Fit what images that are no chest X-ray are told by, each process running the network over its share."""
    network = ResNet18()  # torchvision's does not tell its layers' outputs
    network.load_state_dict(model.state_dict())
    network.to(processes.device).eval()
    train, validation = (splits[name].images.pixels for name in ("train", "val"))
    return input_check_of(network, train, validation, batch_size, processes.gather)


def summary(logits: Tensor, split: Split, fitted: Calibration) -> dict[str, Any]:
    """Return a split's figures: as a bare network's, and as served, with calibration and operating point."""
    bare = Evaluation.of(logits, split.labels)
    served = metrics.summarize(fitted.probabilities(logits)[:, 1], split.labels, fitted, split.channel.patients())
    return {"network": {"accuracy": bare.accuracy, "loss": bare.loss}, "served": served}


def epoch_line(epoch: dict[str, Any], images_per_second: float) -> str:
    """Return the line that tells of an epoch; the metric definitions of train_sagemaker.py read it."""
    figures = " ".join(f"{name}={epoch[name]:.4f}" for name in ("train_loss", "val_accuracy", "val_loss", "val_auroc"))
    best = "yes" if epoch["best"] else "no"
    return f"epoch={epoch['epoch']} {figures} images_per_second={images_per_second:.1f} best={best}"


def test_line(test: dict[str, Any]) -> str:
    """Return the line that tells of the test; the metric definitions of train_sagemaker.py read it."""
    network, served = test["network"], test["served"]
    names = ("auroc", "balanced_accuracy", "sensitivity", "specificity")
    figures = " ".join(f"test_{name}={served[name]:.4f}" for name in names)
    return f"test_accuracy={network['accuracy']:.4f} test_loss={network['loss']:.4f} {figures}"


def load_split(channel: Channel, workers: int, processes: Processes) -> Split:
    """Decode this process's share of a channel; keep it on the GPU where it takes less than half of what is free."""
    share = dataclasses.replace(
        channel, paths=list(processes.share(channel.paths)), labels=list(processes.share(channel.labels))
    )
    images = load_channel(share, workers)
    if processes.device.type == "cuda" and images.pixels.nbytes < torch.cuda.mem_get_info()[0] / 2:
        images = dataclasses.replace(images, pixels=images.pixels.to(processes.device))
    return Split(channel, images)


def check_divisible(batch_size: int, channels: dict[str, Channel], processes: Processes) -> None:
    """See that every process gets its part of each batch and of each split.

    Raises:
        ConfigurationError: the batch cannot be divided.
        DataError: a split has fewer images than there are processes.
    """
    if batch_size % processes.count:
        raise ConfigurationError(
            f"--batch-size {batch_size} cannot be divided among {processes.count} processes: make it a multiple."
        )
    for channel in channels.values():
        if len(channel.paths) < processes.count:
            raise DataError(
                f"Channel '{channel.name}' has {len(channel.paths)} images for {processes.count} processes: use fewer "
                "instances or GPUs."
            )


def start_run(
    model: nn.Module, pretrained: Collection[str], args: argparse.Namespace, count: int, processes: Processes
) -> "Run":
    """Put together what moves a network.

    Args:
        model: the network, on its device.
        pretrained: names of the parameters that have learned already, and so move more slowly.
        args: the command's arguments.
        count: number of training images.
        processes: those that train together.
    """
    model = model.to(memory_format=torch.channels_last)
    named = dict(model.named_parameters())
    rates = {True: args.learning_rate * PRETRAINED_RATE, False: args.learning_rate}
    groups = [
        {"params": [value for name, value in named.items() if (name in pretrained) is learned], "lr": rate}
        for learned, rate in rates.items()
    ]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, weight_decay=args.weight_decay, fused=True)  # unfused, the scaler waits
    batch_size = args.batch_size // processes.count
    steps = args.epochs * math.ceil(math.ceil(count / processes.count) / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in groups],
        total_steps=max(steps, 11),  # with 10 it divides by its warm-up's zero steps
        pct_start=0.1,
    )
    half = training_precision(processes.device) is torch.float16  # small gradients vanish in it unless scaled up
    scaler = torch.amp.GradScaler(processes.device.type, enabled=half)
    decay = max(0.0, 1 - 1 / (AVERAGED_SHARE * steps))
    return Run(model, processes.parallel(model), copy.deepcopy(model), decay, batch_size, optimizer, schedule, scaler)


def image_size(epoch: int, epochs: int) -> int:
    """Return the height and width, in pixels, that an epoch trains at; epochs count from 1."""
    return SMALL_SIZE if epoch <= epochs * SMALL_SHARE else SIZE


@dataclass
class Run:
    """All that changes while training goes on, and so all that resuming needs.

    Attributes:
        model: the network that learns.
        parallel: the same, wrapped for several processes.
        averaged: the moving average of its weights: what is validated, selected and served.
        decay: share of the average that a step leaves.
        batch_size: this process's images a step.
        optimizer: takes the steps.
        schedule: sets their length.
        scaler: keeps half precision's gradients in range.
        best: the best checkpoint's evaluation.
        best_state: its state dict.
        history: one entry an epoch.
    """

    model: nn.Module
    parallel: nn.Module
    averaged: nn.Module
    decay: float
    batch_size: int
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    best: Evaluation | None = None
    best_state: dict[str, Tensor] | None = None
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def save(self, path: Path, settings: dict[str, Any], processes: Processes) -> None:
        """Write the state after an epoch; the file there before is replaced only when the new one is whole."""
        state = {
            "settings": settings,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": dataclasses.asdict(self.best) if self.best else None,
            "best_state": self.best_state,
            "history": self.history,
            "random": processes.gather_objects(random_states(processes.device)),
        }
        if processes.is_first:
            save_whole(state, path)

    def resume(self, path: Path, settings: dict[str, Any], processes: Processes) -> bool:
        """Go on from the state that `save` wrote; the first process reads it for all.

        Returns:
            Whether there was one.

        Raises:
            ConfigurationError: the state is broken, or of a run with other settings or images.
        """
        with processes.together():
            own = read_state(path, settings) if processes.is_first and path.exists() else None
        state = processes.from_first(own)
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.best = Evaluation(**state["best"]) if state["best"] else None
        self.best_state = state["best_state"]
        self.history = state["history"]
        restore_random_states(state["random"][processes.rank], processes.device)
        print(f"resumed after epoch {len(self.history)} from {path}", flush=True)
        return True


def random_states(device: torch.device) -> list[Tensor]:
    """Return the states of the generators that training draws from: the CPU's, and the GPU's where it trains on one."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def restore_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Bring back what `random_states` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def read_state(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Read what `Run.save` wrote.

    Raises:
        ConfigurationError: the state is broken, or of a run with other settings or images.
    """
    try:
        # On the CPU first: the optimizer and the network move what is theirs, the random state has to stay.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        before = state["settings"]
    except Exception as error:  # torch.load raises nearly anything on broken data
        raise ConfigurationError(
            f"{path} is not a whole state of a run ({first_line(error)}): start with an empty checkpoint directory."
        ) from error
    if changed := [name for name, value in settings.items() if before.get(name) != value]:
        raise ConfigurationError(
            f"{path} is of a run with another {', '.join(changed)}: start with an empty checkpoint directory, or "
            "with the settings of that run."
        )
    return state


def training_precision(device: torch.device) -> torch.dtype:
    """Return the type that matrix products are computed in: the fastest that the device has in hardware."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return torch.bfloat16 if fast else torch.float32


def train_one_epoch(run: Run, batches: Iterable[tuple[Tensor, Tensor]], size: int, precision: torch.dtype) -> float:
    """Take one optimiser step per batch.

    Args:
        run: the network and what moves it.
        batches: uint8 images (N, C, H, W) and int64 labels (N,), on the network's device; each varied at once, and
            divided into the steps' batches.
        size: height and width of the network's input in pixels.
        precision: type of the matrix products.

    Returns:
        Mean loss per image, in nats, while training: cross-entropy with smoothed labels.
    """
    run.model.train()
    weights, average = list(run.model.parameters()), list(run.averaged.parameters())
    total: Tensor | float = 0.0
    count = 0
    for images, labels in batches:
        parts = zip(network_input(images, size).split(run.batch_size), labels.split(run.batch_size), strict=True)
        for inputs, answers in parts:
            loss = take_step(run, inputs, answers, precision)
            run.schedule.step()
            decay = run.decay if run.schedule.last_epoch > 1 else 0.0  # the first step begins the average
            move_average(average, weights, decay)
            total = total + loss * len(answers)  # summed where it is: reading it would wait
        count += len(labels)
    for statistics, own in zip(run.averaged.buffers(), run.model.buffers(), strict=True):
        statistics.copy_(own)  # those of batch norm are not averaged
    return float(total) / count


def take_step(run: Run, inputs: Tensor, labels: Tensor, precision: torch.dtype) -> Tensor:
    """Move the network by one batch.

    Args:
        run: the network and what moves it.
        inputs: float32, shape (N, 3, H, W), on the network's device.
        labels: int64, shape (N,), on the network's device.
        precision: type of the matrix products.

    Returns:
        The batch's mean loss in nats, where it was computed.
    """
    with torch.autocast(labels.device.type, precision, enabled=precision is not torch.float32):
        logits = run.parallel(inputs)
    loss = training_loss(logits.float(), labels)
    run.optimizer.zero_grad()
    run.scaler.scale(loss).backward()
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return loss.detach()


def network_input(images: Tensor, size: int) -> Tensor:
    """Vary images and normalise them.

    Args:
        images: uint8, shape (N, C, H, W).
        size: height and width of the result in pixels.

    Returns:
        float32, shape (N, 3, size, size), its channels last in memory.
    """
    return normalize(augment(images, size, RETAKEN_SHARE)).contiguous(memory_format=torch.channels_last)


def move_average(average: Sequence[Tensor], weights: Sequence[Tensor], decay: float) -> None:
    """Move an average of weights on, so that a share `decay` of it stays.

    torch's AveragedModel copies its counter to the GPU at every step, and waits for it.
    """
    get_ema_multi_avg_fn(decay)(average, weights, 0)


def training_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return what training minimises for logits (N, 2) and labels (N,): mean cross-entropy with smoothed labels."""
    return functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)


def reestimate_batch_norm(network: nn.Module, split: Split, batch_size: int, processes: Processes) -> None:
    """Replace batch-norm statistics by those of training images as they are, at the size that is served.

    Training leaves statistics of varied, and mostly smaller, images. With them the network is off balance on images as
    they are: it calls many pneumonias normal, though it ranks them well.
    """
    images = split.images.pixels
    chosen = torch.randperm(len(images))[: math.ceil(NORMALIZED_BY / processes.count)].split(batch_size)
    batches = (images[index.to(images.device)].to(processes.device) for index in chosen)
    update_bn((normalize(batch).contiguous(memory_format=torch.channels_last) for batch in batches), network)
    processes.average(network.buffers())


def all_logits(network: nn.Module, split: Split, batch_size: int, processes: Processes) -> Tensor:
    """Run a network over a split, in float32 as it serves, each process over its share.

    Returns:
        Logits of all images on the CPU, in the order of the channel, float32, shape (N, 2).
    """
    return processes.gather(logits_of(network.eval(), split.images.pixels, batch_size))


def shuffled_batches(
    split: Split, batch_size: int, processes: Processes, label: str = ""
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's images in random order on its device, its part of `batch_size` at a time.

    On a GPU it yields several such parts at once, GPU_IMAGES images where they fit in. Every process yields as many
    images: one whose share is an image smaller repeats one.
    """
    images, device = split.images, processes.device
    longest = math.ceil(len(split.channel.paths) / processes.count)
    order = torch.randperm(len(images))
    order = torch.cat([order, order[: longest - len(order)]]).to(images.pixels.device)
    all_labels = images.labels.to(images.pixels.device)
    part = batch_size // processes.count
    at_once = max(1, GPU_IMAGES // part) if device.type == "cuda" else 1
    parts = order.split(part * at_once)
    for index in progress(parts, len(parts), label):
        pixels, labels = images.pixels[index], all_labels[index]
        if pixels.is_cpu and device.type == "cuda":  # only from pinned memory does the copy run beside the computation
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
        yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def settings_of(args: argparse.Namespace, splits: dict[str, Split], processes: Processes) -> dict[str, Any]:
    """Return what must be the same for a run to be resumed."""
    names = ("epochs", "batch_size", "learning_rate", "weight_decay", "weights", "seed")
    digests = {name: processes.gather_list(split.images.digests) for name, split in splits.items()}
    dataset = fingerprint(
        {name: zip(split.channel.labels, digests[name], strict=True) for name, split in splits.items()}
    )
    return {name: getattr(args, name) for name in names} | {
        "processes": processes.count,
        "device": processes.device.type,
        "precision": str(training_precision(processes.device)).removeprefix("torch."),
        "dataset": dataset,
    }


def training_report(
    args: argparse.Namespace,
    splits: dict[str, Split],
    settings: dict[str, Any],
    summaries: dict[str, Any],
    fitted: Calibration,
    input_check: InputCheck,
) -> TrainingReport:
    """Return what the release's manifest tells of its training."""
    served = ("auroc", "balanced_accuracy", "sensitivity", "specificity")
    return TrainingReport(
        weights_sha256=sha256(args.model_dir / WEIGHTS_NAME),
        training_job=os.environ.get("TRAINING_JOB_NAME"),
        finished=datetime.datetime.now(datetime.UTC),
        classes=list(CLASSES),
        preprocessing=PREPROCESSING,
        calibration=fitted,
        input_check=input_check,
        metrics={
            f"{name}_{figure}": value
            for name, one in summaries.items()
            for figure, value in (one["network"] | {figure: one["served"][figure] for figure in served}).items()
        },
        dataset=Dataset(settings["dataset"], {name: split.channel.counts() for name, split in splits.items()}),
        settings=settings | {"weights": Path(args.weights).name, "torch": str(torch.__version__)},
    )


def check_writable(folder: Path) -> None:
    """Make a folder, see that files can be written into it, and remove what a killed run left half-written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS_NAME, CHECKPOINT_NAME):
            for part in folder.glob(f".{name}.*.part"):
                part.unlink()
        with replacing(folder / ".writable") as temporary:
            temporary.touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be written ({error.strerror}): name another folder with --model-dir, --output-data-dir "
            "or --checkpoint-dir."
        ) from error


class ArgumentParser(argparse.ArgumentParser):
    """Reports a bad argument as every other error, so that SageMaker's failure file tells it."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process."""
        raise ConfigurationError(f"{message}. `python {self.prog} --help` lists the arguments.")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; their defaults are where SageMaker puts things."""
    parser = ArgumentParser(prog="train_model.py", description=__doc__.partition("\n")[0])
    for channel, what in zip(SPLITS, ("learn from", "choose the best epoch by", "test that one on"), strict=True):
        default = os.environ.get(f"SM_CHANNEL_{channel.upper()}") or f"/opt/ml/input/data/{channel}"
        help_ = f"images to {what}: NORMAL/ and PNEUMONIA/ (%(default)s)"
        parser.add_argument(f"--{channel}", type=Path, default=default, metavar="DIR", help=help_)
    model_dir = os.environ.get("SM_MODEL_DIR") or "/opt/ml/model"
    output_dir = os.environ.get("SM_OUTPUT_DATA_DIR") or "/opt/ml/output/data"
    checkpoint_dir = "/opt/ml/checkpoints" if os.path.isdir("/opt/ml/checkpoints") else None  # noqa: PTH112
    workers = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    # Name, default, type, metavar and help of each.
    for name, value, kind, metavar, text in (
        ("model-dir", model_dir, Path, "DIR", "gets the best checkpoint and training.json"),
        ("output-data-dir", output_dir, Path, "DIR", "gets history, figures and pictures"),
        ("checkpoint-dir", checkpoint_dir, Path, "DIR", "gets what an interrupted run goes on from"),
        ("epochs", 15, int, "N", "how often all training images are seen"),
        ("batch-size", 32, int, "N", "images a step, of all processes together"),
        ("learning-rate", 5e-4, float, "X", "at its peak; pretrained layers get 0.4 of it"),
        ("weight-decay", 0.01, float, "X", "of AdamW"),
        ("weights", "imagenet", str, "NAME", "what to start from: imagenet, none, or a state dict's path"),
        ("num-workers", workers, int, "N", "threads of each process that decode images"),
        ("seed", 0, int, "N", "decides the order of the images, their variation and the random start"),
    ):
        shown = "none" if value is None else "%(default)s"
        parser.add_argument(f"--{name}", default=value, type=kind, metavar=metavar, help=f"{text} ({shown})")
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
    if os.environ.get("RANK", "0") == "0":  # what ends training ends all processes: one of them tells
        print(sentence, file=sys.stderr, flush=True)
    failure = Path(os.environ.get("SM_OUTPUT_DIR", "/opt/ml/output")) / "failure"
    # On a laptop there is no such folder. Of several processes the first to fail tells why; the others only miss it.
    with contextlib.suppress(OSError), failure.open("x") as file:
        file.write(sentence)


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit status."""
    try:
        args = parse_arguments(argv)
        with joined() as processes, contextlib.redirect_stdout(None if not processes.is_first else sys.stdout):
            train(args, processes)
    except PneumoniaError as error:
        report_failure(str(error))
        return 1
    except OSError as error:
        report_failure(file_sentence(error))
        return 1
    except Exception as error:
        report_failure(f"Training ended with {type(error).__name__}: {first_line(error)}")
        raise  # a fault of ours, or the machine's: the log gets the traceback
    return 0


if __name__ == "__main__":
    sys.exit(main())
