"""Try a release as new instances of inference do, by both engines, before it is served."""

from pneumonia.errors import WeightsError
from pneumonia.network.classifier import Classifier
from pneumonia.network.outputs import check_outputs, probes
from pneumonia.releases.loading import classifier_of
from pneumonia.releases.release_files import ReleaseFiles

# What P(PNEUMONIA) of one image may differ by between the engines, by the ONNX file's precision. Quantisation moves a
# film's by 0.003 on average and 0.08 at most; a file that is wrong moves the probes' by far more.
MOST = {"half": 1e-4, "int8": 0.1}
STEEPEST = 4  # log-odds that P changes by 1 for, where it changes the fastest


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

    Of probabilities close to 0 or 1, log-odds are compared, too: there a probability hides what films would show.

    Args:
        one: with the weights file.
        other: with the ONNX file of the same release.
        most: that P(PNEUMONIA) may differ by.

    Raises:
        WeightsError: it differs by more.
    """
    for ours, theirs in zip(_log_odds(one), _log_odds(other), strict=True):
        differs = abs(ours - theirs) / STEEPEST
        if not differs <= most * max(1, abs(ours)):
            raise WeightsError(
                f"The ONNX file of release {one.version} does not answer as its weights file does: P(PNEUMONIA) may "
                f"differ by {differs:.2g}, and at most {most:g} is allowed: install the versions of requirements.txt, "
                "or promote another model."
            )


def _log_odds(model: Classifier) -> list[float]:
    """Return the calibrated log-odds of PNEUMONIA of the probes."""
    given = model.calibration
    return [(yes - no) / given.temperature + given.bias for no, yes in model.engine(probes()).logits.tolist()]
