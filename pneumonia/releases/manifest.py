"""The manifest: what a release says about itself, in `manifest.json` beside its weights file."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pneumonia.errors import WeightsError
from pneumonia.files import replacing
from pneumonia.network.activations import Ranges, activations_in
from pneumonia.network.calibration import Calibration, calibration_in
from pneumonia.network.contract import MANIFEST_NAME, MAX_WEIGHTS
from pneumonia.network.data_check import DataCheck, data_check_in
from pneumonia.network.figures import is_possible
from pneumonia.network.input_check import InputCheck, input_check_in
from pneumonia.network.usual_evidence import UsualEvidence, usual_evidence_in
from pneumonia.releases.version import is_version
from pneumonia.strict_json import json_text, strict_json

MAX_MANIFEST = 1024 * 1024  # bytes; the arrays of an input check have at most 300,000
PRECISIONS = ("single", "half", "int8")  # of an ONNX file's kernels
OWN_DIGEST = "manifest_sha256"  # the field by which a manifest is checked itself; older ones lack it


@dataclass(frozen=True)
class OnnxFile:
    """What a manifest says about the release's ONNX file.

    Attributes:
        sha256: the digest of the file, 64 hexadecimal digits.
        size: the size of the file in bytes.
        precision: how it holds the kernels: "single" or "half" for that precision, "int8" for 8-bit integers.
    """

    sha256: str
    size: int
    precision: str


@dataclass(frozen=True)
class Manifest:
    """What a release says about itself.

    Attributes:
        version: names the release; sorts by time.
        sha256: of the weights file, 64 hexadecimal digits.
        size: of the weights file, in bytes.
        classes: in the order of the network's outputs.
        preprocessing: what training did to the images, and inference has to do.
        metrics: figures of the training job, such as `val_accuracy` and `test_accuracy` (shares, 0 to 1).
        training_job: SageMaker's name of the job, None if it ran elsewhere.
        dataset_fingerprint: SHA-256 over which image was in which split and class, None if it is not known.
        created: when the release was made, ISO 8601, UTC.
        calibration: from the network's outputs to an answer; releases older than this field have the default.
        input_check: recognises images that are not chest X-rays; without it, no image gets that warning.
        calibrated_on: images, rule and former release of the calibration, if it is not from the training.
        data_check: what training counted in its images that makes its figures untrue; None in older releases.
        onnx: describes the ONNX file beside the weights file; None for an older release, which has none.
        activations: the activation ranges, for an ONNX file in 8-bit integers; None for an older release, whose ONNX
            file is in half precision.
        usual_evidence: of each position on validation images; heatmaps show what exceeds it. None for an older release,
            whose heatmaps show all evidence.
        forced: the objections to this release, if someone forced its promotion.
    """

    version: str
    sha256: str
    size: int
    classes: list[str]
    preprocessing: dict[str, Any]
    metrics: dict[str, float]
    training_job: str | None
    dataset_fingerprint: str | None
    created: str
    calibration: Calibration = dataclasses.field(default_factory=Calibration)
    input_check: InputCheck | None = None
    forced: str | None = None
    calibrated_on: dict[str, Any] | None = None
    data_check: DataCheck | None = None
    onnx: OnnxFile | None = None
    activations: Ranges | None = None
    usual_evidence: UsualEvidence | None = None

    def to_json(self) -> str:
        """Return indented JSON, with a digest of all that it says."""
        content = json.loads(json_text(dataclasses.asdict(self)))
        return json_text(content | {OWN_DIGEST: _digest(content)})

    def write_beside(self, weights: Path) -> None:
        """Write `manifest.json` into the folder of a weights file, whole or not at all."""
        with replacing(weights.with_name(MANIFEST_NAME)) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")


def released(text: str | bytes, source: str, version: str) -> Manifest:
    """Read the manifest of the release that lies under a version's name.

    Raises:
        WeightsError: not a manifest, or another release's, which was copied there.
    """
    manifest = parse(text, source)
    if manifest.version != version:
        raise WeightsError(f"{source} is of version {manifest.version}: promote the model again.")
    return manifest


def parse(text: str | bytes, source: str) -> Manifest:
    """Read a manifest; ignore fields that this version of the code does not know, and impossible figures.

    Args:
        text: JSON.
        source: where the text comes from, for the error's sentence.

    Raises:
        WeightsError: not a manifest.
    """
    try:
        return _manifest_in(strict_json(text, MAX_MANIFEST))
    except (ValueError, OverflowError) as error:
        raise WeightsError(f"{source} is not a valid manifest ({error}): promote the model again.") from error


def check_code(manifest: Manifest, classes: Sequence[str], preprocessing: Mapping[str, Any]) -> None:
    """Check that a release was trained for the classes and the preprocessing of this code.

    Raises:
        WeightsError: it was not: its answers would be wrong without notice.
    """
    if (manifest.classes, manifest.preprocessing) != (list(classes), preprocessing):
        raise WeightsError(
            f"Release {manifest.version} was trained for other classes or another preprocessing than this code's: "
            "deploy the code that it was trained with, or promote another model."
        )


def _manifest_in(content: object) -> Manifest:
    """Return the manifest in a JSON value.

    Raises:
        ValueError, OverflowError: it is none.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it is {content!r:.200}")  # noqa: TRY004  # one kind of error for all that it can be
    given: dict[str, Any] = {"forced": None, "calibrated_on": None} | content
    for name, is_right in FIELDS.items():
        if name not in given:
            raise ValueError(f"it has no {name}")
        if not is_right(given[name]):
            raise ValueError(f"its {name} is {given[name]!r:.200}")
    manifest = Manifest(
        **{name: given[name] for name in FIELDS},
        calibration=calibration_in(content),
        input_check=input_check_in(content),
        data_check=data_check_in(content),
        onnx=_onnx_in(content),
        activations=activations_in(content),
        usual_evidence=usual_evidence_in(content),
    )
    if OWN_DIGEST in content and content[OWN_DIGEST] != _digest(content):
        raise ValueError(f"its {OWN_DIGEST} does not fit: it is damaged, or was edited with that field left in")
    figures = {name: float(figure) for name, figure in manifest.metrics.items() if is_possible(name, figure)}
    return dataclasses.replace(manifest, metrics=figures)


def _onnx_in(content: dict[str, Any]) -> OnnxFile | None:
    """Return what a manifest says about the release's ONNX file, None if it has none.

    Raises:
        ValueError: it says something else.
    """
    if (given := content.get("onnx")) is None:
        return None
    if not isinstance(given, dict) or not all(is_right(given.get(name)) for name, is_right in OF_ONNX.items()):
        raise ValueError(f"its onnx is {given!r:.200}")
    return OnnxFile(**{name: given[name] for name in OF_ONNX})


def _digest(content: dict[str, Any]) -> str:
    told = {name: value for name, value in content.items() if name != OWN_DIGEST}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value))


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_WEIGHTS  # by type, as a bool would pass for an int


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _is_text_or_none(value: object) -> bool:
    return isinstance(value, str | None)


# What each field may be, those left out that have a module of their own.
FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "version": is_version,
    "sha256": _is_digest,
    "size": _is_size,
    "classes": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "preprocessing": lambda value: isinstance(value, dict),
    "metrics": lambda value: isinstance(value, dict),
    "training_job": _is_text_or_none,
    "dataset_fingerprint": _is_text_or_none,
    "created": _is_time,
    "forced": _is_text_or_none,
    "calibrated_on": lambda value: isinstance(value, dict | None),
}
OF_ONNX: Mapping[str, Callable[[Any], bool]] = {
    "sha256": _is_digest,
    "size": _is_size,
    "precision": PRECISIONS.__contains__,
}
