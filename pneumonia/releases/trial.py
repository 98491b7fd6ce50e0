"""Try a release as new instances of inference do, by both engines, before it is served."""

import numpy as np

from pneumonia.errors import WeightsError
from pneumonia.network.classifier import Classifier
from pneumonia.network.outputs import check_outputs, probes
from pneumonia.releases.loading import classifier_of
from pneumonia.releases.release_files import ReleaseFiles

MOST = {"half": 1e-4, "int8": 0.1}  # that P(PNEUMONIA) of the same image may differ by, by the ONNX file's precision


def check_serving(files: ReleaseFiles, source: str) -> None:
    """Check that inference can serve a release.

    Args:
        files: the release's.
        source: where they come from, for sentences.

    Raises:
        WeightsError: a file cannot be loaded, was trained for other classes or another preprocessing than this code's,
            or has outputs that are not finite; or the two give different answers.
    """
    models = {engine: classifier_of(files.read_by(engine, source)) for engine in files.by_engine()}
    for model in models.values():
        check_outputs(model.engine, source)
    if files.manifest.onnx:
        check_agreement(models["torch"], models["onnx"], MOST[files.manifest.onnx.precision])


def check_agreement(one: Classifier, other: Classifier, most: float) -> None:
    """Check that two engines give the same answers.

    Args:
        one: with the weights file.
        other: with the ONNX file of the same release.
        most: that P(PNEUMONIA) may differ by.

    Raises:
        WeightsError: it differs by more.
    """
    differs = np.abs(_suspicions(one) - _suspicions(other)).max()
    if not differs <= most:
        raise WeightsError(
            f"The ONNX file of release {one.version} does not answer as its weights file does: P(PNEUMONIA) differs by "
            f"{differs:.2g}, and {most:g} is allowed. Install the versions of requirements.txt, or train again."
        )


def _suspicions(model: Classifier) -> np.ndarray:
    return np.array([model.calibration.probability(yes - no) for no, yes in model.engine(probes()).logits.tolist()])
