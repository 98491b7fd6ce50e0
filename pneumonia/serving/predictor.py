"""From an image's bytes to an answer, by a model that is loaded once, when it is first needed."""

import contextlib
import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pneumonia.deadline import Deadline
from pneumonia.errors import BusyError, ConfigurationError, ImageError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preview import preview_jpeg
from pneumonia.network.classifier import BATCH_SIZE, Classifier, Input
from pneumonia.network.outputs import Floats
from pneumonia.network.prediction import Explanation, Prediction
from pneumonia.releases.fetch import Weights
from pneumonia.serving.current_model import CurrentModel
from pneumonia.serving.telemetry import Record

LOAD_SECONDS = 30.0  # for fetching and loading the model, unless the caller has less
REFRESH_MINUTES = 5.0  # between two checks for a new release
DECODING_THREADS = min(2, os.cpu_count() or 1)


class _Answer(NamedTuple):
    """The answer for one image, with what a heatmap of it is made from."""

    given: Input
    preview: str | None
    model: Classifier
    prediction: Prediction
    evidence: Floats  # float32, shape (7, 7)


class Predictor:
    """Classifies images; safe to use from many threads.

    Args:
        weights: where the model's weights are.
        refresh_minutes: time between two checks of the bucket for another release; infinite for none.
    """

    def __init__(self, weights: Weights, refresh_minutes: float = REFRESH_MINUTES) -> None:
        self._current = CurrentModel(weights, refresh_minutes * 60)
        # However many requests come at once, at most two images are decoded, and one network runs on all cores. More
        # would take more memory, up to 400 MB per image, and more time. Only one thread runs the network, because torch
        # gives each calling thread a pool of its own.
        self._decoding = threading.Semaphore(DECODING_THREADS)
        self._inference = ThreadPoolExecutor(1, "inference")

    @classmethod
    def from_environment(cls, weights: Weights) -> "Predictor":
        """Return a predictor that checks for another release every MODEL_REFRESH_MINUTES.

        Raises:
            ConfigurationError: that is not a number of minutes.
        """
        text = os.environ.get("MODEL_REFRESH_MINUTES") or str(REFRESH_MINUTES)
        try:
            minutes = float(text)
        except ValueError:
            minutes = math.nan
        if not minutes >= 0:  # nor is nan
            raise ConfigurationError(
                f"MODEL_REFRESH_MINUTES is {text!r}: set it to a number of minutes, 0 or more, or to inf for never."
            )
        return cls(weights, minutes)

    @property
    def model(self) -> Classifier | None:
        """The loaded model, None before it is first needed. A refresh may replace it at any time."""
        return self._current.model

    @property
    def model_version(self) -> str | None:
        """The loaded model's release, None before it is first needed."""
        return self._current.version

    def predict(self, data: bytes, deadline: Deadline | None = None, record: Record | None = None) -> Prediction:
        """Classify one image.

        Args:
            data: the bytes of a JPEG, PNG, BMP, TIFF, WebP or DICOM file.
            deadline: for beginning to decode while others' images come first, and for fetching and loading the model,
                if it is not loaded yet; by default, in LOAD_SECONDS.
            record: gets the time that each phase took.

        Raises:
            BusyError: others' images take until the deadline.
            ImageError: the image cannot be used.
            WeightsError: the weights are invalid.
            WeightsUnavailableError: there are no weights, or S3 does not give them in time.
        """
        return self._answer(data, deadline, record or Record()).prediction

    def explain(
        self,
        data: bytes,
        deadline: Deadline | None = None,
        record: Record | None = None,
        *,
        heatmap: bool = True,
        preview: bool = False,
    ) -> Explanation:
        """Classify one image as `predict` does, and add a heatmap or a preview.

        Args:
            data: as for `predict`.
            deadline: as for `predict`.
            record: as for `predict`.
            heatmap: add a heatmap of what supports the answer.
            preview: add the image as it was decoded.

        Raises:
            BusyError, ImageError, WeightsError, WeightsUnavailableError: as `predict`.
        """
        deadline = deadline or Deadline.after(LOAD_SECONDS)
        record = record or Record()
        answer = self._answer(data, deadline, record, preview=preview)
        drawn = None
        if heatmap:
            with self._turn(deadline), record.timed("Heatmap"):
                drawn = answer.model.heatmap(answer.prediction, answer.evidence, answer.given.size)
        return Explanation(**vars(answer.prediction), heatmap=drawn, preview=answer.preview)

    def predict_many(
        self, files: Sequence[bytes], deadline: Deadline | None = None, record: Record | None = None
    ) -> list[Prediction | ImageError]:
        """Classify several images, in their order; return an error in place of an image that cannot be used.

        Args:
            files: the bytes of each, as for `predict`.
            deadline: as for `predict`.
            record: as for `predict`; the times of all images are added up.

        Raises:
            BusyError, WeightsError, WeightsUnavailableError: as `predict`.
        """
        deadline = deadline or Deadline.after(LOAD_SECONDS)
        record = record or Record()

        def decoded_or_not(data: bytes) -> Input | ImageError:
            try:
                return self._decode(data, deadline, record)[0]
            except ImageError as error:
                return error

        with ThreadPoolExecutor(DECODING_THREADS, "decoding") as pool:
            decoded = list(pool.map(decoded_or_not, files))
        good = [one for one in decoded if isinstance(one, Input)]
        answers: list[Prediction] = []
        if good:
            model = self.load(deadline, record)
            self._current.refresh_if_due(deadline)
            for start in range(0, len(good), BATCH_SIZE):  # one by one: a single image need not wait for all of them
                answers += self._answers(model, good[start : start + BATCH_SIZE], record)[0]
        in_turn = iter(answers)
        return [one if isinstance(one, ImageError) else next(in_turn) for one in decoded]

    def load(self, deadline: Deadline | None = None, record: Record | None = None) -> Classifier:
        """Return the model, and load it if need be.

        Args:
            deadline: as for `predict`.
            record: gets the time that this took.

        Raises:
            WeightsError, WeightsUnavailableError: as `predict`.
        """
        return self._current.load(deadline or Deadline.after(LOAD_SECONDS), record or Record())

    def finish_refresh(self, deadline: Deadline) -> None:
        """Wait for a refresh that a prediction has begun: Lambda freezes a process once it has answered.

        Args:
            deadline: a refresh that is not done by then continues with the next request, or gives up.
        """
        self._current.finish_refresh(deadline)

    def refresh(self, deadline: Deadline) -> None:
        """Check the bucket for another release, whenever the last check was, and wait for it until the deadline."""
        self._current.refresh(deadline)

    def _answer(self, data: bytes, deadline: Deadline | None, record: Record, *, preview: bool = False) -> _Answer:
        deadline = deadline or Deadline.after(LOAD_SECONDS)
        given, shown = self._decode(data, deadline, record, preview=preview)
        model = self.load(deadline, record)
        self._current.refresh_if_due(deadline)
        (prediction,), evidence = self._answers(model, [given], record)
        return _Answer(given, shown, model, prediction, evidence[0])

    @contextlib.contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        """Decode within the block, once it is this image's turn.

        Raises:
            BusyError: that is not before the deadline.
        """
        if not self._decoding.acquire(timeout=deadline.seconds_left):
            raise BusyError("The server is busy with other images: try again in a moment.")
        try:
            yield
        finally:
            self._decoding.release()

    def _decode(
        self, data: bytes, deadline: Deadline, record: Record, *, preview: bool = False
    ) -> tuple[Input, str | None]:
        """Return the network's input, and the preview if it was asked for."""
        record.image_bytes.append(len(data))
        with self._turn(deadline), record.timed("Decode"):
            decoded = decode(data)
            record.image_pixels.append(decoded.image.width * decoded.image.height)
            return Input.of(decoded), preview_jpeg(decoded.image) if preview else None

    def _answers(self, model: Classifier, given: Sequence[Input], record: Record) -> tuple[list[Prediction], Floats]:
        pixels = np.concatenate([one.pixels for one in given])

        def answers() -> tuple[list[Prediction], Floats]:
            with record.timed("Inference"):
                return model.answers_with_evidence(pixels)

        answered, evidence = self._inference.submit(answers).result()
        predictions = [answer.warned(one.warnings) for answer, one in zip(answered, given, strict=True)]
        record.predictions += predictions
        return predictions, evidence
