"""What a bucket serves and served: list its releases, go back to one, and find out what it served."""

import logging
from datetime import UTC, datetime
from typing import NamedTuple

from pneumonia.errors import WeightsError, WeightsRefusedError, printable
from pneumonia.releases.bucket import Sizes, WeightsBucket
from pneumonia.releases.gate import FLOORS
from pneumonia.releases.layout import CURRENT_KEY, MAX_PREVIOUS, PLAIN_KEY, Pointer
from pneumonia.releases.manifest import Manifest
from pneumonia.releases.trial import check_serving
from pneumonia.releases.version import is_ahead

PUT_BACK = "`promote_model.py rollback VERSION` puts it back"
logger = logging.getLogger(__name__)


class RolledBack(NamedTuple):
    """What a rollback has changed.

    Attributes:
        version: the release that is served now.
        before: the release that was served before, None if `current.json` could not be read.
        has_onnx: whether the release has an ONNX file, so that functions with the engine onnx can serve it, too.
    """

    version: str
    before: str | None
    has_onnx: bool


def rollback(bucket: str, version: str | None) -> RolledBack:
    """Serve another release of a bucket, after trying it as inference will.

    Args:
        bucket: the weights bucket.
        version: the release; None for the previous one.

    Raises:
        ReleaseConflictError: a promotion came first.
        WeightsError: there is no such release, or inference could not serve it.
        WeightsUnavailableError: S3 refuses or cannot be reached.
    """
    releases = WeightsBucket(bucket)
    pointer, etag = releases.pointer()
    version = _previous(releases, bucket, pointer) if version is None else version
    if not (pointer or etag or releases.stored()):
        raise _without_releases(bucket)
    files = releases.files(version)
    check_serving(files, f"release {version}")
    releases.serve(version, pointer, etag)
    return RolledBack(version, pointer.version if pointer else None, files.onnx is not None)


def listing(bucket: str) -> str:
    """Return a table of a bucket's releases, the newest first, with the served one marked; a sentence if it has none.

    What is broken of a release stands in its row, and what is wrong with `current.json` below the table.

    Raises:
        WeightsUnavailableError: S3 refuses or cannot be reached.
    """
    releases = WeightsBucket(bucket)
    pointer, _ = releases.pointer()
    stored = releases.stored()
    if not stored and not pointer:
        return f"s3://{bucket} has no releases yet: promote a model.tar.gz there."
    lines = [f"  {'version':<24}  {'accuracy':<8}  {'AUROC':<6}  {'ONNX':<6}  training job"]
    for version, sizes in reversed(stored.items()):
        mark = "*" if pointer and pointer.version == version else " "
        lines.append(f"{mark} {version:<24}  {_described(releases, version, sizes)}")
    if not pointer:
        lines.append(_lost(bucket))
    elif pointer.version not in stored:
        lines.append(f"s3://{bucket}/{CURRENT_KEY} names {pointer.version}, which is not there: {PUT_BACK}.")
    return "\n".join(lines)


def last_served(releases: WeightsBucket, pointer: Pointer | None) -> Pointer | None:
    """Return what a bucket serves; without a readable `current.json`, what it probably served; None if it has nothing.

    That is the release whose weights are under the plain key, else the newest. All others may have been rolled back, so
    that they count as such.
    """
    if pointer or not (stored := releases.stored()):
        return pointer
    versions = [*reversed(stored)]
    if version := _of_digest(releases, versions, releases.plain_digest()):
        reason = f"the key {PLAIN_KEY} has its weights"
    else:
        version = next((one for one in versions if not is_ahead(one, datetime.now(UTC))), versions[0])
        reason = "it is the newest"
    logger.warning("%s is missing or broken: %s counts as what was served, because %s.", CURRENT_KEY, version, reason)
    return Pointer(version, withdrawn=tuple(one for one in versions if one != version)[:MAX_PREVIOUS])


def readable(releases: WeightsBucket, version: str) -> Manifest | None:
    """Return a release's manifest, None if it is broken, which the log says."""
    try:
        return releases.manifest(version)
    except WeightsError as error:
        logger.warning("%s", error)
        return None


def _previous(releases: WeightsBucket, bucket: str, pointer: Pointer | None) -> str:
    """Return the release that was served before.

    Raises:
        WeightsError: there was none, or nobody knows.
    """
    if pointer and pointer.previous:
        return pointer.previous[0]
    if pointer:
        raise WeightsError(
            f"s3://{bucket} has no earlier release than {pointer.version} to go back to: name one, `list` shows them."
        )
    raise WeightsError(_lost(bucket)) if releases.stored() else _without_releases(bucket)


def _without_releases(bucket: str) -> WeightsError:
    return WeightsError(f"s3://{bucket} serves no release yet: promote a model first.")


def _lost(bucket: str) -> str:
    return (
        f"s3://{bucket}/{CURRENT_KEY} is missing or broken, so that nobody knows which release was served: {PUT_BACK}, "
        "and `list` shows the versions."
    )


def _of_digest(releases: WeightsBucket, versions: list[str], digest: str | None) -> str | None:
    """Return the first version whose weights have this digest."""
    for version in versions if digest else []:
        manifest = readable(releases, version)
        if manifest and manifest.sha256 == digest:
            return version
    return None


def _described(releases: WeightsBucket, version: str, sizes: Sizes) -> str:
    """Return the columns of a release after its version, or what is broken of it.

    Args:
        releases: of the bucket.
        version: the release.
        sizes: the sizes of its files.
    """
    try:
        manifest = releases.manifest(version)
    except WeightsError as error:
        return f"broken: {error}"
    except WeightsRefusedError as error:
        return str(error)
    if broken := _broken("weights file", sizes.weights, manifest.size):
        return f"broken: {broken}. Promote the model again."
    told = manifest.onnx
    if told and (broken := _broken("ONNX file", sizes.onnx, told.size)):
        return f"broken: {broken}. `promote_model.py export {version}` writes it anew."
    accuracy, auroc = (f"{manifest.metrics[name]:.4f}" if name in manifest.metrics else "-" for name in FLOORS)
    forced = f"  forced: {manifest.forced}" if manifest.forced else ""
    precision = told.precision if told else "-"
    return printable(f"{accuracy:<8}  {auroc:<6}  {precision:<6}  {manifest.training_job or '-'}{forced}")


def _broken(what: str, found: int | None, told: int) -> str | None:
    """Return what is wrong with the size of a release's file, in bytes; None if nothing is.

    Args:
        what: the name for the file.
        found: its size, None if the file is missing.
        told: its size by the manifest.
    """
    if found is None:
        return f"its {what} is missing"
    return f"its {what} has {found:,} bytes, not {told:,}" if found != told else None
