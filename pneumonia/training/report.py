"""What a training reports: a line for each epoch and, at its end, the best checkpoint's test and the files about it."""

import dataclasses
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pneumonia.command import HOW_TO_INSTALL, packages_needed_by, say
from pneumonia.errors import TrainingError
from pneumonia.files import read_plain, write_json
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import CLASSES
from pneumonia.network.data_check import DataCheck
from pneumonia.network.resnet import ResNet18
from pneumonia.network.training_report import Dataset, TrainingReport
from pneumonia.network.weights_file import MAX_BYTES, at_rest, save_whole, saved
from pneumonia.training import metrics
from pneumonia.training.activations import activations_of
from pneumonia.training.batches import Split, all_logits
from pneumonia.training.fitting import fit, log_odds, suspicions
from pneumonia.training.input_check_fitting import input_check_of
from pneumonia.training.processes import Processes
from pneumonia.training.run import Evaluation, Run
from pneumonia.training.usual_evidence import usual_evidence_of

DRAWING = ("matplotlib", "sklearn")  # imported at the end: they take 160 MB, which training can do without
SERVED = ("auroc", "balanced_accuracy", "sensitivity", "specificity")  # figures of the calibrated network


def check_can_draw() -> None:
    """Check, before hours of training, that the packages that only the plots at its end need are installed.

    Raises:
        ConfigurationError: a package is missing.
    """
    with packages_needed_by("train_model.py", HOW_TO_INSTALL):
        for name in DRAWING:
            if find_spec(name) is None:
                raise ModuleNotFoundError(name=name)


def report(
    run: Run,
    splits: Mapping[str, Split],
    data_check: DataCheck,
    settings: Mapping[str, Any],
    weights: Path,
    output: Path,
    processes: Processes,
) -> None:
    """Calibrate the best checkpoint on validation, test it, and write the reports.

    Args:
        run: the run, at its end.
        splits: "train", "val" and "test".
        data_check: what was counted in them.
        settings: those of the run, for the training report.
        weights: the best checkpoint's file; it gets its training report beside it.
        output: folder for history, figures and pictures.
        processes: those that trained together; the first one writes.

    Raises:
        TrainingError: the best checkpoint's outputs are not finite.
        OSError: a file cannot be read or written.
    """
    data = best_weights(run, weights) if processes.is_first else b""
    load_best(run.model, data, processes)
    logits = {name: all_logits(run.model, splits[name], settings["batch_size"], processes) for name in ("val", "test")}
    check_finite(logits.values(), settings["learning_rate"])
    fitted = fit(logits["val"], splits["val"].labels)
    seen = seen_by(serving_network(run.model, processes), splits, settings["batch_size"], processes)
    summaries = {name: summary(logits[name], splits[name], fitted) for name in logits}
    say(test_line(summaries["test"]))
    if processes.is_first:
        write_json(output / "history.json", run.history)
        write_json(output / "metrics.json", {"calibration": dataclasses.asdict(fitted), **summaries})
        digest = hashlib.sha256(data).hexdigest()
        told = report_for(splits, data_check, settings, digest, summaries, fitted)
        dataclasses.replace(told, **seen).write_beside(weights)
        draw(run.history, logits["test"], splits["test"].labels, fitted, output)


def best_weights(run: Run, weights: Path) -> bytes:
    """Return the bytes of the best checkpoint's file; write it again if they are no longer those that it should have.

    Raises:
        OSError: the file cannot be read or written.
    """
    state = at_rest(run.best_state or {})
    data = saved(state).getvalue()
    if not weights.exists() or read_plain(weights, MAX_BYTES) != data:
        say(f"{weights} has been damaged or removed since it was written: it is written again")
        save_whole(state, weights)
    return data


def load_best(model: nn.Module, data: bytes, processes: Processes) -> None:
    """Load the best checkpoint as its file has it: what is tested is what will be served, half precision included.

    Args:
        model: the network of every process.
        data: the file's bytes, in the first process.
        processes: those that trained together.
    """
    if processes.is_first:
        model.load_state_dict(torch.load(io.BytesIO(data), map_location=processes.device, weights_only=True))
    processes.copy_from_first(model.state_dict().values())


def check_finite(logits: Iterable[Tensor], learning_rate: float) -> None:
    """Check that the best checkpoint's outputs are finite.

    Raises:
        TrainingError: they are not.
    """
    if not all(rows.isfinite().all() for rows in logits):
        raise TrainingError(
            "The best checkpoint's outputs are not finite in the half precision that it is kept in: lower "
            f"--learning-rate, now {learning_rate:g}."
        )


def serving_network(model: nn.Module, processes: Processes) -> ResNet18:
    """Return the trained network as a `ResNet18`: unlike torchvision's model, it returns its layers' outputs."""
    network = ResNet18()
    network.load_state_dict(model.state_dict())
    return network.to(processes.device).eval()


def seen_by(network: ResNet18, splits: Mapping[str, Split], batch_size: int, processes: Processes) -> dict[str, Any]:
    """Return what is measured within the network while it sees images, by the names of the training report's fields.

    Args:
        network: in evaluation mode, as it serves.
        splits: "train" and "val".
        batch_size: images that go through the network at a time.
        processes: those that trained together.
    """
    train, validation, gather = splits["train"].images, splits["val"].images, processes.gather
    return {
        "input_check": input_check_of(network, train.pixels, validation.pixels, batch_size, gather),
        "activations": activations_of(network, train.pixels, batch_size, gather),
        "usual_evidence": usual_evidence_of(network, validation.pixels, validation.labels, batch_size, gather),
    }


def summary(logits: Tensor, split: Split, fitted: Calibration) -> dict[str, Any]:
    """Return a split's figures: as a bare network's, and as served, calibrated."""
    bare = Evaluation.of(logits, split.labels)
    served = metrics.summarize(suspicions(fitted, log_odds(logits)), split.labels, split.channel.patients())
    return {"network": {"accuracy": bare.accuracy, "loss": bare.loss}, "served": served}


def epoch_line(epoch: Mapping[str, Any], images_per_second: float) -> str:
    """Return an epoch's log line; the metric definitions of train_sagemaker.py read it."""
    figures = " ".join(f"{name}={epoch[name]:.4f}" for name in ("train_loss", "val_accuracy", "val_loss", "val_auroc"))
    best = "yes" if epoch["best"] else "no"
    return f"epoch={epoch['epoch']} {figures} images_per_second={images_per_second:.1f} best={best}"


def test_line(test: Mapping[str, Any]) -> str:
    """Return the test's log line; the metric definitions of train_sagemaker.py read it."""
    network, served = test["network"], test["served"]
    figures = " ".join(f"test_{name}={served[name]:.4f}" for name in SERVED)
    return f"test_accuracy={network['accuracy']:.4f} test_loss={network['loss']:.4f} {figures}"


def report_for(
    splits: Mapping[str, Split],
    data_check: DataCheck,
    settings: Mapping[str, Any],
    weights_sha256: str,
    summaries: Mapping[str, Any],
    fitted: Calibration,
) -> TrainingReport:
    """Return what promotion makes the release's manifest of, without what `seen_by` returns."""
    figures = {
        name: one["network"] | {figure: one["served"][figure] for figure in SERVED} for name, one in summaries.items()
    }
    return TrainingReport(
        weights_sha256=weights_sha256,
        training_job=os.environ.get("TRAINING_JOB_NAME"),
        finished=datetime.now(UTC),
        classes=list(CLASSES),
        preprocessing=PREPROCESSING,
        calibration=fitted,
        metrics={f"{name}_{figure}": value for name, one in figures.items() for figure, value in one.items()},
        dataset=Dataset(settings["dataset"], {name: split.channel.counts() for name, split in splits.items()}),
        data_check=data_check,
        settings={**settings, "weights": Path(settings["weights"]).name, "torch": str(torch.__version__)},
    )


def draw(
    history: Sequence[Mapping[str, Any]], logits: Tensor, labels: Tensor, fitted: Calibration, folder: Path
) -> None:
    """Draw the epochs, and the test's logits (N, 2) against its labels (N,), into a folder.

    Raises:
        OSError: a picture cannot be written.
    """
    from pneumonia.training import plots  # noqa: PLC0415  # it imports what DRAWING names

    answers = suspicions(fitted, log_odds(logits)), labels
    plots.draw_learning_curves(history, folder / "learning_curves.png")
    plots.draw_roc(*answers, folder / "roc.png")
    plots.draw_confusion(metrics.confusion(*answers), folder / "confusion.png")
    plots.draw_reliability(*answers, folder / "reliability.png")
