import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest

import pneumonia
from pneumonia.network.contract import MANIFEST_NAME, WEIGHTS_NAME
from pneumonia.releases.release import read_release
from pneumonia.training.synthetic import draw_dataset
from tests.builders.releases import manifest_for
from tools.recalibrate import main


def answers(weights: Path, paths: list[Path]) -> list[pneumonia.Prediction]:
    model = pneumonia.load(weights)
    return [model.predict(path) for path in paths]


def test_classes_stay_and_the_manifest_gets_a_bias(weights: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path, {"val": 10})
    paths = sorted((tmp_path / "val").glob("*/*"))
    copy = Path(shutil.copyfile(weights, tmp_path / WEIGHTS_NAME))
    bare = sorted(one.probabilities["PNEUMONIA"] for one in answers(copy, paths))
    point = (bare[9] + bare[10]) / 2
    older = {"temperature": 1.0, "threshold": point, "uncertain_low": point, "uncertain_high": point}
    content = dataclasses.asdict(manifest_for(copy)) | {"calibration": older}
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(content))
    before = [one.prediction for one in answers(copy, paths)]
    assert main([str(copy), str(tmp_path / "val")]) == 0
    manifest = read_release(copy).manifest
    assert manifest
    assert [one.prediction for one in answers(copy, paths)] == before
    assert set(before) == {"NORMAL", "PNEUMONIA"}
    calibration = manifest.calibration
    assert -calibration.bias * calibration.temperature == pytest.approx(math.log(point / (1 - point)))
    assert "threshold" not in json.loads((tmp_path / MANIFEST_NAME).read_text())["calibration"]


def test_a_manifest_is_needed(weights: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copyfile(weights, tmp_path / WEIGHTS_NAME))
    with pytest.raises(SystemExit):
        main([str(copy), str(tmp_path)])
