"""Store the files of a release in a bucket: the weights, the ONNX file, and at last the manifest, which makes it one.

What is there already stays, if the manifest that describes it is there, too: two versions of this code may write the
same network into ONNX files that differ.
"""

import dataclasses
import functools
import logging

from pneumonia.errors import ReleaseConflictError, WeightsError, WeightsRefusedError, WeightsUnavailableError
from pneumonia.releases.layout import manifest_key, onnx_key, weights_key
from pneumonia.releases.manifest import MAX_MANIFEST, Manifest, OnnxFile, released
from pneumonia.releases.release_files import ReleaseFiles
from pneumonia.storage.refusals import refusals_as
from pneumonia.storage.writing import WritableBucket

ATTEMPTS = 3  # at a manifest that others write at the same time
# What answers depend on. Two of one version would be served side by side, as running instances keep what they have.
OF_ANSWERS = ("classes", "preprocessing", "calibration", "input_check")
logger = logging.getLogger(__name__)
_refusals = functools.partial(refusals_as, WeightsUnavailableError, permanent=WeightsRefusedError)


class Storing:
    """Stores one release in a bucket; an error says how far it came.

    Args:
        objects: the bucket's.
        bucket: its name.
        files: of the release.
    """

    def __init__(self, objects: WritableBucket, bucket: str, files: ReleaseFiles) -> None:
        self._objects = objects
        self._files = files
        self._manifest = files.manifest
        self._version = files.manifest.version
        self._at = f"s3://{bucket}"

    def store(self) -> None:
        """Store the whole release, without serving it.

        A stored manifest is replaced if it cannot be read, and gets what it lacks: the ONNX file, or the reason why
        this release had to be forced.

        Raises:
            WeightsError: other weights, or another calibration, say, are stored under the same version.
            ReleaseConflictError: another process writes this release.
        """
        with _refusals(f"Release {self._version} is not served, because storing its weights in {self._at} failed"):
            self._put_weights()
        not_served = f"Release {self._version} is not served: its weights"
        self._add_onnx(
            f"{not_served} are stored in {self._at}",
            f"{not_served} {'and its ONNX file ' if self._files.onnx else ''}are stored in {self._at}",
            "promoting it again goes on from there",
        )

    def add_onnx(self) -> None:
        """Add the ONNX file to a release that is stored without one.

        Raises:
            WeightsError, ReleaseConflictError: as `store`.
        """
        self._add_onnx(
            f"Release {self._version} is as it was in {self._at}",
            f"The ONNX file of release {self._version} is stored in {self._at}",
            f"`promote_model.py export {self._version}` goes on from there",
        )

    def _add_onnx(self, before: str, after: str, again: str) -> None:
        """Store the ONNX file and the manifest.

        Args:
            before: what is done before that, for an error's sentence.
            after: what is done once the ONNX file is stored.
            again: how to go on.
        """
        if self._files.onnx is not None:
            with _refusals(f"{before}, but storing its ONNX file failed ({again})"):
                self._put_onnx(self._files.onnx)
        with _refusals(f"{after}, but storing its manifest failed ({again})"):
            self._put_manifest()

    def _put_weights(self) -> None:
        key = weights_key(self._version)
        if not self._objects.put(key, self._files.weights, IfNoneMatch="*") and not self._is(key, self._manifest):
            raise other_weights(f"{self._at}/{key}", self._version)

    def _put_onnx(self, content: bytes) -> None:
        """Write the ONNX file, unless the one that is there is the same, or is the one of the stored manifest."""
        key, told = onnx_key(self._version), self._manifest.onnx
        if self._objects.put(key, content, IfNoneMatch="*") or self._is(key, told):
            return
        stored, _ = self._stored()
        if stored and self._is(key, stored.onnx):
            logger.warning("%s/%s is not as this code would write it, and stays, as it is whole.", self._at, key)
            return
        found = self._objects.read(key, 1)  # what a promotion left that ended before its manifest
        condition = {"IfMatch": found[1]} if found else {"IfNoneMatch": "*"}
        if not self._objects.put(key, content, **condition) and not self._is(key, told):
            raise self._conflict(key)

    def _put_manifest(self) -> None:
        """Write the manifest, unless the one that is there says as much."""
        key = manifest_key(self._version)
        if self._objects.put(key, self._manifest.to_json().encode(), IfNoneMatch="*"):
            return
        for _ in range(ATTEMPTS):
            stored, etag = self._stored()
            wanted = self._completed(stored) if stored else self._manifest
            if stored == wanted:
                return
            condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
            if self._objects.put(key, wanted.to_json().encode(), **condition):
                return
        raise self._conflict(key)

    def _completed(self, stored: Manifest) -> Manifest:
        """Return a stored manifest with what it lacks.

        Raises:
            WeightsError: with the same weights, it would give other answers.
        """
        told = self._manifest.onnx
        others = [name for name in OF_ANSWERS if getattr(stored, name) != getattr(self._manifest, name)]
        if others:
            raise WeightsError(
                f"{self._at}/{manifest_key(self._version)} has another {' and '.join(others)} than is promoted now: "
                "remove that release first."
            )
        stays = told is None or stored.onnx == told or self._is(onnx_key(self._version), stored.onnx)
        forced = stored.forced or self._manifest.forced
        if stays:
            return dataclasses.replace(stored, forced=forced)
        return dataclasses.replace(stored, forced=forced, onnx=told, activations=self._manifest.activations)

    def _stored(self) -> tuple[Manifest | None, str | None]:
        """Return the stored manifest, None if it is broken or of other weights, and its ETag, None without any."""
        found = self._objects.read(manifest_key(self._version), MAX_MANIFEST + 1)
        if found is None:
            return None, None
        try:
            stored = released(found[0], "the stored manifest", self._version)
        except WeightsError:
            return None, found[1]
        is_ours = (stored.sha256, stored.size) == (self._manifest.sha256, self._manifest.size)
        return stored if is_ours else None, found[1]

    def _is(self, key: str, told: Manifest | OnnxFile | None) -> bool:
        """Return whether an object is what a manifest says."""
        return told is not None and self._objects.digest(key) == (told.sha256, told.size)

    def _conflict(self, key: str) -> ReleaseConflictError:
        return ReleaseConflictError(f"Another process writes {self._at}/{key} at the same time: do the same again.")


def other_weights(key: str, version: str) -> WeightsError:
    """Return the error for an object that is not what its release's manifest says."""
    return WeightsError(f"{key} holds other weights than {version}'s: remove that release first.")
