"""Releases in the weights bucket on S3, laid out as layout.py says.

Whatever interrupts a promotion, `current.json` names a complete release, and an error says how far it came. If two
promotions run at once, one moves the pointer and the other gets an error: S3 writes the object only if it is still as
it was read.
"""

import functools
import hashlib
import logging
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from pneumonia.errors import ReleaseConflictError, WeightsError, WeightsRefusedError, WeightsUnavailableError
from pneumonia.network.contract import MAX_WEIGHTS
from pneumonia.releases.layout import (
    CURRENT_KEY,
    MAX_POINTER,
    PLAIN_KEY,
    RELEASES,
    Pointer,
    manifest_key,
    parse_pointer,
    version_of,
    weights_key,
)
from pneumonia.releases.manifest import MAX_MANIFEST, Manifest, released
from pneumonia.releases.release import Release
from pneumonia.releases.version import is_version
from pneumonia.storage.answers import UnsentError
from pneumonia.storage.refusals import refusals_as
from pneumonia.storage.writing import WritableBucket

logger = logging.getLogger(__name__)
_refusals = functools.partial(refusals_as, WeightsUnavailableError, permanent=WeightsRefusedError)
# What to do about weights that are missing: the answer to a HEAD request has no body, and so no code.
NO_WEIGHTS = dict.fromkeys(("404", "NoSuchKey"), "promote the model again")
# What answers depend on. Two of one version would be served side by side, as running instances keep what they have.
OF_ANSWERS = ("classes", "preprocessing", "calibration", "input_check")


class WeightsBucket:
    """The releases of one bucket.

    Every method raises WeightsUnavailableError if S3 cannot be reached, or WeightsRefusedError if it will refuse again.

    Args:
        name: the bucket's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects = WritableBucket(name, WeightsUnavailableError)

    def pointer(self) -> tuple[Pointer | None, str | None]:
        """Return the content of `current.json`, and its ETag, which `serve` needs.

        Both are None without that file. If it cannot be parsed, only the content is None: `serve` replaces the file.
        """
        with _refusals(f"The served release cannot be read from s3://{self._name}/{CURRENT_KEY}"):
            return self._read_pointer()

    def manifest(self, version: str) -> Manifest:
        """Return a release's manifest.

        Raises:
            WeightsError: there is no such release, or its manifest is broken or another's.
        """
        key = manifest_key(version)
        with _refusals(f"The release cannot be read from s3://{self._name}/{key}"):
            found = self._objects.read(key, MAX_MANIFEST + 1) if is_version(version) else None
        if found is None:
            raise WeightsError(f"s3://{self._name} has no release {version!r:.200}: `list` shows those it has.")
        return released(found[0], f"s3://{self._name}/{key}", version)

    def stored(self) -> dict[str, int | None]:
        """Return the releases that have a manifest, the oldest first, and the size of each one's weights in bytes.

        The size is None where there are no weights.
        """
        with _refusals(f"The releases of s3://{self._name} cannot be listed"):
            sizes = self._objects.sizes(RELEASES)
        versions = sorted(version for version in map(version_of, sizes) if version is not None)
        return {version: sizes.get(weights_key(version)) for version in versions}

    def check(self, version: str) -> Manifest:
        """Check that a release is complete: its manifest can be read, and describes its weights; return the manifest.

        Raises:
            WeightsError: the release is not complete.
        """
        manifest = self.manifest(version)
        with _refusals(self._unreadable(version), advice=NO_WEIGHTS):
            stored = self._objects.digest(weights_key(version))
        if stored != (manifest.sha256, manifest.size):
            raise self._other_weights(version)
        return manifest

    def release(self, version: str) -> Release:
        """Return a whole release, weights and manifest, as inference reads it.

        Raises:
            WeightsError: the release is not complete.
        """
        manifest, key = self.manifest(version), weights_key(version)
        with _refusals(self._unreadable(version), advice=NO_WEIGHTS):
            found = self._objects.read(key, MAX_WEIGHTS + 1)
        if found is None:
            raise WeightsError(f"{self._unreadable(version)}, because there are none: promote the model again.")
        return Release(f"s3://{self._name}/{key}", found[0], hashlib.sha256(found[0]).hexdigest(), manifest)

    def plain_digest(self) -> str | None:
        """Return the SHA-256 of the weights under the plain key, None if there are none."""
        with _refusals(f"The weights cannot be read from s3://{self._name}/{PLAIN_KEY}"):
            if PLAIN_KEY not in self._objects.sizes(PLAIN_KEY):
                return None
            return self._objects.digest(PLAIN_KEY)[0]

    def add(self, weights: Path, manifest: Manifest) -> None:
        """Store a complete release without serving it; keep the parts of it that are there already.

        A stored manifest is replaced if it cannot be read, or lacks the reason why this release had to be forced.

        Raises:
            WeightsError: other weights, or another calibration, say, are stored under the same version.
        """
        version, key = manifest.version, weights_key(manifest.version)
        with _refusals(f"Release {version} is not served, because storing its weights in s3://{self._name} failed"):
            is_stored = self._objects.put(key, weights.read_bytes(), IfNoneMatch="*")
            is_stored = is_stored or self._objects.digest(key) == (manifest.sha256, manifest.size)
        if not is_stored:
            raise self._other_weights(version)
        with _refusals(
            f"Release {version} is not served: its weights are stored in s3://{self._name}, but storing its manifest "
            "failed (promoting it again goes on from there)"
        ):
            self._put_manifest(manifest)

    def serve(self, version: str, served: Pointer | None, etag: str | None) -> None:
        """Point `current.json` to a complete release, which inference serves from then on.

        The plain key follows a moment later; a reader of `current.json` does not use it. So if S3 will never let it be
        written, for example because it is locked, that is a warning.

        Args:
            version: the release.
            served: the pointer that `pointer` returned when this was decided.
            etag: the ETag that it returned.

        Raises:
            ReleaseConflictError: another release has been served meanwhile, and stays.
        """
        self._move(served.moved_to(version) if served else Pointer(version), etag)
        try:
            with _refusals(
                f"Release {version} is served from s3://{self._name} now, but bringing the key {PLAIN_KEY} up to it "
                f"failed (`promote_model.py rollback {version}` repeats that)"
            ):
                self._fill_plain_key(version)
        except WeightsRefusedError as error:
            logger.warning("%s", error)

    def _move(self, pointer: Pointer, etag: str | None) -> None:
        """Write `current.json` if it is still as it was read.

        S3 can have written it though its answer says otherwise or was lost. So then it is read back.
        """
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        refusal: Exception | None = None
        try:
            if self._objects.put(CURRENT_KEY, pointer.to_json().encode(), **condition):
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
        if not (found := self._objects.read(CURRENT_KEY, MAX_POINTER + 1)):
            return None, None
        text, etag = found
        try:
            return parse_pointer(text, f"s3://{self._name}/{CURRENT_KEY}"), etag
        except WeightsError as error:
            logger.warning("%s", error)
            return None, etag

    def _fill_plain_key(self, version: str) -> None:
        """Copy the served release to the plain key; repeat if another promotion has moved the pointer meanwhile."""
        while True:
            self._objects.copy(weights_key(version), PLAIN_KEY)
            now, _ = self._read_pointer()
            if now is None or now.version == version:
                return
            version = now.version

    def _put_manifest(self, manifest: Manifest) -> None:
        """Write a release's manifest, unless the one that is there says as much."""
        key, text = manifest_key(manifest.version), manifest.to_json().encode()
        if self._objects.put(key, text, IfNoneMatch="*"):
            return
        found = self._objects.read(key, MAX_MANIFEST + 1)
        stored = _manifest_in(found[0], manifest) if found else None
        if stored and (others := [name for name in OF_ANSWERS if getattr(stored, name) != getattr(manifest, name)]):
            raise WeightsError(
                f"s3://{self._name}/{key} has another {' and '.join(others)} than is promoted now: remove that release "
                "first."
            )
        if found and not (stored and (stored.forced or not manifest.forced)):
            self._objects.put(key, text, IfMatch=found[1])

    def _unreadable(self, version: str) -> str:
        return f"The weights cannot be read from s3://{self._name}/{weights_key(version)}"

    def _other_weights(self, version: str) -> WeightsError:
        return WeightsError(
            f"s3://{self._name}/{weights_key(version)} holds other weights than {version}'s: remove that release first."
        )


def _manifest_in(text: bytes, manifest: Manifest) -> Manifest | None:
    """Return a stored manifest, None if it is broken, or of other weights than this one."""
    try:
        stored = released(text, "the stored manifest", manifest.version)
    except WeightsError:
        return None
    return stored if (stored.sha256, stored.size) == (manifest.sha256, manifest.size) else None
