"""Load a classifier from a release: the weights with the manifest beside them, or a bucket."""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from pneumonia.deadline import Deadline
from pneumonia.engines.choice import chosen_engine, engine_in
from pneumonia.errors import ConfigurationError, WeightsError
from pneumonia.files import is_there
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.calibration import Calibration
from pneumonia.network.classifier import Classifier
from pneumonia.network.contract import CLASSES
from pneumonia.network.detector import Detector
from pneumonia.releases.engine_file import NAMES, missing, path_for
from pneumonia.releases.fetch import RELEASED_WEIGHTS, Weights, fetch
from pneumonia.releases.layout import PLAIN_KEY
from pneumonia.releases.manifest import check_code
from pneumonia.releases.release import Release, read_release
from pneumonia.storage.addresses import split

DOWNLOAD_SECONDS = 300.0
logger = logging.getLogger(__name__)


def load(source: str | os.PathLike[str] | None = None) -> Classifier:
    """Load a model.

    >>> import pneumonia
    >>> pneumonia.load().version
    '20261130-021930-54f0d9c7'

    Args:
        source: a weights file with its manifest beside it; a folder with both; or `s3://bucket`, for the release that
            the bucket serves. By default, the released weights that come with this package. The path of either
            engine's file will do: the engine reads its own, beside the other.

    Raises:
        ConfigurationError: there is no such file, or the address names more than a bucket.
        WeightsError: the weights are not of this network, or were trained for other classes or another preprocessing,
            or do not fit the manifest.
        WeightsUnavailableError: the file cannot be read, or S3 does not give it.
    """
    return classifier_of(release_at(RELEASED_WEIGHTS if source is None else source))


def release_at(source: str | os.PathLike[str], engine: str | None = None) -> Release:
    """Read a release.

    Args:
        source: as `load` takes it.
        engine: the engine that reads the weights, by default the chosen one.

    Raises:
        ConfigurationError, WeightsError, WeightsUnavailableError: as `load`.
    """
    engine = engine or chosen_engine()
    if not str(source).startswith("s3://"):
        return read_release(weights_at(source, engine), engine=engine)
    bucket, key = split(str(source))
    if key:
        raise ConfigurationError(f"{source!r} is not a bucket: name the weights bucket alone, as s3://bucket.")
    return fetch(bucket, PLAIN_KEY, Deadline.after(DOWNLOAD_SECONDS), engine)


def weights_at(source: str | os.PathLike[str], engine: str) -> Path:
    """Return the path of the file that an engine reads, from a path of a file or a folder that the user named.

    Raises:
        ConfigurationError: there is no such file, or it is a manifest.
    """
    path = Path(source)
    is_folder = os.path.isdir(path)  # noqa: PTH112  # Path.is_dir raises for a long name
    path = path / NAMES[engine] if is_folder else path_for(path, engine)
    if not is_there(path):
        usual = f"{path} does not exist: name a weights file, a folder with one, or s3://bucket."
        raise ConfigurationError(missing(path, engine) or usual)
    return path


def load_served() -> Classifier:
    """Load the model that serving would: by MODEL_PATH, MODEL_BUCKET and MODEL_KEY, else the released one.

    A download is kept only if MODEL_PATH is set: at the default path, later runs that name no bucket would use it.

    Raises:
        WeightsError, WeightsUnavailableError: as `load`.
    """
    weights, deadline = Weights.from_environment(), Deadline.after(DOWNLOAD_SECONDS)
    if weights.bucket and not os.environ.get("MODEL_PATH"):
        return classifier_of(fetch(weights.bucket, weights.key, deadline))
    return load_found(weights, deadline)


def load_found(
    weights: Weights,
    deadline: Deadline,
    timed: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Classifier:
    """Load the weights that are found; fetch them anew if the file cannot be used and there is a bucket.

    Args:
        weights: where they are.
        deadline: when to give up.
        timed: returns a context manager that each loading runs in, without the fetching.

    Raises:
        WeightsError, WeightsUnavailableError: as `load`.
    """
    release = weights.find(deadline)
    try:
        with timed():
            return classifier_of(release)
    except WeightsError as error:
        if not weights.bucket:
            raise
        logger.warning("%s It is fetched anew.", error)
        release = weights.replace(deadline)
        with timed():
            return classifier_of(release)


def classifier_of(release: Release) -> Classifier:
    """Return the classifier of a release.

    Raises:
        WeightsError: not this network, or trained for other classes or another preprocessing.
    """
    told = release.manifest
    if told:
        check_code(told, CLASSES, PREPROCESSING)
    engine = engine_in(release.engine, release.weights, release.source, is_checked=told is not None)
    detector = Detector(told.input_check) if told and told.input_check else None
    logger.info("loaded %s, model version %s", release.source, release.version)
    return Classifier(
        engine,
        release.version,
        release.sha256,
        told.calibration if told else Calibration(),
        detector,
        is_foreign=told is None,
        usual_evidence=told.usual_evidence if told else None,
    )
