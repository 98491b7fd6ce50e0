"""What a training run says about its weights, in `training.json` beside them; promotion reads it.

This does not import torch.
"""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import Any

from pneumonia.errors import WeightsError
from pneumonia.files import replacing
from pneumonia.network.activations import Ranges, activations_in
from pneumonia.network.calibration import Calibration, calibration_in
from pneumonia.network.data_check import DataCheck, data_check_in
from pneumonia.network.figures import is_possible
from pneumonia.network.input_check import InputCheck, input_check_in
from pneumonia.network.usual_evidence import UsualEvidence, usual_evidence_in
from pneumonia.strict_json import json_text, strict_json

REPORT_NAME = "training.json"
MAX_REPORT = 1024 * 1024  # bytes


@dataclass(frozen=True)
class Dataset:
    """The images of a training.

    Attributes:
        fingerprint: SHA-256 over which image was in which split and class, None if it is not known.
        images: the number of images by split and class.
    """

    fingerprint: str | None = None
    images: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class TrainingReport:
    """What a training run says about its weights. Older runs said less: each field has a default for that.

    Attributes:
        weights_sha256: of the weights file, 64 hexadecimal digits.
        training_job: SageMaker's name of the job, None if it ran elsewhere.
        finished: when the training ended, UTC.
        classes: in the order of the network's outputs.
        preprocessing: what was done to the images.
        calibration: from the network's outputs to an answer.
        input_check: recognises images that are not chest X-rays.
        metrics: figures of validation and test, such as `val_loss` (nats) and `test_accuracy` (share, 0 to 1).
        dataset: the images.
        calibrated_on: images, rule and former release of the calibration, if it is not from this training.
        data_check: what was counted in the images that makes the figures untrue; None if nothing was counted.
        activations: the activation ranges on training images, for an ONNX file in 8-bit integers.
        usual_evidence: of each position on validation images; heatmaps show what exceeds it.
        settings: the run's arguments, and the device, precision and version of torch that it used.
    """

    weights_sha256: str | None = None
    training_job: str | None = None
    finished: datetime | None = None
    classes: list[str] | None = None
    preprocessing: dict[str, Any] | None = None
    calibration: Calibration = dataclasses.field(default_factory=Calibration)
    input_check: InputCheck | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    dataset: Dataset = dataclasses.field(default_factory=Dataset)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    calibrated_on: dict[str, Any] | None = None
    data_check: DataCheck | None = None
    activations: Ranges | None = None
    usual_evidence: UsualEvidence | None = None

    def to_json(self) -> str:
        """Return indented JSON."""
        finished = self.finished.isoformat(timespec="seconds") if self.finished else None
        return json_text(dataclasses.asdict(self) | {"finished": finished})

    def write_beside(self, weights: Path) -> None:
        """Write `training.json` into the folder of a weights file, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        with replacing(weights.with_name(REPORT_NAME)) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")


def parse(text: str | bytes, source: str) -> TrainingReport:
    """Read a training report; fields may be missing, and unknown ones are left out.

    Args:
        text: JSON.
        source: where the text comes from, for the error's sentence.

    Raises:
        WeightsError: the text is not JSON, or a field is not as training writes it.
    """
    try:
        content = strict_json(text, MAX_REPORT)
    except ValueError as error:
        raise WeightsError(f"{source} is not JSON ({error}): train again.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{source} is not a JSON object: train again.")
    try:
        return _report_of(content)
    except (ValueError, TypeError, OverflowError) as error:
        raise WeightsError(f"{source} is not as train_model.py writes it: {error}; train again.") from error


def _report_of(content: dict[str, Any]) -> TrainingReport:
    """Return the report in a JSON object.

    Raises:
        TypeError, ValueError, OverflowError: a field is not as training writes it.
    """
    dataset = _field(content, "dataset", dict, {})
    return TrainingReport(
        weights_sha256=_field(content, "weights_sha256", str, None),
        training_job=_field(content, "training_job", str | None, None),
        finished=_time(_field(content, "finished", str, None)),
        classes=_field(content, "classes", list, None),
        preprocessing=_field(content, "preprocessing", dict, None),
        calibration=calibration_in(content),
        input_check=input_check_in(content),
        metrics=_figures(_field(content, "metrics", dict, {})),
        dataset=Dataset(_field(dataset, "fingerprint", str | None, None), _field(dataset, "images", dict, {})),
        settings=_field(content, "settings", dict, {}),
        calibrated_on=_field(content, "calibrated_on", dict | None, None),
        data_check=data_check_in(content),
        activations=activations_in(content),
        usual_evidence=usual_evidence_in(content),
    )


def _field(content: dict[str, Any], name: str, kind: type | UnionType, default: object) -> Any:  # noqa: ANN401
    """Return a field of this kind, or the default if it is missing."""
    if name in content and not isinstance(content[name], kind):
        raise TypeError(f"its {name} is {content[name]!r:.200}")
    return content.get(name, default)


def _time(text: str | None) -> datetime | None:
    """Return a time in UTC, as which one without a zone counts."""
    if text is None:
        return None
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _figures(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the figures of a training.

    Raises:
        ValueError: one of them is impossible.
    """
    for name, value in metrics.items():
        if not is_possible(name, value):
            raise ValueError(f"its {name} is {value!r:.200}, which is impossible")
    return {name: float(value) for name, value in metrics.items()}
