"""A loaded model that classifies files, bytes and Pillow images, one or many; the API, commands and Python share it."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from pneumonia.errors import ImageError, WeightsError, file_sentence
from pneumonia.imaging.decoding import Decoded, decode, from_pillow
from pneumonia.imaging.preprocessing import preprocess
from pneumonia.imaging.reading import read_file
from pneumonia.network.calibration import Calibration, is_pneumonia
from pneumonia.network.detector import Detector, inverted
from pneumonia.network.heatmap import heatmap_png
from pneumonia.network.outputs import Engine, Floats
from pneumonia.network.prediction import Explanation, Prediction
from pneumonia.network.usual_evidence import UsualEvidence

BATCH_SIZE = 16  # images that the network takes at a time
CORES = os.cpu_count() or 1
Source = str | os.PathLike[str] | bytes | Image.Image


@dataclass(frozen=True)
class Input:
    """An image that is ready for the network.

    Attributes:
        pixels: float32, shape (1, 3, SIZE, SIZE), as `preprocess` gives it.
        size: width and height of the decoded image.
        warnings: what the file itself says against the answer.
    """

    pixels: Floats
    size: tuple[int, int]
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, decoded: Decoded) -> "Input":
        """Return the network's input for a decoded image."""
        return cls(preprocess(decoded.image), decoded.image.size, decoded.warnings)


@dataclass(frozen=True)
class Classifier:
    """An engine that runs a network, its release's version, and how its outputs become an answer.

    `pneumonia.load` makes one. Safe to use from many threads.

    >>> import pneumonia
    >>> model = pneumonia.load()
    >>> answer = model.predict("docs/tutorial/person96_virus_96.jpeg")
    >>> answer.prediction, round(answer.confidence, 1)
    ('PNEUMONIA', 0.5)
    >>> answer.warnings  # it is a drawn X-ray
    ['uncertain', 'not_a_chest_xray']

    Attributes:
        engine: runs ResNet-18.
        version: the release's.
        sha256: of the file that the engine reads, 64 hexadecimal digits.
        calibration: temperature, bias and band of doubt.
        detector: recognises negatives, and images that are not frontal chest X-rays; without one, none is recognised.
        is_foreign: the weights came without a manifest, so that nothing is calibrated, and each answer says so.
        usual_evidence: of each position; heatmaps show what exceeds it, or without it all evidence.
    """

    engine: Engine
    version: str
    sha256: str
    calibration: Calibration
    detector: Detector | None = None
    is_foreign: bool = False
    usual_evidence: UsualEvidence | None = None

    def predict(self, image: Source) -> Prediction:
        """Classify one image.

        Args:
            image: the path of a file (JPEG, PNG, BMP, TIFF, WebP or DICOM), its bytes, or a Pillow image.

        Raises:
            ImageError: the image cannot be used.
            OSError: the file cannot be read.
            WeightsError: the probabilities are not finite.
        """
        given = prepared(image)
        return self.answers(given.pixels)[0].warned(given.warnings)

    def predict_many(
        self, images: Iterable[Source | ImageError], batch_size: int = BATCH_SIZE
    ) -> Iterator[Prediction | ImageError]:
        """Classify any number of images, in their order, a batch at a time, while the answers are iterated over.

        >>> import pneumonia
        >>> for answer in pneumonia.load().predict_many(["docs/tutorial/IM-0086-0001.jpeg", "missing.jpeg"]):
        ...     print(answer if isinstance(answer, Exception) else answer.prediction)
        NORMAL
        missing.jpeg does not exist: check the name.

        Args:
            images: as `predict` takes them.
            batch_size: images that are decoded, and go through the network, at a time.

        Returns:
            For each image the answer, or the error why it has none.

        Raises:
            ValueError: a batch of no images.
            WeightsError: the probabilities are not finite.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        return self._answers_in_batches(iter(images), batch_size)

    def _answers_in_batches(
        self, waiting: Iterator[Source | ImageError], batch_size: int
    ) -> Iterator[Prediction | ImageError]:
        with ThreadPoolExecutor(CORES, "decoding") as pool:
            while part := list(islice(waiting, batch_size)):
                yield from self.answers_or_errors(list(pool.map(_prepared_or_error, part)))

    def explain(self, image: Source) -> Explanation:
        """Classify one image as `predict` does, and add a heatmap of what supports the answer.

        >>> import pneumonia
        >>> explanation = pneumonia.load().explain("docs/tutorial/person96_virus_96.jpeg")
        >>> explanation.heatmap[:8]  # a PNG in base64
        'iVBORw0K'

        Raises:
            ImageError, OSError, WeightsError: as `predict`.
        """
        given = prepared(image)
        (answer,), evidence = self.answers_with_evidence(given.pixels)
        heatmap = self.heatmap(answer, evidence[0], given.size)
        return Explanation(**vars(answer.warned(given.warnings)), heatmap=heatmap)

    def heatmap(self, answer: Prediction, evidence: Floats, size: tuple[int, int]) -> str:
        """Return a heatmap of what supports an answer, as a PNG file in base64.

        Args:
            answer: the image's answer.
            evidence: the image's, float32, shape (7, 7), as `answers_with_evidence` gives it.
            size: width and height of the image.
        """
        return heatmap_png(self.support(answer, evidence), size)

    def support(self, answer: Prediction, evidence: Floats) -> Floats:
        """Return by how much each position of an image supports the answer, beyond what is usual there.

        Args:
            answer: the image's answer.
            evidence: the image's, float32, shape (7, 7), as `answers_with_evidence` gives it.

        Returns:
            In log-odds of the answer, float32, shape (7, 7).
        """
        unusual = evidence if self.usual_evidence is None else evidence - np.array(self.usual_evidence, np.float32)
        return unusual if answer.prediction == "PNEUMONIA" else -unusual

    def answers(self, pixels: Floats) -> list[Prediction]:
        """Classify a batch of images, in their order.

        Args:
            pixels: float32, shape (N, 3, SIZE, SIZE), as `normalized` gives them.

        Raises:
            WeightsError: the probabilities are not finite.
        """
        return self.answers_with_evidence(pixels)[0]

    def answers_or_errors(self, images: Sequence[Input | ImageError]) -> list[Prediction | ImageError]:
        """Classify those images of a batch that could be prepared; the others keep their error.

        Raises:
            WeightsError: the probabilities are not finite.
        """
        good = [one.pixels for one in images if isinstance(one, Input)]
        answers = iter(self.answers(np.concatenate(good)) if good else [])
        return [next(answers).warned(one.warnings) if isinstance(one, Input) else one for one in images]

    def answers_with_evidence(self, pixels: Floats) -> tuple[list[Prediction], Floats]:
        """Return what `answers` returns, and what heatmaps are made of.

        Args:
            pixels: float32, shape (N, 3, SIZE, SIZE).

        Returns:
            The answers; float32, shape (N, 7, 7), as in `Outputs`.

        Raises:
            WeightsError: the probabilities are not finite.
        """
        negative, positives = self._positives(pixels)
        outputs = self.engine(positives)
        suspicions = [self.calibration.probability(yes - no) for no, yes in outputs.logits.tolist()]
        doubts = self.detector.warnings(outputs, positives) if self.detector else [[] for _ in suspicions]
        notes = [more or ["inverted"] * was for more, was in zip(doubts, negative, strict=True)]
        return [self._prediction(*image) for image in zip(suspicions, notes, strict=True)], outputs.evidence

    def _positives(self, pixels: Floats) -> tuple[list[bool], Floats]:
        """Return for each image whether it is a negative, and the images with the negatives inverted."""
        if self.detector is None:
            return [False] * len(pixels), pixels
        negative = self.detector.negatives(pixels)
        if negative.any():
            pixels = np.where(negative[:, None, None, None], inverted(pixels), pixels)
        return negative.tolist(), pixels

    def _prediction(self, suspicion: float, notes: list[str]) -> Prediction:
        if not math.isfinite(suspicion):
            raise WeightsError(f"Model {self.version} gives no finite probabilities: promote another model.")
        probabilities = {"NORMAL": 1 - suspicion, "PNEUMONIA": suspicion}
        prediction = "PNEUMONIA" if is_pneumonia(suspicion) else "NORMAL"
        warnings = ["uncalibrated"] * self.is_foreign + ["uncertain"] * self.calibration.is_uncertain(suspicion) + notes
        return Prediction(prediction, probabilities[prediction], probabilities, self.version, warnings)


def prepared(image: Source) -> Input:
    """Return the network's input for an image.

    Args:
        image: the path of a file, its bytes, or a Pillow image.

    Raises:
        ImageError: the image cannot be used.
        OSError: the file cannot be read.
    """
    if isinstance(image, Image.Image):
        return Input.of(from_pillow(image))
    return Input.of(decode(image if isinstance(image, bytes) else read_file(image)))


def _prepared_or_error(image: Source | ImageError) -> Input | ImageError:
    try:
        return image if isinstance(image, ImageError) else prepared(image)
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(file_sentence(error))
