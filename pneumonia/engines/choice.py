"""Which engine this process runs. Imports none before it is asked for: torch takes seconds."""

import importlib
import os
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

from pneumonia.errors import ConfigurationError

if TYPE_CHECKING:
    from pneumonia.network.outputs import Engine

PACKAGES = {"torch": "torch", "onnx": "onnxruntime"}  # by engine, what it runs on


def chosen_engine() -> str:
    """Return the name of the engine that ENGINE asks for: by default "torch", or "onnx" where there is no torch.

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
    """Return the module of an engine, by default of the chosen one, imported.

    Raises:
        ConfigurationError: as `chosen_engine`.
    """
    return importlib.import_module(f"pneumonia.engines.{engine or chosen_engine()}")


def engine_in(engine: str, data: bytes, name: str, *, is_checked: bool) -> "Engine":
    """Return an engine with the network of a file of a release.

    Args:
        engine: its name.
        data: the file's bytes.
        name: the file's, for the error's sentence.
        is_checked: the bytes have the digest that they should have. Otherwise the file's own checksums are checked.

    Raises:
        WeightsError: not the weights of this network, in the form that the engine reads.
    """
    loaded: Engine = engine_module(engine).engine_in(data, name, is_checked=is_checked)
    return loaded


def _is_installed(engine: str) -> bool:
    return find_spec(PACKAGES[engine]) is not None
