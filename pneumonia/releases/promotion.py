"""Promotion: make a release of what training left, and have a bucket serve it or put it into a folder."""

import dataclasses
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pneumonia.errors import WeightsError
from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.contract import CLASSES, WEIGHTS_NAME
from pneumonia.network.training_report import REPORT_NAME, TrainingReport
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.exporting import with_tried_onnx
from pneumonia.releases.gate import admitted
from pneumonia.releases.history import last_served, readable
from pneumonia.releases.layout import CURRENT_KEY, Pointer
from pneumonia.releases.manifest import Manifest, released
from pneumonia.releases.release import Release
from pneumonia.releases.release_files import ReleaseFiles
from pneumonia.releases.training_output import take_model
from pneumonia.releases.version import is_ahead, is_older, version_at


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
    files = unpack_release(source)
    pointer, etag = releases.pointer()  # read before the comparison: if it moves meanwhile, `serve` notices
    pointer = last_served(releases, pointer)
    manifest = files.manifest
    was_served = pointer is not None and manifest.version in (pointer.version, *pointer.previous, *pointer.withdrawn)
    if not (only_newer and was_served):  # a repeated event has its release not judged again
        served = readable(releases, pointer.version) if pointer else None  # what is broken of it is no objection
        manifest = admitted(manifest, served, source, force=force)
    releases.add(dataclasses.replace(files, manifest=manifest))
    if only_newer and pointer and (reason := _reason_to_wait(manifest.version, pointer, datetime.now(UTC))):
        return Promoted(manifest, f"Release {manifest.version} is stored in s3://{bucket} but {reason}.", was_served)
    releases.serve(manifest.version, pointer, etag)
    return Promoted(manifest, None)


def _reason_to_wait(version: str, pointer: Pointer, now: datetime) -> str | None:
    """Return why a repeated or late event may not have a release served, None if it may.

    A served release whose clock was ahead is newer than none: it would shut out all that follow.
    """
    again = f"`promote_model.py rollback {version}` serves it"
    if version in pointer.withdrawn:
        return f"not served, as it was rolled back, or was there when {CURRENT_KEY} was lost: {again}"
    if version in pointer.previous:
        return f"not served, as {pointer.version} has replaced it: {again}"
    if is_older(version, pointer.version) and not is_ahead(pointer.version, now):
        return f"was never served, as {pointer.version} is newer: {again}"
    return None


def promote_to_folder(source: str, directory: Path) -> Manifest:
    """Write all files of the release that training left into a local folder, whatever its figures are.

    Raises:
        ConfigurationError, WeightsError, WeightsUnavailableError, OSError: as `promote`.
    """
    files = unpack_release(source)
    directory.mkdir(parents=True, exist_ok=True)
    files.write_into(directory)
    return files.manifest


def unpack_release(source: str) -> ReleaseFiles:
    """Return the files of the release that training left, with a new ONNX file, after the checks that inference makes.

    Raises:
        WeightsError, WeightsUnavailableError, OSError: as `promote`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / WEIGHTS_NAME
        report = take_model(source, weights)
        _check_report(weights, report, source)
        content, made = weights.read_bytes(), manifest_for(weights, report)
    name = f"{WEIGHTS_NAME} in {source}"
    manifest = released(made.to_json(), f"The manifest for {source}", made.version)
    return with_tried_onnx(Release(name, content, manifest.sha256, manifest, "torch"), manifest, name)


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
        activations=report.activations,
        usual_evidence=report.usual_evidence,
    )


def _check_report(weights: Path, report: TrainingReport, name: str) -> None:
    """Check that a training report is of these weights, and of a training as inference needs it.

    Raises:
        WeightsError: it is not.
    """
    if report.weights_sha256 not in {None, sha256(weights)}:
        raise WeightsError(f"{REPORT_NAME} in {name} is of other weights: train again, into an empty model directory.")
    for field, given, expected in (
        ("classes", report.classes, list(CLASSES)),
        ("preprocessing", report.preprocessing, PREPROCESSING),
    ):
        if given not in (None, expected):
            raise WeightsError(f"The model in {name} was trained with {field} {given}, but inference has {expected}.")
