"""A model folder, as training leaves it without compression: take the weights and the training report out of it.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-train-storage-uncompressed.html
"""

import functools
import io
import shutil
from pathlib import Path
from typing import BinaryIO, Protocol

from pneumonia.errors import WeightsError, WeightsRefusedError, WeightsUnavailableError
from pneumonia.files import naming, open_plain
from pneumonia.network import training_report
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.training_report import REPORT_NAME, TrainingReport
from pneumonia.releases.archive import MAX_MEMBERS, check_size, without_weights
from pneumonia.storage.addresses import split
from pneumonia.storage.boto3_reading import download
from pneumonia.storage.client import new_client
from pneumonia.storage.refusals import refusals_as

_refusals = functools.partial(refusals_as, WeightsUnavailableError, permanent=WeightsRefusedError)


class ModelFolder(Protocol):
    """A folder whose files can be read."""

    def sizes(self) -> dict[str, int]:
        """Return what is at the folder's top: names, and sizes in bytes."""

    def copy(self, name: str, file: BinaryIO) -> None:
        """Write a file's bytes to another."""


def copy_model(folder: ModelFolder, weights: Path, source: str) -> TrainingReport:
    """Write a folder's weights to a file and return its training report, or an empty one if it has none.

    Args:
        folder: the folder.
        weights: the file to write.
        source: the folder's name in the error's sentence.

    Raises:
        WeightsUnavailableError: S3 refuses or cannot be reached.
        WeightsError: the folder has no weights, a file is too large, or the report is not one.
        OSError: a file cannot be read or written.
    """
    sizes = folder.sizes()
    if not sizes:
        raise WeightsError(f"There is nothing in {source}: check that the job has ended, and that this is its folder.")
    if WEIGHTS_NAME not in sizes:
        raise without_weights(source, sizes)
    for name in sizes.keys() & {WEIGHTS_NAME, REPORT_NAME}:
        check_size(name, sizes[name], source)
    with naming(weights), weights.open("wb") as file:
        folder.copy(WEIGHTS_NAME, file)
    if REPORT_NAME not in sizes:
        return TrainingReport()
    report = io.BytesIO()
    folder.copy(REPORT_NAME, report)
    return training_report.parse(report.getvalue(), f"{REPORT_NAME} in {source}")


class LocalFolder:
    """A folder on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sizes(self) -> dict[str, int]:
        """Return names and sizes.

        Raises:
            WeightsError: the weights or the report are a link, which could lead out of the folder, or no plain file.
            OSError: the folder cannot be read.
        """
        paths = {path.name: path for path in self._path.iterdir()}
        for name in paths.keys() & {WEIGHTS_NAME, REPORT_NAME}:
            if paths[name].is_symlink() or not paths[name].is_file():
                raise WeightsError(f"{self._path} holds {name!r}, which is a link or not a plain file: it is refused.")
        return {name: path.lstat().st_size for name, path in paths.items()}

    def copy(self, name: str, file: BinaryIO) -> None:
        """Write a file's bytes to another."""
        with open_plain(self._path / name) as source:
            shutil.copyfileobj(source, file)


class S3Folder:
    """The objects below a prefix in S3.

    Args:
        uri: `s3://bucket/prefix`, with or without a slash at its end.
    """

    def __init__(self, uri: str) -> None:
        self._bucket, prefix = split(uri)
        self._prefix = f"{prefix.rstrip('/')}/".lstrip("/")
        self._uri = f"s3://{self._bucket}/{self._prefix}"

    def sizes(self) -> dict[str, int]:
        """Return names and sizes; a folder below has the size 0.

        Raises:
            WeightsUnavailableError: S3 refuses or cannot be reached.
            WeightsError: there are too many.
        """
        with _refusals(f"{self._uri} cannot be listed"):
            page = new_client("s3", WeightsUnavailableError).list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix, Delimiter="/", MaxKeys=MAX_MEMBERS
            )
        if page["IsTruncated"]:
            raise WeightsError(f"{self._uri} holds more than {MAX_MEMBERS:,} files: a model has a handful.")
        sizes = {item["Key"]: item["Size"] for item in page.get("Contents", [])}
        sizes |= {item["Prefix"]: 0 for item in page.get("CommonPrefixes", [])}
        sizes.pop(self._prefix, None)  # an empty object that stands for the folder itself
        return {key.removeprefix(self._prefix): size for key, size in sizes.items()}

    def copy(self, name: str, file: BinaryIO) -> None:
        """Write an object's bytes to a file.

        Raises:
            WeightsUnavailableError: S3 refuses or cannot be reached.
        """
        with _refusals(f"{self._uri}{name} cannot be downloaded"):
            download(self._bucket, f"{self._prefix}{name}", file, WeightsUnavailableError)
