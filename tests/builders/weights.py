"""A network in the files that both engines read."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pneumonia.engines.onnx_file import onnx_file
from pneumonia.network.contract import ONNX_NAME
from pneumonia.network.weights_file import load_weights, save_weights


def write_weights(state: Mapping[str, Tensor], path: Path) -> Path:
    """Write a weights file, and beside it the ONNX file of the same network; return the former's path."""
    save_weights(dict(state), path)
    path.with_name(ONNX_NAME).write_bytes(onnx_file(load_weights(path), None))
    return path
