"""X-rays in S3: listing them below a prefix or in a manifest, and reading them."""

import contextlib
import csv
import functools
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus

from pneumonia.deadline import Deadline
from pneumonia.errors import ConfigurationError, ObjectError, StorageError
from pneumonia.files import open_plain
from pneumonia.imaging.limits import check_bytes
from pneumonia.storage import retries
from pneumonia.storage.addresses import split
from pneumonia.storage.boto3_reading import chunks
from pneumonia.storage.refusals import refusals_as
from pneumonia.storage.signed import CONNECT_SECONDS, SILENT_SECONDS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

ATTEMPT_SECONDS = CONNECT_SECONDS + SILENT_SECONDS  # that boto3 may wait for an answer
Wait = Callable[[float], bool | None]


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object in S3, in one version or the current one; `etag` tells its content, if it was listed."""

    bucket: str
    key: str
    version: str | None = None
    etag: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Return `s3://bucket/key`, with the version if there is one."""
        return f"s3://{self.bucket}/{self.key}" + (f"?versionId={self.version}" if self.version else "")


def read(s3: "S3Client", image: S3Object, deadline: Deadline, wait: Wait = time.sleep) -> bytes:
    """Return an object's bytes; refuse a larger one than MAX_BYTES before reading it.

    Args:
        s3: a client that makes one attempt.
        image: the object.
        deadline: when to give up.
        wait: as `retries.until` takes it.

    Raises:
        ObjectError: there is no such object, or reading it is not allowed.
        ImageTooLargeError: more than MAX_BYTES bytes.
        StorageError: S3 cannot be reached, or refuses every request.
    """
    with refusals_as(StorageError, "The object cannot be read", permanent=ObjectError):
        return retries.until(deadline, lambda: _read_once(s3, image, deadline), wait, needed=ATTEMPT_SECONDS)


def _read_once(s3: "S3Client", image: S3Object, deadline: Deadline) -> bytes:
    version = {"VersionId": image.version} if image.version else {}
    response = s3.get_object(Bucket=image.bucket, Key=image.key, **version)  # type: ignore[arg-type]  # one field
    content = b""
    with contextlib.closing(response["Body"]) as body:
        check_bytes(response.get("ContentLength", 0))  # an answer in chunks names none
        for chunk in chunks(body, deadline):
            content += chunk
            check_bytes(len(content))
    return content


def below(s3: "S3Client", uri: str, patience: float = retries.COMMAND_SECONDS) -> Iterator[S3Object]:
    """Yield the objects below `s3://bucket/prefix`, in S3's order, except empty ones that stand for folders.

    Args:
        s3: a client that makes one attempt.
        uri: the prefix.
        patience: seconds to try again for each page.

    Raises:
        ObjectError: there is no such bucket, or listing it is not allowed.
        StorageError: S3 cannot be reached, or refuses every request.
    """
    bucket, prefix = split(uri)
    with refusals_as(StorageError, f"{uri} cannot be listed", permanent=ObjectError):
        for page in _pages(s3, bucket, prefix, patience):
            for item in page.get("Contents", []):
                if not (item["Key"].endswith("/") and item["Size"] == 0):
                    yield S3Object(bucket, item["Key"], etag=item.get("ETag"))


def _pages(s3: "S3Client", bucket: str, prefix: str, patience: float) -> Iterator["ListObjectsV2OutputTypeDef"]:
    following: dict[str, Any] = {}
    while True:
        ask = functools.partial(s3.list_objects_v2, Bucket=bucket, Prefix=prefix, **following)
        page = retries.until(Deadline.after(patience), ask)
        yield page
        if not page["IsTruncated"]:
            return
        following = {"ContinuationToken": page["NextContinuationToken"]}


def manifest_rows(path: Path) -> Iterator[S3Object]:
    """Yield the objects of a manifest for S3 Batch Operations.

    A row has the bucket, the URL-encoded key and, optionally, the version ID; there is no header row.

    Raises:
        ConfigurationError: a row has other columns.
        OSError: the file cannot be read.
    """
    with open_plain(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as lines:
        try:
            for row in csv.reader(lines):
                if row:
                    yield _object_in(row)
        except (ValueError, csv.Error) as error:  # not UTF-8, or an error of _object_in
            raise ConfigurationError(
                f"{path} is not a manifest with rows of bucket,key or bucket,key,version: {error}."
            ) from error


def manifest_row(image: S3Object) -> list[str]:
    """Return a manifest's row for an object."""
    row = [image.bucket, quote(image.key, safe="/")]
    return [*row, image.version] if image.version else row


def decoded_key(key: str) -> str:
    """Return a key that S3 Batch Operations or its manifest has URL-encoded; a space may be `+` or `%20` there."""
    return unquote_plus(key, errors="strict")


def _object_in(row: list[str]) -> S3Object:
    if not (2 <= len(row) <= 3 and row[0] and row[1]):
        raise ValueError(f"it has the row {','.join(row)!r:.200}")
    return S3Object(row[0], decoded_key(row[1]), row[2] or None if len(row) == 3 else None)
