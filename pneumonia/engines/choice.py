"""Choose the engine of this process. An engine is imported only when it is needed, because torch takes seconds."""

import importlib
import os
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

from pneumonia.errors import ConfigurationError

if TYPE_CHECKING:
    from pneumonia.network.outputs import Engine

PACKAGES = {"torch": "torch", "onnx": "onnxruntime"}  # by engine, the package that it needs


def chosen_engine() -> str:
    """Return the engine's name, "torch" or "onnx", from the variable ENGINE; without it, "torch" if torch is installed.

    Raises:
        ConfigurationError: ENGINE names no engine, or one that is not installed.
    """
    name = os.environ.get("ENGINE") or ("torch" if _is_installed("torch") else "onnx")
    if name not in PACKAGES:
        raise ConfigurationError(f"ENGINE is {name!r}: set it to {' or '.join(PACKAGES)}.")
    if not _is_installed(name):
        raise ConfigurationError(
            f"The engine {name} needs {PACKAGES[name]}, which is not installed: install it, or set ENGINE to another."
        )
    return name


def engine_module(engine: str | None = None) -> ModuleType:
    """Import and return the module of an engine, by default of the chosen one.

    Raises:
        ConfigurationError: as `chosen_engine`.
    """
    return importlib.import_module(f"pneumonia.engines.{engine or chosen_engine()}")


def engine_in(engine: str, data: bytes, name: str, *, is_checked: bool) -> "Engine":
    """Return an engine that runs the network in a weights file or an ONNX file.

    Args:
        engine: the engine's name, "torch" or "onnx".
        data: the bytes of the weights file for torch, of the ONNX file for onnx.
        name: the file's name, for error messages.
        is_checked: whether the digest of the bytes has been compared with a manifest. Otherwise the content is checked:
            a weights file's own checksums, or the parts and the values of an ONNX file.

    Raises:
        WeightsError: the bytes are not a file of this network that the engine can read.
    """
    loaded: Engine = engine_module(engine).engine_in(data, name, is_checked=is_checked)
    return loaded


def _is_installed(engine: str) -> bool:
    return find_spec(PACKAGES[engine]) is not None
