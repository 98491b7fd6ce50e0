"""Test a model on a labelled folder, as it serves: figures with intervals, pictures and every answer."""

import csv
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pneumonia.command import say
from pneumonia.errors import ConfigurationError, keeping
from pneumonia.files import real, replacing, write_json
from pneumonia.imaging.preprocessing import normalized
from pneumonia.names import in_csv
from pneumonia.network.calibration import Calibration
from pneumonia.network.classifier import Classifier
from pneumonia.network.contract import CLASSES
from pneumonia.network.data_check import DataCheck
from pneumonia.network.prediction import Prediction
from pneumonia.training import metrics, plots
from pneumonia.training.channels import Channel, fingerprint, scan_folder
from pneumonia.training.data_checking import about_names, about_training, check_labels, tell
from pneumonia.training.images import Images, load_channel

SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the images answered, at which the report gives the accuracy


@dataclass(frozen=True)
class Answered:
    """A labelled folder with the model's answers: `predictions[i]` is for `channel.paths[i]`."""

    channel: Channel
    images: Images
    predictions: list[Prediction]

    @property
    def probabilities(self) -> Tensor:
        """P(PNEUMONIA) of each image, float64, shape (N,), 0 to 1."""
        return torch.tensor([one.probabilities["PNEUMONIA"] for one in self.predictions], dtype=torch.float64)


def evaluate(
    model: Classifier,
    folder: Path,
    output: Path,
    batch_size: int,
    workers: int,
    pattern: re.Pattern[str] | None = None,
    trained_on: DataCheck | None = None,
) -> None:
    """Run a model over a folder, print the figures and write the report.

    Args:
        model: as it serves.
        folder: NORMAL/ and PNEUMONIA/ with images.
        output: folder to write into, made when it is missing; files of an earlier evaluation are replaced.
        batch_size: images at a time.
        workers: threads that decode images.
        pattern: where the patient is in a file's name, as `patients.pattern_of` returns it.
        trained_on: what training counted in its own images, None if it is not known.

    Raises:
        PneumoniaError: images that cannot be used, or a model whose answers are not finite.
        OSError: a file cannot be read or written.
    """
    if real(output).is_relative_to(real(folder)):
        raise ConfigurationError(
            f"The report would lie among the images, in {real(output)}: name a folder elsewhere with --output."
        )
    channel = scan_folder(folder, pattern)
    say(f"{channel.name}: {len(channel.paths):,} images, model {model.version}")
    warnings = tell([*about_names([channel]), *about_training(trained_on)])
    images = load_channel(channel, workers)
    check_labels([(channel, images.digests)])
    output.mkdir(parents=True, exist_ok=True)  # before the network runs for minutes in vain
    answered = answers_to(channel, images, model, batch_size)
    report = {"model_version": model.version, "weights_sha256": model.sha256} | report_on(model.calibration, answered)
    report["warnings"] = warnings
    say(*table(report).split("\n"))
    with keeping(lambda: f"Each file in {output} is whole, but some may be of an earlier evaluation: run this again."):
        write(output, model.calibration, answered, report)
    say("", f"Figures, pictures and every answer are in {output}.")


def answers_to(channel: Channel, images: Images, model: Classifier, batch_size: int) -> Answered:
    """Return a model's answers to a folder's images.

    Raises:
        WeightsError: the network gives no finite numbers.
    """
    starts = range(0, len(images), batch_size)
    batches = (normalized(images.pixels[start : start + batch_size].numpy()) for start in starts)
    return Answered(channel, images, [answer for batch in batches for answer in model.answers(batch)])


def report_on(calibration: Calibration, answered: Answered) -> dict[str, Any]:
    """Return the figures of evaluation.json."""
    given = answered.probabilities, answered.images.labels
    shares, accuracies = metrics.coverage(*given)
    # Images equally near are dropped together, so the curve has not every share: the next larger one counts.
    places = np.searchsorted(shares, SHARES)
    images = zip(answered.channel.labels, answered.images.digests, strict=True)
    return {
        "calibration": dataclasses.asdict(calibration),
        "folder": answered.channel.name,
        "dataset_fingerprint": fingerprint({"evaluation": images}),
        **metrics.summarize(*given, answered.channel.patients()),
        "doubt": dataclasses.asdict(metrics.doubt(*given, calibration)),
        "coverage": [{"share": float(shares[place]), "accuracy": float(accuracies[place])} for place in places],
    }


def table(report: dict[str, Any]) -> str:
    """Return the figures of evaluation.json as text for a terminal."""
    counts = ", ".join(f"{count:,} {label}" for label, count in report["counts"].items())
    lines = [f"{counts}, {report['patients']:,} patients", "", f"{'':<18} {'value':>6}   95% interval"]
    for name, (low, high) in report["intervals"].items():
        # Where all answers are right, or all wrong, every resample gives the same: that is no certainty.
        interval = f"{low:.4f} to {high:.4f}" if low < high else "none, as no resample differs"
        lines.append(f"{_title(name):<18} {report[name]:>6.4f}   {interval}")
    lines += [f"{_title(name):<18} {report[name]:>6.4f}" for name in ("ece", "brier")]
    lines += ["", f"{'true class':<18} " + " ".join(f"{'answer ' + label:>17}" for label in CLASSES)]
    for label, row in report["confusion"].items():
        lines.append(f"{label:<18} " + " ".join(f"{row[answer]:>17,}" for answer in CLASSES))
    lines.append("")
    if report["calibration"] == dataclasses.asdict(Calibration()):
        lines.append(
            "The answers are not calibrated: beside the weights there is no manifest with a calibration of them."
        )
    doubt = report["doubt"]
    if doubt["accuracy_uncertain"] is not None and doubt["accuracy_certain"] is not None:
        lines.append(
            f"{doubt['uncertain_share']:.1%} of the answers carry the warning uncertain: "
            f"{doubt['accuracy_uncertain']:.1%} of them are right, and {doubt['accuracy_certain']:.1%} of the others."
        )
    return "\n".join(lines)


def write(output: Path, calibration: Calibration, answered: Answered, report: dict[str, Any]) -> None:
    """Write report, answers and pictures, each whole or not at all.

    Raises:
        OSError: a file cannot be written.
    """
    write_json(output / "evaluation.json", report)
    write_predictions(answered, output / "predictions.csv")
    given = answered.probabilities, answered.images.labels
    names = [path.name for path in answered.channel.paths]
    plots.draw_roc(*given, output / "roc.png")
    plots.draw_confusion(report["confusion"], output / "confusion.png")
    plots.draw_reliability(*given, output / "reliability.png")
    plots.draw_coverage(*given, calibration, output / "coverage.png")
    plots.draw_mistakes(*given, answered.images.pixels, names, output / "mistakes.png")


def write_predictions(answered: Answered, path: Path) -> None:
    """Write a line per image: file, label, P(PNEUMONIA), prediction, and whether it is uncertain."""
    channel = answered.channel
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("file", "label", "probability", "prediction", "uncertain"))
        for image, label, answer in zip(channel.paths, channel.labels, answered.predictions, strict=True):
            probability, uncertain = answer.probabilities["PNEUMONIA"], str("uncertain" in answer.warnings).lower()
            name = in_csv(image.relative_to(channel.root).as_posix())
            rows.writerow((name, CLASSES[label], probability, answer.prediction, uncertain))


def _title(name: str) -> str:
    return {"auroc": "AUROC", "ece": "ECE", "brier": "Brier score"}.get(name, name.replace("_", " "))
