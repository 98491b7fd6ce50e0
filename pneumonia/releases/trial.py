"""Try a release as new instances of inference do, by both engines, before it is served."""

import numpy as np

from pneumonia.errors import WeightsError
from pneumonia.network.classifier import Classifier
from pneumonia.network.outputs import Floats, check_outputs
from pneumonia.releases.loading import classifier_of
from pneumonia.releases.release_files import ReleaseFiles

# What P(PNEUMONIA) of one image may differ by between the engines, by the ONNX file's precision. Quantisation moves a
# film's by 0.003 on average and 0.09 at most.
MOST = {"single": 1e-4, "half": 1e-4, "int8": 0.1}
STEEPEST = 4  # log-odds for each 1 that P changes by, where it changes the fastest
# What the features of one image may differ by, as a share of their length. Quantisation moves a film's by 0.04 at most,
# the smooth probe's by 0.03; another network's differ by 1 or so.
MOST_OF_FEATURES = 0.2
# Of the probes: the first is noise, which exceeds the ranges that 8-bit integers have from films.
COMPARED = {"single": slice(None), "half": slice(None), "int8": slice(1, None)}


def check_serving(files: ReleaseFiles, source: str) -> None:
    """Check that inference can serve a release.

    Args:
        files: the release's.
        source: where they come from, for sentences.

    Raises:
        WeightsError: a file cannot be loaded, was trained for other classes or another preprocessing than this code's,
            or has outputs that are not finite; or the two give different answers.
    """
    tried = [_tried(classifier_of(files.read_by(engine, source)), source) for engine in files.by_engine()]
    if files.manifest.onnx:
        version, precision = files.manifest.version, files.manifest.onnx.precision
        (ours, our_features), (theirs, their_features) = ([part[COMPARED[precision]] for part in one] for one in tried)
        # Of probabilities close to 0 or 1 the log-odds tell what films would show.
        differ = np.abs(ours - theirs) / STEEPEST / np.abs(ours).clip(1)
        _check_most(differ, MOST[precision], version, "P(PNEUMONIA) may differ by {:.2g}")
        differ = np.linalg.norm(our_features - their_features, axis=1) / np.linalg.norm(our_features, axis=1)
        _check_most(differ, MOST_OF_FEATURES, version, "its features differ by {:.2g} of their length")


def _tried(model: Classifier, source: str) -> tuple[Floats, Floats]:
    """Return the calibrated log-odds of PNEUMONIA of the probes, shape (4,), and their features, (4, FEATURES).

    Raises:
        WeightsError: a logit is not finite.
    """
    outputs, given = check_outputs(model.engine, source), model.calibration
    return np.diff(outputs.logits)[:, 0] / given.temperature + given.bias, outputs.means


def _check_most(differ: Floats, most: float, version: str, how: str) -> None:
    """Check that no image's outputs differ by too much between the engines.

    Raises:
        WeightsError: one's do, or what is not a number.
    """
    if not (differ <= most).all():
        raise WeightsError(
            f"The ONNX file of release {version} does not answer as its weights file does: {how.format(differ.max())}, "
            f"and at most {most:g} is allowed: install the versions of requirements.txt, or promote another model."
        )
