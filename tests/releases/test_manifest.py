import contextlib
import dataclasses
import json
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumonia.errors import WeightsError
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.activations import TENSORS
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import CLASSES
from pneumonia.network.data_check import DataCheck
from pneumonia.network.figures import is_possible
from pneumonia.releases.manifest import Manifest, OnnxFile, parse, released
from pneumonia.releases.version import is_version
from tests.builders.json_values import JSON_VALUES
from tests.builders.releases import CALIBRATION, USUAL, manifest_for

OLDER = {"temperature": 1.37, "threshold": 0.61, "uncertain_low": 0.4, "uncertain_high": 0.8}  # from before the bias
NAMES = {field.name for field in dataclasses.fields(Manifest)}
MANIFEST: dict[str, Any] = {
    "version": "20260102-030405-0a1b2c3d",
    "sha256": "f" * 64,
    "size": 22_448_843,
    "classes": list(CLASSES),
    "preprocessing": PREPROCESSING,
    "metrics": {"test_accuracy": 0.95},
    "training_job": None,
    "dataset_fingerprint": None,
    "created": "2026-01-02T03:04:05+00:00",
}
ONNX: dict[str, Any] = {"sha256": "e" * 64, "size": 11_300_000, "precision": "int8", "calibration": None}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    return path


def test_json_is_read_back(file: Path) -> None:
    manifest = manifest_for(file)
    assert parse(manifest.to_json(), "here") == manifest


def test_fields_of_a_later_version_are_left_out(file: Path) -> None:
    manifest = manifest_for(file)
    text = json.dumps(dataclasses.asdict(manifest) | {"temperature": 1.5})
    assert parse(text, "here") == manifest


def test_manifest_from_before_there_was_a_calibration_has_the_default(file: Path) -> None:
    manifest = manifest_for(file)
    content = dataclasses.asdict(manifest)
    del content["calibration"]
    assert parse(json.dumps(content), "here") == dataclasses.replace(manifest, calibration=Calibration())


def test_manifest_says_what_it_was_calibrated_on(file: Path) -> None:
    manifest = dataclasses.replace(manifest_for(file), calibrated_on={"folder": "mine"})
    assert parse(manifest.to_json(), "here") == manifest
    content = dataclasses.asdict(manifest)
    del content["calibrated_on"]
    assert parse(json.dumps(content), "here").calibrated_on is None
    with pytest.raises(WeightsError, match="its calibrated_on is 'mine'"):
        parse(json.dumps(content | {"calibrated_on": "mine"}), "here")


def test_manifest_says_what_training_found_in_its_images(file: Path) -> None:
    found = DataCheck({"train and test": {"patients": 17}}, ["train and test share 17 patients."])
    manifest = dataclasses.replace(manifest_for(file), data_check=found)
    assert parse(manifest.to_json(), "here") == manifest
    content = dataclasses.asdict(manifest)
    del content["data_check"]
    assert parse(json.dumps(content), "here").data_check is None
    with pytest.raises(WeightsError, match="its data_check is \\['17'\\]"):
        parse(json.dumps(content | {"data_check": ["17"]}), "here")


def test_manifest_says_which_onnx_file_lies_beside_it(file: Path) -> None:
    manifest = dataclasses.replace(manifest_for(file), onnx=OnnxFile("e" * 64, 22_400_000, "half"))
    assert parse(manifest.to_json(), "here") == manifest
    content = json.loads(manifest.to_json())
    content["onnx"]["size"] += 1
    with pytest.raises(WeightsError, match="its manifest_sha256 does not fit"):
        parse(json.dumps(content), "here")


def test_manifest_from_before_there_was_an_onnx_file_has_none(file: Path) -> None:
    content = dataclasses.asdict(manifest_for(file))
    del content["onnx"]
    assert parse(json.dumps(content), "here") == manifest_for(file)


def test_manifest_has_the_ranges_that_training_recorded() -> None:
    ranges = dict.fromkeys(TENSORS, (-0.5, 2.0))
    manifest = parse(json.dumps(MANIFEST | {"activations": ranges}), "here")
    assert manifest.activations == ranges
    assert parse(manifest.to_json(), "here") == manifest
    with pytest.raises(WeightsError, match="the range of its activation pixels is"):
        parse(json.dumps(MANIFEST | {"activations": ranges | {"pixels": [1, 0]}}), "here")


def test_manifest_has_the_usual_evidence_that_training_measured() -> None:
    manifest = parse(json.dumps(MANIFEST | {"usual_evidence": USUAL}), "here")
    assert manifest.usual_evidence == USUAL
    assert parse(manifest.to_json(), "here") == manifest
    assert parse(json.dumps(MANIFEST), "here").usual_evidence is None
    with pytest.raises(WeightsError, match=r"its usual evidence is \[.*, not 7 rows of 7 finite numbers\): promote"):
        parse(json.dumps(MANIFEST | {"usual_evidence": USUAL[1:]}), "here")


@pytest.mark.parametrize(
    "broken",
    [
        *({"sha256": "E" * 64}, {"sha256": None}, {"size": 0}, {"size": True}, {"size": 10**12}, {"size": "5"}),
        *({"precision": "double"}, {"precision": None}, {"precision": ["half"]}),
    ],
)
def test_an_onnx_file_that_cannot_be_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"^here is not a valid manifest \(.*\): promote the model again\.$"):
        parse(json.dumps(MANIFEST | {"onnx": ONNX | broken}), "here")


@pytest.mark.parametrize("other", [{}, [], "pneumonia_classifier.onnx", 1, True])
def test_what_describes_no_onnx_file_is_refused(other: object) -> None:
    with pytest.raises(WeightsError, match=r"^here is not a valid manifest \(its onnx is "):
        parse(json.dumps(MANIFEST | {"onnx": other}), "here")


def test_older_calibration_with_an_operating_point_is_read(file: Path) -> None:
    content = dataclasses.asdict(manifest_for(file)) | {"calibration": OLDER}
    calibration = parse(json.dumps(content), "here").calibration
    expected = Calibration(1.37, math.log(0.39 / 0.61), 0.156 / 0.522, 0.312 / 0.434)
    assert dataclasses.astuple(calibration) == pytest.approx(dataclasses.astuple(expected))


@pytest.mark.parametrize(
    "calibration",
    [
        None,
        [1.37, -0.45, 0.3, 0.7],
        {"temperature": 1.37, "bias": -0.45, "uncertain_low": 0.3},
        dataclasses.asdict(CALIBRATION) | {"bias": "-0.45"},
        dataclasses.asdict(CALIBRATION) | {"bias": None},
        dataclasses.asdict(CALIBRATION) | {"bias": float("nan")},
        dataclasses.asdict(CALIBRATION) | {"bias": float("inf")},
        dataclasses.asdict(CALIBRATION) | {"uncertain_low": 0.6},
        dataclasses.asdict(CALIBRATION) | {"temperature": True},
        dataclasses.asdict(CALIBRATION) | {"temperature": 0},
        dataclasses.asdict(CALIBRATION) | {"temperature": 1e-320},
        dataclasses.asdict(CALIBRATION) | {"temperature": 10**400},
        dataclasses.asdict(CALIBRATION) | {"prevalence": 1},
        dataclasses.asdict(CALIBRATION) | {"prevalence": None},
        {"temperature": 1.37, "threshold": 0.61, "uncertain_low": 0.4},
        OLDER | {"threshold": "0.61"},
        OLDER | {"threshold": float("nan")},
        OLDER | {"threshold": 0.3},
    ],
    ids=[
        *(
            "null",
            "list",
            "missing",
            "text",
            "none",
            "nan",
            "infinite",
            "order",
            "boolean",
            "zero",
            "tiny",
            "huge",
            "certain",
            "no share",
        ),
        *("older, missing", "older, text", "older, nan", "older, order"),
    ],
)
def test_calibration_that_is_none_is_refused(file: Path, calibration: object) -> None:
    content = dataclasses.asdict(manifest_for(file)) | {"calibration": calibration}
    with pytest.raises(WeightsError, match=r"^here is not a valid manifest \(.*\): promote the model again"):
        parse(json.dumps(content), "here")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"version": "1"}', "\xff"])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match=r"^s3://b/manifest\.json is not a valid manifest .*promote the model"):
        parse(text.encode("latin-1"), "s3://b/manifest.json")


@pytest.mark.parametrize("version", [5, None, ["1"]])
def test_version_that_is_no_name_is_refused(weights: Path, version: object) -> None:
    content = json.loads(manifest_for(weights).to_json()) | {"version": version}
    with pytest.raises(WeightsError, match="is not a valid manifest"):
        parse(json.dumps(content), "manifest.json")


def test_any_flipped_bit_is_noticed_or_changes_nothing(weights: Path) -> None:
    manifest = dataclasses.replace(manifest_for(weights), onnx=OnnxFile("e" * 64, 5, "int8"))
    text = manifest.to_json().encode()
    for place in range(len(text)):
        for bit in range(8):
            flipped = bytearray(text)
            flipped[place] ^= 1 << bit
            with contextlib.suppress(WeightsError):
                assert parse(bytes(flipped), "here") == manifest


def test_manifest_that_was_edited_says_so(weights: Path) -> None:
    content = json.loads(manifest_for(weights).to_json())
    content["calibration"]["bias"] = 0.5
    with pytest.raises(WeightsError, match="its manifest_sha256 does not fit: it is damaged, or was edited"):
        parse(json.dumps(content), "here")
    del content["manifest_sha256"]
    assert parse(json.dumps(content, sort_keys=True), "here").calibration.bias == 0.5


def test_endless_nesting_is_refused() -> None:
    with pytest.raises(WeightsError, match="is not a valid manifest"):
        parse("[" * 200_000, "manifest.json")


def read(content: object) -> Manifest | WeightsError:
    """Return the manifest in this content, or the refusal."""
    try:
        return parse(json.dumps(content), "here")
    except WeightsError as error:
        return error


@given(st.sampled_from([*sorted(NAMES), "other"]), JSON_VALUES)
def test_a_field_is_as_it_must_be_or_the_manifest_is_refused_in_one_line(name: str, value: object) -> None:
    manifest = read(MANIFEST | {name: value})
    if isinstance(manifest, WeightsError):
        assert str(manifest).isprintable()
        return
    assert parse(manifest.to_json(), "here") == manifest
    assert re.fullmatch("[0-9a-f]{64}", manifest.sha256)
    assert is_version(manifest.version)
    assert manifest.size > 0
    assert all(isinstance(name, str) for name in manifest.classes)
    assert all(is_possible(name, figure) for name, figure in manifest.metrics.items())
    assert isinstance(manifest.preprocessing, dict)
    assert datetime.fromisoformat(manifest.created)
    assert all(isinstance(text, str | None) for text in (manifest.training_job, manifest.dataset_fingerprint))


@pytest.mark.parametrize("name", MANIFEST)
def test_a_field_that_every_manifest_has_is_missed(name: str) -> None:
    with pytest.raises(WeightsError, match=f"it has no {name}"):
        parse(json.dumps({other: value for other, value in MANIFEST.items() if other != name}), "here")


@pytest.mark.parametrize(
    "broken",
    [
        *({"sha256": "F" * 64}, {"sha256": "f" * 63}, {"sha256": "f" * 64 + "\n"}, {"sha256": None}),
        *({"size": 0}, {"size": -1}, {"size": True}, {"size": 5.0}, {"size": 10**12}, {"size": "5"}),
        *({"classes": "NORMAL"}, {"classes": [1]}, {"preprocessing": []}, {"metrics": []}, {"metrics": None}),
        *({"created": "yesterday"}, {"created": 1}, {"created": None}, {"training_job": 1}, {"forced": ["x"]}),
        *({"dataset_fingerprint": 1}, {"version": "a/b"}, {"calibrated_on": {"x": float("nan")}}),
    ],
)
def test_a_field_that_is_another_kind_of_thing_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"^here is not a valid manifest \(.*\): promote the model again\.$"):
        parse(json.dumps(MANIFEST | broken), "here")


def test_figures_that_cannot_be_are_not_reported() -> None:
    impossible = {"test_accuracy": 5, "test_auroc": 88.0, "val_auroc": -0.1, "val_loss": -1, "x": True, "y": "0.9"}
    manifest = parse(json.dumps(MANIFEST | {"metrics": impossible | {"test_sensitivity": 1, "test_loss": 7}}), "here")
    assert manifest.metrics == {"test_sensitivity": 1.0, "test_loss": 7.0}


def test_a_manifest_under_the_name_of_another_release_is_refused() -> None:
    text = json.dumps(MANIFEST)
    assert released(text, "here", MANIFEST["version"]).version == MANIFEST["version"]
    with pytest.raises(WeightsError, match=r"^here is of version 20260102-030405-0a1b2c3d: promote the model again"):
        released(text, "here", "20260102-030405-0a1b2c3e")
