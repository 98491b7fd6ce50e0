"""Releases in the weights bucket on S3, laid out as layout.py says.

Whatever interrupts a promotion, `current.json` names a complete release. If two promotions run at once, one moves the
pointer and the other gets an error: S3 writes the object only if it is still as it was read.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

import base64
import functools
import hashlib
import logging
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from pneumonia.errors import ReleaseConflictError, WeightsError, WeightsUnavailableError
from pneumonia.releases.layout import (
    CURRENT_KEY,
    PLAIN_KEY,
    RELEASES,
    Pointer,
    manifest_key,
    parse_pointer,
    version_of,
    weights_key,
)
from pneumonia.releases.manifest import Manifest, parse
from pneumonia.storage.client import new_client
from pneumonia.storage.refusals import refusals_as

ATTEMPTS = 4  # at writing an object that another promotion is writing
PAUSE = 0.5  # seconds before the second attempt; each further attempt waits that much longer
logger = logging.getLogger(__name__)
_refusals = functools.partial(refusals_as, WeightsUnavailableError)


class WeightsBucket:
    """The releases of one bucket.

    Every method raises WeightsUnavailableError if S3 refuses or cannot be reached.

    Args:
        name: the bucket's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._s3 = new_client("s3", WeightsUnavailableError)

    def pointer(self) -> tuple[Pointer | None, str | None]:
        """Return the content of `current.json`, and its ETag, which `serve` needs.

        Both are None before the first release. If the file cannot be parsed, only the content is None: `serve` replaces
        the file.
        """
        with _refusals(f"The served release cannot be read from s3://{self._name}/{CURRENT_KEY}"):
            try:
                answer = self._s3.get_object(Bucket=self._name, Key=CURRENT_KEY)
            except self._s3.exceptions.NoSuchKey:
                return None, None
            text = answer["Body"].read()
        try:
            return parse_pointer(text, f"s3://{self._name}/{CURRENT_KEY}"), answer["ETag"]
        except WeightsError as error:
            logger.warning("%s", error)
            return None, answer["ETag"]

    def manifest(self, version: str) -> Manifest:
        """Return a complete release's manifest.

        Raises:
            WeightsError: there is no such release.
        """
        key = manifest_key(version)
        with _refusals(f"The release cannot be read from s3://{self._name}/{key}"):
            try:
                text = self._s3.get_object(Bucket=self._name, Key=key)["Body"].read()
            except self._s3.exceptions.NoSuchKey:
                raise WeightsError(
                    f"s3://{self._name} has no release {version!r}: `list` shows those it has."
                ) from None
        return parse(text, f"s3://{self._name}/{key}")

    def versions(self) -> list[str]:
        """Return the complete releases in the order of their names, which is chronological."""
        with _refusals(f"The releases of s3://{self._name} cannot be listed"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=RELEASES)
            found = [version_of(item["Key"]) for page in pages for item in page.get("Contents", [])]
        return sorted(version for version in found if version is not None)

    def check(self, version: str) -> None:
        """Check that a release is complete: its manifest can be read, and describes its weights.

        Raises:
            WeightsError: the release is not complete.
        """
        self._compare(self.manifest(version))

    def add(self, weights: Path, manifest: Manifest) -> None:
        """Store a complete release without serving it; keep the parts of it that are there already.

        A stored manifest is replaced if it cannot be read, or lacks the reason why this release had to be forced.

        Raises:
            WeightsError: other weights are stored under the same version.
        """
        with _refusals(f"The release {manifest.version} cannot be stored in s3://{self._name}"):
            checksum = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _base64(manifest.sha256)}
            if not self._put(weights_key(manifest.version), weights.read_bytes(), IfNoneMatch="*", **checksum):
                self._compare(manifest)
            key = manifest_key(manifest.version)
            if not self._put(key, manifest.to_json().encode(), IfNoneMatch="*"):
                answer = self._s3.get_object(Bucket=self._name, Key=key)
                if not _says_as_much(answer["Body"].read(), manifest):
                    self._put(key, manifest.to_json().encode(), IfMatch=answer["ETag"])

    def serve(self, version: str, served: Pointer | None, etag: str | None) -> None:
        """Point `current.json` to a complete release, which inference serves from then on.

        The plain key follows a moment later; a reader of `current.json` does not use it.

        Args:
            version: the release.
            served: the pointer that `pointer` returned when this was decided.
            etag: the ETag that it returned.

        Raises:
            ReleaseConflictError: another release has been served meanwhile, and stays.
        """
        pointer = served.moved_to(version) if served else Pointer(version)
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        with _refusals(f"The release {version} cannot be served from s3://{self._name}"):
            is_moved = self._put(CURRENT_KEY, pointer.to_json().encode(), **condition)
        now, _ = (pointer, None) if is_moved else self.pointer()
        if now is None or now.version != version:  # else the same promotion ran twice
            raise ReleaseConflictError(
                f"Another promotion came first: s3://{self._name} serves {now.version if now else 'none'} now, "
                f"and {version} is stored but not served. Promote it again if it is still wanted."
            )
        with _refusals(f"{version} is served, but s3://{self._name}/{PLAIN_KEY} cannot be made to follow"):
            self._fill_plain_key(version)

    def _fill_plain_key(self, version: str) -> None:
        """Copy the served release to the plain key; repeat if another promotion has moved the pointer meanwhile."""
        while True:
            source = {"Bucket": self._name, "Key": weights_key(version)}
            self._s3.copy_object(Bucket=self._name, Key=PLAIN_KEY, CopySource=source)  # type: ignore[arg-type]
            now, _ = self.pointer()
            if now is None or now.version == version:
                return
            version = now.version

    def _put(self, key: str, body: bytes, **condition: Any) -> bool:  # noqa: ANN401  # boto3's arguments
        """Write an object if the condition holds; return whether it was written."""
        kind = "application/json" if key.endswith(".json") else "application/octet-stream"
        attempt = 0
        while True:
            attempt += 1
            try:
                self._s3.put_object(Bucket=self._name, Key=key, Body=body, ContentType=kind, **condition)
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                # 404: the object to replace is gone. 409: another is writing it, and S3 asks to try again.
                if status == 412 or (status == 404 and "IfMatch" in condition):
                    return False
                if status != 409 or attempt == ATTEMPTS:
                    raise
                time.sleep(attempt * PAUSE)
            else:
                return True

    def _compare(self, manifest: Manifest) -> None:
        """Check that a release's weights have the SHA-256 in its manifest."""
        key = weights_key(manifest.version)
        what = f"The weights cannot be read from s3://{self._name}/{key}"
        with _refusals(what, advice={"404": "promote the model again"}):
            found = self._s3.head_object(Bucket=self._name, Key=key, ChecksumMode="ENABLED")
            checksum = found.get("ChecksumSHA256")
            if not checksum or found.get("ChecksumType") == "COMPOSITE":  # not stored by `add`
                body = self._s3.get_object(Bucket=self._name, Key=key)["Body"]
                checksum = _base64(hashlib.sha256(body.read()).hexdigest())
        if checksum != _base64(manifest.sha256):
            raise WeightsError(
                f"s3://{self._name}/{key} holds other weights than {manifest.version}'s: remove that release first."
            )


def _base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def _says_as_much(text: bytes, manifest: Manifest) -> bool:
    """Return whether a stored manifest is of the same weights and, if this one was forced, says why."""
    try:
        stored = parse(text, "the stored manifest")
    except WeightsError:
        return False
    same = (stored.version, stored.sha256, stored.size) == (manifest.version, manifest.sha256, manifest.size)
    return same and (stored.forced is not None or manifest.forced is None)
