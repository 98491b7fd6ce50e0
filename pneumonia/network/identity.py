"""What a model's answers depend on besides the image, as one digest. Only what goes on later asks for it."""

import dataclasses
import hashlib
from importlib.metadata import version
from pathlib import Path

from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.classifier import BATCH_SIZE, Classifier
from pneumonia.network.contract import CLASSES

LIBRARIES = ("numpy", "pillow", "simplejpeg", "imagecodecs", "pydicom")  # decode and compute, as an engine does
ROOMS = ("imaging", "network", "engines")  # folders of the package whose code decodes and computes


def identity_of(model: Classifier, engine: str) -> str:
    """Return a SHA-256 over all that answers depend on: engine, weights, version, calibration, input check and code.

    The network counts by the digest of its file. Of two machines with the same identity, the last digits may differ.

    Args:
        model: the model.
        engine: the package that its network runs on, such as "torch".
    """
    told = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    del told["engine"]
    del told["usual_evidence"]  # only heatmaps depend on it, and batches that go on later have none
    told["detector"] = model.detector.check if model.detector else None
    code = (PREPROCESSING, CLASSES, BATCH_SIZE, _digest_of_code(), engine, *map(version, (engine, *LIBRARIES)))
    return hashlib.sha256(repr((told, code)).encode(errors="backslashreplace")).hexdigest()


def _digest_of_code() -> str:
    """Return a SHA-256 over the modules that decode images and make answers of them."""
    digest = hashlib.sha256()
    for room in ROOMS:
        for module in sorted(Path(__file__).parent.parent.joinpath(room).glob("*.py")):
            digest.update(f"{room}/{module.name} {hashlib.sha256(module.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
