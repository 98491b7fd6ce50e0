"""From an image's bytes to an answer, with the model loaded once, when it is first needed."""

import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pneumonia.errors import (
    ConfigurationError,
    ImageError,
    PneumoniaError,
    WeightsError,
    WeightsUnavailableError,
    first_line,
)
from pneumonia.imaging.decoding import PREPROCESSING, PREVIEW_SIDE, decode, preprocess, preview_jpeg, warnings_of
from pneumonia.network.calibration import Calibration
from pneumonia.network.detector import Detector
from pneumonia.network.fused import Network, fuse
from pneumonia.network.heatmap import heatmap_png
from pneumonia.network.resnet import CLASSES, check_outputs, load_weights
from pneumonia.releases.fetch import Weights
from pneumonia.releases.manifest import release_of
from pneumonia.serving import telemetry
from pneumonia.serving.telemetry import Record

LOAD_SECONDS = 30.0  # for fetching and loading the model, unless the caller has less
REFRESH_MINUTES = 5.0  # between two looks for a new release
REFRESH_SECONDS = 10.0  # that a look may take, fetching the release included
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
            "that a little more or less would have changed the answer, as for a tenth of the validation images. "
            "`not_a_chest_xray`: the image is unlike the radiographs that the model was trained on, and the answer "
            "means nothing. "
            "`dicom_not_a_chest_radiograph`: by the DICOM header this is no radiograph, or of another body part. "
            "`dicom_not_a_frontal_view`: by the DICOM header it is a lateral, oblique or decubitus view. "
            "Several may stand there, in this order."
        }
    )

    def warned(self, more: Sequence[str]) -> "Prediction":
        """Return the same answer with more warnings."""
        return replace(self, warnings=[*self.warnings, *more]) if more else self


@dataclass(frozen=True)
class Explanation(Prediction):
    """The answer for one image, with what else was asked for about it."""

    heatmap: str | None = field(
        default=None,
        metadata={
            "description": "With `explain=true`: a PNG in base64, as large as the image, upright, to be laid over it. "
            "The warmer and the more opaque, the more a place speaks for the answer (class activation map)."
        },
    )
    preview: str | None = field(
        default=None,
        metadata={
            "description": "With `preview=true`: the image as it was understood, upright, as a JPEG in base64 of at "
            f"most {PREVIEW_SIDE} pixels a side. For files that a browser does not show, or shows otherwise."
        },
    )


@dataclass(frozen=True)
class Input:
    """An image made ready for the network.

    Attributes:
        pixels: float32, shape (1, 3, SIZE, SIZE), as `preprocess` gives it.
        size: width and height of the decoded image.
        preview: a JPEG in base64, where one was asked for.
        warnings: what the file itself says against the answer.
    """

    pixels: Tensor
    size: tuple[int, int]
    preview: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """A network ready for inference, the name of its release, and how its outputs become an answer.

    Without a detector no image is told to be no chest X-ray.
    """

    network: Network
    version: str
    calibration: Calibration
    detector: Detector | None = None

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
        return self.answers_with_features(pixels)[0]

    def answers_with_features(self, pixels: Tensor) -> tuple[list[Prediction], Tensor]:
        """Return what `answers` returns, and the outputs of the last layer, of which a heatmap is made.

        Args:
            pixels: float32, shape (N, 3, SIZE, SIZE).

        Returns:
            The answers; float32, shape (N, 512, 7, 7).

        Raises:
            WeightsError: the probabilities are not finite.
        """
        with torch.inference_mode():
            layers = self.network.layers(pixels)
            rows = self.calibration.probabilities(self.network.fc(layers[-1].mean((2, 3)))).tolist()
            unlike = self.detector.unlike(layers, pixels) if self.detector else [False] * len(rows)
        return [self._prediction(*image) for image in zip(rows, unlike, strict=True)], layers[-1]

    def _prediction(self, values: list[float], is_unlike: bool) -> Prediction:  # noqa: FBT001
        if not all(map(math.isfinite, values)):
            raise WeightsError(f"Model {self.version} gives no finite probabilities: promote another model.")
        probabilities = dict(zip(CLASSES, values, strict=True))
        suspicion = probabilities["PNEUMONIA"]
        prediction = "PNEUMONIA" if self.calibration.is_pneumonia(suspicion) else "NORMAL"
        reasons = {"uncertain": self.calibration.is_uncertain(suspicion), "not_a_chest_xray": is_unlike}
        warnings = [name for name, holds in reasons.items() if holds]
        return Prediction(prediction, probabilities[prediction], probabilities, self.version, warnings)


class _Answer(NamedTuple):
    """The answer for one image, and what it came from: a heatmap is made of that."""

    given: Input
    model: Model
    prediction: Prediction
    features: Tensor  # float32, shape (512, 7, 7)


class Predictor:
    """Answers for images; safe to use from many threads.

    Args:
        weights: where the model's weights are.
        refresh_minutes: after so long without a look, a prediction has the bucket looked at for another release.
    """

    def __init__(self, weights: Weights, refresh_minutes: float = REFRESH_MINUTES) -> None:
        self._weights = weights
        self._refresh_seconds = refresh_minutes * 60
        self._refreshing = threading.Thread()  # never started: nothing to wait for
        self._starting_refresh = threading.Lock()
        self._loading = threading.Lock()
        self._model: Model | None = None
        self._failure: PneumoniaError | None = None
        self._failures = 0
        # However many ask at once, two images at most are decoded, and one network runs, on all cores: more would take
        # more memory, up to 400 MB an image, and more time. One thread runs it: torch gives each a set of threads.
        self._decoding = threading.Semaphore(DECODERS)
        self._inference = ThreadPoolExecutor(1, "inference")

    @classmethod
    def from_environment(cls, weights: Weights) -> "Predictor":
        """Return one that looks for another release as often as MODEL_REFRESH_MINUTES says.

        Raises:
            ConfigurationError: that is no number.
        """
        text = os.environ.get("MODEL_REFRESH_MINUTES") or str(REFRESH_MINUTES)
        try:
            return cls(weights, float(text))
        except ValueError:
            raise ConfigurationError(f"MODEL_REFRESH_MINUTES is {text!r}: set it to a number of minutes.") from None

    @property
    def model(self) -> Model | None:
        """The model that is loaded, None before the first need of one. A refresh may replace it at any time."""
        return self._model

    @property
    def model_version(self) -> str | None:
        """The release that is loaded, None before the first need of one."""
        return self._model.version if self._model else None

    def predict(self, data: bytes, load_seconds: float = LOAD_SECONDS, record: Record | None = None) -> Prediction:
        """Answer for one image.

        Args:
            data: the bytes of a JPEG, PNG, BMP, TIFF, WebP or DICOM file.
            load_seconds: how long fetching and loading the model may take, where it is not loaded yet.
            record: gets what each phase took.

        Raises:
            ImageError: the image cannot be used.
            WeightsError: the weights are not what they should be.
            WeightsUnavailableError: there are no weights, or S3 does not give them in time.
        """
        return self._answer(data, load_seconds, record or Record()).prediction

    def explain(
        self,
        data: bytes,
        load_seconds: float = LOAD_SECONDS,
        record: Record | None = None,
        *,
        heatmap: bool = True,
        preview: bool = False,
    ) -> Explanation:
        """Answer for one image as `predict` does, and show what the answer is about.

        Args:
            data: as `predict`.
            load_seconds: as `predict`.
            record: as `predict`.
            heatmap: add what speaks for the answer, and where.
            preview: add the image as it was understood.

        Raises:
            ImageError, WeightsError, WeightsUnavailableError: as `predict`.
        """
        record = record or Record()
        answer = self._answer(data, load_seconds, record, preview=preview)
        drawn = None
        if heatmap:
            index = CLASSES.index(answer.prediction.prediction)
            with self._decoding, record.timed("Heatmap"):
                drawn = heatmap_png(answer.model.network.fc, answer.features, index, answer.given.size)
        return Explanation(**vars(answer.prediction), heatmap=drawn, preview=answer.given.preview)

    def predict_many(
        self, files: Sequence[bytes], load_seconds: float = LOAD_SECONDS, record: Record | None = None
    ) -> list[Prediction | ImageError]:
        """Answer for several images, in their order; one that cannot be used has its error in its place.

        Args:
            files: the bytes of each, as `predict` takes them.
            load_seconds: as `predict`.
            record: as `predict`; what several images took is added up.

        Raises:
            WeightsError, WeightsUnavailableError: as `predict`.
        """
        deadline = time.monotonic() + load_seconds
        record = record or Record()

        def decoded_or_not(data: bytes) -> Input | ImageError:
            try:
                return self._decode(data, record)
            except ImageError as error:
                return error

        with ThreadPoolExecutor(DECODERS, "decoding") as pool:
            decoded = list(pool.map(decoded_or_not, files))
        good = [one for one in decoded if isinstance(one, Input)]
        answers: list[Prediction] = []
        if good:
            model = self.load(deadline - time.monotonic(), record)
            self._refresh_if_due(deadline)
            for start in range(0, len(good), BATCH_SIZE):  # one by one: a single image need not wait for all of them
                answers += self._answers(model, good[start : start + BATCH_SIZE], record)[0]
        in_turn = iter(answers)
        return [one if isinstance(one, ImageError) else next(in_turn) for one in decoded]

    def load(self, seconds: float = LOAD_SECONDS, record: Record | None = None) -> Model:
        """Return the model, loaded if need be.

        Args:
            seconds: how long that may take.
            record: gets what it took.

        Raises:
            WeightsError, WeightsUnavailableError: as `predict`.
        """
        if self._model:
            return self._model
        record = record or Record()
        record.is_cold = True
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
                    self._model = self._load(deadline, record)
                except PneumoniaError as error:
                    self._failure, self._failures = error, self._failures + 1
                    raise
            return self._model
        finally:
            self._loading.release()

    def _answer(self, data: bytes, load_seconds: float, record: Record, *, preview: bool = False) -> _Answer:
        deadline = time.monotonic() + load_seconds
        given = self._decode(data, record, preview=preview)
        model = self.load(deadline - time.monotonic(), record)
        self._refresh_if_due(deadline)
        (prediction,), features = self._answers(model, [given], record)
        return _Answer(given, model, prediction, features[0])

    def _decode(self, data: bytes, record: Record, *, preview: bool = False) -> Input:
        record.image_bytes.append(len(data))
        with self._decoding, record.timed("Decode"):
            image = decode(data)
            record.image_pixels.append(image.width * image.height)
            shown = preview_jpeg(image) if preview else None
            return Input(preprocess(image), image.size, shown, tuple(warnings_of(data)))

    def _answers(self, model: Model, given: Sequence[Input], record: Record) -> tuple[list[Prediction], Tensor]:
        pixels = torch.cat([one.pixels for one in given])

        def answers() -> tuple[list[Prediction], Tensor]:
            with record.timed("Inference"):
                return model.answers_with_features(pixels)

        answered, features = self._inference.submit(answers).result()
        predictions = [answer.warned(one.warnings) for answer, one in zip(answered, given, strict=True)]
        record.predictions += predictions
        return predictions, features

    def _load(self, deadline: float, record: Record) -> Model:
        path = self._weights.find(deadline - time.monotonic())
        try:
            with record.timed("Load"):
                return load_model(path)
        except WeightsError as error:
            if not self._weights.bucket:
                raise
            # What a killed process, or another program, left there. Without this the instance could never serve again.
            logger.warning("%s It is fetched anew.", error)
            path = self._weights.replace(deadline - time.monotonic())
            with record.timed("Load"):
                return load_model(path)
        finally:
            if self._weights.download_seconds is not None:
                record.add("Download", self._weights.download_seconds)

    def finish_refresh(self, seconds: float) -> None:
        """Wait for a look at the bucket that a prediction began: Lambda freezes a process once it has answered.

        Args:
            seconds: how long at most; what is not done by then goes on with the next request, or gives up.
        """
        if self._refreshing.ident:
            self._refreshing.join(max(0.0, seconds))

    def _refresh_if_due(self, deadline: float) -> None:
        with self._starting_refresh:
            now = time.monotonic()
            is_due = now - self._weights.asked >= self._refresh_seconds
            if not self._weights.bucket or not is_due or self._refreshing.is_alive():
                return
            self._weights.asked = now
            deadline = min(deadline, now + REFRESH_SECONDS)
            self._refreshing = threading.Thread(target=self._refresh, args=[deadline], name="refresh", daemon=True)
            self._refreshing.start()

    def _refresh(self, deadline: float) -> None:
        """Take over the release that the bucket serves, if it is another; whatever goes wrong, the old one stays."""
        started = time.monotonic()
        try:
            version = self._weights.served_version(deadline - started)
            if version is None or version == self.model_version:
                return
            with self._weights.fetched_aside(deadline - time.monotonic()) as path:
                model = load_model(path)
            check_outputs(model.network, f"release {model.version}")
            self._model = model
            outcome, reason = "Refreshes", None
        except Exception as error:
            logger.exception("Model %s serves on, as the bucket's release cannot be taken over.", self.model_version)
            outcome, reason = "RefreshFailures", first_line(error)
        milliseconds = round((time.monotonic() - started) * 1000, 1)
        telemetry.emit(
            {outcome: [1], "RefreshMilliseconds": [milliseconds]},
            {"model_version": self.model_version, "reason": reason},
        )


def load_model(path: Path) -> Model:
    """Load a weights file, and what the manifest beside it says.

    Raises:
        WeightsError: not a state dict of this network, or made for other classes or another preprocessing.
        WeightsUnavailableError: the file cannot be read.
    """
    try:
        network = fuse(load_weights(path))
        release = release_of(path, CLASSES, PREPROCESSING)
    except OSError as error:
        raise WeightsUnavailableError(f"{path} cannot be read: {error.strerror or error}.") from error
    detector = Detector(release.input_check) if release.input_check else None
    logger.info("loaded %s, model version %s", path, release.version)
    return Model(network, release.version, release.calibration, detector)


def use_paid_cores() -> None:
    """On Lambda, have torch run as many threads as the function's memory pays for.

    Two cores are to be seen, however small a share of them is given: with more threads than that, each waits for the
    other to be let on, and an answer takes twice as long or more (docs/performance.md).
    """
    if memory := os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"):
        torch.set_num_threads(max(1, round(int(memory) / MEGABYTES_OF_A_CORE)))
