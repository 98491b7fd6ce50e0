"""Find the file of a release that an engine reads: the weights file for PyTorch, the ONNX file for ONNX Runtime.

This imports no engine, so that a download can run while one is being imported.
"""

from pathlib import Path

from pneumonia.errors import ConfigurationError, WeightsError
from pneumonia.files import is_there
from pneumonia.network.contract import MANIFEST_NAME, ONNX_NAME, WEIGHTS_NAME
from pneumonia.releases.layout import onnx_key, weights_key
from pneumonia.releases.manifest import Manifest, OnnxFile

NAMES = {"torch": WEIGHTS_NAME, "onnx": ONNX_NAME}  # of the file in a release, by engine
KEYS = {"torch": weights_key, "onnx": onnx_key}
SUFFIXES = {engine: Path(name).suffix for engine, name in NAMES.items()}
OTHER = {"torch": "onnx", "onnx": "torch"}


def path_for(path: Path, engine: str) -> Path:
    """Return the path of the file that an engine reads: if `path` is the other engine's file, the one beside it.

    Raises:
        ConfigurationError: `path` is a manifest's.
    """
    if path.name == MANIFEST_NAME:
        raise ConfigurationError(f"{path} is a manifest: name the weights file beside it.")
    return path.with_suffix(SUFFIXES[engine]) if path.suffix == SUFFIXES[OTHER[engine]] else path


def described(manifest: Manifest, engine: str, bucket: str | None = None) -> Manifest | OnnxFile:
    """Return what has `sha256` and `size` of an engine's file: the manifest, or its description of the ONNX file.

    Args:
        manifest: the release's manifest.
        engine: "torch" or "onnx".
        bucket: the bucket that the release is in, None if it is in a folder.

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
    """Return what to do if only the other engine's file exists; None if that does not exist either.

    Args:
        path: the file that the engine reads, which does not exist.
        engine: "torch" or "onnx".
    """
    other = OTHER[engine]
    beside = path_for(path, other)
    if beside == path or not is_there(beside):
        return None
    return (
        f"{beside} is for the engine {other}, and the engine {engine} reads {path}, which does not exist: promote the "
        f"model again, which writes both, or set ENGINE={other}."
    )
