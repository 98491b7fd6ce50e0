"""Classify a few image files: print a table on a terminal, otherwise a line of JSON for each file."""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from pneumonia.command import EXIT_STATUSES, SOME_FAILED, WEIGHTS_HELP
from pneumonia.errors import ImageError
from pneumonia.names import in_text, on_terminal
from pneumonia.network.prediction import Prediction

EPILOG = f"""{EXIT_STATUSES}

example: pneumonia predict xray.jpg
for folders and S3, use `pneumonia batch`"""
Answer = Prediction | ImageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="JPEG, PNG, BMP, TIFF, WebP or DICOM")
    parser.add_argument("--weights", metavar="MODEL", help=WEIGHTS_HELP)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file, even on a terminal")


def run(args: argparse.Namespace) -> int:
    """Print the answers; return the exit status."""
    # Seconds, for torch: a mistyped option and --help do without.
    from pneumonia.releases.loading import load, load_served  # noqa: PLC0415

    model = load(args.weights) if args.weights else load_served()
    answers = zip(args.files, model.predict_many(args.files), strict=True)
    as_json = args.json or not sys.stdout.isatty()
    counts = (
        print_json(answers) if as_json else print_table(answers, max(len(on_terminal(name)) for name in args.files))
    )
    return SOME_FAILED if counts else 0


def print_json(answers: Iterator[tuple[str, Answer]]) -> int:
    """Print a line of JSON for each file; return how many files have no answer."""
    failed = 0
    for name, answer in answers:
        failed += isinstance(answer, ImageError)
        content = {"error": str(answer)} if isinstance(answer, ImageError) else asdict(answer)
        print(json.dumps({"file": in_text(name)} | content), flush=True)
    return failed


def print_table(answers: Iterator[tuple[str, Answer]], width: int) -> int:
    """Print a row for each file; return how many files have no answer.

    Args:
        answers: each file's name and answer.
        width: of the column with the names, in characters.
    """
    failed = 0
    print(f"{'file':<{width}}  prediction  confidence  warnings")
    for name, answer in answers:
        if isinstance(answer, ImageError):
            failed += 1
            print(f"{on_terminal(name):<{width}}  {answer}", flush=True)
        else:
            row = f"{answer.prediction:<10}  {answer.confidence:<10.3f}  {', '.join(answer.warnings)}"
            print(f"{on_terminal(name):<{width}}  {row}".rstrip(), flush=True)
    print("\nNot medical advice: do not use it to diagnose anyone.")
    return failed
