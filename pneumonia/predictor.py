"""From an image's bytes to an answer, with the model loaded once, when it is first needed."""

import logging
import math
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pneumonia.calibration import Calibration
from pneumonia.errors import PneumoniaError, WeightsError, WeightsUnavailableError
from pneumonia.image import decode, preprocess
from pneumonia.manifest import release_of
from pneumonia.model import CLASSES, WEIGHTS_NAME, ResNet18, load_weights

RELEASED_WEIGHTS = Path(__file__).parent.parent / "weights" / WEIGHTS_NAME
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Where the weights are.

    Attributes:
        path: file that is used when it is there, and that a download makes.
        bucket: S3 bucket to download from, None for the released weights of this repository.
        key: the weights' key in a bucket without `current.json`.
    """

    path: Path
    bucket: str | None
    key: str

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read MODEL_PATH, MODEL_BUCKET and MODEL_KEY; an empty variable counts as unset."""
        return cls(
            path=Path(os.environ.get("MODEL_PATH") or "/tmp/model.pth"),  # noqa: S108  # Lambda's one writable folder
            bucket=os.environ.get("MODEL_BUCKET") or None,
            key=os.environ.get("MODEL_KEY") or WEIGHTS_NAME,
        )


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    P(PNEUMONIA) is calibrated, and the release's operating point decides, not 0.5. So `confidence` is below 0.5 where
    P(PNEUMONIA) lies between the two.
    """

    # What a field means stands in its metadata, where OpenAPI's schema takes it from.
    prediction: str = field(
        metadata={"description": "PNEUMONIA where P(PNEUMONIA) reaches the release's operating point, NORMAL below it."}
    )
    confidence: float = field(
        metadata={
            "description": "Calibrated probability of the predicted class, 0 to 1. Below 0.5 where P(PNEUMONIA) lies "
            "between 0.5 and the operating point."
        }
    )
    probabilities: dict[str, float] = field(
        metadata={"description": "Calibrated probability of each class, 0 to 1; they sum to 1."}
    )
    model_version: str = field(metadata={"description": "The release that answered."})
    warnings: list[str] = field(
        metadata={
            "description": "Reasons to doubt the answer. `uncertain`: P(PNEUMONIA) is so near to the operating point "
            "that a little more or less would have turned the answer, as for a tenth of the validation images."
        }
    )


@dataclass(frozen=True)
class Model:
    """A network ready for inference, the name of its release, and how its outputs become an answer."""

    network: ResNet18
    version: str
    calibration: Calibration

    def answer(self, pixels: Tensor) -> Prediction:
        """Answer for one image.

        Args:
            pixels: float32, shape (1, 3, SIZE, SIZE), as `preprocess` gives it.

        Raises:
            WeightsError: the probabilities are not finite.
        """
        with torch.inference_mode():
            values = self.calibration.probabilities(self.network(pixels))[0].tolist()
        if not all(map(math.isfinite, values)):
            raise WeightsError(f"Model {self.version} gives no finite probabilities: promote another model.")
        probabilities = dict(zip(CLASSES, values, strict=True))
        suspicion = probabilities["PNEUMONIA"]
        prediction = "PNEUMONIA" if self.calibration.is_pneumonia(suspicion) else "NORMAL"
        warnings = ["uncertain"] if self.calibration.is_uncertain(suspicion) else []
        return Prediction(prediction, probabilities[prediction], probabilities, self.version, warnings)


class Predictor:
    """Answers for images; safe to use from many threads.

    Args:
        settings: where the weights are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading = threading.Lock()
        self._model: Model | None = None
        self._failure: PneumoniaError | None = None
        self._failures = 0

    @property
    def model_version(self) -> str | None:
        """The release that is loaded, None before the first need of one."""
        return self._model.version if self._model else None

    def predict(self, data: bytes) -> Prediction:
        """Answer for one image.

        Args:
            data: the bytes of a JPEG, PNG, BMP, TIFF or WebP file.

        Raises:
            ImageError: the image cannot be used.
            WeightsError: the weights are not what they should be.
            WeightsUnavailableError: there are no weights, or S3 does not give them.
        """
        pixels = preprocess(decode(data))
        return self._loaded_model().answer(pixels)

    def _loaded_model(self) -> Model:
        if self._model:
            return self._model
        failures = self._failures
        with self._loading:
            # Who waited while a load failed shares its failure, or many would wait for as many attempts in turn. It is
            # not remembered beyond that: the next request tries again.
            if self._failure and self._failures > failures:
                raise self._failure.with_traceback(None)
            if self._model is None:
                try:
                    self._model = self._load()
                except PneumoniaError as error:
                    self._failure, self._failures = error, self._failures + 1
                    raise
            return self._model

    def _load(self) -> Model:
        path = self._weights_path()
        try:
            network = load_weights(path)
            version, calibration = release_of(path)
        except OSError as error:
            raise WeightsUnavailableError(f"{path} cannot be read: {error.strerror or error}.") from error
        logger.info("loaded %s, model version %s", path, version)
        return Model(network, version, calibration)

    def _weights_path(self) -> Path:
        path, bucket = self._settings.path, self._settings.bucket
        if path.exists():
            return path
        if bucket:
            from pneumonia import store  # noqa: PLC0415  # boto3 takes 0.75 s: only who downloads pays for it

            store.fetch(bucket, self._settings.key, path)
            return path
        if RELEASED_WEIGHTS.exists():
            return RELEASED_WEIGHTS
        raise WeightsUnavailableError(
            f"There are no weights: {path} does not exist and MODEL_BUCKET is not set. Set MODEL_BUCKET to the bucket "
            "that promote_model.py published to, or put a weights file at MODEL_PATH."
        )
