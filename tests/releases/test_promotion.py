import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumonia.errors import WeightsError
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from pneumonia.network.training_report import parse
from pneumonia.releases.promotion import manifest_for, promote_to_folder
from tests.builders.archives import CALIBRATION, REPORT, archive_of, make_archive, member, model_archive


@pytest.fixture
def archive(tmp_path: Path, weights: Path) -> Path:
    return model_archive(tmp_path, weights)


def test_same_archive_gives_the_same_version(archive: Path, tmp_path: Path) -> None:
    first, second = (promote_to_folder(str(archive), tmp_path / name) for name in ("a", "b"))
    assert first.version == second.version


def test_archive_without_a_report_is_promoted(tmp_path: Path, weights: Path) -> None:
    path = make_archive(tmp_path / "m.tar.gz", [(member(f"./{WEIGHTS_NAME}"), weights.read_bytes())])
    manifest = promote_to_folder(str(path), tmp_path / "released")
    assert (manifest.metrics, manifest.training_job, manifest.dataset_fingerprint) == ({}, None, None)
    assert manifest.calibration == Calibration()


def test_report_from_before_there_was_a_calibration_gives_the_default(weights: Path) -> None:
    report = {name: value for name, value in REPORT.items() if name != "calibration"}
    assert manifest_for(weights, parse(json.dumps(report), "training.json")).calibration == Calibration()


class RunsCode:
    """A pickle that leaves a file when it is loaded without care."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.proof),)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    path = make_archive(tmp_path / "model.tar.gz", [(member(WEIGHTS_NAME), pickle.dumps(RunsCode(proof)))])
    with pytest.raises(WeightsError, match=rf"^{WEIGHTS_NAME} in {path} is not a weights file"):
        promote_to_folder(str(path), tmp_path / "released")
    assert not proof.exists()


def test_weights_that_unpack_to_more_are_refused(tmp_path: Path) -> None:
    compressed = io.BytesIO()
    with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    path = make_archive(tmp_path / "model.tar.gz", [(member(WEIGHTS_NAME), compressed.getvalue())])
    with pytest.raises(WeightsError, match=rf"^{WEIGHTS_NAME} in {path} is compressed, which torch\.save never does"):
        promote_to_folder(str(path), tmp_path / "released")


def test_network_whose_outputs_are_not_finite_is_refused(tmp_path: Path) -> None:
    state = ResNet18().state_dict()
    state["layer4.1.bn2.weight"].fill_(3e35)  # every value is finite, but not what they give
    state["fc.weight"].fill_(1e4)
    path = archive_of(state, REPORT, tmp_path)
    with pytest.raises(WeightsError, match=r"outputs of the network in .* are not finite: training diverged"):
        promote_to_folder(str(path), tmp_path / "released")


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (REPORT | {"classes": ["PNEUMONIA", "NORMAL"]}, "was trained with classes"),
        (REPORT | {"preprocessing": {"resize": [256, 256]}}, "was trained with preprocessing"),
        (REPORT | {"finished": "yesterday"}, "not as train_model.py writes it"),
        (REPORT | {"finished": "0001-01-01T00:00:00+14:00"}, "not as train_model.py writes it"),
        (REPORT | {"finished": "9999-12-31T23:59:59-14:00"}, "not as train_model.py writes it"),
        (REPORT | {"dataset": "x"}, "not as train_model.py writes it"),
        (REPORT | {"metrics": {"test_loss": float("nan")}}, "is not JSON \\(it has the number nan\\)"),
        (REPORT | {"metrics": {"test_accuracy": 5}}, "its test_accuracy is 5, which is impossible"),
        (REPORT | {"metrics": "x"}, "not as train_model.py writes it"),
        (
            REPORT | {"calibration": {"bias": 0.5}},
            "not as train_model.py writes it: its calibration is .*, not the",
        ),
        (REPORT | {"calibration": CALIBRATION | {"uncertain_low": 0.6}}, "writes it: not a calibration: .* bias=-0.45"),
        (REPORT | {"input_check": {"mean": 1}}, "writes it: its input check has not all of mean, scale"),
        (REPORT | {"weights_sha256": "0" * 64}, "is of other weights"),
        ([], "not a JSON object"),
    ],
    ids=[
        *("classes", "preprocessing", "finished", "early", "late", "dataset", "nan", "figure", "metrics"),
        *("calibration", "order", "input check", "weights", "list"),
    ],
)
def test_report_of_another_kind_of_model_is_refused(tmp_path: Path, report: object, sentence: str) -> None:
    path = archive_of(ResNet18().state_dict(), report, tmp_path)
    with pytest.raises(WeightsError, match=sentence):
        promote_to_folder(str(path), tmp_path / "released")


def test_a_manifest_that_cannot_be_written_leaves_the_weights_before(archive: Path, tmp_path: Path) -> None:
    released = tmp_path / "released"
    (released / "manifest.json").mkdir(parents=True)
    (released / WEIGHTS_NAME).write_bytes(b"before")
    with pytest.raises(IsADirectoryError):
        promote_to_folder(str(archive), released)
    assert (released / WEIGHTS_NAME).read_bytes() == b"before"
    assert {path.name for path in released.iterdir()} == {"manifest.json", WEIGHTS_NAME}
