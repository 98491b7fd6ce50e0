"""Classify a few image files: print a table on a terminal, otherwise a line of JSON for each file."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from pneumonia.command import ENGINE_HELP, EXIT_STATUSES, SIGN_HELP, SOME_FAILED, WEIGHTS_HELP, say
from pneumonia.errors import ConfigurationError, ImageError
from pneumonia.names import in_text, on_terminal
from pneumonia.network.prediction import Prediction

EPILOG = f"""{ENGINE_HELP}
{EXIT_STATUSES}

example: pneumonia predict xray.jpg
         pneumonia predict --url https://abc123.lambda-url.eu-central-1.on.aws xray.jpg
for folders and S3, use `pneumonia batch`"""
Answer = Prediction | ImageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="JPEG, PNG, BMP, TIFF, WebP or DICOM")
    parser.add_argument("--weights", metavar="MODEL", help=WEIGHTS_HELP)
    parser.add_argument(
        "--url", metavar="URL", help="ask a server instead: a Lambda Function URL, or http://127.0.0.1:8000"
    )
    parser.add_argument("--sign", metavar="REGION", help=SIGN_HELP)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file, even on a terminal")


def run(args: argparse.Namespace) -> int:
    """Print the answers; return the exit status."""
    answers = zip(args.files, answers_of(args.files, args.weights, args.url, args.sign), strict=True)
    as_json = args.json or not sys.stdout.isatty()
    counts = (
        print_json(answers) if as_json else print_table(answers, max(len(on_terminal(name)) for name in args.files))
    )
    return SOME_FAILED if counts else 0


def answers_of(files: Sequence[str], weights: str | None, url: str | None, region: str | None) -> Iterator[Answer]:
    """Classify files with a model on this machine, or by asking a server.

    Args:
        files: their paths.
        weights: as `releases.loading.load` takes them; None for those that serving uses.
        url: the server's; None for a model on this machine.
        region: of the Lambda function to sign for; None to sign only for Function URLs.

    Raises:
        ConfigurationError: both weights and a server are named, or the URL is no server's.
        PneumoniaError: the weights cannot be used.
    """
    if url is not None:
        if weights:
            raise ConfigurationError("--weights names a model on this machine, and --url a server: leave one out.")
        # What asking a server needs, a model on this machine does without, and the other way round.
        from pneumonia.client.address import Address  # noqa: PLC0415
        from pneumonia.client.remote import RemoteClassifier  # noqa: PLC0415

        return RemoteClassifier(Address.of(url, region)).predict_many(files)
    if region is not None:
        raise ConfigurationError("--sign is for requests to a server: name it with --url.")
    # Seconds, for torch: a mistyped option and --help do without.
    from pneumonia.releases.loading import load, load_served  # noqa: PLC0415

    return (load(weights) if weights else load_served()).predict_many(files)


def print_json(answers: Iterator[tuple[str, Answer]]) -> int:
    """Print a line of JSON for each file; return how many files have no answer."""
    failed = 0
    for name, answer in answers:
        failed += isinstance(answer, ImageError)
        content = {"error": str(answer)} if isinstance(answer, ImageError) else asdict(answer)
        say(json.dumps({"file": in_text(name)} | content))
    return failed


def print_table(answers: Iterator[tuple[str, Answer]], width: int) -> int:
    """Print a row for each file; return how many files have no answer.

    Args:
        answers: each file's name and answer.
        width: of the column with the names, in characters.
    """
    failed = 0
    say(f"{'file':<{width}}  prediction  confidence  warnings")
    for name, answer in answers:
        if isinstance(answer, ImageError):
            failed += 1
            say(f"{on_terminal(name):<{width}}  {answer}")
        else:
            row = f"{answer.prediction:<10}  {answer.confidence:<10.3f}  {', '.join(answer.warnings)}"
            say(f"{on_terminal(name):<{width}}  {row}".rstrip())
    say("", "Not medical advice: do not use it to diagnose anyone.")
    return failed
