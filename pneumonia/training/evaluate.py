"""Test released weights on a labelled folder, as they serve.

`python -m pneumonia.training.evaluate WEIGHTS FOLDER` prints the figures, and writes them with pictures and every
answer into `evaluation/`.
"""

import argparse
import csv
import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pneumonia.errors import ConfigurationError, DataError, WeightsError, exit_status
from pneumonia.files import replacing, sha256, write_json
from pneumonia.imaging.decoding import PREPROCESSING
from pneumonia.network.calibration import Calibration
from pneumonia.network.resnet import CLASSES, ResNet18, load_weights, logits_of
from pneumonia.releases.manifest import release_of
from pneumonia.training import metrics, plots
from pneumonia.training.channels import Channel, Images, fingerprint, load_channel, scan_channels

SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the images answered, at which the report gives the accuracy


@dataclass(frozen=True)
class Model:
    """What is tested: the network, the way from its outputs to an answer, its release and its file's SHA-256."""

    network: ResNet18
    calibration: Calibration
    version: str
    sha256: str


@dataclass(frozen=True)
class Answers:
    """What the model says of a folder: `probabilities[i]` is P(PNEUMONIA) of `channel.paths[i]`, float32, 0 to 1."""

    channel: Channel
    images: Images
    probabilities: Tensor


def evaluate(weights: Path, folder: Path, output: Path, batch_size: int, workers: int) -> None:
    """Run a model over a folder, print the figures and write the report.

    Args:
        weights: the file; a manifest beside it tells release and calibration, as when serving.
        folder: NORMAL/ and PNEUMONIA/ with images.
        output: folder to write into, made when it is missing; files of an earlier evaluation are replaced.
        batch_size: images at a time.
        workers: threads that decode images.

    Raises:
        PneumoniaError: arguments, weights or images that cannot be used.
        OSError: a file cannot be read or written.
    """
    if output.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError(
            f"The report would lie among the images, in {output.resolve()}: name a folder elsewhere with --output."
        )
    model = load_model(weights)
    channel = scan_folder(folder)
    print(f"{channel.name}: {len(channel.paths):,} images, model {model.version}", flush=True)
    images = load_channel(channel, workers, lambda results, _: results)
    output.mkdir(parents=True, exist_ok=True)  # before the network runs for minutes in vain
    answers = Answers(channel, images, probabilities_of(model, images, batch_size))
    report = report_on(model, answers)
    print(table(report))
    write(output, model, answers, report)
    print(f"\nFigures, pictures and every answer are in {output}.")


def load_model(weights: Path) -> Model:
    """Load weights and what the manifest beside them says; without one, softmax and a threshold of 0.5 hold.

    Raises:
        WeightsError: not weights of this network.
        OSError: the file cannot be read.
    """
    release = release_of(weights, CLASSES, PREPROCESSING)
    return Model(load_weights(weights), release.calibration, release.version, sha256(weights))


def scan_folder(folder: Path) -> Channel:
    """List a folder's images under the folder's name.

    Raises:
        DataError: no folder, or not of images of both classes.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name one with {' and '.join(CLASSES)}.")
    name = folder.resolve().name
    return scan_channels({name: folder})[name]


def probabilities_of(model: Model, images: Images, batch_size: int) -> Tensor:
    """Return P(PNEUMONIA) of each image, float32, shape (N,), as serving gives it.

    Raises:
        WeightsError: the network gives no finite numbers.
    """
    probabilities = model.calibration.probabilities(logits_of(model.network, images.pixels, batch_size))[:, 1]
    if not probabilities.isfinite().all():
        raise WeightsError(f"Model {model.version} gives no finite probabilities: evaluate another one.")
    return probabilities


def report_on(model: Model, answers: Answers) -> dict[str, Any]:
    """Return the content of evaluation.json."""
    given = answers.probabilities, answers.images.labels, model.calibration
    shares, accuracies = metrics.coverage(*given)
    # Images equally near are dropped together, so the curve has not every share: the next larger one counts.
    places = np.searchsorted(shares, SHARES)
    images = zip(answers.channel.labels, answers.images.digests, strict=True)
    return {
        "model_version": model.version,
        "weights_sha256": model.sha256,
        "calibration": dataclasses.asdict(model.calibration),
        "folder": answers.channel.name,
        "dataset_fingerprint": fingerprint({"evaluation": images}),
        **metrics.summarize(*given, answers.channel.patients()),
        "doubt": dataclasses.asdict(metrics.doubt(*given)),
        "coverage": [{"share": float(shares[place]), "accuracy": float(accuracies[place])} for place in places],
    }


def table(report: dict[str, Any]) -> str:
    """Return the figures of `report_on` as text for a terminal."""
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
    lines += ["", f"The answer is PNEUMONIA from P(PNEUMONIA) {report['threshold']:.4f} on."]
    if report["calibration"] == dataclasses.asdict(Calibration()):
        lines.append("That is not calibrated: no manifest with a calibration of these weights lies beside them.")
    doubt = report["doubt"]
    if doubt["accuracy_uncertain"] is not None and doubt["accuracy_certain"] is not None:
        lines.append(
            f"{doubt['uncertain_share']:.1%} of the answers carry a warning: {doubt['accuracy_uncertain']:.1%} of them "
            f"are right, and {doubt['accuracy_certain']:.1%} of the others."
        )
    return "\n".join(lines)


def write(output: Path, model: Model, answers: Answers, report: dict[str, Any]) -> None:
    """Write report, answers and pictures, each whole or not at all.

    Raises:
        OSError: a file cannot be written.
    """
    write_json(output / "evaluation.json", report)
    write_predictions(answers, model.calibration, output / "predictions.csv")
    given = answers.probabilities, answers.images.labels, model.calibration
    names = [path.name for path in answers.channel.paths]
    plots.draw_roc(*given, output / "roc.png")
    plots.draw_confusion(report["confusion"], output / "confusion.png")
    plots.draw_reliability(*given, output / "reliability.png")
    plots.draw_coverage(*given, output / "coverage.png")
    plots.draw_mistakes(*given, answers.images.pixels, names, output / "mistakes.png")


def write_predictions(answers: Answers, calibration: Calibration, path: Path) -> None:
    """Write a line per image: file, label, P(PNEUMONIA), prediction, and whether the answer carries a warning."""
    channel = answers.channel
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,  # names of any bytes
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("file", "label", "probability", "prediction", "uncertain"))
        for image, label, probability in zip(
            channel.paths, channel.labels, answers.probabilities.tolist(), strict=True
        ):
            prediction = CLASSES[calibration.is_pneumonia(probability)]
            uncertain = str(calibration.is_uncertain(probability)).lower()
            name = image.relative_to(channel.root).as_posix()
            rows.writerow((name, CLASSES[label], probability, prediction, uncertain))


def _title(name: str) -> str:
    return {"auroc": "AUROC", "ece": "ECE", "brier": "Brier score"}.get(name, name.replace("_", " "))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments.

    Raises:
        ConfigurationError: a number that is not above 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pneumonia.training.evaluate", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file, its manifest.json beside it")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument(
        "--output", type=Path, default=Path("evaluation"), metavar="DIR", help="gets the report (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--num-workers", type=int, default=os.cpu_count() or 1, metavar="N", help="decoding threads (%(default)s)"
    )
    args = parser.parse_args(argv)
    for name in ("batch_size", "num_workers"):
        if not getattr(args, name) > 0:
            raise ConfigurationError(f"--{name.replace('_', '-')} must be above 0, not {getattr(args, name)}.")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate; return the exit status."""

    def run() -> None:
        args = parse_arguments(argv)
        evaluate(args.weights, args.folder, args.output, args.batch_size, args.num_workers)

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
