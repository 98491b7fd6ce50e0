"""Releases whose networks saw equalised histograms, and older ones, are each served as they were trained."""

import dataclasses
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from pneumonia.imaging.preprocessing import PLAIN, PREPROCESSING, preprocess
from pneumonia.network.classifier import Classifier
from pneumonia.network.resnet import ResNet18
from pneumonia.releases.loading import load
from pneumonia.releases.promotion import promote_to_folder
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.archives import REPORT, archive_of
from tests.builders.releases import manifest_for

XRAY = draw_radiograph(Random(0), "PNEUMONIA", 300)


def log_odds(model: Classifier, *, equalized: bool) -> float:
    """Return the calibrated log-odds of XRAY by the bare network."""
    logits = model.engine(preprocess(XRAY, equalized=equalized)).logits
    return float(np.diff(logits)[0, 0]) / model.calibration.temperature + model.calibration.bias


def answered(model: Classifier) -> float:
    """Return the log-odds of the model's answer to XRAY."""
    suspicion = model.predict(XRAY).probabilities["PNEUMONIA"]
    return float(np.log(suspicion / (1 - suspicion)))


@pytest.mark.parametrize(("preprocessing", "equalized"), [(PLAIN, False), (PREPROCESSING, True)])
def test_a_release_is_served_as_it_was_trained(
    preprocessing: dict[str, Any], weights: Path, tmp_path: Path, *, equalized: bool
) -> None:
    path = Path(shutil.copyfile(weights, tmp_path / weights.name))
    dataclasses.replace(manifest_for(path), preprocessing=preprocessing).write_beside(path)
    model = load(path)
    assert answered(model) == pytest.approx(log_odds(model, equalized=equalized), abs=1e-5)
    assert abs(log_odds(model, equalized=True) - log_odds(model, equalized=False)) > 2e-4


def test_weights_without_a_manifest_are_served_as_torchvisions_are(weights: Path, tmp_path: Path) -> None:
    model = load(shutil.copyfile(weights, tmp_path / "model.pth"))
    assert answered(model) == pytest.approx(log_odds(model, equalized=False), abs=1e-5)


@pytest.mark.parametrize(
    ("report", "preprocessing"),
    [
        (REPORT, PREPROCESSING),
        (REPORT | {"preprocessing": PLAIN}, PLAIN),
        ({name: value for name, value in REPORT.items() if name != "preprocessing"}, PLAIN),
    ],
    ids=["now", "until November 2026", "no word of it"],
)
def test_promotion_keeps_what_training_did(
    report: dict[str, Any], preprocessing: dict[str, Any], tmp_path: Path
) -> None:
    archive = archive_of(ResNet18().state_dict(), report, tmp_path)
    assert promote_to_folder(str(archive), tmp_path / "release").preprocessing == preprocessing
