"""X-rays in S3: which there are below a prefix or in a manifest, and the bytes of one."""

import contextlib
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

from pneumonia.errors import NO_CREDENTIALS, ConfigurationError, ImageTooLargeError, PneumoniaError, first_line
from pneumonia.imaging.limits import MAX_BYTES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Of S3's refusals, those that say nothing about the object asked for: the next request may be answered.
UNACCEPTED_CREDENTIALS = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
ABOUT_THE_CALLER = UNACCEPTED_CREDENTIALS | {"RequestTimeout", "RequestTimeTooSkewed", "TooManyRequests"}


class ObjectError(PneumoniaError):
    """S3 does not give one object, and will not the next time either."""


class StorageError(PneumoniaError):
    """S3 cannot be reached or refuses whatever it is asked; a later try may succeed."""


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object in S3, of one version or the current one."""

    bucket: str
    key: str
    version: str | None = None

    def __str__(self) -> str:
        """Return `s3://bucket/key`, and the version where there is one."""
        return f"s3://{self.bucket}/{self.key}" + (f"?versionId={self.version}" if self.version else "")


def client(connections: int = 1, region: str | None = None) -> "S3Client":
    """Return an S3 client.

    Args:
        connections: threads that will read at once.
        region: None for what the environment says.

    Raises:
        StorageError: boto3 cannot make one.
    """
    config = Config(
        connect_timeout=3,
        read_timeout=10,
        max_pool_connections=connections,
        retries={"total_max_attempts": 4, "mode": "standard"},
    )
    with saying("S3 cannot be used"):
        try:
            return boto3.client("s3", region_name=region, config=config)
        except ValueError as error:  # an endpoint that is no URL
            raise StorageError(f"S3 cannot be used: {first_line(error)}.") from error


def read(s3: "S3Client", image: S3Object) -> bytes:
    """Return an object's bytes; one that is larger than any image that is decoded is not read.

    Raises:
        ObjectError: there is no such object, or it may not be read.
        ImageTooLargeError: more than MAX_BYTES bytes.
        StorageError: S3 cannot be reached, or does not work.
    """
    version = {"VersionId": image.version} if image.version else {}
    with saying("The object cannot be read"):
        response = s3.get_object(Bucket=image.bucket, Key=image.key, **version)  # type: ignore[arg-type]  # one field
        with contextlib.closing(response["Body"]) as body:
            if response["ContentLength"] > MAX_BYTES:
                raise ImageTooLargeError(
                    f"The file has {response['ContentLength']:,} bytes and at most {MAX_BYTES:,} are read: "
                    "send a smaller or a compressed image."
                )
            return body.read()


def below(s3: "S3Client", uri: str) -> Iterator[S3Object]:
    """Yield the objects below `s3://bucket/prefix`, in S3's order; a console's folders, which are empty, are none.

    Raises:
        ObjectError: there is no such bucket, or it may not be listed.
        StorageError: S3 cannot be reached, or does not work.
    """
    bucket, prefix = split(uri)
    with saying(f"{uri} cannot be listed"):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                if not (item["Key"].endswith("/") and item["Size"] == 0):
                    yield S3Object(bucket, item["Key"])


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key, or prefix, of `s3://bucket/key`.

    Raises:
        ConfigurationError: it names no bucket.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise ConfigurationError(f"{uri!r} is not an address in S3: name one as s3://bucket/key.")
    return bucket, key


def manifest_rows(path: Path) -> Iterator[S3Object]:
    """Yield the objects of a manifest as S3 Batch Operations takes it.

    A row has bucket, URL-encoded key and, where it is wanted, version ID; no row of headers.

    Raises:
        ConfigurationError: a row has other columns.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        try:
            for row in csv.reader(file):
                if row:
                    yield _object_in(row)
        except (ValueError, csv.Error) as error:  # no UTF-8, or what _object_in finds
            raise ConfigurationError(
                f"{path} is not a manifest with rows of bucket,key or bucket,key,version: {error}."
            ) from error


def manifest_row(image: S3Object) -> list[str]:
    """Return a manifest's row for an object."""
    row = [image.bucket, quote(image.key, safe="/")]
    return [*row, image.version] if image.version else row


def decoded_key(key: str) -> str:
    """Return the key that S3 Batch Operations, or its manifest, has URL-encoded; a space may be `+` or `%20` in it."""
    return unquote_plus(key, errors="strict")


def _object_in(row: list[str]) -> S3Object:
    if not (2 <= len(row) <= 3 and row[0] and row[1]):
        raise ValueError(f"it has the row {','.join(row)!r:.200}")
    return S3Object(row[0], decoded_key(row[1]), row[2] or None if len(row) == 3 else None)


@contextlib.contextmanager
def saying(what: str) -> Iterator[None]:
    """Turn what S3 or the network refuses into one sentence; boto3's own would name the object's address.

    Args:
        what: its beginning, such as "The object cannot be read".

    Raises:
        ObjectError: S3 refuses, and will the next time.
        StorageError: S3 cannot be reached, or does not work.
    """
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if 400 <= status < 500 and status != 429 and code not in ABOUT_THE_CALLER:
            raise ObjectError(f"{what}: S3 answers {code}.") from error
        remedy = "renew your AWS credentials" if code in UNACCEPTED_CREDENTIALS else "try again later"
        raise StorageError(f"{what}, S3 answers {code}: {remedy}.") from error
    except ParamValidationError as error:  # a bucket's name that none can have
        raise ObjectError(f"{what}: its address cannot be one.") from error
    except NoCredentialsError as error:
        raise StorageError(f"{what} {NO_CREDENTIALS}") from error
    except BotoCoreError as error:
        raise StorageError(f"{what} ({type(error).__name__}): try again later.") from error
