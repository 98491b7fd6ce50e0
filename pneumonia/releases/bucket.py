"""Releases in the weights bucket on S3, laid out as layout.py says.

Whatever interrupts a promotion, `current.json` names a complete release, and an error says how far it came. If two
promotions run at once, one moves the pointer and the other gets an error: S3 writes the object only if it is still as
it was read.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

import base64
import functools
import hashlib
import logging
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pneumonia.errors import ReleaseConflictError, WeightsError, WeightsRefusedError, WeightsUnavailableError
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
from pneumonia.storage.answers import UnsentError
from pneumonia.storage.client import new_client
from pneumonia.storage.refusals import refusals_as

ATTEMPTS = 4  # at writing an object that another promotion is writing
PAUSE = 0.5  # seconds before the second attempt; each further attempt waits that much longer
logger = logging.getLogger(__name__)
_refusals = functools.partial(refusals_as, WeightsUnavailableError, permanent=WeightsRefusedError)


class WeightsBucket:
    """The releases of one bucket.

    Every method raises WeightsUnavailableError if S3 cannot be reached, or WeightsRefusedError if it will refuse again.

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
            return self._read_pointer()

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
        manifest = self.manifest(version)
        what = f"The weights cannot be read from s3://{self._name}/{weights_key(version)}"
        with _refusals(what, advice={"404": "promote the model again"}):
            is_complete = self._holds_weights_of(manifest)
        if not is_complete:
            raise self._other_weights(version)

    def add(self, weights: Path, manifest: Manifest) -> None:
        """Store a complete release without serving it; keep the parts of it that are there already.

        A stored manifest is replaced if it cannot be read, or lacks the reason why this release had to be forced.

        Raises:
            WeightsError: other weights are stored under the same version.
        """
        version = manifest.version
        checksum = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _base64(manifest.sha256)}
        with _refusals(f"Release {version} is not served, because storing its weights in s3://{self._name} failed"):
            is_stored = self._put(weights_key(version), weights.read_bytes(), IfNoneMatch="*", **checksum)
            is_stored = is_stored or self._holds_weights_of(manifest)
        if not is_stored:
            raise self._other_weights(version)
        with _refusals(
            f"Release {version} is not served: its weights are stored in s3://{self._name}, but storing its manifest "
            "failed (promoting it again goes on from there)"
        ):
            self._put_manifest(manifest)

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
        self._move(served.moved_to(version) if served else Pointer(version), etag)
        with _refusals(
            f"Release {version} is served from s3://{self._name} now, but copying it to the key {PLAIN_KEY} failed "
            f"(`promote_model.py rollback {version}` repeats that)"
        ):
            self._fill_plain_key(version)

    def _move(self, pointer: Pointer, etag: str | None) -> None:
        """Write `current.json` if it is still as it was read.

        S3 can have written it though its answer says otherwise or was lost. So then it is read back.
        """
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        refusal: Exception | None = None
        try:
            if self._put(CURRENT_KEY, pointer.to_json().encode(), **condition):
                return
        except (BotoCoreError, ClientError, UnsentError) as error:
            refusal = error
        stored = f"Release {pointer.version} is stored in s3://{self._name}"
        again = f"`promote_model.py rollback {pointer.version}` serves it"
        with _refusals(
            f"{stored}, but whether it is served is not known ({again}), as writing {CURRENT_KEY} and reading it back "
            "failed"
        ):
            now, _ = self._read_pointer()
        if now and now.version == pointer.version:  # by this promotion, or by another of the same release
            return
        serves = f"s3://{self._name} serves {now.version if now else 'none'}"
        if not refusal:
            raise ReleaseConflictError(
                f"Another promotion came first: {serves} now, and {pointer.version} is stored but not served. If "
                f"it is still wanted, {again}."
            )
        with _refusals(f"{stored}, but not served, and {serves} ({again}): writing {CURRENT_KEY} failed"):
            raise refusal

    def _read_pointer(self) -> tuple[Pointer | None, str | None]:
        """Read the pointer as `pointer` does, but pass on what boto3 raises."""
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

    def _fill_plain_key(self, version: str) -> None:
        """Copy the served release to the plain key; repeat if another promotion has moved the pointer meanwhile."""
        while True:
            source = {"Bucket": self._name, "Key": weights_key(version)}
            self._s3.copy_object(Bucket=self._name, Key=PLAIN_KEY, CopySource=source)  # type: ignore[arg-type]
            now, _ = self._read_pointer()
            if now is None or now.version == version:
                return
            version = now.version

    def _put_manifest(self, manifest: Manifest) -> None:
        """Write a release's manifest, unless the one that is there says as much."""
        key, text = manifest_key(manifest.version), manifest.to_json().encode()
        if self._put(key, text, IfNoneMatch="*"):
            return
        answer = self._s3.get_object(Bucket=self._name, Key=key)
        if not _says_as_much(answer["Body"].read(), manifest):
            self._put(key, text, IfMatch=answer["ETag"])

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
                # NoSuchKey: the object to replace is gone. 409: another is writing it, and S3 asks to try again.
                is_gone = error.response["Error"]["Code"] == "NoSuchKey"
                if status == 412 or (is_gone and "IfMatch" in condition):
                    return False
                if status != 409 or attempt == ATTEMPTS:
                    raise
                time.sleep(attempt * PAUSE)
            else:
                return True

    def _holds_weights_of(self, manifest: Manifest) -> bool:
        """Return whether a release's stored weights have the SHA-256 in its manifest."""
        key = weights_key(manifest.version)
        found = self._s3.head_object(Bucket=self._name, Key=key, ChecksumMode="ENABLED")
        checksum = found.get("ChecksumSHA256")
        if not checksum or found.get("ChecksumType") == "COMPOSITE":  # not stored by `add`
            body = self._s3.get_object(Bucket=self._name, Key=key)["Body"]
            checksum = _base64(hashlib.sha256(body.read()).hexdigest())
        return checksum == _base64(manifest.sha256)

    def _other_weights(self, version: str) -> WeightsError:
        return WeightsError(
            f"s3://{self._name}/{weights_key(version)} holds other weights than {version}'s: remove that release first."
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
