"""Try a release as new instances of inference do, by both engines, before it is served."""

from pneumonia.errors import WeightsError
from pneumonia.network.classifier import Classifier
from pneumonia.network.outputs import check_outputs
from pneumonia.releases.loading import classifier_of
from pneumonia.releases.release_files import ReleaseFiles

# What P(PNEUMONIA) of one image may differ by between the engines, by the ONNX file's precision. Quantisation moves a
# film's by 0.003 on average and 0.08 at most; a file that is wrong moves the probes' by far more.
MOST = {"half": 1e-4, "int8": 0.1}
# Of the probes, which are two of noise, a black and a white one: noise exceeds the ranges that 8-bit integers have from
# films, so it tells nothing of films there.
COMPARED = {"half": slice(None), "int8": slice(2, None)}
STEEPEST = 4  # log-odds for each 1 that P changes by, where it changes the fastest


def check_serving(files: ReleaseFiles, source: str) -> None:
    """Check that inference can serve a release.

    Args:
        files: the release's.
        source: where they come from, for sentences.

    Raises:
        WeightsError: a file cannot be loaded, was trained for other classes or another preprocessing than this code's,
            or has outputs that are not finite; or the two give different answers.
    """
    odds = {one: _log_odds(classifier_of(files.read_by(one, source)), source) for one in files.by_engine()}
    if files.manifest.onnx:
        precision = files.manifest.onnx.precision
        ours, theirs = (odds[engine][COMPARED[precision]] for engine in ("torch", "onnx"))
        _check_agreement(ours, theirs, MOST[precision], files.manifest.version)


def _log_odds(model: Classifier, source: str) -> list[float]:
    """Return the calibrated log-odds of PNEUMONIA of the probes.

    Raises:
        WeightsError: one is not finite.
    """
    given = model.calibration
    logits = check_outputs(model.engine, source).tolist()
    return [(yes - no) / given.temperature + given.bias for no, yes in logits]


def _check_agreement(ours: list[float], theirs: list[float], most: float, version: str) -> None:
    """Check that two engines give the same answers.

    Of probabilities close to 0 or 1 the log-odds tell what films would show, so these are compared.

    Args:
        ours: log-odds by the weights file.
        theirs: log-odds of the same images by the ONNX file.
        most: that P(PNEUMONIA) may differ by.
        version: the release's.

    Raises:
        WeightsError: it differs by more.
    """
    for one, other in zip(ours, theirs, strict=True):
        differs = abs(one - other) / STEEPEST
        if not differs <= most * max(1, abs(one)):
            raise WeightsError(
                f"The ONNX file of release {version} does not answer as its weights file does: P(PNEUMONIA) may differ "
                f"by {differs:.2g}, and at most {most:g} is allowed: install the versions of requirements.txt, or "
                "promote another model."
            )
