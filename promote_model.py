"""Promote a trained model: SageMaker's model.tar.gz becomes the release that inference serves.

`python promote_model.py s3://bucket/training/job/output/model.tar.gz --bucket WEIGHTS_BUCKET`
`python promote_model.py list | show VERSION | rollback [VERSION]`

On AWS `handler` does the first when a training job is completed.
"""

import argparse
import dataclasses
import datetime
import gzip
import json
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pneumonia.errors import ConfigurationError, ReleaseRefusedError, WeightsError, exit_status
from pneumonia.files import replacing, sha256
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network import training_report
from pneumonia.network.contract import CLASSES, WEIGHTS_NAME
from pneumonia.network.resnet import check_outputs
from pneumonia.network.training_report import REPORT_NAME, TrainingReport
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.bucket import WeightsBucket, download
from pneumonia.releases.layout import Pointer
from pneumonia.releases.manifest import Manifest
from pneumonia.serving import telemetry

GZIP = b"\x1f\x8b"  # what such files begin with
CHUNK = 1024 * 1024  # bytes read at a time
# What tarfile and gzip raise on damaged or malicious archives, found by trying.
DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)
MAX_UNPACKED = 512 * 1024 * 1024  # bytes; a ResNet-18 in single precision has 45 million
MAX_WEIGHTS = 128 * 1024 * 1024
MAX_REPORT = 1024 * 1024
MAX_MEMBERS = 1000
# The gate of a bucket. MedMNIST's ResNet-18 has 0.864 and 0.956 on the official test images (Yang et al. 2023,
# doi:10.1038/s41597-022-01721-8): what is below these floors was not trained well, or on wrong labels.
FLOORS = {"test_accuracy": 0.80, "test_auroc": 0.90}
MARGIN = 0.03  # below the served release: two standard errors of an accuracy of 0.9 on 400 images
COMMANDS = ("promote", "list", "show", "rollback")


def promote(source: str, bucket: str, *, force: bool = False, only_newer: bool = False) -> tuple[Manifest, bool]:
    """Make an archive's weights the release that a bucket serves.

    Args:
        source: model.tar.gz, as `s3://bucket/key` or a local path.
        bucket: the weights bucket.
        force: serve it whatever its figures are; the manifest keeps what spoke against it.
        only_newer: store it, but do not serve it in place of a newer one, nor if it was rolled back.

    Returns:
        The release's manifest, and whether it is served now.

    Raises:
        ReleaseRefusedError: its figures on the test images are too low.
        ReleaseConflictError: another promotion came first.
        WeightsError: the archive or the weights are not what they should be.
        WeightsUnavailableError: S3 refuses or cannot be reached.
        OSError: a local file cannot be read or written.
    """
    releases = WeightsBucket(bucket)
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / WEIGHTS_NAME
        manifest = take_release(source, weights)
        pointer, mark = releases.pointer()  # read before it is compared with: if it moves meanwhile, `serve` notices
        served = served_manifest(releases, pointer)
        doubts = objections(manifest, served)
        if doubts and not force:
            raise ReleaseRefusedError(
                f"{source} is not released, because {' and '.join(doubts)}: train again, or pass --force to serve it "
                "nevertheless."
            )
        manifest = dataclasses.replace(manifest, forced=" and ".join(doubts) or None)
        releases.add(weights, manifest)
    if only_newer and pointer and (manifest.version < pointer.version or manifest.version in pointer.withdrawn):
        return manifest, False
    releases.serve(manifest.version, pointer, mark)
    return manifest, True


def served_manifest(releases: WeightsBucket, pointer: Pointer | None) -> Manifest | None:
    """Return the served release's manifest; None without one, or where it cannot be read, which a promotion mends.

    Raises:
        WeightsUnavailableError: S3 refuses or cannot be reached.
    """
    try:
        return releases.manifest(pointer.version) if pointer else None
    except WeightsError as error:
        print(error, file=sys.stderr)
        return None


def promote_to_folder(source: str, directory: Path) -> Manifest:
    """Put an archive's weights and their manifest into a local folder, whatever their figures are.

    Raises:
        WeightsError, WeightsUnavailableError, OSError: as `promote`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / WEIGHTS_NAME
        manifest = take_release(source, weights)
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(directory / WEIGHTS_NAME) as copy:
            shutil.copyfile(weights, copy)
        manifest.write_beside(directory / WEIGHTS_NAME)
    return manifest


def take_release(source: str, weights: Path) -> Manifest:
    """Write the checked weights of an archive to a file, and return the manifest of a release of them.

    Raises:
        WeightsError, WeightsUnavailableError, OSError: as `promote`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        archive = Path(source)
        if source.startswith("s3://"):
            archive = Path(temporary) / "model.tar.gz"
            download(source, archive)
        report = extract(archive, weights, name=source)
    check(weights, report, name=source)
    return manifest_for(weights, report)


def objections(manifest: Manifest, served: Manifest | None) -> list[str]:
    """Return what speaks against serving a release: figures below a floor, or clearly below the served release's.

    Args:
        manifest: the new release's.
        served: the served release's, None for the first. The figures compare best where both saw the same test images.
    """
    doubts = []
    for name, floor in FLOORS.items():
        figure, current = manifest.metrics.get(name), served.metrics.get(name) if served else None
        if figure is None:
            doubts.append(f"its training reported no {name}")
        elif figure < floor:
            doubts.append(f"its {name} of {figure:.4f} is below {floor:.2f}")
        elif current is not None and served and figure < current - MARGIN:
            doubts.append(
                f"its {name} of {figure:.4f} is more than {MARGIN} below the {current:.4f} of {served.version}"
            )
    return doubts


def rollback(bucket: str, version: str | None) -> tuple[str, str | None]:
    """Serve another release that the bucket has.

    Args:
        bucket: the weights bucket.
        version: the release; None for the one that was served before.

    Returns:
        The release that is served now, and the one that was; None where `current.json` could not be read.

    Raises:
        ReleaseConflictError: a promotion came first.
        WeightsError: there is no such release.
        WeightsUnavailableError: S3 refuses or cannot be reached.
    """
    releases = WeightsBucket(bucket)
    pointer, mark = releases.pointer()
    if not pointer and not mark:
        raise WeightsError(f"s3://{bucket} serves no release yet: promote a model first.")
    if not version:
        if not pointer or not pointer.previous:
            before = f"than {pointer.version}" if pointer else "that it remembers"
            raise WeightsError(
                f"s3://{bucket} has no earlier release {before} to go back to: name one, `list` shows them."
            )
        version = pointer.previous[0]
    releases.check(version)
    releases.serve(version, pointer, mark)
    return version, pointer.version if pointer else None


def listing(bucket: str) -> str:
    """Return a table of a bucket's releases, the newest first, with the served one marked; a sentence where none is.

    Raises:
        WeightsError, WeightsUnavailableError: as `rollback`.
    """
    releases = WeightsBucket(bucket)
    pointer, _ = releases.pointer()
    versions = releases.versions()
    if not versions:
        return f"s3://{bucket} has no releases yet: promote a model.tar.gz there."
    lines = [f"  {'version':<24}  {'accuracy':<8}  {'AUROC':<6}  training job"]
    for version in reversed(versions):
        try:
            manifest = releases.manifest(version)
        except WeightsError as error:
            lines.append(f"  {version:<24}  {error}")
            continue
        accuracy, auroc = (f"{manifest.metrics[name]:.4f}" if name in manifest.metrics else "-" for name in FLOORS)
        mark = "*" if pointer and pointer.version == version else " "
        forced = f"  forced: {manifest.forced}" if manifest.forced else ""
        lines.append(f"{mark} {version:<24}  {accuracy:<8}  {auroc:<6}  {manifest.training_job or '-'}{forced}")
    return "\n".join(lines)


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Promote the model of a completed training job: an event of EventBridge, "SageMaker Training Job State Change".

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
    Events come more than once and in any order. So the same event gives the same release, and a release is not served
    in place of a newer one, nor if it was rolled back. A refused release is told by the metric `PromotionsRefused`, as
    trying again, which is what Lambda does after an error, would not help it.

    Returns:
        The release's version and whether it is served, or why there is none.

    Raises:
        ConfigurationError: MODEL_BUCKET is not set, or the event is of another kind.
        PneumoniaError: as `promote`.
    """
    bucket = os.environ.get("MODEL_BUCKET")
    if not bucket:
        raise ConfigurationError("The destination is missing: set MODEL_BUCKET.")
    detail = event.get("detail", {})
    if detail.get("TrainingJobStatus") != "Completed":
        raise ConfigurationError(
            f"The event is not a completed training job but {event.get('detail-type')!r} with the status "
            f"{detail.get('TrainingJobStatus')!r}: mend the rule that sends it."
        )
    job = {"training_job": detail["TrainingJobName"]}
    try:
        manifest, is_served = promote(detail["ModelArtifacts"]["S3ModelArtifacts"], bucket, only_newer=True)
    except ReleaseRefusedError as error:
        telemetry.emit({"PromotionsRefused": [1]}, job | {"refused": str(error)})
        return {"refused": str(error)}
    telemetry.emit({"Promotions": [is_served]}, job | {"model_version": manifest.version, "served": is_served})
    return {"version": manifest.version, "served": is_served}


def extract(archive: Path, weights: Path, name: str) -> TrainingReport:
    """Write the archive's weights file to `weights` and return its training report, an empty one where it has none.

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
        with archive.open("rb") as file:
            if file.read(len(GZIP)) != GZIP:
                raise WeightsError(f"{name} is no tar.gz: name the model.tar.gz that training left.") from error
        raise WeightsError(f"{name} is not a whole tar.gz ({error}): fetch it again or train again.") from error
    if not weights.exists():
        found = ", ".join(map(repr, sorted(names)[:5])) or "nothing"
        raise WeightsError(f"{name} holds no {WEIGHTS_NAME} at its top, but {found}: was it written by train_model.py?")
    return report


def take(tar: tarfile.TarFile, weights: Path, name: str) -> tuple[TrainingReport, set[str]]:
    """Read an archive once from front to back; return its training report and the names of its members.

    Raises:
        WeightsError: a member is suspicious or too large.
    """
    report = TrainingReport()
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
            report = training_report.parse(content.read(), f"{REPORT_NAME} in {name}")
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
            raise WeightsError(f"{self._shown_name} unpacks to more than {MAX_UNPACKED:,} bytes: it is not a model.")
        return data


def check_member(member: tarfile.TarInfo, name: str) -> None:
    """Refuse what could reach outside a folder, or is not a plain file.

    Raises:
        WeightsError: a link, a device, or a path with a root, a drive or a step upwards.
    """
    paths = (PurePosixPath(member.name), PureWindowsPath(member.name))
    if any(path.anchor or ".." in path.parts for path in paths):
        raise WeightsError(f"{name} holds the path {member.name!r}, which leads out of its folder: it is refused.")
    if not (member.isdir() or (member.isreg() and not member.issparse())):
        raise WeightsError(f"{name} holds {member.name!r}, which is a link or not a plain file: it is refused.")


def check_size(member: tarfile.TarInfo, limit: int, name: str) -> None:
    """Refuse a member larger than it can be.

    Raises:
        WeightsError: more than `limit` bytes.
    """
    if member.size > limit:
        raise WeightsError(f"{name} holds {member.name} of {member.size:,} bytes; at most {limit:,} are expected.")


def check(weights: Path, report: TrainingReport, name: str) -> None:
    """See that inference can serve these weights.

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


def manifest_for(weights: Path, report: TrainingReport) -> Manifest:
    """Describe a release; promoting an archive with a training report again gives the same version."""
    created = datetime.datetime.now(datetime.UTC)
    digest = sha256(weights)
    return Manifest(
        version=f"{report.finished or created:%Y%m%d-%H%M%S}-{digest[:8]}",
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
    )


def shown(manifest: Manifest) -> str:
    """Return a manifest as indented JSON for a reader: of the input check's arrays their length alone."""
    content = dataclasses.asdict(manifest)
    for name, value in (content["input_check"] or {}).items():
        if isinstance(value, str):
            content["input_check"][name] = f"{len(value):,} characters"
    return json.dumps(content, indent=2)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments; without a command's name they are those of `promote`."""
    parser = argparse.ArgumentParser(
        prog="promote_model.py",
        description=__doc__.partition("\n")[0],
        epilog="`promote_model.py SOURCE` is short for `promote_model.py promote SOURCE`, and takes the options that "
        "`promote_model.py promote --help` lists.",
    )
    bucket = argparse.ArgumentParser(add_help=False)
    bucket.add_argument("--bucket", default=os.environ.get("MODEL_BUCKET"), help="weights bucket (MODEL_BUCKET)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    promotion = commands.add_parser(
        "promote", parents=[bucket], help="release the model of a model.tar.gz, and serve it"
    )
    promotion.add_argument("source", metavar="SOURCE", help="model.tar.gz: s3://bucket/key or a local path")
    promotion.add_argument("--directory", type=Path, metavar="DIR", help="local folder to fill instead of a bucket")
    promotion.add_argument(
        "--force", action="store_true", help="serve it from the bucket although its test figures are too low"
    )

    commands.add_parser("list", parents=[bucket], help="list the releases; * marks the served one")
    show = commands.add_parser("show", parents=[bucket], help="print a release's manifest")
    show.add_argument("version", metavar="VERSION", help="the release")
    back = commands.add_parser("rollback", parents=[bucket], help="serve an earlier release")
    back.add_argument("version", nargs="?", metavar="VERSION", help="the release; without it, the one served before")

    is_command = not argv or argv[0] in {*COMMANDS, "-h", "--help"}
    return parser.parse_args(argv if is_command else ["promote", *argv])


def run(args: argparse.Namespace) -> None:
    """Do what the arguments ask for, and print what came of it.

    Raises:
        PneumoniaError, OSError: as the functions above.
    """
    if args.command == "promote" and args.directory:
        manifest = promote_to_folder(args.source, args.directory)
        print(f"Released {manifest.version} to {args.directory}")
        if doubts := objections(manifest, None):
            print(f"A bucket would refuse it, because {' and '.join(doubts)}.", file=sys.stderr)
        return
    if not args.bucket:
        instead = ", or pass --directory" if args.command == "promote" else ""
        raise ConfigurationError(f"The bucket is missing: pass --bucket, or set MODEL_BUCKET{instead}.")
    if args.command == "promote":
        manifest, _ = promote(args.source, args.bucket, force=args.force)
        print(f"Released {manifest.version} to s3://{args.bucket}")
    elif args.command == "list":
        print(listing(args.bucket))
    elif args.command == "show":
        print(shown(WeightsBucket(args.bucket).manifest(args.version)))
    else:
        version, before = rollback(args.bucket, args.version)
        if version == before:
            print(f"s3://{args.bucket} serves {version} already.")
        else:
            undo = f", instead of {before}: `rollback {before}` takes that back" if before else ""
            print(f"s3://{args.bucket} serves {version} now{undo}.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    return exit_status(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
