import dataclasses
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumonia.errors import WeightsError
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.activations import TENSORS
from pneumonia.network.calibration import Calibration
from pneumonia.network.data_check import DataCheck
from pneumonia.network.figures import is_possible
from pneumonia.network.input_check import InputCheck
from pneumonia.network.training_report import Dataset, TrainingReport, parse
from tests.builders.checkout import PROJECT
from tests.builders.input_checks import INPUT_CHECK
from tests.builders.json_values import JSON_VALUES
from tests.builders.releases import USUAL

REPORT = TrainingReport(
    weights_sha256="0" * 64,
    training_job="pneumonia-training-1",
    finished=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    classes=["NORMAL", "PNEUMONIA"],
    preprocessing=PREPROCESSING,
    calibration=Calibration(1.37, -0.45, 0.3, 0.7),
    input_check=InputCheck(**INPUT_CHECK),
    metrics={"val_loss": 0.1, "test_accuracy": 0.95},
    dataset=Dataset("f" * 64, {"train": {"NORMAL": 5, "PNEUMONIA": 4}}),
    settings={"epochs": 2, "weights": "imagenet"},
    data_check=DataCheck(
        {"train and test": {"images": 1, "patients": 2}}, ["train and test share 1 image and 2 patients."]
    ),
    activations=dict.fromkeys(TENSORS, (-0.5, 2.0)),
    usual_evidence=USUAL,
)


def ranges(ends: object) -> dict[str, object]:
    """Return the same range for all tensors."""
    return dict.fromkeys(TENSORS, ends)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    REPORT.write_beside(tmp_path / "weights.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["training.json"]
    assert parse((tmp_path / "training.json").read_bytes(), "here") == REPORT


def test_json_has_what_trainings_have_written_before() -> None:
    text = REPORT.to_json()
    expected = {
        "weights_sha256": "0" * 64,
        "training_job": "pneumonia-training-1",
        "finished": "2026-01-02T03:04:05+00:00",
        "classes": ["NORMAL", "PNEUMONIA"],
        "preprocessing": PREPROCESSING,
        "calibration": {
            "temperature": 1.37,
            "bias": -0.45,
            "uncertain_low": 0.3,
            "uncertain_high": 0.7,
            "prevalence": 0.5,
        },
        "input_check": INPUT_CHECK,
        "metrics": {"val_loss": 0.1, "test_accuracy": 0.95},
        "dataset": {"fingerprint": "f" * 64, "images": {"train": {"NORMAL": 5, "PNEUMONIA": 4}}},
        "settings": {"epochs": 2, "weights": "imagenet"},
        "calibrated_on": None,
        "data_check": {
            "shared": {"train and test": {"images": 1, "patients": 2}},
            "warnings": ["train and test share 1 image and 2 patients."],
        },
        "activations": {name: [-0.5, 2.0] for name in TENSORS},
        "usual_evidence": [list(row) for row in USUAL],
    }
    assert text == json.dumps(expected, indent=2) + "\n"


def test_every_field_may_be_missing() -> None:
    assert parse("{}", "here") == TrainingReport()
    content = json.loads(REPORT.to_json())
    for field in dataclasses.fields(TrainingReport):
        rest = {name: value for name, value in content.items() if name != field.name}
        default = getattr(TrainingReport(), field.name)
        assert parse(json.dumps(rest), "here") == dataclasses.replace(REPORT, **{field.name: default})


def test_unknown_fields_and_a_job_without_a_name_are_no_mistake() -> None:
    content = json.loads(REPORT.to_json()) | {"training_job": None, "input_check": None, "new": 1}
    expected = dataclasses.replace(REPORT, training_job=None, input_check=None)
    assert parse(json.dumps(content), "here") == expected


def test_time_is_taken_as_utc() -> None:
    report = parse('{"finished": "2026-01-02T05:04:05+02:00"}', "here")
    assert f"{report.finished:%H:%M}" == "03:04"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights_sha256", None),
        ("training_job", 1),
        ("finished", None),
        ("finished", "yesterday"),
        ("finished", "0001-01-01T00:00:00+14:00"),
        ("classes", "NORMAL"),
        ("preprocessing", None),
        ("calibration", None),
        ("calibration", {"temperature": 0, "bias": 0, "uncertain_low": 0.5, "uncertain_high": 0.5}),
        ("input_check", []),
        ("metrics", None),
        ("metrics", {"val_loss": -0.1}),
        ("metrics", {"test_accuracy": 5}),
        ("metrics", {"test_auroc": 88.0}),
        ("metrics", {"test_sensitivity": -0.1}),
        ("metrics", {"test_accuracy": "0.9"}),
        ("metrics", {"test_accuracy": None}),
        ("metrics", {"val_loss": "0.5"}),
        ("metrics", {"val_loss": True}),
        ("metrics", {"val_loss": 10**400}),
        ("dataset", "x"),
        ("dataset", {"fingerprint": 1}),
        ("dataset", {"images": []}),
        ("settings", []),
        ("data_check", []),
        ("data_check", {"shared": {}}),
        ("data_check", {"shared": {"train and test": 3}, "warnings": []}),
        ("data_check", {"shared": {"train and test": {"images": True}}, "warnings": []}),
        ("data_check", {"shared": {}, "warnings": [1]}),
        ("activations", []),
        ("activations", {}),
        ("activations", ranges([0, 1]) | {"layer4.1.out": [0, 1]}),
        ("activations", {name: ends for name, ends in ranges([0, 1]).items() if name != "pixels"}),
        *[("activations", ranges(ends)) for ends in (1, [0], [0, 1, 2], [0, True], [1, 0], [0, 1e39], [0, 10**400])],
        ("usual_evidence", {}),
        ("usual_evidence", USUAL[:6]),
        ("usual_evidence", [*USUAL[:6], [1.0] * 8]),
        ("usual_evidence", [*USUAL[:6], "1234567"]),
        *[("usual_evidence", [*USUAL[:6], [one] * 7]) for one in (None, True, "1", [1.0], 1e39, -(10**400))],
    ],
)
def test_a_field_that_training_never_writes_is_refused(field: str, value: object) -> None:
    content: dict[str, Any] = json.loads(REPORT.to_json()) | {field: value}
    with pytest.raises(WeightsError, match=r"^here is not as train_model\.py writes it: .+; train again\.$"):
        parse(json.dumps(content), "here")


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100_000])
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(WeightsError, match=r"^here is not JSON \(.*\): train again\.$"):
        parse(text, "here")


@pytest.mark.parametrize("text", ["[]", "null", "1"])
def test_json_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match=r"^here is not a JSON object: train again\.$"):
        parse(text, "here")


@pytest.mark.processes
def test_reading_a_report_does_not_need_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; import pneumonia.network.training_report"
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=PROJECT, check=True)


@given(st.sampled_from(sorted(json.loads(REPORT.to_json()))), JSON_VALUES)
def test_a_field_is_as_training_writes_it_or_the_report_is_refused_in_one_line(name: str, value: object) -> None:
    content = json.loads(REPORT.to_json()) | {name: value}
    try:
        report = parse(json.dumps(content), "here")
    except WeightsError as error:
        sentence = str(error)
    else:
        sentence = ""
        assert parse(report.to_json(), "here") == report
        assert all(is_possible(name, figure) for name, figure in report.metrics.items())
    assert sentence.isprintable()


def test_what_names_files_that_are_no_text_can_be_read() -> None:
    check = DataCheck({}, ["train/NORMAL/\udcff.png and test/NORMAL/ä.png are the same image."])
    report = dataclasses.replace(REPORT, data_check=check, settings={"weights": "\udcff.pth"})
    told = parse(report.to_json(), "here")
    assert told.settings == {"weights": "?.pth"}
    assert told.data_check
    assert told.data_check.warnings == ["train/NORMAL/?.png and test/NORMAL/ä.png are the same image."]
