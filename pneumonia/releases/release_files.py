"""A release on a disk: a weights file, and its manifest beside it."""

from pathlib import Path

from pneumonia.files import locked, remove_abandoned, replacing, sync
from pneumonia.network.contract import MANIFEST_NAME
from pneumonia.releases.manifest import Manifest

WRITER_SECONDS = 10.0  # how long to wait for another process that writes a release there


def write_release(weights: Path, content: bytes, manifest: Manifest | None) -> None:
    """Write a weights file and its manifest, in place of another release.

    Both are whole on the disk before either takes its name, and the manifest takes its name first. So wherever this is
    killed, a release's weights never lie there without a manifest, and a reader that compares the two finds the release
    from before, the new one, or that they do not fit. Two processes that write at once do so one after the other.

    Args:
        weights: the file, in an existing folder.
        content: the file's bytes.
        manifest: theirs; None for foreign weights, which leave no manifest of another release beside them.

    Raises:
        OSError: the files cannot be written, the disk is full, or another process keeps on writing there.
    """
    beside = weights.with_name(MANIFEST_NAME)
    with locked(weights.parent, WRITER_SECONDS):
        for path in (weights, beside):
            remove_abandoned(path)
        with replacing(weights) as temporary:
            temporary.write_bytes(content)
            sync(temporary)
            if manifest:
                manifest.write_beside(weights)
        if not manifest:
            beside.unlink(missing_ok=True)
