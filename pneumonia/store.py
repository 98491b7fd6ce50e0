"""Releases in the weights bucket on S3.

releases/<version>/pneumonia_classifier.pth
releases/<version>/manifest.json
current.json                                  {"version": "<version>"}: the release that is served
pneumonia_classifier.pth                      the same weights, for whoever has nothing but this key
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pneumonia.errors import WeightsError, WeightsUnavailableError, first_line
from pneumonia.files import replacing
from pneumonia.manifest import MANIFEST_NAME, Manifest, parse
from pneumonia.model import WEIGHTS_NAME

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CURRENT_NAME = "current.json"
CHUNK = 1024 * 1024  # bytes read at a time
logger = logging.getLogger(__name__)


def publish(weights: Path, manifest: Manifest, bucket: str) -> None:
    """Put a release into the bucket and serve it.

    `current.json` comes after the release is complete, so that whatever stops this half-way, the pointer leads to a
    whole release. The plain key comes last: nobody who can read `current.json` looks there.

    Raises:
        WeightsUnavailableError: S3 refused or cannot be reached.
    """
    s3 = _client()
    release = f"releases/{manifest.version}"
    with _saying(f"The release {manifest.version} cannot be published to s3://{bucket}"):
        _put_weights(s3, bucket, f"{release}/{WEIGHTS_NAME}", weights)
        _put_json(s3, bucket, f"{release}/{MANIFEST_NAME}", manifest.to_json())
        _put_json(s3, bucket, CURRENT_NAME, json.dumps({"version": manifest.version}) + "\n")
        _put_weights(s3, bucket, WEIGHTS_NAME, weights)


def fetch(bucket: str, key: str, destination: Path) -> None:
    """Bring the served weights to `destination`, and their manifest beside it; nothing half-written is ever there.

    Args:
        bucket: the weights bucket.
        key: the weights' key, for a bucket without `current.json`.
        destination: file to write.

    Raises:
        WeightsUnavailableError: S3 refuses, lacks the object or cannot be reached, or the disk is full.
        WeightsError: the object is not what its manifest says.
    """
    s3 = _client()
    manifest = _current_manifest(s3, bucket)
    if manifest:
        key = f"releases/{manifest.version}/{WEIGHTS_NAME}"
    source = f"s3://{bucket}/{key}"
    with _saying(f"The weights cannot be had from {source}"):
        destination.parent.mkdir(parents=True, exist_ok=True)
        with replacing(destination) as temporary:
            digest, size = _download(s3, bucket, key, temporary)
            if manifest and (digest, size) != (manifest.sha256, manifest.size):
                raise WeightsError(
                    f"{source} has {size} bytes with SHA-256 {digest}, but its manifest says {manifest.size} bytes "
                    f"with {manifest.sha256}: promote the model again."
                )
            if manifest:
                manifest.write_beside(destination)
    logger.info("downloaded %s, %d bytes", source, size)


def download(uri: str, destination: Path) -> None:
    """Bring any object, such as SageMaker's `model.tar.gz`, to a file.

    Args:
        uri: `s3://bucket/key`.
        destination: file to write.

    Raises:
        WeightsUnavailableError: S3 refuses, lacks the object or cannot be reached, or the disk is full.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    with _saying(f"{uri} cannot be downloaded"):
        _download(_client(), bucket, key, destination)


def _client() -> "S3Client":
    config = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 3, "mode": "standard"})
    with _saying("S3 cannot be used"):
        return boto3.client("s3", config=config)


def _current_manifest(s3: "S3Client", bucket: str) -> Manifest | None:
    """Return the manifest of the release that `current.json` names, None for a bucket without `current.json`."""
    with _saying(f"The served release cannot be read from s3://{bucket}/{CURRENT_NAME}"):
        try:
            current = _get(s3, bucket, CURRENT_NAME)
        except ClientError as error:
            # To a role that may not list the bucket, S3 calls a missing key forbidden.
            if error.response["Error"]["Code"] not in {"NoSuchKey", "AccessDenied"}:
                raise
            logger.info("s3://%s has no %s that can be read: the plain key serves", bucket, CURRENT_NAME)
            return None
        try:
            version = str(json.loads(current)["version"])
        except (ValueError, TypeError, KeyError) as error:
            raise WeightsError(f"s3://{bucket}/{CURRENT_NAME} names no version: promote the model again.") from error
        key = f"releases/{version}/{MANIFEST_NAME}"
        return parse(_get(s3, bucket, key), f"s3://{bucket}/{key}")


def _download(s3: "S3Client", bucket: str, key: str, destination: Path) -> tuple[str, int]:
    body = s3.get_object(Bucket=bucket, Key=key)["Body"]
    digest, size = hashlib.sha256(), 0
    with contextlib.closing(body), destination.open("wb") as file:
        for chunk in body.iter_chunks(CHUNK):
            digest.update(chunk)
            size += file.write(chunk)
    return digest.hexdigest(), size


def _get(s3: "S3Client", bucket: str, key: str) -> bytes:
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def _put_weights(s3: "S3Client", bucket: str, key: str, weights: Path) -> None:
    with weights.open("rb") as file:
        s3.put_object(Bucket=bucket, Key=key, Body=file, ContentType="application/octet-stream")


def _put_json(s3: "S3Client", bucket: str, key: str, text: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType="application/json")


@contextlib.contextmanager
def _saying(what: str) -> Iterator[None]:
    """Turn whatever S3 or the disk raises into one sentence that begins with `what`."""
    try:
        yield
    except ClientError as error:
        problem = error.response["Error"]
        advice = {
            "NoSuchBucket": "make the bucket, or name another",
            "NoSuchKey": "promote a model into this bucket first, or name another key",
            "AccessDenied": "grant the role s3:GetObject, s3:PutObject and s3:ListBucket as it needs them",
        }.get(problem["Code"], "try again, or see the AWS service health page")
        raise WeightsUnavailableError(f"{what}, S3 answers {problem['Code']}: {advice}.") from error
    except (BotoCoreError, OSError) as error:
        raise WeightsUnavailableError(f"{what}: {first_line(error).rstrip('.:')}.") from error
