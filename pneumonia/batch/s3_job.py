"""Create the S3 Batch Operations job that classifies the X-rays below a prefix in S3 or in a manifest.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-create-job.html
"""

import argparse
import csv
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia.command import say
from pneumonia.errors import ConfigurationError, ObjectError, StorageError
from pneumonia.files import naming, sha256
from pneumonia.storage import objects
from pneumonia.storage.addresses import split
from pneumonia.storage.client import new_client
from pneumonia.storage.objects import S3Object
from pneumonia.storage.refusals import refusals_as

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SCHEMA = "2.0"  # of the events that the function gets
FUNCTION = re.compile(r"arn:([\w-]+):lambda:([\w-]+):(\d{12}):function:[\w-]+(?::[\w$-]+)?")
ROLE = re.compile(r"arn:[\w-]+:iam::\d{12}:role/.+")
PRIORITY = 10
MANIFEST_FORMAT = "S3BatchOperations_CSV_20180820"
REPORT_FORMAT = "Report_CSV_20180820"
EPILOG = """example:
  pneumonia s3-batch s3://data/2026/ --report s3://data/batch --role arn:aws:iam::123456789012:role/batch \\
    --function arn:aws:lambda:eu-central-1:123456789012:function:pneumonia-batch"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "input", metavar="INPUT", help="s3://bucket/prefix, or a manifest: rows of bucket,key or bucket,key,version"
    )
    parser.add_argument("--function", required=True, metavar="ARN", help="function that S3 Batch Operations invokes")
    parser.add_argument("--role", required=True, metavar="ARN", help="role that S3 Batch Operations assumes")
    parser.add_argument(
        "--report", required=True, metavar="s3://BUCKET/PREFIX", help="where manifest and report are written"
    )
    parser.add_argument("--priority", type=int, default=PRIORITY, metavar="N", help="among your jobs (%(default)s)")
    parser.add_argument("--run-now", action="store_true", help="start the job without waiting for confirmation")
    parser.add_argument("--dry-run", action="store_true", help="print the request; write and create nothing")


def run(args: argparse.Namespace) -> None:
    """Create the job.

    Raises:
        PneumoniaError: arguments that cannot be used, no objects, or AWS refuses.
        OSError: a file cannot be read or written.
    """
    if not ROLE.fullmatch(args.role):
        raise ConfigurationError(f"{args.role!r} is not a role's ARN: pass --role arn:aws:iam::ACCOUNT:role/NAME.")
    if args.priority < 0:
        raise ConfigurationError(f"--priority must be 0 or more, not {args.priority}.")
    create(args)


@dataclass(frozen=True)
class Place:
    """Where a function, and so its jobs, are; its ARN says so."""

    partition: str
    region: str
    account: str


def create(args: argparse.Namespace) -> None:
    """Write the manifest and create the job; with `--dry-run`, only print the request.

    Raises:
        PneumoniaError: arguments that cannot be used, no objects, or AWS refuses.
        OSError: a file cannot be read or written.
    """
    place = place_of(args.function)
    client = new_client(region=place.region)
    reading = new_client(region=place.region, attempts=1)
    bucket, prefix = split(args.report)
    prefix = prefix.strip("/")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.csv"
        count, fields = write_manifest(listed(reading, args.input), path, args.input)
        key = "/".join(filter(None, (prefix, f"manifest-{sha256(path)[:12]}.csv")))
        etag = "(known once the manifest is written)" if args.dry_run else upload(client, path, bucket, key)
    location = {"ObjectArn": f"arn:{place.partition}:s3:::{bucket}/{key}", "ETag": etag}
    manifest = {"Spec": {"Format": MANIFEST_FORMAT, "Fields": fields}, "Location": location}
    request = {
        "AccountId": place.account,
        "ConfirmationRequired": not args.run_now,
        "Description": f"Chest X-rays, {count:,} objects",
        "Operation": {"LambdaInvoke": {"FunctionArn": args.function, "InvocationSchemaVersion": SCHEMA}},
        "Manifest": manifest,
        "Report": report_in(f"arn:{place.partition}:s3:::{bucket}", prefix),
        "Priority": args.priority,
        "RoleArn": args.role,
    }
    if args.dry_run:
        say(*json.dumps(request, indent=2).split("\n"))
    else:
        print_job(submit(request, place), place, confirmed=args.run_now)


def upload(client: "S3Client", manifest: Path, bucket: str, key: str) -> str:
    """Write a manifest to a bucket; return its ETag, which the job's request names.

    Raises:
        ObjectError, StorageError: S3 refuses or cannot be reached.
    """
    what = f"The manifest cannot be written to s3://{bucket}/{key}"
    with refusals_as(StorageError, what, permanent=ObjectError), manifest.open("rb") as file:
        return client.put_object(Bucket=bucket, Key=key, Body=file, ContentType="text/csv")["ETag"].strip('"')


def report_in(bucket: str, prefix: str) -> dict[str, Any]:
    """Return the part of the request about the report, which will have the answers.

    Args:
        bucket: its ARN.
        prefix: of the report's keys; empty for none.
    """
    report = {"Bucket": bucket, "Format": REPORT_FORMAT, "Enabled": True, "ReportScope": "AllTasks"}
    return report | ({"Prefix": prefix} if prefix else {})


def listed(client: "S3Client", source: str) -> Iterable[S3Object]:
    """Return the objects below `s3://bucket/prefix`, or those of a manifest."""
    return objects.below(client, source) if source.startswith("s3://") else objects.manifest_rows(Path(source))


def write_manifest(images: Iterable[S3Object], path: Path, source: str) -> tuple[int, list[str]]:
    """Write a manifest as S3 Batch Operations takes it; return the number of objects and the names of its columns.

    Args:
        images: the objects.
        path: file to write.
        source: where the objects come from, for the error's sentence.

    Raises:
        ConfigurationError: there are no objects, they are in several buckets, or only some have a version.
        OSError: the file cannot be written.
    """
    count = 0
    alike: set[tuple[str, bool]] = set()
    with naming(path), path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        for image in images:
            alike.add((image.bucket, image.version is not None))
            rows.writerow(objects.manifest_row(image))
            count += 1
    if not count:
        raise ConfigurationError(f"{source} holds no objects: name a prefix or a manifest of X-rays.")
    if len(alike) > 1:
        raise ConfigurationError(
            f"The objects of {source} are in several buckets, or only some have a version: a job takes one bucket, and "
            "versions for all objects or for none."
        )
    with_versions = alike.pop()[1]
    return count, ["Bucket", "Key", "VersionId"] if with_versions else ["Bucket", "Key"]


def submit(request: dict[str, Any], place: Place) -> str:
    """Create the job and return its ID.

    Raises:
        ConfigurationError: S3 refuses it.
        StorageError: S3 cannot be reached, or refuses every request; if only its answer was lost, there is a job.
    """
    try:
        with refusals_as(StorageError, "The job cannot be created", permanent=ConfigurationError):
            return new_client("s3control", region=place.region).create_job(**request)["JobId"]
    except StorageError as error:
        listing = f"aws s3control list-jobs --region {place.region} --account-id {place.account}"
        raise StorageError(
            f"{error} If it was created, and only the answer was lost, this lists it: {listing}"
        ) from error


def print_job(job: str, place: Place, *, confirmed: bool) -> None:
    """Print the job's ID and what to do next."""
    options = f"--region {place.region} --account-id {place.account} --job-id {job}"
    if confirmed:
        say(f"Job {job} has started. Follow it by: aws s3control describe-job {options}")
    else:
        say(f"Job {job} waits for confirmation, in the console or by:")
        say(f"aws s3control update-job-status {options} --requested-job-status Ready")


def place_of(function: str) -> Place:
    """Return where a function is.

    Raises:
        ConfigurationError: this is not a function's ARN.
    """
    if not (match := FUNCTION.fullmatch(function)):
        raise ConfigurationError(
            f"{function!r} is not a function's ARN: pass --function arn:aws:lambda:REGION:ACCOUNT:function:NAME."
        )
    return Place(*match.groups())
