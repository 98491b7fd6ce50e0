"""The command `evaluate`. It is outside `training`, which may not import `releases`, and needs both."""

import argparse
import os
from pathlib import Path

from pneumonia.errors import ConfigurationError
from pneumonia.training.patients import PATTERN_HELP, pattern_of

EPILOG = "example: pneumonia evaluate weights/pneumonia_classifier.pth chest_xray/test"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("weights", metavar="WEIGHTS", help="weights file, a folder with one, or s3://bucket")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument(
        "--output", type=Path, default=Path("evaluation"), metavar="DIR", help="gets the report (%(default)s)"
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
    from pneumonia.releases.loading import load_file, local_weights  # noqa: PLC0415  # seconds: --help does without
    from pneumonia.releases.manifest import manifest_of  # noqa: PLC0415
    from pneumonia.training.evaluate import evaluate  # noqa: PLC0415

    with local_weights(args.weights) as weights:
        model, manifest = load_file(weights), manifest_of(weights)
    told = manifest.data_check if manifest else None
    evaluate(model, args.folder, args.output, args.batch_size, args.num_workers, pattern, told)
