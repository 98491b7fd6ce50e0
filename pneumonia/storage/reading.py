"""Read whole objects from one bucket: by our own signed requests if the environment allows it, otherwise by boto3.

boto3 is imported only when it is needed.
"""

import contextlib
import dataclasses
import hashlib
import io
import math
import re
from collections.abc import Generator
from typing import BinaryIO, Protocol

from pneumonia.deadline import Deadline
from pneumonia.errors import PneumoniaError
from pneumonia.storage import retries
from pneumonia.storage.answers import S3Error
from pneumonia.storage.refusals import refusals_as
from pneumonia.storage.signed import Access, SignedBucket

NAME = re.compile(r"[A-Za-z0-9._-]+")  # of a bucket, or an access point's alias
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}


class Readable(Protocol):
    """Reads objects of one bucket."""

    def get(self, key: str) -> Generator[bytes, None, None]:
        """Yield an object's bytes."""

    def close(self) -> None:
        """Close the connections."""


class BucketReader:
    """Reads objects of one bucket, tries again until the deadline, and follows the bucket to its region.

    Args:
        bucket: its name.
        deadline: when to give up.
        error: the class of the error if S3 cannot be used at all.
    """

    def __init__(self, bucket: str, deadline: Deadline, error: type[PneumoniaError]) -> None:
        self._name = bucket
        self._deadline = deadline
        self._error = error
        self._has_renewed = False
        with refusals_as(error, "The credentials of the function's role cannot be read", service="Lambda"):
            # boto3 knows the ARNs of access points, and says what is wrong with any other name.
            self._access = Access.from_environment() if NAME.fullmatch(bucket) else None
        self._bucket = self._open()

    def close(self) -> None:
        """Close the connections."""
        self._bucket.close()

    def copy(self, key: str, file: BinaryIO, most: float = math.inf) -> tuple[str, int]:
        """Write an object, or as much of it as has `most` bytes or some more, to a file.

        Returns:
            The SHA-256 and the size in bytes of what is in the file.

        Raises:
            S3Error: S3 refuses.
            OSError: S3 cannot be reached in time, or the file cannot be written.
        """
        return retries.until(self._deadline, lambda: self._copy_from_the_right_place(key, file, most))

    def read(self, key: str, most: int) -> bytes:
        """Return a small object's bytes, of a larger one the first `most`.

        Raises:
            S3Error, OSError: as `copy`.
        """
        file = io.BytesIO()
        self.copy(key, file, most)
        return file.getvalue()[:most]

    def _copy_from_the_right_place(self, key: str, file: BinaryIO, most: float) -> tuple[str, int]:
        """Copy an object, a second time if S3 names the bucket's region, or there are newer credentials."""
        try:
            return self._copy_once(key, file, most)
        except S3Error as error:
            if not (self._moved_to(error.region) or self._renewed(error.code)):
                raise
        return self._copy_once(key, file, most)

    def _copy_once(self, key: str, file: BinaryIO, most: float) -> tuple[str, int]:
        file.seek(0)
        file.truncate()
        digest, size = hashlib.sha256(), 0
        with contextlib.closing(self._bucket.get(key)) as chunks:  # closed even if the disk is full
            for chunk in chunks:
                digest.update(chunk)
                size += file.write(chunk)
                if size >= most:
                    break
        return digest.hexdigest(), size

    def _moved_to(self, region: str | None) -> bool:
        """Switch to the region that S3 names for the bucket; return whether that is another one."""
        if not region or not self._access or region == self._access.region:
            return False
        self._access = dataclasses.replace(self._access, region=region)
        self._bucket = self._open()
        return True

    def _renewed(self, code: str) -> bool:
        """Read credentials that have expired anew, once; return whether that may help."""
        if code not in EXPIRED or self._has_renewed:
            return False
        self._has_renewed = True
        self.close()
        if not self._access:
            self._bucket = self._open()
            return True
        access = Access.from_environment()
        if not access or access.key_id == self._access.key_id:
            return False
        self._access = dataclasses.replace(access, region=self._access.region)
        self._bucket = self._open()
        return True

    def _open(self) -> Readable:
        if self._access:
            return SignedBucket(self._name, self._access, self._deadline)
        try:
            from pneumonia.storage.boto3_reading import Boto3Bucket  # noqa: PLC0415  # imports boto3, which takes its time
        except ImportError as error:
            raise self._error(
                "Reading from S3 needs AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, without a proxy, as "
                "Lambda sets them; otherwise it needs boto3: pip install boto3."
            ) from error
        return Boto3Bucket(self._name, self._error, self._deadline, is_renewed=self._has_renewed)
