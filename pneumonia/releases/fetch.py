"""The weights for serving: taken from disk, or fetched from S3 when they are first needed.

This imports neither an engine nor boto3, so that a download can run while the engine is being imported.
"""

import contextlib
import functools
import io
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pneumonia.deadline import Deadline
from pneumonia.engines.choice import chosen_engine
from pneumonia.errors import PneumoniaError, WeightsError, WeightsUnavailableError
from pneumonia.files import is_there, shipped
from pneumonia.network.contract import MAX_WEIGHTS, WEIGHTS_NAME
from pneumonia.releases.engine_file import KEYS, OTHER, SUFFIXES, described, missing, path_for
from pneumonia.releases.layout import CURRENT_KEY, MAX_POINTER, PLAIN_KEY, manifest_key, parse_pointer
from pneumonia.releases.manifest import MAX_MANIFEST, Manifest, released
from pneumonia.releases.release import Release, read_release
from pneumonia.releases.release_files import write_release
from pneumonia.storage.addresses import bucket_name
from pneumonia.storage.answers import S3Error
from pneumonia.storage.reading import BucketReader
from pneumonia.storage.refusals import refusals_as

ASK_SECONDS = 3.0  # for `current.json`: while S3 is down, a request on Lambda waits for this
DEFAULT_PATH = "/tmp/model.pth"  # noqa: S108  # in Lambda's one writable folder
RELEASED_WEIGHTS = shipped("weights") / WEIGHTS_NAME  # beside them lies the ONNX file
logger = logging.getLogger(__name__)
_refusals = functools.partial(refusals_as, WeightsUnavailableError)
# What to do about a missing object.
NO_WEIGHTS = {"NoSuchKey": "promote a model into this bucket first, or name another key"}
NO_RELEASE = {"NoSuchKey": f"{CURRENT_KEY} names a release that is not whole: promote the model again, or roll back"}


class Weights:
    """The weights of one process, in the file that the chosen engine reads; safe to use from many threads at once.

    Args:
        path: the file, which is downloaded if it does not exist. If it is the other engine's file, the one beside it
            is read.
        bucket: S3 bucket to download from, None for the released weights of this repository.
        key: the weights' key in a bucket without `current.json`.
        is_named: whether the user named the path. A file there is used without asking the bucket; if there is neither,
            an error or a warning says so. At the default path lies an earlier process's download, which is used only if
            the bucket serves it still, or cannot be asked.

    Raises:
        ConfigurationError: the path is a manifest's.
    """

    def __init__(self, path: Path, bucket: str | None = None, key: str = PLAIN_KEY, *, is_named: bool = True) -> None:
        self.engine = chosen_engine()
        self.path = path_for(path, self.engine)
        self._is_named = is_named
        self.bucket = bucket
        self.key = key
        self.download_seconds: float | None = None  # of this process's last download
        self.asked = -math.inf  # when this process last asked the bucket for the served release, by time.monotonic
        self._has_pointer = False  # whether there was a `current.json`
        self._is_served: bool | None = None  # whether the bucket serves the release at `path`; None before it has said
        self._waiting: Release | None = None  # found in the background
        self._fetching = threading.Lock()

    @classmethod
    def from_environment(cls) -> "Weights":
        """Read MODEL_PATH, MODEL_BUCKET and MODEL_KEY; an empty variable counts as unset.

        Raises:
            ConfigurationError: MODEL_PATH names a manifest.
        """
        return cls(
            path=Path(os.environ.get("MODEL_PATH") or DEFAULT_PATH),
            bucket=bucket_name(os.environ.get("MODEL_BUCKET", "")) or None,
            key=os.environ.get("MODEL_KEY") or PLAIN_KEY,
            is_named=bool(os.environ.get("MODEL_PATH")),
        )

    def fetch_in_background(self, deadline: Deadline) -> None:
        """Begin to find the weights before `find` is called; if this fails, `find` tries again and raises."""

        def fetch(bucket: str) -> None:
            with contextlib.suppress(PneumoniaError), self._turn(deadline):
                self._waiting = self._kept_or_fetched(bucket, deadline)

        if self.bucket:
            threading.Thread(target=fetch, args=[self.bucket], name="fetch weights", daemon=True).start()

    def find(self, deadline: Deadline) -> Release:
        """Return the release at `path`, and fetch it if need be.

        Args:
            deadline: when to give up.

        Raises:
            WeightsUnavailableError: there are no weights, S3 does not give them, the disk is full, or time is up.
            WeightsError: weights and manifest do not fit each other, or one of both is damaged.
        """
        if self.bucket:
            return self._find_or_fetch(self.bucket, deadline)
        if is_there(self.path):
            return read_release(self.path, deadline, self.engine)
        if self._is_named and (advice := missing(self.path, self.engine)):
            raise WeightsUnavailableError(advice)
        if (released := path_for(RELEASED_WEIGHTS, self.engine)).exists():
            if self._is_named:
                logger.warning("%s does not exist: the released model serves.", self.path)
            return read_release(released, deadline, self.engine)
        raise WeightsUnavailableError(
            f"There are no weights: {self.path} does not exist and MODEL_BUCKET is not set. Set MODEL_BUCKET to the "
            "bucket that promote_model.py published to, or put a weights file at MODEL_PATH."
        )

    def replace(self, deadline: Deadline) -> Release:
        """Fetch the weights again, in place of a file that cannot be used.

        Raises:
            WeightsUnavailableError, WeightsError: as `find`.
        """
        with self._turn(deadline):
            return self._fetched(deadline)

    def served_version(self, deadline: Deadline) -> str | None:
        """Return the release that the bucket's `current.json` names now; None without that file, or without a bucket.

        Raises:
            WeightsUnavailableError: S3 refuses or does not answer in time, or there is no `current.json` any more.
            WeightsError: `current.json` names no release.
        """
        if not self.bucket:
            return None
        version = self._ask(self.bucket, deadline)
        if version is None and self._has_pointer:
            raise WeightsUnavailableError(
                f"s3://{self.bucket}/{CURRENT_KEY} is gone: put it back with promote_model.py."
            )
        self._has_pointer = version is not None
        return version

    def served(self, deadline: Deadline) -> Release:
        """Fetch the release that the bucket serves now; the file at `path` does not change.

        Raises:
            WeightsUnavailableError, WeightsError: as `find`.
        """
        if not self.bucket:
            raise ValueError("there is no bucket to fetch from")
        self.asked = time.monotonic()
        release = fetch(self.bucket, self.key, deadline, self.engine)
        self.download_seconds = time.monotonic() - self.asked
        self._has_pointer = release.manifest is not None
        return release

    def _ask(self, bucket: str, deadline: Deadline) -> str | None:
        self.asked = time.monotonic()
        with contextlib.closing(BucketReader(bucket, deadline, WeightsUnavailableError)) as source:
            return _current_version(source, bucket)

    def _find_or_fetch(self, bucket: str, deadline: Deadline) -> Release:
        with self._turn(deadline):
            if release := self._waiting:
                self._waiting = None  # it takes 22 MB
                return release
            return self._kept_or_fetched(bucket, deadline)

    def _kept_or_fetched(self, bucket: str, deadline: Deadline) -> Release:
        kept = self._kept(deadline)
        if kept and (self._is_named or self._may_serve(kept, bucket, deadline)):
            return kept
        return self._fetched(deadline)

    def _kept(self, deadline: Deadline) -> Release | None:
        """Return the release at `path`, None if there is none to be used."""
        if self._is_served is False or not is_there(self.path):
            return None
        try:
            return read_release(self.path, Deadline.after(deadline.seconds_left / 2), self.engine)
        except (WeightsError, WeightsUnavailableError) as error:
            # What a killed process, or another program, left there. Without this the instance could never serve again.
            logger.warning("%s It is fetched anew.", error)
            return None

    def _may_serve(self, kept: Release, bucket: str, deadline: Deadline) -> bool:
        """Return whether the bucket serves a release, or does not say: then an old release is better than none.

        Raises:
            WeightsError: `current.json` names no release.
        """
        if self._is_served:
            return True
        self._has_pointer = kept.manifest is not None
        try:
            version = self._ask(bucket, min(deadline, Deadline.after(ASK_SECONDS)))
        except WeightsUnavailableError as error:
            self.asked = -math.inf  # so that the next look comes at once, and its failure is counted
            logger.warning("%s Until the bucket answers, %s serves, which is at %s.", error, kept.version, self.path)
            return True
        self._is_served = kept.manifest is not None and kept.version == version
        if not self._is_served:
            found = kept.version, self.path
            logger.warning("%s at %s is not the release that s3://%s serves, which is fetched.", *found, bucket)
        return self._is_served

    def _fetched(self, deadline: Deadline) -> Release:
        """Fetch the served release, and write it to `path`."""
        release = self.served(deadline)
        with _refusals(f"The weights cannot be fetched from {release.source}"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_release({self.path: release.weights}, release.manifest)
        self._is_served = True
        return release

    @contextlib.contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        seconds = deadline.seconds_left
        if not self._fetching.acquire(timeout=seconds):
            raise WeightsUnavailableError(
                f"The weights are still being downloaded from s3://{self.bucket} after {seconds:.0f} s: try again.",
                public="it is still being downloaded: try again",
            )
        try:
            yield
        finally:
            self._fetching.release()


def fetch(bucket: str, key: str, deadline: Deadline, engine: str | None = None) -> Release:
    """Fetch the release that a bucket serves.

    Args:
        bucket: the weights bucket.
        key: the weights' key, for a bucket without `current.json`.
        deadline: when to give up.
        engine: the engine that reads the weights, by default the chosen one.

    Raises:
        WeightsUnavailableError: S3 refuses, lacks the object or cannot be reached in time.
        WeightsError: the object does not match its manifest, or the release has no file for the engine.
    """
    engine = engine or chosen_engine()
    with contextlib.closing(BucketReader(bucket, deadline, WeightsUnavailableError)) as source:
        manifest = _current_manifest(source, bucket)
        if manifest:
            described(manifest, engine, bucket)
            key = KEYS[engine](manifest.version)
        else:
            _check_plain(bucket, key, engine)
        uri, content = f"s3://{bucket}/{key}", io.BytesIO()
        with _refusals(f"The weights cannot be fetched from {uri}", advice=NO_RELEASE if manifest else NO_WEIGHTS):
            digest, size = source.copy(key, content, MAX_WEIGHTS + 1)
    if size > MAX_WEIGHTS:
        raise WeightsError(f"{uri} has more than {MAX_WEIGHTS:,} bytes: promote a ResNet-18, which has 45 million.")
    logger.info("downloaded %s, %d bytes", uri, size)
    return Release(uri, content.getvalue(), digest, manifest, engine)


def _current_manifest(source: BucketReader, bucket: str) -> Manifest | None:
    """Return the manifest of the release that `current.json` names, None for a bucket without `current.json`."""
    if (version := _current_version(source, bucket)) is None:
        return None
    key = manifest_key(version)
    with _refusals(f"The served release cannot be read from s3://{bucket}/{key}", advice=NO_RELEASE):
        return released(source.read(key, MAX_MANIFEST + 1), f"s3://{bucket}/{key}", version)


def _check_plain(bucket: str, key: str, engine: str) -> None:
    """Check that an engine can read the plain key of a bucket without `current.json`, and log that it is served.

    Raises:
        WeightsUnavailableError: by its suffix, the key is of the other engine's file.
    """
    advice = "promote a model, or serve a release that is there by `promote_model.py rollback VERSION`"
    if key.endswith(SUFFIXES[OTHER[engine]]):
        raise WeightsUnavailableError(
            f"s3://{bucket} has no {CURRENT_KEY}, and the engine {engine} cannot read {key}: {advice}, or name another "
            "key by MODEL_KEY.",
            public=f"no release is served, and the engine {engine} cannot read a {SUFFIXES[OTHER[engine]]} file",
        )
    logger.warning("s3://%s has no %s, so %s serves, uncalibrated: %s.", bucket, CURRENT_KEY, key, advice)


def _current_version(source: BucketReader, bucket: str) -> str | None:
    """Return the release that `current.json` names, None for a bucket without `current.json`."""
    with _refusals(f"The served release cannot be read from s3://{bucket}/{CURRENT_KEY}"):
        try:
            current = source.read(CURRENT_KEY, MAX_POINTER + 1)
        except S3Error as error:
            # Not if S3 answers AccessDenied: the release may be there, and the plain key be another model's.
            if not error.is_missing:
                raise
            return None
    return parse_pointer(current, f"s3://{bucket}/{CURRENT_KEY}").version
