"""What training leaves: model.tar.gz or, without compression, a model folder; on this machine or in S3."""

import contextlib
import tempfile
from pathlib import Path

from pneumonia.errors import WeightsRefusedError, WeightsUnavailableError
from pneumonia.network.training_report import TrainingReport
from pneumonia.releases.archive import extract
from pneumonia.releases.folder import LocalFolder, S3Folder, copy_model
from pneumonia.storage.addresses import split
from pneumonia.storage.boto3_reading import download
from pneumonia.storage.refusals import refusals_as


def take_model(source: str, weights: Path) -> TrainingReport:
    """Write the weights that training left to a file, and return its training report, or an empty one if it has none.

    Args:
        source: model.tar.gz or a model folder, as `s3://bucket/key` or a local path.
        weights: the file to write.

    Raises:
        ConfigurationError: the address names no bucket.
        WeightsUnavailableError: S3 refuses, lacks the object or cannot be reached.
        WeightsError: what is there is damaged or suspicious, or has no weights.
        OSError: a local file cannot be read or written.
    """
    if not source.startswith("s3://"):
        path = Path(source)
        return copy_model(LocalFolder(path), weights, source) if path.is_dir() else extract(path, weights, source)
    if _is_folder(source):
        return copy_model(S3Folder(source), weights, source)
    with tempfile.TemporaryDirectory() as temporary:
        archive = Path(temporary) / "model.tar.gz"
        _download(source, archive)
        return extract(archive, weights, source)


def _is_folder(uri: str) -> bool:
    """Return whether an address in S3 is a folder's, which may be written without a slash at its end."""
    if uri.endswith((".tar.gz", ".tgz")):
        return False
    if uri.endswith("/") or not split(uri)[1]:
        return True
    with contextlib.suppress(WeightsRefusedError):  # who may not list may still read an archive
        return bool(S3Folder(uri).sizes())
    return False


def _download(uri: str, destination: Path) -> None:
    """Download an object to a file.

    Raises:
        ConfigurationError: the address names no bucket.
        WeightsUnavailableError: S3 refuses, lacks the object or cannot be reached, or the disk is full.
    """
    bucket, key = split(uri)
    advice = {"NoSuchKey": "check that the job has ended, and that this is the address that it printed"}
    refusals = refusals_as(
        WeightsUnavailableError, f"{uri} cannot be downloaded", permanent=WeightsRefusedError, advice=advice
    )
    with refusals, destination.open("wb") as file:
        download(bucket, key, file, WeightsUnavailableError)
