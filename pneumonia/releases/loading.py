"""Load a classifier from a weights file and the manifest beside it, or from a bucket."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pneumonia.deadline import Deadline
from pneumonia.errors import ConfigurationError, WeightsError, WeightsUnavailableError
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.classifier import Classifier
from pneumonia.network.contract import CLASSES, WEIGHTS_NAME
from pneumonia.network.detector import Detector
from pneumonia.network.fused import fuse
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.fetch import RELEASED_WEIGHTS, Weights
from pneumonia.releases.manifest import release_of
from pneumonia.storage.addresses import split

DOWNLOAD_SECONDS = 300.0
logger = logging.getLogger(__name__)


def load(source: str | os.PathLike[str] | None = None) -> Classifier:
    """Load a model.

    >>> import pneumonia
    >>> pneumonia.load().version
    '20261127-042640-ace43483'

    Args:
        source: a weights file with its manifest beside it; a folder with both; or `s3://bucket`, for the release that
            the bucket serves. By default, the released weights that come with this package.

    Raises:
        ConfigurationError: there is no such file, or the address names more than a bucket.
        WeightsError: the weights are not of this network, or were trained for other classes or another preprocessing.
        WeightsUnavailableError: the file cannot be read, or S3 does not give it.
    """
    with local_weights(RELEASED_WEIGHTS if source is None else source) as path:
        return load_file(path)


@contextlib.contextmanager
def local_weights(source: str | os.PathLike[str]) -> Iterator[Path]:
    """Provide a weights file on this machine, with its manifest beside it; a download is removed afterwards.

    Args:
        source: as `load` takes it.

    Raises:
        ConfigurationError, WeightsError, WeightsUnavailableError: as `load`.
    """
    if str(source).startswith("s3://"):
        with _downloaded(str(source)) as path:
            yield path
        return
    path = Path(source)
    path = path / WEIGHTS_NAME if path.is_dir() else path
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist: name a weights file, a folder with one, or s3://bucket.")
    yield path


def load_served() -> Classifier:
    """Load the model that serving would: by MODEL_PATH, MODEL_BUCKET and MODEL_KEY, else the released one.

    A download is kept only if MODEL_PATH is set: at the default path, later runs that name no bucket would use it.

    Raises:
        WeightsError, WeightsUnavailableError: as `load`.
    """
    weights = Weights.from_environment()
    with tempfile.TemporaryDirectory() as folder:
        if weights.bucket and not os.environ.get("MODEL_PATH"):
            weights = Weights(Path(folder) / WEIGHTS_NAME, weights.bucket, weights.key)
        return load_found(weights, Deadline.after(DOWNLOAD_SECONDS))


def load_found(
    weights: Weights,
    deadline: Deadline,
    timed: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Classifier:
    """Load the weights that are found; fetch them anew if the file cannot be used and there is a bucket.

    Args:
        weights: where they are.
        deadline: when to give up fetching them.
        timed: makes what surrounds each loading, the fetching left out.

    Raises:
        WeightsError, WeightsUnavailableError: as `load`.
    """
    path = weights.find(deadline)
    try:
        with timed():
            return load_file(path)
    except WeightsError as error:
        if not weights.bucket:
            raise
        # What a killed process, or another program, left there. Without this the instance could never serve again.
        logger.warning("%s It is fetched anew.", error)
        path = weights.replace(deadline)
        with timed():
            return load_file(path)


def load_file(path: Path) -> Classifier:
    """Load a weights file, and apply the manifest beside it.

    Raises:
        WeightsError: not a state dict of this network, or trained for other classes or another preprocessing.
        WeightsUnavailableError: the file cannot be read.
    """
    try:
        network = fuse(load_weights(path))
        release = release_of(path, CLASSES, PREPROCESSING)
    except OSError as error:
        raise WeightsUnavailableError(f"{path} cannot be read: {error.strerror or error}.") from error
    detector = Detector(release.input_check) if release.input_check else None
    logger.info("loaded %s, model version %s", path, release.version)
    return Classifier(network, release.version, release.sha256, release.calibration, detector)


@contextlib.contextmanager
def _downloaded(uri: str) -> Iterator[Path]:
    bucket, key = split(uri)
    if key:
        raise ConfigurationError(f"{uri!r} is not a bucket: name the weights bucket alone, as s3://bucket.")
    with tempfile.TemporaryDirectory() as folder:
        yield Weights(Path(folder) / WEIGHTS_NAME, bucket).find(Deadline.after(DOWNLOAD_SECONDS))
