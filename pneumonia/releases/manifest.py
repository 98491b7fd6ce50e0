"""The manifest: what a release says about itself, in `manifest.json` beside its weights file."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumonia.errors import WeightsError
from pneumonia.files import replacing, sha256
from pneumonia.network.calibration import Calibration, calibration_in
from pneumonia.network.input_check import InputCheck, input_check_in

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a release says about itself.

    Attributes:
        version: names the release; sorts by time.
        sha256: of the weights file, 64 hexadecimal digits.
        size: of the weights file, in bytes.
        classes: in the order of the network's outputs.
        preprocessing: what was done to the images in training, and has to be done in inference.
        metrics: figures of the training job, such as `val_accuracy` and `test_accuracy` (shares, 0 to 1).
        training_job: SageMaker's name of the job, None where it ran elsewhere.
        dataset_fingerprint: SHA-256 over which image was in which split and class, None where it is not known.
        created: when the release was made, ISO 8601, UTC.
        calibration: from the network's outputs to an answer; releases from before there was one have the default.
        input_check: tells images that are not chest X-rays; without it, none is told.
        forced: what spoke against this release, where someone promoted it nevertheless.
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

    def to_json(self) -> str:
        """Return indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def write_beside(self, weights: Path) -> None:
        """Write `manifest.json` into the folder of a weights file, whole or not at all."""
        with replacing(weights.with_name(MANIFEST_NAME)) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")


def parse(text: str | bytes, source: str) -> Manifest:
    """Read a manifest; fields that this version of the code does not know are left out.

    Args:
        text: JSON.
        source: where the text is from, for the error's sentence.

    Raises:
        WeightsError: not a manifest.
    """
    try:
        content = json.loads(text)
        if not isinstance(content["version"], str):
            raise TypeError(f"its version is {content['version']!r:.200}")
        content["calibration"] = calibration_in(content)
        content["input_check"] = input_check_in(content)
        content.setdefault("forced", None)
        return Manifest(**{field.name: content[field.name] for field in dataclasses.fields(Manifest)})
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise WeightsError(
            f"{source} is not a manifest that can be read ({error!r}): promote the model again."
        ) from error


@dataclass(frozen=True)
class Release:
    """What a weights file serves with: its version, and how the network's outputs become an answer."""

    version: str
    calibration: Calibration = dataclasses.field(default_factory=Calibration)
    input_check: InputCheck | None = None


def release_of(weights: Path, classes: Sequence[str], preprocessing: Mapping[str, Any]) -> Release:
    """Return what a weights file serves with.

    Without a manifest of its own, the file is named by its digest, the default calibration changes nothing, and no
    image gets the warning that it is not a chest X-ray.

    Args:
        weights: the file.
        classes: those of this code, in the order of the network's outputs.
        preprocessing: that of this code.

    Raises:
        WeightsError: its manifest is broken, or the release was made for other classes or preprocessing: its answers
            would be wrong, silently.
        OSError: the file cannot be read.
    """
    if manifest := manifest_of(weights):
        if (manifest.classes, manifest.preprocessing) != (list(classes), preprocessing):
            raise WeightsError(
                f"Release {manifest.version} was made for other classes or another preprocessing than this code has: "
                "deploy the code that it was trained with, or promote another model."
            )
        return Release(manifest.version, manifest.calibration, manifest.input_check)
    return Release(f"sha256-{sha256(weights)[:12]}")


def manifest_of(weights: Path) -> Manifest | None:
    """Return the manifest beside a weights file; None where there is none, or where it is of other weights.

    Raises:
        WeightsError: it is of these weights, and broken: without it they would answer otherwise, silently.
    """
    path = weights.with_name(MANIFEST_NAME)
    try:
        text = path.read_bytes()
    except OSError:
        return None
    try:
        manifest = parse(text, str(path))
    except WeightsError:
        if _digest_in(text) == sha256(weights):
            raise
        return None  # any file may be called so: what is no manifest of ours does not count
    return manifest if manifest.sha256 == sha256(weights) else None


def _digest_in(text: bytes) -> object:
    """Return what a text has as `sha256` where it is a JSON object, None where it has none."""
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(text)
        return content.get("sha256") if isinstance(content, dict) else None
    return None
