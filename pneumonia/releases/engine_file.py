"""Which of a release's two files an engine reads: PyTorch the weights file, ONNX Runtime the ONNX file.

This imports no engine, so that a download can run while one is being imported.
"""

from pathlib import Path

from pneumonia.errors import WeightsError
from pneumonia.files import is_there
from pneumonia.network.contract import ONNX_NAME, WEIGHTS_NAME
from pneumonia.releases.layout import onnx_key, weights_key
from pneumonia.releases.manifest import Manifest, OnnxFile

NAMES = {"torch": WEIGHTS_NAME, "onnx": ONNX_NAME}  # of the file in a release, by engine
KEYS = {"torch": weights_key, "onnx": onnx_key}
SUFFIXES = {engine: Path(name).suffix for engine, name in NAMES.items()}
OTHER = {"torch": "onnx", "onnx": "torch"}


def path_for(path: Path, engine: str) -> Path:
    """Return the file that an engine reads: the path itself, or the one beside it if it names the other engine's."""
    return path.with_suffix(SUFFIXES[engine]) if path.suffix == SUFFIXES[OTHER[engine]] else path


def described(manifest: Manifest, engine: str, bucket: str | None = None) -> Manifest | OnnxFile:
    """Return what has the digest and the size of an engine's file: the manifest, or what it says about the ONNX file.

    Args:
        manifest: of the release.
        engine: "torch" or "onnx".
        bucket: where the release is, None for a folder.

    Raises:
        WeightsError: the release has no such file.
    """
    if engine == "torch":
        return manifest
    if manifest.onnx is None:
        version = manifest.version
        command = f"promote_model.py export {version}"
        advice = f"`{command} --bucket {bucket}` adds it" if bucket else "promote the model again, which adds it"
        raise WeightsError(
            f"Release {version} has no ONNX file, which the engine onnx reads: {advice}.",
            public=f"release {version} has no ONNX file, which `{command}` adds",
        )
    return manifest.onnx


def missing(path: Path, engine: str) -> str | None:
    """Return what to do if an engine's file does not exist, but the other engine's does; None if that neither does."""
    other = OTHER[engine]
    beside = path_for(path, other)
    if beside == path or not is_there(beside):
        return None
    return (
        f"{beside} is for the engine {other}, and the engine {engine} reads {path}, which does not exist: promote the "
        f"model again, which writes both, or set ENGINE={other}."
    )
