"""Read and write whole objects of one bucket, each write only if the object is still as it was.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

import base64
import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError

from pneumonia.errors import PneumoniaError
from pneumonia.storage.client import new_client
from pneumonia.storage.refusals import is_lasting

ATTEMPTS = 4  # at reading an object that breaks off, or writing one that another process is writing
PAUSE = 0.5  # seconds before the second attempt; each further attempt waits that much longer
# A bucket whose objects are locked takes none without a checksum. https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
CHECKSUM: Any = {"ChecksumAlgorithm": "SHA256"}


class WritableBucket:
    """The objects of one bucket. Every method passes on what boto3 raises.

    Args:
        name: the bucket's.
        error: the class of the error if S3 cannot be used at all.
    """

    def __init__(self, name: str, error: type[PneumoniaError]) -> None:
        self._name = name
        self._s3 = new_client("s3", error)

    def read(self, key: str, most: int) -> tuple[bytes, str] | None:
        """Return an object's bytes, of a larger one the first `most`, and its ETag; None if there is no such object."""
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._s3.get_object(Bucket=self._name, Key=key)
            except self._s3.exceptions.NoSuchKey:
                return None
            try:
                with contextlib.closing(answer["Body"]) as body:
                    return _beginning(body.iter_chunks(most), most), answer["ETag"]
            except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                # boto3 tries again to get an answer, but not to read one that breaks off.
                if attempt == ATTEMPTS:
                    raise
            time.sleep(attempt * PAUSE)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the keys below a prefix, and the objects' sizes in bytes."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def digest(self, key: str) -> tuple[str, int]:
        """Return an object's SHA-256, 64 hexadecimal digits, as S3 knows it or after reading, and its size in bytes."""
        found = self._s3.head_object(Bucket=self._name, Key=key, ChecksumMode="ENABLED")
        checksum = found.get("ChecksumSHA256")
        if checksum and found.get("ChecksumType") != "COMPOSITE":
            return base64.b64decode(checksum).hex(), found["ContentLength"]
        with contextlib.closing(self._s3.get_object(Bucket=self._name, Key=key)["Body"]) as body:
            digest = hashlib.sha256()
            for chunk in body.iter_chunks(1024 * 1024):
                digest.update(chunk)
        return digest.hexdigest(), found["ContentLength"]

    def put(self, key: str, body: bytes, **condition: Any) -> bool:  # noqa: ANN401  # boto3's arguments
        """Write an object if the condition holds; return whether it was written.

        Args:
            key: the object's.
            body: its bytes.
            condition: `IfMatch`, an ETag, or `IfNoneMatch`, `*`; none, to write it in any case.
        """
        kind = "application/json" if key.endswith(".json") else "application/octet-stream"
        attempt = 0
        while True:
            attempt += 1
            try:
                self._s3.put_object(Bucket=self._name, Key=key, Body=body, ContentType=kind, **CHECKSUM, **condition)
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                # NoSuchKey: the object to replace is gone. 409: another is writing it, and S3 asks to try again.
                is_gone = error.response["Error"]["Code"] == "NoSuchKey"
                if status == 412 or (is_gone and "IfMatch" in condition):
                    return False
                if status != 409 or attempt == ATTEMPTS:
                    raise
                time.sleep(attempt * PAUSE)
            else:
                return True

    def copy(self, key: str, to: str) -> None:
        """Copy an object within the bucket, by reading and writing it where S3 will not do that itself."""
        source: Any = {"Bucket": self._name, "Key": key}
        try:
            self._s3.copy_object(Bucket=self._name, Key=to, CopySource=source, **CHECKSUM)
        except ClientError as error:
            if not is_lasting(error):
                raise
            with contextlib.closing(self._s3.get_object(Bucket=self._name, Key=key)["Body"]) as body:
                self.put(to, body.read())


def _beginning(chunks: Iterator[bytes], most: int) -> bytes:
    """Return what an object begins with: `most` bytes or, up to the end, which boto3 checks when it comes, less."""
    content = b""
    for chunk in chunks:
        content += chunk
        if len(content) >= most:
            break
    return content[:most]
