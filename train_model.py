"""SageMaker entry script: fine-tune ResNet-18 on chest X-rays, keep the best checkpoint, test it.

Runs as well on a laptop: `python train_model.py --train DIR --val DIR --test DIR --model-dir DIR
--output-data-dir DIR`. Leaves `pneumonia_classifier.pth` and `training.json` in the model directory.
"""

import contextlib
import copy
import dataclasses
import math
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

# Makes torch put large tensors into huge pages (pneumonia/memory.py). It has to be set before the first tensor, and
# modules that are imported below make some.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from pneumonia.command import Parser, local_path, make_streams_writable, say
from pneumonia.errors import (
    ConfigurationError,
    PneumoniaError,
    TrainingError,
    file_sentence,
    first_line,
    keeping,
    printable,
)
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.memory import spare_memory_in_training
from pneumonia.names import some
from pneumonia.network.data_check import DataCheck
from pneumonia.network.resnet import normalize
from pneumonia.network.weights_file import save_weights
from pneumonia.training import metrics
from pneumonia.training.batches import (
    Split,
    all_logits,
    check_divisible,
    load_splits,
    network_input,
    shuffled_batches,
)
from pneumonia.training.channels import SPLITS, scan_channels
from pneumonia.training.checkpoint import CHECKPOINT_NAME
from pneumonia.training.data_checking import check_channels
from pneumonia.training.folders import Folders, check_writable, claimed, remove_reports
from pneumonia.training.hyperparameters import (
    Hyperparameters,
    add_hyperparameters,
    given_hyperparameters,
    with_pattern_joined,
    without_sagemakers,
)
from pneumonia.training.patients import pattern_of
from pneumonia.training.pretrained import build_network
from pneumonia.training.processes import Processes, joined
from pneumonia.training.report import check_can_draw, epoch_line, report
from pneumonia.training.run import PRETRAINED_RATE, Evaluation, Run, is_better, settings_of
from pneumonia.training.stopping import (
    telling_when_stopped,
    what_a_full_disk_leaves,
    what_is_kept,
    what_is_kept_meanwhile,
)

# Of the recipe, whose other numbers lie in training/{augmentation,batches,run}.py; docs/model-card.md says what it was
# chosen by.
SMALL_SIZE, SMALL_SHARE = 128, 2 / 3  # the first two thirds of the epochs see small images: a third of the work
NORMALIZED_BY = 512  # training images that batch-norm statistics are re-estimated from
REFINING_RATE = 0.5  # in refining runs, of what pretrained layers get before
SHOWN_OTHERWISE = 0.5  # of their images that are photographed, and of those that get other grays
EXAMPLE = "example: train_model.py --train xrays/train --val xrays/val --test xrays/test --model-dir model --seed 1"


def train(folders: Folders, chosen: Hyperparameters, processes: Processes) -> None:
    """Train, select, test and report.

    Raises:
        PneumoniaError: bad input, or training that cannot go on.
        OSError: a file cannot be read or written.
    """
    model, pretrained, splits, data_check = prepare(folders, chosen, processes)
    settings = settings_of(chosen, splits, processes)
    device = f"device={processes.device} processes={processes.count} precision={settings['precision']}"
    say(f"{device} torch={torch.__version__}")
    if processes.device.type == "cpu":
        spare_memory_in_training()
    run = Run.start(model, pretrained, chosen, splits["train"].count, processes)
    checkpoints = processes.from_first(folders.checkpoints)  # its default depends on the machine
    checkpoint = checkpoints / CHECKPOINT_NAME if checkpoints else None
    torch.manual_seed((chosen.seed + processes.rank) % 2**64)  # each process varies its images in its own way
    with keeping(partial(what_a_full_disk_leaves, run, folders, checkpoint)):
        if checkpoint and run.resume(checkpoint, settings, processes):
            save_best(run, folders, processes)  # a new instance starts with an empty model directory
        if "TRAINING_JOB_NAME" in os.environ:  # SageMaker's signal may not get through to this process
            say(what_is_kept_meanwhile(folders, checkpoint))
        kept = partial(what_is_kept, run.history, chosen.epochs, folders, checkpoint, chosen.refining_runs)
        with telling_when_stopped(kept) if processes.is_first else contextlib.nullcontext():
            for epoch in range(len(run.history) + 1, chosen.epochs + 1):
                end_epoch(run, *train_and_validate(run, epoch, splits, chosen, processes), folders, processes)
                if checkpoint:
                    run.save(checkpoint, settings, processes)
            if chosen.refining_runs:
                end_epoch(run, *refine_and_validate(run, splits, chosen, processes), folders, processes)
            settings["refining_runs"] = chosen.refining_runs  # not before: a finished run may be refined later
            report(run, splits, data_check, settings, folders.weights, folders.output, processes)


def train_and_validate(
    run: Run, epoch: int, splits: Mapping[str, Split], chosen: Hyperparameters, processes: Processes
) -> tuple[dict[str, Any], float]:
    """Train for an epoch, validate, and keep in the run what is the best so far.

    Returns:
        The epoch's entry in the history, and the training images seen per second.

    Raises:
        TrainingError: the training diverged.
    """
    started = time.perf_counter()
    batches = shuffled_batches(splits["train"], chosen.batch_size, processes, f"epoch {epoch}")
    train_loss = processes.mean(train_one_epoch(run, batches, image_size(epoch, chosen.epochs)))
    images_per_second = splits["train"].count / (time.perf_counter() - started)
    return validate(run, epoch, train_loss, splits, chosen, processes), images_per_second


def refine_and_validate(
    run: Run, splits: Mapping[str, Split], chosen: Hyperparameters, processes: Processes
) -> tuple[dict[str, Any], float]:
    """Train the best checkpoint further in several runs, and keep in the run the average of their ends.

    Runs from one start stay close enough for their weights to be averaged (Wortsman et al. 2022,
    https://arxiv.org/abs/2203.05482). The average takes the best checkpoint's place whatever its validation says,
    because what it gains does not show there (docs/model-card.md).

    Returns:
        As `train_and_validate`.

    Raises:
        TrainingError: the training diverged.
    """
    started = time.perf_counter()
    if run.best_state:
        run.model.load_state_dict(run.best_state)
    sums: dict[str, Tensor] = {}
    losses: list[float] = []
    for number in range(chosen.refining_runs):
        end, loss = refined(run.model, number, splits["train"], chosen, processes)
        say(f"refining_run={number + 1} loss={loss:.4f}")
        if not math.isfinite(loss):
            kept = " The best checkpoint before it is kept." if run.best_state else ""
            raise TrainingError(
                f"Refining run {number + 1} diverged: its loss is {loss:g}. Lower --learning-rate, now "
                f"{chosen.learning_rate:g}, of which refining takes {REFINING_RATE * PRETRAINED_RATE:g}.{kept}"
            )
        losses.append(loss)
        add(sums, end)
        del end  # so that the next run does not train beside it
    run.averaged.load_state_dict({name: total / len(losses) for name, total in sums.items()})
    images_per_second = len(losses) * splits["train"].count / (time.perf_counter() - started)
    run.best = None
    train_loss = sum(losses) / len(losses)
    return validate(run, len(run.history) + 1, train_loss, splits, chosen, processes), images_per_second


def refined(
    start: nn.Module, number: int, split: Split, chosen: Hyperparameters, processes: Processes
) -> tuple[dict[str, Tensor], float]:
    """Train a copy of a network on all images once, some of them shown otherwise.

    Args:
        start: the network; it stays as it is.
        number: of the run, from 0; each has random numbers of its own.
        split: the training images.
        chosen: the hyperparameters.
        processes: those that train together.

    Returns:
        The moving average of the weights, and the mean loss per image, in nats, while training.
    """
    torch.manual_seed((chosen.seed + number * processes.count + processes.rank) % 2**64)
    once = dataclasses.replace(chosen, epochs=1, learning_rate=chosen.learning_rate * REFINING_RATE)
    names = [name for name, _ in start.named_parameters()]  # all have learned already
    run = Run.start(copy.deepcopy(start), names, once, split.count, processes)
    batches = shuffled_batches(split, chosen.batch_size, processes, f"refining run {number + 1}")
    loss = processes.mean(train_one_epoch(run, batches, SIZE, SHOWN_OTHERWISE))
    return run.averaged.state_dict(), loss


def add(sums: dict[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Add the tensors of a state dict to sums, float64, which the first one begins."""
    for name, tensor in state.items():
        if name in sums:
            sums[name] += tensor
        else:
            sums[name] = tensor.to(torch.float64, copy=True)


def validate(
    run: Run, epoch: int, train_loss: float, splits: Mapping[str, Split], chosen: Hyperparameters, processes: Processes
) -> dict[str, Any]:
    """Validate the averaged network, and keep it in the run if it is the best so far.

    Returns:
        The epoch's entry in the history.

    Raises:
        TrainingError: the training diverged.
    """
    reestimate_batch_norm(run.averaged, splits["train"], chosen.batch_size, processes)
    logits = all_logits(run.averaged, splits["val"], chosen.batch_size, processes)
    validation = Evaluation.of(logits, splits["val"].labels)
    run.check_finite(train_loss, validation, chosen.learning_rate)
    best = is_better(validation, run.best)
    if best:
        run.best, run.best_state = validation, copy.deepcopy(run.averaged.state_dict())
    figures = {"val_accuracy": validation.accuracy, "val_loss": validation.loss}
    figures["val_auroc"] = metrics.auroc(logits[:, 1] - logits[:, 0], splits["val"].labels)
    return {"epoch": epoch, "train_loss": train_loss, **figures, "best": best}


def end_epoch(
    run: Run, figures: dict[str, Any], images_per_second: float, folders: Folders, processes: Processes
) -> None:
    """Write the weights if they are the best so far, and enter the epoch in history and log.

    Raises:
        OSError: as `save_best`.
    """
    if figures["best"]:
        save_best(run, folders, processes)
    run.history.append(figures)
    say(epoch_line(figures, images_per_second))


def save_best(run: Run, folders: Folders, processes: Processes) -> None:
    """Write the best checkpoint as a weights file, after removing what tells about the weights before.

    Raises:
        OSError: a file cannot be written or removed.
    """
    if run.best_state and processes.is_first:
        remove_reports(folders)
        save_weights(run.best_state, folders.weights)


def prepare(
    folders: Folders, chosen: Hyperparameters, processes: Processes
) -> tuple[nn.Module, Collection[str], dict[str, Split], DataCheck]:
    """Check that a training can be made, and load what it needs.

    Returns:
        The network, the names of its tensors that are not random, the splits, and what makes their figures untrue.

    Raises:
        PneumoniaError: folders, images or weights that cannot be used.
        OSError: an image cannot be kept, because the temporary folder is full.
    """
    with processes.together():
        check_can_draw()
        if processes.is_first:
            for folder in folders.written:
                check_writable(folder)
        channels = scan_channels(folders.channels, pattern_of(chosen.patients))
        check_divisible(chosen.batch_size, channels, processes)
        torch.manual_seed(chosen.seed)
        model, pretrained = build_network(chosen.weights)
        if not chosen.epochs:
            check_trained(model, pretrained, chosen.weights)
    splits = load_splits(channels, chosen.num_workers, processes)
    data_check = check_channels([(split.channel, split.digests) for split in splits.values()])
    return model, pretrained, splits, data_check


def check_trained(model: nn.Module, pretrained: Collection[str], weights: str) -> None:
    """Check that a network that is only refined has learned in all of its layers.

    Raises:
        ConfigurationError: some of them are random.
    """
    if random := [name for name, _ in model.named_parameters() if name not in pretrained]:
        raise ConfigurationError(
            f"--epochs 0 refines a trained network, and {weights} lacks {some(random)}: name a file that has all "
            "layers, or train for some epochs."
        )


def image_size(epoch: int, epochs: int) -> int:
    """Return the height and width, in pixels, that an epoch trains at; epochs count from 1."""
    return SMALL_SIZE if epoch <= epochs * SMALL_SHARE else SIZE


def train_one_epoch(run: Run, batches: Iterable[tuple[Tensor, Tensor]], size: int, shown: float = 0.0) -> float:
    """Take one optimiser step per batch.

    Args:
        run: the network and what moves it.
        batches: uint8 images (N, C, H, W) and int64 labels (N,), on the network's device; each varied at once, and
            divided into the steps' batches.
        size: height and width of the network's input in pixels.
        shown: share of the images that is photographed, and share that gets other grays.

    Returns:
        Mean loss per image, in nats, while training: cross-entropy with smoothed labels.
    """
    run.model.train()
    total: Tensor | float = 0.0
    count = 0
    for images, labels in batches:
        varied = network_input(images, size, shown)
        parts = zip(varied.split(run.batch_size), labels.split(run.batch_size), strict=True)
        for inputs, answers in parts:
            loss = run.step(inputs, answers)
            run.follow()
            total = total + loss * len(answers)  # summed where it is: reading it would wait
        count += len(labels)
    for statistics, own in zip(run.averaged.buffers(), run.model.buffers(), strict=True):
        statistics.copy_(own)  # those of batch norm are not averaged
    return float(total) / count


def reestimate_batch_norm(network: nn.Module, split: Split, batch_size: int, processes: Processes) -> None:
    """Replace batch-norm statistics by those of training images as they are, at the size that is served.

    Training leaves statistics of varied, and mostly smaller, images. With them the network is off balance on images as
    they are: it calls many pneumonias normal, though it ranks them well.
    """
    images = split.images.pixels
    chosen = torch.randperm(len(images))[: math.ceil(NORMALIZED_BY / processes.count)].split(batch_size)
    batches = (images[index.to(images.device)].to(processes.device) for index in chosen)
    update_bn(map(normalize, batches), network)
    processes.average(network.buffers())


def parse_arguments(argv: Sequence[str] | None) -> tuple[Folders, Hyperparameters]:
    """Read the arguments; the folders' defaults are where SageMaker puts things.

    Raises:
        ConfigurationError: an argument that is unknown or cannot be used.
    """
    parser = Parser(prog="train_model.py", description=__doc__.partition("\n")[0], epilog=EXAMPLE)
    for channel, what in zip(SPLITS, ("learn from", "choose the best epoch by", "test that one on"), strict=True):
        default = os.environ.get(f"SM_CHANNEL_{channel.upper()}") or f"/opt/ml/input/data/{channel}"
        help_ = f"images to {what}: NORMAL/ and PNEUMONIA/ (%(default)s)"
        parser.add_argument(f"--{channel}", type=local_path, default=default, metavar="DIR", help=help_)
    model = os.environ.get("SM_MODEL_DIR") or "/opt/ml/model"
    output = os.environ.get("SM_OUTPUT_DATA_DIR") or "/opt/ml/output/data"
    checkpoints = "/opt/ml/checkpoints" if os.path.isdir("/opt/ml/checkpoints") else None  # noqa: PTH112
    for name, folder, what in (
        ("model-dir", model, "the best checkpoint and training.json"),
        ("output-data-dir", output, "history, figures and pictures"),
        ("checkpoint-dir", checkpoints, "what an interrupted run goes on from"),
    ):
        parser.add_argument(
            f"--{name}", type=local_path, default=folder, metavar="DIR", help=f"gets {what} ({folder or 'none'})"
        )
    add_hyperparameters(parser)
    args = parser.parse_args(with_pattern_joined(without_sagemakers(sys.argv[1:] if argv is None else argv)))
    try:
        chosen = Hyperparameters(**given_hyperparameters(args))
    except ValueError as error:
        parser.error(str(error))
    channels = {name: getattr(args, name) for name in SPLITS}
    return Folders(channels, args.model_dir, args.output_data_dir, args.checkpoint_dir), chosen


def report_failure(sentence: str, files: Sequence[str] = ()) -> None:
    """Write a sentence to the log, and to the file that SageMaker shows as the job's failure reason.

    Args:
        sentence: what is wrong.
        files: those that it is about, for the log alone: SageMaker shows 1,024 characters.
    """
    if os.environ.get("RANK", "0") == "0":  # what ends training ends all processes: one of them tells
        say(*files, sentence, file=sys.stderr)
    failure = Path(os.environ.get("SM_OUTPUT_DIR", "/opt/ml/output")) / "failure"
    # On a laptop there is no such folder. Of several processes the first to fail tells why; the others only miss it.
    with contextlib.suppress(OSError), failure.open("x") as file:
        file.write(printable(sentence))


def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit status."""
    make_streams_writable()
    try:
        folders, chosen = parse_arguments(argv)
        with contextlib.ExitStack() as stack:
            processes = stack.enter_context(joined())
            stack.enter_context(contextlib.redirect_stdout(sys.stdout if processes.is_first else None))
            stack.enter_context(claimed(folders, processes))
            train(folders, chosen, processes)
    except PneumoniaError as error:
        report_failure(str(error), error.files)
        return 1
    except OSError as error:
        report_failure(file_sentence(error))
        return 1
    except KeyboardInterrupt:  # while preparing: later, `telling_when_stopped` says more
        say("Stopped.", file=sys.stderr)
        return 130
    except Exception as error:
        report_failure(f"Training ended with {type(error).__name__}: {first_line(error)}")
        raise  # a fault of ours, or the machine's: the log gets the traceback
    return 0


if __name__ == "__main__":
    sys.exit(main())
