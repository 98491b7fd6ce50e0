"""Metrics: lines of JSON on standard output, from which CloudWatch extracts metrics.

No request waits for a call to CloudWatch, and no line contains an image or a file name. The format is
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics.provider.cloudwatch_emf.cloudwatch import AmazonCloudWatchEMFProvider

if TYPE_CHECKING:
    from pneumonia.network.prediction import Prediction

NAMESPACE = "Pneumonia"
SERVICE = "inference"
UNITS = {"Milliseconds": "Milliseconds", "Bytes": "Bytes", "Confidence": "None"}  # by a name's end; others are counts


@dataclass
class Record:
    """The measurements of one request; each phase adds its own.

    Attributes:
        milliseconds: by phase: Download and Load of the model, Decode, Inference, Heatmap, and Total.
        image_bytes: of each image as it was sent.
        image_pixels: of each image that could be decoded.
        is_cold: the request had to wait for the model.
        has_no_model: the model could not be loaded.
        predictions: the answers.
    """

    milliseconds: dict[str, float] = field(default_factory=dict)
    image_bytes: list[int] = field(default_factory=list)
    image_pixels: list[int] = field(default_factory=list)
    is_cold: bool = False
    has_no_model: bool = False
    predictions: list["Prediction"] = field(default_factory=list)
    _adding: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time that the block takes to a phase, even if the block fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - started)

    def add(self, phase: str, seconds: float) -> None:
        """Add seconds to a phase."""
        with self._adding:  # several images are decoded at once
            self.milliseconds[phase] = self.milliseconds.get(phase, 0.0) + seconds * 1000

    def load_failures(self) -> dict[str, Sequence[float]]:
        """Return the metric that counts what found no model; without a value if there was one, or no need of it."""
        return {"LoadFailures": [1] if self.has_no_model else []}

    def metrics(self) -> dict[str, Sequence[float]]:
        """Return the values of each metric of a request for predictions, except its load failures."""
        phases = {f"{phase}Milliseconds": [round(taken, 1)] for phase, taken in self.milliseconds.items()}
        return {
            "ColdStart": [self.is_cold],
            "ImageBytes": self.image_bytes,
            "ImagePixels": self.image_pixels,
            "Pneumonia": [answer.prediction == "PNEUMONIA" for answer in self.predictions],
            "Confidence": [round(answer.confidence, 4) for answer in self.predictions],
            "Uncertain": ["uncertain" in answer.warnings for answer in self.predictions],
            "NotAChestXray": ["not_a_chest_xray" in answer.warnings for answer in self.predictions],
            **phases,
        }


def emit(metrics: Mapping[str, Sequence[float]], properties: Mapping[str, Any]) -> None:
    """Write one line to standard output.

    Args:
        metrics: names to values, at most 99 each; names without a value are left out. Their namespace is
            POWERTOOLS_METRICS_NAMESPACE, by default `Pneumonia`, and their only dimension is `service`, with the value
            of POWERTOOLS_SERVICE_NAME, by default `inference`.
        properties: other fields of the line, which are not metrics.
    """
    provider = AmazonCloudWatchEMFProvider(
        namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE") or NAMESPACE,
        service=os.environ.get("POWERTOOLS_SERVICE_NAME") or SERVICE,
    )
    for name, values in metrics.items():
        unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "Count")
        for value in values:
            provider.add_metric(name, unit, value)
    content = {**provider.serialize_metric_set(), **properties} if provider.metric_set else dict(properties)
    with contextlib.suppress(OSError):  # the reader is gone: no reason to fail a request
        print(json.dumps(content) + "\n", end="", flush=True)  # noqa: T201  # one write: threads do not mix their lines
