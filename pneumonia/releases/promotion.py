"""Promotion: make a release of what training left and have a bucket serve it, or go back to another release."""

import logging
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pneumonia.errors import WeightsError, printable
from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.contract import CLASSES, WEIGHTS_NAME
from pneumonia.network.resnet import check_outputs
from pneumonia.network.training_report import REPORT_NAME, TrainingReport
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.gate import FLOORS, admitted
from pneumonia.releases.layout import Pointer
from pneumonia.releases.manifest import Manifest
from pneumonia.releases.release_files import write_release
from pneumonia.releases.training_output import take_model
from pneumonia.releases.version import is_ahead, version_at

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Promoted:
    """What became of a promotion that went well.

    Attributes:
        manifest: the release's.
        not_served: why the release is stored but not served; None if it is served.
        was_served: it is served now, or was before.
    """

    manifest: Manifest
    not_served: str | None
    was_served: bool = True


def promote(source: str, bucket: str, *, force: bool = False, only_newer: bool = False) -> Promoted:
    """Make the weights that training left the release that a bucket serves.

    Args:
        source: model.tar.gz or a model folder, as `s3://bucket/key` or a local path.
        bucket: the weights bucket.
        force: serve it whatever its figures are; the manifest records the objections.
        only_newer: store it, but do not serve it if a newer release is served, or if it was served before.

    Raises:
        ReleaseRefusedError: its figures on the test images are too low, or its clock was ahead.
        ReleaseConflictError: another promotion came first.
        ConfigurationError: the source is no address.
        WeightsError: the source or its weights are invalid.
        WeightsUnavailableError: S3 refuses or cannot be reached.
        OSError: a local file cannot be read or written.
    """
    releases = WeightsBucket(bucket)
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / WEIGHTS_NAME
        manifest = unpack_release(source, weights)
        pointer, etag = releases.pointer()  # read before the comparison: if it moves meanwhile, `serve` notices
        manifest = admitted(manifest, _served_manifest(releases, pointer), source, force=force)
        releases.add(weights, manifest)
    if only_newer and pointer and (reason := _reason_to_wait(manifest.version, pointer, datetime.now(UTC))):
        was_served = manifest.version in pointer.previous + pointer.withdrawn
        return Promoted(manifest, f"Release {manifest.version} is stored in s3://{bucket} but {reason}.", was_served)
    releases.serve(manifest.version, pointer, etag)
    return Promoted(manifest, None)


def _reason_to_wait(version: str, pointer: Pointer, now: datetime) -> str | None:
    """Return why a repeated or late event may not have a release served, None if it may.

    A served release whose clock was ahead is newer than none: it would shut out all that follow.
    """
    again = f"`promote_model.py rollback {version}` serves it"
    if version in pointer.withdrawn:
        return f"not served, as it was rolled back: {again}"
    if version in pointer.previous:
        return f"not served, as {pointer.version} has replaced it: {again}"
    if version < pointer.version and not is_ahead(pointer.version, now):
        return f"was never served, as {pointer.version} is newer: {again}"
    return None


def promote_to_folder(source: str, directory: Path) -> Manifest:
    """Put the weights that training left and their manifest into a local folder, whatever their figures are.

    Raises:
        ConfigurationError, WeightsError, WeightsUnavailableError, OSError: as `promote`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / WEIGHTS_NAME
        manifest = unpack_release(source, weights)
        directory.mkdir(parents=True, exist_ok=True)
        write_release(directory / WEIGHTS_NAME, weights.read_bytes(), manifest)
    return manifest


def rollback(bucket: str, version: str | None) -> tuple[str, str | None]:
    """Serve another release of a bucket.

    Args:
        bucket: the weights bucket.
        version: the release; None for the previous one.

    Returns:
        The release that is served now, and the one served before, None if `current.json` could not be read.

    Raises:
        ReleaseConflictError: a promotion came first.
        WeightsError: there is no such release.
        WeightsUnavailableError: S3 refuses or cannot be reached.
    """
    releases = WeightsBucket(bucket)
    pointer, etag = releases.pointer()
    if not pointer and not etag:
        raise WeightsError(f"s3://{bucket} serves no release yet: promote a model first.")
    if not version:
        if not pointer or not pointer.previous:
            before = f"than {pointer.version}" if pointer else "that it remembers"
            raise WeightsError(
                f"s3://{bucket} has no earlier release {before} to go back to: name one, `list` shows them."
            )
        version = pointer.previous[0]
    releases.check(version)
    releases.serve(version, pointer, etag)
    return version, pointer.version if pointer else None


def listing(bucket: str) -> str:
    """Return a table of a bucket's releases, the newest first, with the served one marked; a sentence if it has none.

    Raises:
        WeightsUnavailableError: S3 refuses or cannot be reached.
    """
    releases = WeightsBucket(bucket)
    pointer, _ = releases.pointer()
    versions = releases.versions()
    if not versions:
        return f"s3://{bucket} has no releases yet: promote a model.tar.gz there."
    lines = [f"  {'version':<24}  {'accuracy':<8}  {'AUROC':<6}  training job"]
    for version in reversed(versions):
        mark = "*" if pointer and pointer.version == version else " "
        lines.append(f"{mark} {version:<24}  {_described(releases, version)}")
    return "\n".join(lines)


def unpack_release(source: str, weights: Path) -> Manifest:
    """Write the weights that training left to a file, check them, and return a manifest for their release.

    Raises:
        WeightsError, WeightsUnavailableError, OSError: as `promote`.
    """
    report = take_model(source, weights)
    _check(weights, report, source)
    return manifest_for(weights, report)


def manifest_for(weights: Path, report: TrainingReport) -> Manifest:
    """Return the manifest of a release; the same weights and training report give the same version every time."""
    created = datetime.now(UTC)
    digest = sha256(weights)
    return Manifest(
        version=version_at(report.finished or created, digest),
        sha256=digest,
        size=weights.stat().st_size,
        classes=list(CLASSES),
        preprocessing=PREPROCESSING,
        metrics=report.metrics,
        training_job=report.training_job,
        dataset_fingerprint=report.dataset.fingerprint,
        created=created.isoformat(timespec="seconds"),
        calibration=report.calibration,
        input_check=report.input_check,
        calibrated_on=report.calibrated_on,
        data_check=report.data_check,
    )


def _served_manifest(releases: WeightsBucket, pointer: Pointer | None) -> Manifest | None:
    """Return the served release's manifest; None if there is none, or if it is broken, which a promotion repairs."""
    try:
        return releases.manifest(pointer.version) if pointer else None
    except WeightsError as error:
        logger.warning("%s", error)
        return None


def _described(releases: WeightsBucket, version: str) -> str:
    """Return the columns of a release after its version, or why its manifest cannot be read."""
    try:
        manifest = releases.manifest(version)
    except WeightsError as error:
        return str(error)
    accuracy, auroc = (f"{manifest.metrics[name]:.4f}" if name in manifest.metrics else "-" for name in FLOORS)
    forced = f"  forced: {manifest.forced}" if manifest.forced else ""
    return printable(f"{accuracy:<8}  {auroc:<6}  {manifest.training_job or '-'}{forced}")


def _check(weights: Path, report: TrainingReport, name: str) -> None:
    """Check that inference can serve these weights.

    Raises:
        WeightsError: not a ResNet-18 of ours, outputs that are not finite, or other classes or preprocessing.
    """
    try:
        network = load_weights(weights)
    except WeightsError as error:  # the temporary file's path tells a user nothing
        raise WeightsError(str(error).replace(str(weights), f"{WEIGHTS_NAME} in {name}")) from error
    check_outputs(network, name)
    if report.weights_sha256 not in {None, sha256(weights)}:
        raise WeightsError(f"{REPORT_NAME} in {name} is of other weights: train again, into an empty model directory.")
    for field, given, expected in (
        ("classes", report.classes, list(CLASSES)),
        ("preprocessing", report.preprocessing, PREPROCESSING),
    ):
        if given not in (None, expected):
            raise WeightsError(f"The model in {name} was trained with {field} {given}, but inference has {expected}.")
