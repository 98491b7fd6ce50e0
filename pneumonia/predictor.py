"""From an image's bytes to an answer, with the model loaded once, when it is first needed."""

import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pneumonia.calibration import Calibration
from pneumonia.errors import ImageError, PneumoniaError, WeightsError, WeightsUnavailableError
from pneumonia.fused import Network, fuse
from pneumonia.image import PREPROCESSING, decode, preprocess
from pneumonia.manifest import release_of
from pneumonia.model import CLASSES, load_weights
from pneumonia.weights import Weights

LOAD_SECONDS = 30.0  # for fetching and loading the model, unless the caller has less
BATCH_SIZE = 16  # images that the network takes at a time
DECODERS = min(2, os.cpu_count() or 1)
MEGABYTES_OF_A_CORE = 1769  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
logger = logging.getLogger(__name__)


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
            "that a little more or less would have changed the answer, as for a tenth of the validation images."
        }
    )


@dataclass(frozen=True)
class Model:
    """A network ready for inference, the name of its release, and how its outputs become an answer."""

    network: Network
    version: str
    calibration: Calibration

    def answer(self, pixels: Tensor) -> Prediction:
        """Answer for one image.

        Args:
            pixels: float32, shape (1, 3, SIZE, SIZE), as `preprocess` gives it.

        Raises:
            WeightsError: the probabilities are not finite.
        """
        return self.answers(pixels)[0]

    def answers(self, pixels: Tensor) -> list[Prediction]:
        """Answer for a batch of images, in their order.

        Args:
            pixels: float32, shape (N, 3, SIZE, SIZE).

        Raises:
            WeightsError: the probabilities are not finite.
        """
        with torch.inference_mode():
            rows = self.calibration.probabilities(self.network(pixels)).tolist()
        return [self._prediction(values) for values in rows]

    def _prediction(self, values: list[float]) -> Prediction:
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
        weights: where the model's weights are.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._loading = threading.Lock()
        self._model: Model | None = None
        self._failure: PneumoniaError | None = None
        self._failures = 0
        # However many ask at once, two images at most are decoded, and one network runs, on all cores: more would take
        # more memory, up to 1 GB an image, and more time. One thread runs it: torch gives each caller a set of threads.
        self._decoding = threading.Semaphore(DECODERS)
        self._inference = ThreadPoolExecutor(1, "inference")

    @property
    def model_version(self) -> str | None:
        """The release that is loaded, None before the first need of one."""
        return self._model.version if self._model else None

    def predict(self, data: bytes, load_seconds: float = LOAD_SECONDS) -> Prediction:
        """Answer for one image.

        Args:
            data: the bytes of a JPEG, PNG, BMP, TIFF or WebP file.
            load_seconds: how long fetching and loading the model may take, where it is not loaded yet.

        Raises:
            ImageError: the image cannot be used.
            WeightsError: the weights are not what they should be.
            WeightsUnavailableError: there are no weights, or S3 does not give them in time.
        """
        with self._decoding:
            pixels = preprocess(decode(data))
        model = self.load(load_seconds)
        return self._inference.submit(model.answer, pixels).result()

    def predict_many(self, files: Sequence[bytes], load_seconds: float = LOAD_SECONDS) -> list[Prediction | ImageError]:
        """Answer for several images, in their order; one that cannot be used has its error in its place.

        Args:
            files: the bytes of each, as `predict` takes them.
            load_seconds: as `predict`.

        Raises:
            WeightsError, WeightsUnavailableError: as `predict`.
        """
        with ThreadPoolExecutor(DECODERS, "decoding") as pool:
            decoded = list(pool.map(self._decode, files))
        good = [pixels for pixels in decoded if isinstance(pixels, Tensor)]
        answers: list[Prediction] = []
        if good:
            model = self.load(load_seconds)
            for start in range(0, len(good), BATCH_SIZE):  # one by one: a single image need not wait for all of them
                batch = torch.cat(good[start : start + BATCH_SIZE])
                answers += self._inference.submit(model.answers, batch).result()
        in_turn = iter(answers)
        return [one if isinstance(one, ImageError) else next(in_turn) for one in decoded]

    def load(self, seconds: float = LOAD_SECONDS) -> Model:
        """Return the model, loaded if need be.

        Args:
            seconds: how long that may take.

        Raises:
            WeightsError, WeightsUnavailableError: as `predict`.
        """
        if self._model:
            return self._model
        seconds = max(0.0, seconds)
        deadline = time.monotonic() + seconds
        failures = self._failures
        if not self._loading.acquire(timeout=seconds):
            raise WeightsUnavailableError(f"The model is still being loaded after {seconds:.0f} s: try again.")
        try:
            # Who waited while a load failed shares its failure, or many would wait for as many attempts in turn. It is
            # not remembered beyond that: the next request tries again.
            if self._model is None and self._failure and self._failures > failures:
                raise self._failure.with_traceback(None)
            if self._model is None:
                try:
                    self._model = self._load(deadline)
                except PneumoniaError as error:
                    self._failure, self._failures = error, self._failures + 1
                    raise
            return self._model
        finally:
            self._loading.release()

    def _decode(self, data: bytes) -> Tensor | ImageError:
        try:
            with self._decoding:
                return preprocess(decode(data))
        except ImageError as error:
            return error

    def _load(self, deadline: float) -> Model:
        path = self._weights.find(deadline - time.monotonic())
        try:
            return load_model(path)
        except WeightsError as error:
            if not self._weights.bucket:
                raise
            # What a killed process, or another program, left there. Without this the instance could never serve again.
            logger.warning("%s It is fetched anew.", error)
        return load_model(self._weights.replace(deadline - time.monotonic()))


def load_model(path: Path) -> Model:
    """Load a weights file, and what the manifest beside it says.

    Raises:
        WeightsError: not a state dict of this network, or made for other classes or another preprocessing.
        WeightsUnavailableError: the file cannot be read.
    """
    try:
        network = fuse(load_weights(path))
        version, calibration = release_of(path, CLASSES, PREPROCESSING)
    except OSError as error:
        raise WeightsUnavailableError(f"{path} cannot be read: {error.strerror or error}.") from error
    logger.info("loaded %s, model version %s", path, version)
    return Model(network, version, calibration)


def use_paid_cores() -> None:
    """On Lambda, have torch run as many threads as the function's memory pays for.

    Two cores are to be seen, however small a share of them is given: with more threads than that, each waits for the
    other to be let on, and an answer takes twice as long or more (docs/performance.md).
    """
    if memory := os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"):
        torch.set_num_threads(max(1, round(int(memory) / MEGABYTES_OF_A_CORE)))
