"""Promote a trained model: what a training job left becomes the release that inference serves.

`python promote_model.py s3://bucket/training/job/output/model.tar.gz --bucket WEIGHTS_BUCKET`
`python promote_model.py list | show VERSION | rollback [VERSION] | export VERSION`

On AWS `handler` does the first when a training job is completed.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pneumonia.command import Parser, exit_status, local_path, packages_needed_by, say
from pneumonia.errors import ConfigurationError, ReleaseRefusedError, WeightsError, WeightsRefusedError
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.exporting import export
from pneumonia.releases.gate import objections
from pneumonia.releases.history import listing, rollback
from pneumonia.releases.manifest import Manifest
from pneumonia.releases.promotion import promote, promote_to_folder
from pneumonia.releases.training_event import completed_job
from pneumonia.serving import telemetry
from pneumonia.storage.addresses import bucket_name

COMMANDS = ("promote", "list", "show", "rollback", "export")


def handler(event: object, _context: object) -> dict[str, Any]:
    """Promote the model of a completed training job: an event of EventBridge, "SageMaker Training Job State Change".

    Events come more than once and in any order. So the same event gives the same release, and a release does not
    replace a newer one, nor come back once it was replaced or rolled back. What another try cannot mend is not an
    error, or Lambda would try again: it is returned, logged and counted, and alarms watch the metrics
    `PromotionsRefused` and `PromotionsNotServed`.

    Returns:
        The release's version and whether it is served, or why there is none.

    Raises:
        ConfigurationError: MODEL_BUCKET is not set.
        PneumoniaError: S3 cannot be reached or accepts no credentials, or another promotion came first.
    """
    bucket = bucket_name(os.environ.get("MODEL_BUCKET", ""))
    if not bucket:
        raise ConfigurationError("The destination is missing: set MODEL_BUCKET.")
    told: dict[str, Any] = {}
    try:
        job = completed_job(event)
        told["training_job"] = job.name
        promoted = promote(job.model, bucket, only_newer=True)
    except (ConfigurationError, ReleaseRefusedError, WeightsError, WeightsRefusedError) as error:
        telemetry.emit({"PromotionsRefused": [1]}, told | {"refused": str(error)})
        return {"refused": str(error)}
    is_served = promoted.not_served is None
    told |= {"model_version": promoted.manifest.version, "served": is_served}
    told |= {} if is_served else {"not_served": promoted.not_served}
    telemetry.emit({"Promotions": [is_served], "PromotionsNotServed": [] if promoted.was_served else [1]}, told)
    return {"version": promoted.manifest.version, "served": is_served}


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments; without a command's name they are those of `promote`.

    Raises:
        ConfigurationError: an argument is missing or wrong.
    """
    parser = Parser(
        prog="promote_model.py",
        description=__doc__.partition("\n")[0],
        epilog="`promote_model.py SOURCE` is short for `promote_model.py promote SOURCE`, and takes the options that "
        "`promote_model.py promote --help` lists. Example: promote_model.py model.tar.gz --directory release",
    )
    bucket = Parser(add_help=False)
    default = os.environ.get("MODEL_BUCKET")
    bucket.add_argument("--bucket", type=bucket_name, default=default, help="weights bucket (MODEL_BUCKET)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    promotion = commands.add_parser(
        "promote", parents=[bucket], help="release the model that training left, and serve it"
    )
    add_promotion_arguments(promotion)
    commands.add_parser("list", parents=[bucket], help="list the releases; * marks the served one")
    show = commands.add_parser("show", parents=[bucket], help="print a release's manifest")
    show.add_argument("version", metavar="VERSION", help="the release")
    back = commands.add_parser("rollback", parents=[bucket], help="serve an earlier release")
    back.add_argument("version", nargs="?", metavar="VERSION", help="the release; without it, the one served before")
    exporting = commands.add_parser(
        "export", parents=[bucket], help="add the ONNX file, which the engine onnx reads, to a release without one"
    )
    exporting.add_argument("version", metavar="VERSION", help="the release")

    is_command = not argv or argv[0] in {*COMMANDS, "-h", "--help"}
    return parser.parse_args(argv if is_command else ["promote", *argv])


def add_promotion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `promote`."""
    parser.add_argument(
        "source", metavar="SOURCE", help="model.tar.gz or a model folder: s3://bucket/key or a local path"
    )
    parser.add_argument("--directory", type=local_path, metavar="DIR", help="local folder to fill instead of a bucket")
    parser.add_argument(
        "--force", action="store_true", help="serve it from the bucket even if its test figures are too low or untrue"
    )


def run(args: argparse.Namespace) -> None:
    """Run the command that the arguments name, and print the result.

    Raises:
        PneumoniaError, OSError: as the functions of `pneumonia.releases.promotion`.
    """
    if args.command == "promote" and args.directory:
        run_promotion_to_folder(args.source, args.directory)
        return
    if not args.bucket:
        instead = ", or pass --directory" if args.command == "promote" else ""
        raise ConfigurationError(f"The bucket is missing: pass --bucket, or set MODEL_BUCKET{instead}.")
    if args.command == "promote":
        manifest = promote(args.source, args.bucket, force=args.force).manifest
        say(f"Released {manifest.version} to s3://{args.bucket}")
    elif args.command == "list":
        say(*listing(args.bucket).split("\n"))
    elif args.command == "show":
        say(*shown(WeightsBucket(args.bucket).check(args.version)).split("\n"))
    elif args.command == "export":
        run_export(args.bucket, args.version)
    else:
        run_rollback(args.bucket, args.version)


def run_promotion_to_folder(source: str, directory: Path) -> None:
    """Fill a folder, and print why a bucket would refuse the release."""
    manifest = promote_to_folder(source, directory)
    say(f"Released {manifest.version} to {directory}")
    if doubts := objections(manifest, None):
        say(f"A bucket would refuse it, because {' and '.join(doubts)}.", file=sys.stderr)


def run_rollback(bucket: str, wanted: str | None) -> None:
    """Go back to an earlier release, say how to undo that, and whom that release does not serve."""
    version, before, has_onnx = rollback(bucket, wanted)
    if version == before:
        say(f"s3://{bucket} serves {version} already.")
    else:
        undo = f", instead of {before}: `rollback {before}` takes that back" if before else ""
        say(f"s3://{bucket} serves {version} now{undo}.")
    if not has_onnx:
        say(
            f"It has no ONNX file. Functions with the engine onnx keep what they serve, but new instances answer 503 "
            f"until `export {version}` adds it.",
            file=sys.stderr,
        )


def run_export(bucket: str, version: str) -> None:
    """Add the ONNX file to a release, and say what was done."""
    manifest, is_new = export(bucket, version)
    if manifest.onnx and is_new:
        say(f"Release {version} in s3://{bucket} has an ONNX file now, of {manifest.onnx.size:,} bytes.")
    else:
        say(f"Release {version} in s3://{bucket} has an ONNX file already.")


def shown(manifest: Manifest) -> str:
    """Return a manifest as indented JSON: arrays of the input check as lengths, rows of usual evidence as texts."""
    content = dataclasses.asdict(manifest)
    for name, value in (content["input_check"] or {}).items():
        if isinstance(value, str):
            content["input_check"][name] = f"{len(value):,} characters"
    if manifest.usual_evidence:
        content["usual_evidence"] = [" ".join(map(str, row)) for row in manifest.usual_evidence]
    return json.dumps(content, indent=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""

    def command() -> None:
        args = parse_arguments(sys.argv[1:] if argv is None else argv)
        with packages_needed_by(f"promote_model.py {args.command}", "pip install -r requirements.txt"):
            run(args)

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
