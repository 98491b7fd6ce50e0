"""Releases in the weights bucket on S3, laid out as layout.py says.

Whatever interrupts a promotion, `current.json` names a complete release, and an error says how far it came. If two
promotions run at once, one moves the pointer and the other gets an error: S3 writes the object only if it is still as
it was read.
"""

import functools
import hashlib
import logging
from typing import NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from pneumonia.errors import ReleaseConflictError, WeightsError, WeightsRefusedError, WeightsUnavailableError
from pneumonia.network.contract import MAX_WEIGHTS
from pneumonia.releases.engine_file import KEYS
from pneumonia.releases.layout import (
    CURRENT_KEY,
    MAX_POINTER,
    PLAIN_KEY,
    RELEASES,
    Pointer,
    manifest_key,
    onnx_key,
    parse_pointer,
    version_of,
    weights_key,
)
from pneumonia.releases.manifest import MAX_MANIFEST, Manifest, released
from pneumonia.releases.release import Release
from pneumonia.releases.release_files import ReleaseFiles
from pneumonia.releases.storing import Storing, other_weights
from pneumonia.releases.version import is_version
from pneumonia.storage.answers import UnsentError
from pneumonia.storage.refusals import refusals_as
from pneumonia.storage.writing import WritableBucket

logger = logging.getLogger(__name__)
_refusals = functools.partial(refusals_as, WeightsUnavailableError, permanent=WeightsRefusedError)
# What to do about weights that are missing: the answer to a HEAD request has no body, and so no code.
NO_WEIGHTS = dict.fromkeys(("404", "NoSuchKey"), "promote the model again")


class Sizes(NamedTuple):
    """The sizes of a stored release's weights file and ONNX file in bytes, None for a file that is not there."""

    weights: int | None
    onnx: int | None


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

    def stored(self) -> dict[str, Sizes]:
        """Return the sizes of the files of each release that has a manifest, the oldest release first."""
        with _refusals(f"The releases of s3://{self._name} cannot be listed"):
            sizes = self._objects.sizes(RELEASES)
        versions = sorted(version for version in map(version_of, sizes) if version is not None)
        return {version: Sizes(sizes.get(weights_key(version)), sizes.get(onnx_key(version))) for version in versions}

    def check(self, version: str) -> Manifest:
        """Check that a release is complete: its manifest can be read, and describes its weights; return the manifest.

        Raises:
            WeightsError: the release is not complete.
        """
        manifest = self.manifest(version)
        with _refusals(_unreadable(self._at(weights_key(version))), advice=NO_WEIGHTS):
            stored = self._objects.digest(weights_key(version))
        if stored != (manifest.sha256, manifest.size):
            raise other_weights(self._at(weights_key(version)), version)
        if manifest.onnx and not self.has_onnx(manifest):
            raise WeightsError(
                f"{self._at(onnx_key(version))} is missing, or not what the manifest says: "
                f"`promote_model.py export {version}` writes it anew."
            )
        return manifest

    def files(self, version: str) -> ReleaseFiles:
        """Return all files of a release.

        Raises:
            WeightsError: the release is not complete.
        """
        manifest = self.manifest(version)
        onnx = self.release(manifest, "onnx").weights if manifest.onnx else None
        return ReleaseFiles(self.release(manifest, "torch").weights, onnx, manifest)

    def release(self, manifest: Manifest, engine: str) -> Release:
        """Return a release as an engine reads it.

        Args:
            manifest: the release's manifest.
            engine: "torch" or "onnx".

        Raises:
            WeightsError: the engine's file is missing, or damaged.
        """
        key = KEYS[engine](manifest.version)
        unreadable = _unreadable(self._at(key))
        with _refusals(unreadable, advice=NO_WEIGHTS):
            found = self._objects.read(key, MAX_WEIGHTS + 1)
        if found is None:
            raise WeightsError(f"{unreadable}, because there are none: promote the model again.")
        return Release(self._at(key), found[0], hashlib.sha256(found[0]).hexdigest(), manifest, engine)

    def plain_digest(self) -> str | None:
        """Return the SHA-256 of the weights under the plain key, None if there are none."""
        with _refusals(f"The weights cannot be read from s3://{self._name}/{PLAIN_KEY}"):
            if PLAIN_KEY not in self._objects.sizes(PLAIN_KEY):
                return None
            return self._objects.digest(PLAIN_KEY)[0]

    def has_onnx(self, manifest: Manifest) -> bool:
        """Return whether a release has an ONNX file with the digest and the size that its manifest gives."""
        told, key = manifest.onnx, onnx_key(manifest.version)
        with _refusals(f"The ONNX file cannot be read from {self._at(key)}"):
            if told is None or key not in self._objects.sizes(key):
                return False
            return self._objects.digest(key) == (told.sha256, told.size)

    def add(self, files: ReleaseFiles) -> None:
        """Store a complete release without serving it, as `Storing.store` does.

        Raises:
            WeightsError, ReleaseConflictError, WeightsUnavailableError, WeightsRefusedError: as there.
        """
        Storing(self._objects, self._name, files).store()

    def add_onnx(self, files: ReleaseFiles) -> None:
        """Store the ONNX file of a release that is stored without one, as `Storing.add_onnx` does.

        Raises:
            WeightsError, ReleaseConflictError, WeightsUnavailableError, WeightsRefusedError: as there.
        """
        Storing(self._objects, self._name, files).add_onnx()

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

    def _at(self, key: str) -> str:
        return f"s3://{self._name}/{key}"


def _unreadable(address: str) -> str:
    return f"The weights cannot be read from {address}"
