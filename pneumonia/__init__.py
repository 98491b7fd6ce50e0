"""Classify chest X-rays: PNEUMONIA or NORMAL, with a confidence. Not medical advice.

>>> import pneumonia
>>> model = pneumonia.load()
>>> model.predict("docs/tutorial/IM-0086-0001.jpeg").prediction
'NORMAL'

The names are loaded when they are first used, so importing the package imports neither torch nor Pillow.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pneumonia.network.contract import CLASSES

if TYPE_CHECKING:
    from pneumonia.errors import ImageError, PneumoniaError
    from pneumonia.network.classifier import Classifier
    from pneumonia.network.prediction import Explanation, Prediction
    from pneumonia.releases.loading import load

__version__ = "0.2.0"
__all__ = [
    "CLASSES",
    "Classifier",
    "Explanation",
    "ImageError",
    "PneumoniaError",
    "Prediction",
    "__version__",
    "load",
]

_HOMES = {
    "Classifier": "pneumonia.network.classifier",
    "Explanation": "pneumonia.network.prediction",
    "ImageError": "pneumonia.errors",
    "PneumoniaError": "pneumonia.errors",
    "Prediction": "pneumonia.network.prediction",
    "load": "pneumonia.releases.loading",
}


if not TYPE_CHECKING:  # a type checker would take any name for one that is found here

    def __getattr__(name: str) -> Any:  # noqa: ANN401  # a class or a function
        if name not in _HOMES:
            raise AttributeError(f"module 'pneumonia' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
