"""Store the files of a release in a bucket: the weights file, the ONNX file, and last the manifest.

Without a manifest, no release counts as stored. A file that is stored already stays if the stored manifest describes
it: two versions of this code may write the same network into different ONNX files.
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

ATTEMPTS = 3  # to write a manifest that other processes write at the same time
# Fields that answers depend on. If a stored one were replaced, running instances would keep answering by the old one.
# The usual evidence is not among them: only heatmaps depend on it.
OF_ANSWERS = ("classes", "preprocessing", "calibration", "input_check")
logger = logging.getLogger(__name__)
_refusals = functools.partial(refusals_as, WeightsUnavailableError, permanent=WeightsRefusedError)


class Storing:
    """Stores one release in a bucket; its errors say what was stored before.

    Args:
        objects: writes the objects of the bucket.
        bucket: the bucket's name.
        files: the files of the release.
    """

    def __init__(self, objects: WritableBucket, bucket: str, files: ReleaseFiles) -> None:
        self._objects = objects
        self._files = files
        self._manifest = files.manifest
        self._version = files.manifest.version
        self._at = f"s3://{bucket}"

    def store(self) -> None:
        """Store the whole release, without serving it.

        A stored manifest is replaced if it cannot be read. Otherwise what it lacks is added: the ONNX file, the usual
        evidence, or the reason why this release had to be forced.

        Raises:
            WeightsError: other weights, or another calibration for example, are stored under the same version.
            ReleaseConflictError: another process is writing this release.
            WeightsUnavailableError: S3 cannot be reached, or fails.
            WeightsRefusedError: S3 refuses.
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
            WeightsError, ReleaseConflictError, WeightsUnavailableError, WeightsRefusedError: as `store`.
        """
        self._add_onnx(
            f"Release {self._version} is as it was in {self._at}",
            f"The ONNX file of release {self._version} is stored in {self._at}",
            f"`promote_model.py export {self._version}` goes on from there",
        )

    def _add_onnx(self, before: str, after: str, again: str) -> None:
        """Store the ONNX file and the manifest.

        Args:
            before: the state before the ONNX file is stored, for error messages.
            after: the state once it is stored, for error messages.
            again: what to do after an error.
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
        """Write the ONNX file, unless the stored one is the same, or is what the stored manifest describes."""
        key, told = onnx_key(self._version), self._manifest.onnx
        if self._objects.put(key, content, IfNoneMatch="*") or self._is(key, told):
            return
        stored, _ = self._stored()
        if stored and self._is(key, stored.onnx):
            logger.warning("%s/%s is not what this code would write. It stays, because it is whole.", self._at, key)
            return
        found = self._objects.read(key, 1)  # left by a promotion that ended before it stored the manifest
        condition = {"IfMatch": found[1]} if found else {"IfNoneMatch": "*"}
        if not self._objects.put(key, content, **condition) and not self._is(key, told):
            raise self._conflict(key)

    def _put_manifest(self) -> None:
        """Write the manifest, unless the stored one has all that it has."""
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
        """Return a stored manifest, completed by what it lacks.

        Raises:
            WeightsError: with the stored manifest, the same weights give other answers.
        """
        told = self._manifest.onnx
        others = [name for name in OF_ANSWERS if getattr(stored, name) != getattr(self._manifest, name)]
        if others:
            raise WeightsError(
                f"{self._at}/{manifest_key(self._version)} has another {' and '.join(others)} than is promoted now: "
                "remove that release first."
            )
        stays = told is None or stored.onnx == told or self._is(onnx_key(self._version), stored.onnx)
        completed = dataclasses.replace(
            stored,
            forced=stored.forced or self._manifest.forced,
            usual_evidence=stored.usual_evidence or self._manifest.usual_evidence,
        )
        if stays:
            return completed
        return dataclasses.replace(completed, onnx=told, activations=self._manifest.activations)

    def _stored(self) -> tuple[Manifest | None, str | None]:
        """Return the stored manifest, None if it is broken or of other weights, and its ETag, None if there is none."""
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
        """Return whether an object has the digest and the size that a manifest gives."""
        return told is not None and self._objects.digest(key) == (told.sha256, told.size)

    def _conflict(self, key: str) -> ReleaseConflictError:
        return ReleaseConflictError(f"Another process writes {self._at}/{key} at the same time: do the same again.")


def other_weights(key: str, version: str) -> WeightsError:
    """Return the error for an object that is not what its release's manifest says."""
    return WeightsError(f"{key} holds other weights than {version}'s: remove that release first.")
