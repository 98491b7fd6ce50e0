"""The command `evaluate`. It is outside `training`, which may not import `releases`, and needs both."""

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pneumonia.command import local_path
from pneumonia.errors import ConfigurationError, WeightsError
from pneumonia.training.patients import PATTERN_HELP, pattern_of

if TYPE_CHECKING:
    from pneumonia.network.data_check import DataCheck
    from pneumonia.releases.release import Release

EPILOG = "example: pneumonia evaluate weights/pneumonia_classifier.pth chest_xray/test"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("weights", metavar="WEIGHTS", help="weights file, a folder with one, or s3://bucket")
    parser.add_argument("folder", type=local_path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument(
        "--output", type=local_path, default=Path("evaluation"), metavar="DIR", help="gets the report (%(default)s)"
    )
    parser.add_argument("--patients", default="", metavar="PATTERN", help=PATTERN_HELP)
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images at a time (%(default)s)")
    parser.add_argument(
        "--num-workers", type=int, default=os.cpu_count() or 1, metavar="N", help="decoding threads (%(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Load the model and evaluate it as the arguments say.

    Raises:
        PneumoniaError, OSError: as `training.evaluate.evaluate` and `releases.loading.load`, or a number that is not
            above 0.
    """
    for name in ("batch_size", "num_workers"):
        if not getattr(args, name) > 0:
            raise ConfigurationError(f"--{name.replace('_', '-')} must be above 0, not {getattr(args, name)}.")
    pattern = pattern_of(args.patients)
    from pneumonia.releases.loading import classifier_of, release_at  # noqa: PLC0415  # seconds: --help does without
    from pneumonia.training.evaluate import evaluate  # noqa: PLC0415

    release = release_at(args.weights)
    model, told = classifier_of(release), told_by_training(release)
    evaluate(model, args.folder, args.output, args.batch_size, args.num_workers, pattern, told)


def told_by_training(release: "Release") -> "DataCheck | None":
    """Return what training counted in its images, by a release's manifest or the training.json beside its weights."""
    from pneumonia.files import read_plain  # noqa: PLC0415
    from pneumonia.network.training_report import MAX_REPORT, REPORT_NAME, parse  # noqa: PLC0415

    if release.manifest:
        return release.manifest.data_check
    with contextlib.suppress(OSError, WeightsError):  # any file may have that name
        path = Path(release.source).with_name(REPORT_NAME)
        report = parse(read_plain(path, MAX_REPORT), str(path))
        return report.data_check if report.weights_sha256 == release.sha256 else None
    return None
