"""Promote a trained model: SageMaker's model.tar.gz becomes the release that inference serves.

`python promote_model.py s3://bucket/training/job/output/model.tar.gz --bucket WEIGHTS_BUCKET`
"""

import argparse
import datetime
import gzip
import json
import math
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from pneumonia import WEIGHTS_NAME, store
from pneumonia.errors import ConfigurationError, PneumoniaError, WeightsError
from pneumonia.files import replacing, sha256
from pneumonia.image import PREPROCESSING, SIZE, normalize
from pneumonia.manifest import Manifest, calibration_in
from pneumonia.model import CLASSES, load_weights

REPORT_NAME = "training.json"  # what train_model.py writes beside the weights
CHUNK = 1024 * 1024  # bytes read at a time
# What tarfile and gzip raise on damaged or malicious archives, found by trying.
DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)
MAX_UNPACKED = 512 * 1024 * 1024  # bytes; a ResNet-18 in single precision has 45 million
MAX_WEIGHTS = 128 * 1024 * 1024
MAX_REPORT = 1024 * 1024
MAX_MEMBERS = 1000


def promote(source: str, bucket: str | None, directory: Path | None) -> Manifest:
    """Take the weights out of an archive, check them, and publish them as a release.

    Args:
        source: model.tar.gz, as `s3://bucket/key` or a local path.
        bucket: weights bucket to publish to; None to fill `directory` instead.
        directory: local folder that gets the weights file and its manifest.

    Returns:
        The release's manifest.

    Raises:
        WeightsError: the archive or the weights are not what they should be.
        WeightsUnavailableError: S3 refuses or cannot be reached.
        OSError: a local file cannot be read or written.
    """
    with tempfile.TemporaryDirectory() as temporary:
        archive, weights = Path(source), Path(temporary) / WEIGHTS_NAME
        if source.startswith("s3://"):
            archive = Path(temporary) / "model.tar.gz"
            store.download(source, archive)
        report = extract(archive, weights, name=source)
        check(weights, report, name=source)
        manifest = manifest_for(weights, report)
        if bucket:
            store.publish(weights, manifest, bucket)
        elif directory:
            directory.mkdir(parents=True, exist_ok=True)
            with replacing(directory / WEIGHTS_NAME) as copy:
                shutil.copyfile(weights, copy)
            manifest.write_beside(directory / WEIGHTS_NAME)
    return manifest


def extract(archive: Path, weights: Path, name: str) -> dict[str, Any]:
    """Write the archive's weights file to `weights` and return its training report, {} where it has none.

    No other member is written to disk, and an archive that holds anything suspicious is refused as a whole.

    Raises:
        WeightsError: no tar.gz, suspicious, too large, or without weights.
        OSError: the archive cannot be read or the disk is full.
    """
    try:
        with LimitedGzip(archive, name) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            report, names = take(tar, weights, name)
            while stream.read(CHUNK):  # gzip's checksum stands at its end, behind the end of the tar
                pass
    except DAMAGED as error:
        raise WeightsError(f"{name} is no whole tar.gz ({error}): fetch it again or train again.") from error
    if not weights.exists():
        found = ", ".join(map(repr, sorted(names)[:5])) or "nothing"
        raise WeightsError(f"{name} holds no {WEIGHTS_NAME} at its top, but {found}: was it written by train_model.py?")
    return report


def take(tar: tarfile.TarFile, weights: Path, name: str) -> tuple[dict[str, Any], set[str]]:
    """Read an archive once from front to back; return its training report and the names of its members.

    Raises:
        WeightsError: a member is suspicious or too large.
    """
    report: dict[str, Any] = {}
    names: set[str] = set()
    for member in tar:
        check_member(member, name)
        path = str(PurePosixPath(member.name))
        if path in names:
            raise WeightsError(f"{name} holds {path!r} twice: which one is meant cannot be told.")
        names.add(path)
        if len(names) > MAX_MEMBERS:
            raise WeightsError(f"{name} holds more than {MAX_MEMBERS:,} files: a model has a handful.")
        content = tar.extractfile(member)
        if path == WEIGHTS_NAME and content:  # a folder has no content
            check_size(member, MAX_WEIGHTS, name)
            with weights.open("wb") as file:
                shutil.copyfileobj(content, file)
        elif path == REPORT_NAME and content:
            check_size(member, MAX_REPORT, name)
            report = parse_report(content.read(), name)
    return report, names


class LimitedGzip(gzip.GzipFile):
    """A gzip file that ends with an error after MAX_UNPACKED bytes.

    Counting what is unpacked bounds everything at once: members, the headers that tarfile keeps in memory, and what
    is skipped. A few kilobytes of gzip can stand for gigabytes.

    Args:
        archive: the file to read.
        name: what the error's sentence calls it.
    """

    def __init__(self, archive: Path, name: str) -> None:
        super().__init__(archive, "rb")
        self._shown_name = name
        self._left = MAX_UNPACKED

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes."""
        data = super().read(size)
        self._left -= len(data)
        if self._left < 0:
            raise WeightsError(f"{self._shown_name} unpacks to more than {MAX_UNPACKED:,} bytes: it is no model.")
        return data


def check_member(member: tarfile.TarInfo, name: str) -> None:
    """Refuse what could reach outside a folder, or is no plain file.

    Raises:
        WeightsError: a link, a device, or a path with a root, a drive or a step upwards.
    """
    paths = (PurePosixPath(member.name), PureWindowsPath(member.name))
    if any(path.anchor or ".." in path.parts for path in paths):
        raise WeightsError(f"{name} holds the path {member.name!r}, which leads out of its folder: it is refused.")
    if not (member.isdir() or (member.isreg() and not member.issparse())):
        raise WeightsError(f"{name} holds {member.name!r}, which is a link or no plain file: it is refused.")


def check_size(member: tarfile.TarInfo, limit: int, name: str) -> None:
    """Refuse a member larger than it can be.

    Raises:
        WeightsError: more than `limit` bytes.
    """
    if member.size > limit:
        raise WeightsError(f"{name} holds {member.name} of {member.size:,} bytes; at most {limit:,} are expected.")


def parse_report(text: bytes, name: str) -> dict[str, Any]:
    """Read the training report.

    Raises:
        WeightsError: it is no JSON object.
    """
    try:
        report = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{name} holds a {REPORT_NAME} that is no JSON ({error}): train again.") from error
    if not isinstance(report, dict):
        raise WeightsError(f"{name} holds a {REPORT_NAME} that is no JSON object: train again.")
    return report


def check(weights: Path, report: dict[str, Any], name: str) -> None:
    """See that inference can serve these weights.

    Raises:
        WeightsError: not a ResNet-18 of ours, outputs that are not finite, or other classes or preprocessing.
    """
    try:
        network = load_weights(weights)
    except WeightsError as error:  # the temporary file's path tells a user nothing
        raise WeightsError(str(error).replace(str(weights), f"{WEIGHTS_NAME} in {name}")) from error
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, SIZE, SIZE)
    if not network(normalize(torch.cat([noise, black_and_white]))).isfinite().all():
        raise WeightsError(f"The outputs of the network in {name} are not finite: training diverged, train again.")
    if report.get("weights_sha256", sha256(weights)) != sha256(weights):
        raise WeightsError(f"{REPORT_NAME} in {name} is of other weights: train again, into an empty model directory.")
    for field, expected in (("classes", list(CLASSES)), ("preprocessing", PREPROCESSING)):
        if report.get(field, expected) != expected:
            raise WeightsError(
                f"The model in {name} was trained with {field} {report[field]}, but inference has {expected}."
            )


def manifest_for(weights: Path, report: dict[str, Any]) -> Manifest:
    """Describe a release; promoting an archive with a training report again gives the same version.

    Raises:
        WeightsError: the report is not as train_model.py writes it.
    """
    created = datetime.datetime.now(datetime.UTC)
    try:
        finished = datetime.datetime.fromisoformat(report["finished"]) if "finished" in report else created
        digest = sha256(weights)
        return Manifest(
            version=f"{finished.astimezone(datetime.UTC):%Y%m%d-%H%M%S}-{digest[:8]}",
            sha256=digest,
            size=weights.stat().st_size,
            classes=list(CLASSES),
            preprocessing=PREPROCESSING,
            metrics=finite(report.get("metrics", {})),
            training_job=report.get("training_job"),
            dataset_fingerprint=report.get("dataset", {}).get("fingerprint"),
            created=created.isoformat(timespec="seconds"),
            calibration=calibration_in(report),
        )
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise WeightsError(f"{REPORT_NAME} in the archive is not as train_model.py writes it: {error}.") from error


def finite(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the metrics as numbers.

    Raises:
        ValueError: one is no finite number.
    """
    numbers = {name: float(value) for name, value in metrics.items()}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"its metrics are not finite: {metrics}")
    return numbers


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(prog="promote_model.py", description=__doc__.partition("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help="model.tar.gz: s3://bucket/key or a local path")
    destination = parser.add_mutually_exclusive_group()
    destination.add_argument("--bucket", help="weights bucket to publish to (MODEL_BUCKET)")
    destination.add_argument("--directory", type=Path, metavar="DIR", help="local folder to fill instead of a bucket")
    args = parser.parse_args(argv)
    if not args.directory:
        args.bucket = args.bucket or os.environ.get("MODEL_BUCKET")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Promote; return the exit status."""
    args = parse_arguments(argv)
    try:
        if not (args.bucket or args.directory):
            raise ConfigurationError(
                "The destination is missing: pass --bucket, set MODEL_BUCKET, or pass --directory."
            )
        manifest = promote(args.source, args.bucket, args.directory)
    except PneumoniaError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or args.source} cannot be read or written: {error.strerror or error}.", file=sys.stderr)
        return 1
    print(f"Released {manifest.version} to {f's3://{args.bucket}' if args.bucket else args.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
