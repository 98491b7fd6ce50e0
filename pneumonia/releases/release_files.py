"""All files of a release, in memory and on a disk: weights file, ONNX file and manifest."""

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pneumonia.files import locked, remove_abandoned, replacing, sync
from pneumonia.network.contract import MANIFEST_NAME, ONNX_NAME, WEIGHTS_NAME
from pneumonia.releases.engine_file import NAMES
from pneumonia.releases.manifest import Manifest, parse
from pneumonia.releases.release import Release

WRITER_SECONDS = 10.0  # how long to wait for another process that writes a release there


@dataclass(frozen=True)
class ReleaseFiles:
    """All files of one release.

    Attributes:
        weights: the bytes of the weights file.
        onnx: the bytes of the ONNX file; None for a release without one.
        manifest: describes both files.
    """

    weights: bytes
    onnx: bytes | None
    manifest: Manifest

    def __post_init__(self) -> None:
        """Check that the manifest describes the files.

        Raises:
            WeightsError: a file is not what the manifest describes.
            ValueError: there is an ONNX file that the manifest does not describe, or the other way round.
        """
        if (self.onnx is None) != (self.manifest.onnx is None):
            raise ValueError("an ONNX file without its description, or a description without its ONNX file")
        for engine in self.by_engine():
            self.read_by(engine, f"release {self.manifest.version}")

    @classmethod
    def in_folder(cls, folder: Path) -> "ReleaseFiles":
        """Read the files of a release in a folder.

        Raises:
            WeightsError: the manifest is damaged, or does not describe the files.
            OSError: a file cannot be read.
        """
        manifest = parse((folder / MANIFEST_NAME).read_bytes(), str(folder / MANIFEST_NAME))
        onnx = (folder / ONNX_NAME).read_bytes() if manifest.onnx else None
        return cls((folder / WEIGHTS_NAME).read_bytes(), onnx, manifest)

    def by_engine(self) -> dict[str, bytes]:
        """Return the bytes of each engine's file, by the engine's name."""
        return {"torch": self.weights} | ({} if self.onnx is None else {"onnx": self.onnx})

    def read_by(self, engine: str, source: str) -> Release:
        """Return the release as an engine reads it.

        Args:
            engine: "torch" or "onnx".
            source: where the files come from, for error messages.

        Raises:
            WeightsError: the engine's file is not what the manifest describes.
            KeyError: there is no file for the engine.
        """
        content = self.by_engine()[engine]
        return Release(source, content, hashlib.sha256(content).hexdigest(), self.manifest, engine)

    def write_into(self, folder: Path) -> None:
        """Write the files into an existing folder, as `write_release` does.

        Raises:
            OSError: as `write_release`.
        """
        write_release({folder / NAMES[engine]: content for engine, content in self.by_engine().items()}, self.manifest)


def write_release(files: Mapping[Path, bytes], manifest: Manifest | None) -> None:
    """Write the files of a release, for one engine or both, and its manifest, in place of another release.

    All are whole on the disk under temporary names before any is renamed, and the manifest is renamed first. So when
    this is killed, no weights are left without a manifest, and a reader that compares the two finds the earlier
    release, the new one, or that they do not fit. Two processes that write at once do so one after the other.

    Args:
        files: the bytes of each file by its path; all paths are in one existing folder.
        manifest: the release's; None for foreign weights, in which case an existing manifest is deleted.

    Raises:
        OSError: the files cannot be written, the disk is full, or another process keeps on writing there.
    """
    (folder,) = {path.parent for path in files}
    beside = folder / MANIFEST_NAME
    with locked(folder, WRITER_SECONDS):
        for path in (*files, beside):
            remove_abandoned(path)
        with contextlib.ExitStack() as whole:
            for path, content in files.items():
                temporary = whole.enter_context(replacing(path))
                temporary.write_bytes(content)
                sync(temporary)
            if manifest:
                manifest.write_beside(next(iter(files)))
        if not manifest:
            beside.unlink(missing_ok=True)
