"""The command `calibrate`. It is outside `training`, which may not import `releases`, and needs both.

The folder that it writes is a release, for MODEL_PATH and `--weights`; with its training report, promotion takes it.
"""

import argparse
import dataclasses
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia.command import local_path, say
from pneumonia.errors import ConfigurationError
from pneumonia.files import real
from pneumonia.training.patients import PATTERN_HELP, pattern_of

if TYPE_CHECKING:
    from pneumonia.network.calibration import Calibration
    from pneumonia.network.training_report import TrainingReport
    from pneumonia.releases.manifest import Manifest
    from pneumonia.releases.release import Release

EPILOG = """Writes a release with the same weights and the new calibration. With --prevalence and no FOLDER, it adapts
the probabilities to another share of pneumonias.

example: pneumonia calibrate weights my_xrays --output calibrated --prevalence 0.1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("weights", metavar="WEIGHTS", help="weights file, a folder with one, or s3://bucket")
    parser.add_argument(
        "folder", type=local_path, nargs="?", metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/"
    )
    parser.add_argument(
        "--output", type=local_path, default=Path("calibrated"), metavar="DIR", help="gets the release (%(default)s)"
    )
    parser.add_argument(
        "--prevalence",
        type=float,
        metavar="SHARE",
        help="share of pneumonias among your patients (0.5 with FOLDER)",
    )
    parser.add_argument("--patients", default="", metavar="PATTERN", help=PATTERN_HELP)
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images at a time (%(default)s)")
    parser.add_argument(
        "--num-workers", type=int, default=os.cpu_count() or 1, metavar="N", help="decoding threads (%(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Calibrate as the arguments say, and write the release.

    Raises:
        PneumoniaError, OSError: as `training.calibrate.calibrate` and `releases.loading.load`, or arguments that do not
            fit together.
    """
    _check(args)
    from pneumonia.releases.loading import release_at  # noqa: PLC0415  # seconds, for torch: --help does without

    release = release_at(args.weights, "torch")  # whatever ENGINE is: it is the weights file that is copied
    calibration, source = fitted(args, release) if args.folder else moved(args, release.manifest)
    say(", ".join(f"{name} {value:.4f}" for name, value in dataclasses.asdict(calibration).items()))
    written = write(release, calibration, source, args.output)
    say(f"Release {written.version} is in {args.output}.")


def fitted(args: argparse.Namespace, release: "Release") -> tuple["Calibration", dict[str, Any]]:
    """Return a calibration fitted on the folder, and what the manifest says about it; print the comparison."""
    from pneumonia.releases.loading import classifier_of  # noqa: PLC0415
    from pneumonia.training.calibrate import calibrate, table  # noqa: PLC0415

    pattern = pattern_of(args.patients)
    model = classifier_of(release)
    say(f"{real(args.folder).name}, model {model.version}")
    found = calibrate(model, args.folder, args.prevalence, args.batch_size, args.num_workers, pattern)
    say(*table(found).split("\n"))
    return found.calibration, found.source


def moved(args: argparse.Namespace, manifest: "Manifest | None") -> tuple["Calibration", dict[str, Any]]:
    """Return the release's calibration at another prevalence, and what the manifest says about it.

    Raises:
        ConfigurationError: the weights have no calibration.
    """
    from pneumonia.network.calibration import Calibration  # noqa: PLC0415

    if manifest is None or manifest.calibration == Calibration():
        raise ConfigurationError(f"{args.weights} has no calibration to adapt: name a FOLDER to calibrate it on.")
    say(f"Before, the probabilities were for a prevalence of {manifest.calibration.prevalence:g}.")
    before = manifest.calibrated_on or {}
    calibration = manifest.calibration.at_prevalence(args.prevalence)
    return calibration, before | {"release": manifest.version, "rule": "Bayes' rule, to another prevalence"}


def write(release: "Release", calibration: "Calibration", source: dict[str, Any], output: Path) -> "Manifest":
    """Write a release with the same weights and this calibration into a folder, whole or not at all.

    Returns:
        Its manifest.

    Raises:
        DataError: something is there already.
        OSError: the folder cannot be written.
    """
    from pneumonia.files import filling, replacing  # noqa: PLC0415
    from pneumonia.network.contract import WEIGHTS_NAME  # noqa: PLC0415
    from pneumonia.releases.promotion import manifest_for  # noqa: PLC0415

    with filling(output) as folder:
        copy = folder / WEIGHTS_NAME
        with replacing(copy) as temporary:
            temporary.write_bytes(release.weights)
        report = report_of(copy, release.manifest, calibration, source)
        report.write_beside(copy)
        written = manifest_for(copy, report)
        written.write_beside(copy)
    return written


def report_of(
    weights: Path, manifest: "Manifest | None", calibration: "Calibration", source: dict[str, Any]
) -> "TrainingReport":
    """Return the training report of a release with another calibration, without the figures that no longer hold."""
    from pneumonia.files import sha256  # noqa: PLC0415
    from pneumonia.network.training_report import Dataset, TrainingReport  # noqa: PLC0415

    report = TrainingReport(
        weights_sha256=sha256(weights), finished=datetime.now(UTC), calibration=calibration, calibrated_on=source
    )
    if manifest is None:
        return report
    changed = ("_sensitivity", "_specificity", "_balanced_accuracy")
    return dataclasses.replace(
        report,
        training_job=manifest.training_job,
        classes=manifest.classes,
        preprocessing=manifest.preprocessing,
        input_check=manifest.input_check,
        metrics={name: value for name, value in manifest.metrics.items() if not name.endswith(changed)},
        dataset=Dataset(manifest.dataset_fingerprint),
        data_check=manifest.data_check,
        activations=manifest.activations,
        usual_evidence=manifest.usual_evidence,
    )


def _check(args: argparse.Namespace) -> None:
    """Check the arguments before seconds or minutes pass.

    Raises:
        ConfigurationError: they do not fit together.
    """
    pattern_of(args.patients)
    for name in ("batch_size", "num_workers"):
        if not getattr(args, name) > 0:
            raise ConfigurationError(f"--{name.replace('_', '-')} must be above 0, not {getattr(args, name)}.")
    if args.prevalence is not None and not 0 < args.prevalence < 1:
        raise ConfigurationError(f"--prevalence must be above 0 and below 1, not {args.prevalence:g}.")
    if args.folder is None and args.prevalence is None:
        raise ConfigurationError("Name a FOLDER to calibrate on, or a --prevalence, or both.")
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise ConfigurationError(f"{args.output} exists already: name another folder with --output.")
    if args.folder and real(args.output).is_relative_to(real(args.folder)):
        raise ConfigurationError(
            f"The release would lie among the images, in {real(args.output)}: name a folder elsewhere with --output."
        )
