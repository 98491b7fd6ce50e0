"""Millions of X-rays in S3: the function that S3 Batch Operations invokes, and the command that creates the job.

`handler` answers its events; `python -m pneumonia.batch.s3_operations INPUT …` writes the manifest and creates
the job. AWS does the rest: it invokes the function once for each object, tries again where that may help, and writes
the report.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-invoke-lambda.html
"""

import argparse
import csv
import dataclasses
import functools
import json
import logging
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from pneumonia.errors import (
    ConfigurationError,
    ImageError,
    WeightsError,
    WeightsUnavailableError,
    exit_status,
    first_line,
)
from pneumonia.files import sha256
from pneumonia.releases.fetch import Weights
from pneumonia.serving.predictor import Predictor, use_paid_cores
from pneumonia.storage import objects
from pneumonia.storage.objects import ObjectError, S3Object, StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SCHEMAS = ("1.0", "2.0")  # of events: the first has a bucket's ARN, the second its name
ANSWER_SECONDS = 5.0  # what a task keeps of the invocation's time for everything but loading the model
RESULT_CHARACTERS = 1024  # that the report has room for
FUNCTION = re.compile(r"arn:([\w-]+):lambda:([\w-]+):(\d{12}):function:[\w-]+(?::[\w$-]+)?")
ROLE = re.compile(r"arn:[\w-]+:iam::\d{12}:role/.+")
PRIORITY = 10
MANIFEST_FORMAT = "S3BatchOperations_CSV_20180820"
REPORT_FORMAT = "Report_CSV_20180820"
logger = logging.getLogger("pneumonia.batch.s3_operations")
predictor = Predictor.from_environment(Weights.from_environment())
s3 = functools.cache(objects.client)  # made when it is first needed: the command reads in the function's region instead


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  # the runtime client has no type for it
    """Answer an invocation of S3 Batch Operations: a result for each task.

    Args:
        event: of invocation schema 1.0 or 2.0; user arguments are not looked at.
        context: Lambda's.

    Raises:
        ConfigurationError: an event of another kind.
    """
    version = event.get("invocationSchemaVersion")
    if version not in SCHEMAS:
        raise ConfigurationError(
            "This function answers S3 Batch Operations alone: for requests, deploy the image with app.handler."
        )
    results = [result_of(task, context) for task in event["tasks"]]
    predictor.finish_refresh(context.get_remaining_time_in_millis() / 1000 - ANSWER_SECONDS)
    return {
        "invocationSchemaVersion": version,
        "treatMissingKeysAs": "TemporaryFailure",  # there are none
        "invocationId": event["invocationId"],
        "results": results,
    }


def result_of(task: dict[str, Any], context: Any) -> dict[str, str]:  # noqa: ANN401  # as above
    """Return a task's result: the answer as JSON; or a failure, permanent where the same object would fail again."""
    try:
        code, text = "Succeeded", answer(task, context)
    except (ImageError, ObjectError) as error:
        code, text = "PermanentFailure", str(error)
    except (StorageError, WeightsError, WeightsUnavailableError) as error:
        logger.warning("Task %s: %s", task["taskId"], error)
        code, text = "TemporaryFailure", str(error)
    except Exception:
        logger.exception("Task %s failed.", task["taskId"])
        code, text = "TemporaryFailure", "The function failed at this object, and its log has the details."
    return {"taskId": task["taskId"], "resultCode": code, "resultString": text[:RESULT_CHARACTERS]}


def answer(task: dict[str, Any], context: Any) -> str:  # noqa: ANN401  # as above
    """Read a task's object and return the answer as one line of JSON.

    Raises:
        PneumoniaError: the object cannot be had or used, or the weights cannot.
    """
    data = objects.read(s3(), object_of(task))
    seconds = context.get_remaining_time_in_millis() / 1000 - ANSWER_SECONDS
    prediction = predictor.predict(data, seconds)
    return json.dumps(dataclasses.asdict(prediction), separators=(",", ":"))


def object_of(task: dict[str, Any]) -> S3Object:
    """Return the object that a task is about.

    Raises:
        ObjectError: its key cannot be one.
    """
    bucket = task.get("s3Bucket") or task["s3BucketArn"].rpartition(":")[2]
    try:
        return S3Object(bucket, objects.decoded_key(task["s3Key"]), task.get("s3VersionId") or None)
    except UnicodeDecodeError as error:
        raise ObjectError("The object's key is not URL-encoded UTF-8, as keys of a manifest have to be.") from error


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the function is, and so where its jobs are: what its ARN tells."""

    partition: str
    region: str
    account: str


def create(args: argparse.Namespace) -> None:
    """Write the manifest and create the job; with `--dry-run` only print what would be asked for.

    Raises:
        PneumoniaError: arguments that cannot be used, no objects, or AWS refuses.
        OSError: a file cannot be read or written.
    """
    place = place_of(args.function)
    client = objects.client(region=place.region)
    bucket, prefix = objects.split(args.report)
    prefix = prefix.strip("/")
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.csv"
        count, fields = write_manifest(listed(client, args.input), manifest, args.input)
        key = "/".join(filter(None, (prefix, f"manifest-{sha256(manifest)[:12]}.csv")))
        etag = "(known once the manifest is written)"
        if not args.dry_run:
            with objects.saying(f"The manifest cannot be written to s3://{bucket}/{key}"), manifest.open("rb") as file:
                etag = client.put_object(Bucket=bucket, Key=key, Body=file, ContentType="text/csv")["ETag"].strip('"')
    request = {
        "AccountId": place.account,
        "ConfirmationRequired": not args.run_now,
        "Description": f"Chest X-rays, {count:,} objects",
        "Operation": {"LambdaInvoke": {"FunctionArn": args.function, "InvocationSchemaVersion": SCHEMAS[-1]}},
        "Manifest": {
            "Spec": {"Format": MANIFEST_FORMAT, "Fields": fields},
            "Location": {"ObjectArn": f"arn:{place.partition}:s3:::{bucket}/{key}", "ETag": etag},
        },
        "Report": {
            "Bucket": f"arn:{place.partition}:s3:::{bucket}",
            "Format": REPORT_FORMAT,
            "Enabled": True,
            "ReportScope": "AllTasks",  # the answers are in it
        }
        | ({"Prefix": prefix} if prefix else {}),
        "Priority": args.priority,
        "RoleArn": args.role,
    }
    if args.dry_run:
        print(json.dumps(request, indent=2))
        return
    tell(submit(request, place), place, confirmed=args.run_now)


def listed(client: "S3Client", source: str) -> Iterable[S3Object]:
    """Return the objects below `s3://bucket/prefix`, or those of a manifest."""
    return objects.below(client, source) if source.startswith("s3://") else objects.manifest_rows(Path(source))


def write_manifest(images: Iterable[S3Object], path: Path, source: str) -> tuple[int, list[str]]:
    """Write a manifest as S3 Batch Operations takes it; return the number of objects and the names of its columns.

    Args:
        images: the objects.
        path: file to write.
        source: where they are from, for the error's sentence.

    Raises:
        ConfigurationError: there are none, they lie in several buckets, or only some have a version.
        OSError: the file cannot be written.
    """
    count = 0
    alike: set[tuple[str, bool]] = set()
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        for image in images:
            alike.add((image.bucket, image.version is not None))
            rows.writerow(objects.manifest_row(image))
            count += 1
    if not count:
        raise ConfigurationError(f"{source} holds no objects: name a prefix or a manifest of X-rays.")
    if len(alike) > 1:
        raise ConfigurationError(
            f"The objects of {source} lie in several buckets, or only some have a version: a job takes one bucket, and "
            "versions of all objects or of none."
        )
    with_versions = alike.pop()[1]
    return count, ["Bucket", "Key", "VersionId"] if with_versions else ["Bucket", "Key"]


def submit(request: dict[str, Any], place: Place) -> str:
    """Create the job and return its ID.

    Raises:
        ConfigurationError: AWS refuses it.
        StorageError: AWS cannot be reached.
    """
    try:
        return boto3.client("s3control", region_name=place.region).create_job(**request)["JobId"]
    except ClientError as error:
        reason = error.response["Error"]
        raise ConfigurationError(
            f"The job cannot be created, S3 answers {reason['Code']}: {reason.get('Message', 'no reason')}"
        ) from error
    except BotoCoreError as error:
        raise StorageError(f"The job cannot be created: {first_line(error)}") from error


def tell(job: str, place: Place, *, confirmed: bool) -> None:
    """Tell which job there is, and what is left to do."""
    options = f"--region {place.region} --account-id {place.account} --job-id {job}"
    if confirmed:
        print(f"Job {job} begins. How far it is: aws s3control describe-job {options}")
    else:
        print(f"Job {job} waits until it is confirmed, in the console or by:")
        print(f"aws s3control update-job-status {options} --requested-job-status Ready")


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


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments.

    Raises:
        ConfigurationError: one that S3 would refuse.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pneumonia.batch.s3_operations",
        description="Create the S3 Batch Operations job that answers for X-rays.",
    )
    parser.add_argument(
        "input", metavar="INPUT", help="s3://bucket/prefix, or a manifest: rows of bucket,key or bucket,key,version"
    )
    parser.add_argument(
        "--function", required=True, metavar="ARN", help="function with pneumonia.batch.s3_operations.handler"
    )
    parser.add_argument("--role", required=True, metavar="ARN", help="what S3 Batch Operations acts as")
    parser.add_argument(
        "--report", required=True, metavar="s3://BUCKET/PREFIX", help="where manifest and report are written"
    )
    parser.add_argument("--priority", type=int, default=PRIORITY, metavar="N", help="among your jobs (%(default)s)")
    parser.add_argument("--run-now", action="store_true", help="do not wait until the job is confirmed")
    parser.add_argument("--dry-run", action="store_true", help="print the request, write and create nothing")
    args = parser.parse_args(argv)
    if not ROLE.fullmatch(args.role):
        raise ConfigurationError(f"{args.role!r} is not a role's ARN: pass --role arn:aws:iam::ACCOUNT:role/NAME.")
    if args.priority < 0:
        raise ConfigurationError(f"--priority must be 0 or more, not {args.priority}.")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Create the job; return the exit status."""
    return exit_status(lambda: create(parse_arguments(argv)))


use_paid_cores()

if __name__ == "__main__":
    sys.exit(main())
