"""Try a release with both engines, as new instances of inference do, before it is served."""

import numpy as np

from pneumonia.errors import WeightsError
from pneumonia.network.classifier import Classifier
from pneumonia.network.outputs import Floats, check_outputs
from pneumonia.releases.loading import classifier_of
from pneumonia.releases.release_files import ReleaseFiles

# The largest difference of P(PNEUMONIA) between the engines, by the ONNX file's precision. Quantisation changes that of
# a film by 0.003 on average and by 0.09 at most.
MOST = {"single": 1e-4, "half": 1e-4, "int8": 0.1}
STEEPEST = 4  # change of the log-odds for each change of P, at P = 0.5, where P changes the fastest
# The largest difference of an image's features between the engines, as a share of their length: of a release that is
# served, and of a file that is built. Quantisation changes those of the released network by 0.06 at most, but by 0.22
# those of a network that learned from 140 drawn films; those of another network differ by about 1.
MOST_OF_FEATURES = 0.5
MOST_OF_BUILT = 0.2
# The probes that are compared. The first is noise, which exceeds the activation ranges, as they come from films.
COMPARED = {"single": slice(None), "half": slice(None), "int8": slice(1, None)}


class EnginesDifferError(WeightsError):
    """The two files of a release answer otherwise.

    Attributes:
        how: by how much, as a clause.
    """

    def __init__(self, message: str, how: str) -> None:
        super().__init__(message)
        self.how = how


def check_serving(files: ReleaseFiles, source: str, most_of_features: float = MOST_OF_FEATURES) -> None:
    """Check that inference can serve a release.

    Args:
        files: the files of the release.
        source: where they come from, for error messages.
        most_of_features: the largest difference of features between the two files, as a share of their length.

    Raises:
        EnginesDifferError: the answers of the two files differ too much.
        WeightsError: a file cannot be loaded, was trained for other classes or another preprocessing than this code's,
            or has outputs that are not finite.
    """
    tried = [_tried(classifier_of(files.read_by(engine, source)), source) for engine in files.by_engine()]
    if files.manifest.onnx:
        version, precision = files.manifest.version, files.manifest.onnx.precision
        (ours, our_features), (theirs, their_features) = ([part[COMPARED[precision]] for part in one] for one in tried)
        # The probes' probabilities may be close to 0 or 1, where large differences do not show. The log-odds show them.
        differ = np.abs(ours - theirs) / STEEPEST / np.abs(ours).clip(1)
        _check_most(differ, MOST[precision], version, "P(PNEUMONIA) may differ by {:.2g}")
        differ = np.linalg.norm(our_features - their_features, axis=1) / np.linalg.norm(our_features, axis=1)
        _check_most(differ, most_of_features, version, "its features differ by {:.2g} of their length")


def _tried(model: Classifier, source: str) -> tuple[Floats, Floats]:
    """Return the calibrated log-odds of PNEUMONIA for the probes, shape (4,), and their features, (4, FEATURES).

    Raises:
        WeightsError: a logit is not finite.
    """
    outputs, given = check_outputs(model.engine, source), model.calibration
    return np.diff(outputs.logits)[:, 0] / given.temperature + given.bias, outputs.means


def _check_most(differ: Floats, most: float, version: str, how: str) -> None:
    """Check that no image's outputs differ too much between the engines.

    Args:
        differ: the difference for each image, shape (N,).
        most: the largest difference that is allowed.
        version: the release.
        how: the sentence about a difference, to be formatted with it.

    Raises:
        EnginesDifferError: a difference is larger, or NaN.
    """
    if not (differ <= most).all():
        told = f"{how.format(differ.max())}, and at most {most:g} is allowed"
        raise EnginesDifferError(
            f"The ONNX file of release {version} does not answer as its weights file does: {told}: install the "
            "versions of requirements.txt, or promote another model.",
            told,
        )
