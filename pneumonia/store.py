"""Releases in the weights bucket on S3.

releases/<version>/pneumonia_classifier.pth
releases/<version>/manifest.json
current.json                                  {"version": "<version>"}: the release that is served
pneumonia_classifier.pth                      the same weights, for whoever has nothing but this key
"""

import contextlib
import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pneumonia import WEIGHTS_NAME
from pneumonia.errors import first_line
from pneumonia.manifest import CURRENT_NAME, MANIFEST_NAME, Manifest
from pneumonia.s3 import CHUNK, S3Error, saying

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


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
        source = Boto3Bucket(bucket)
        with destination.open("wb") as file:
            for chunk in source.get(key):
                file.write(chunk)


class Boto3Bucket:
    """One bucket, read by boto3: with a profile, through a proxy, or however else the machine is set up."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._s3 = _client()

    def get(self, key: str) -> Generator[bytes, None, None]:
        """Yield an object's bytes.

        Raises:
            S3Error: S3 refuses.
            ConnectionError: it cannot be reached, or breaks off.
        """
        with _as_s3_errors(), contextlib.closing(self._s3.get_object(Bucket=self._name, Key=key)["Body"]) as body:
            yield from body.iter_chunks(CHUNK)

    def close(self) -> None:
        """Do nothing: boto3 closes its connections itself."""


def _client() -> "S3Client":
    config = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 3, "mode": "standard"})
    with _saying("S3 cannot be used"):
        try:
            return boto3.client("s3", config=config)
        except ValueError as error:  # an endpoint that is no URL
            raise ConnectionError(first_line(error)) from error


def _put_weights(s3: "S3Client", bucket: str, key: str, weights: Path) -> None:
    with weights.open("rb") as file:
        s3.put_object(Bucket=bucket, Key=key, Body=file, ContentType="application/octet-stream")


def _put_json(s3: "S3Client", bucket: str, key: str, text: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType="application/json")


@contextlib.contextmanager
def _saying(what: str) -> Iterator[None]:
    """Turn whatever boto3, S3 or the disk raises into one sentence that begins with `what`."""
    with saying(what), _as_s3_errors():
        yield


@contextlib.contextmanager
def _as_s3_errors() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        raise S3Error(error.response["Error"]["Code"], status) from error
    except BotoCoreError as error:
        raise ConnectionError(first_line(error)) from error
