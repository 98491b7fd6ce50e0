import dataclasses
import json
import math
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import pneumonia
from pneumonia.__main__ import main
from pneumonia.network.activations import TENSORS
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import MANIFEST_NAME, WEIGHTS_NAME
from pneumonia.network.data_check import DataCheck
from pneumonia.network.input_check import InputCheck
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.releases.manifest import Manifest
from pneumonia.releases.promotion import promote_to_folder
from pneumonia.releases.release import read_release
from pneumonia.training.calibrate import FIGURES, compare, cross_validated
from pneumonia.training.data_checking import PATIENTS_NEEDED
from pneumonia.training.fitting import fit_likelihood, suspicions
from pneumonia.training.synthetic import draw_dataset
from tests.builders.archives import make_archive, member
from tests.builders.checkout import PROJECT
from tests.builders.disk import full_after
from tests.builders.input_checks import INPUT_CHECK
from tests.builders.releases import USUAL, manifest_for


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many drawn X-rays as are needed, which the released model ranks well and calls NORMAL too often."""
    root = tmp_path_factory.mktemp("drawn")
    draw_dataset(root, {"mine": PATIENTS_NEEDED}, size=150)
    return root / "mine"


@pytest.fixture
def folder(xrays: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(xrays, tmp_path / "mine"))


def manifest_in(output: Path) -> Manifest:
    manifest = read_release(output / WEIGHTS_NAME).manifest
    assert manifest
    return manifest


def failure(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, check that it fails with one sentence, and return it."""
    assert main(["calibrate", *argv]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def calibrated(xrays: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("calibrated") / "new"
    assert main(["calibrate", str(RELEASED_WEIGHTS.parent), str(xrays), "--output", str(output)]) == 0
    return output


# The release


def test_release_has_the_same_weights_and_says_what_it_was_calibrated_on(calibrated: Path) -> None:
    before, after = read_release(RELEASED_WEIGHTS).manifest, manifest_in(calibrated)
    assert before
    assert (after.sha256, after.size, after.input_check) == (before.sha256, before.size, before.input_check)
    assert after.activations == before.activations
    assert after.version > before.version
    assert after.calibration != before.calibration
    assert after.calibrated_on
    assert len(after.calibrated_on.pop("dataset_fingerprint")) == 64
    assert after.calibrated_on == {
        "release": before.version,
        "folder": "mine",
        "images": {"NORMAL": PATIENTS_NEEDED, "PNEUMONIA": PATIENTS_NEEDED},
        "patients": 2 * PATIENTS_NEEDED,
        "rule": "lowest cross-entropy, both classes of equal weight",
    }
    assert sorted(after.metrics) == [
        "test_accuracy",
        "test_auroc",
        "test_loss",
        "val_accuracy",
        "val_auroc",
        "val_loss",
    ]


def test_release_answers_with_its_calibration(calibrated: Path, xrays: Path) -> None:
    path = next((xrays / "PNEUMONIA").iterdir())
    new, old = pneumonia.load(calibrated), pneumonia.load()
    odds = math.log(math.prod(p if n == "PNEUMONIA" else 1 / p for n, p in old.predict(path).probabilities.items()))
    bare = (odds - old.calibration.bias) * old.calibration.temperature
    expected = 1 / (1 + math.exp(-(bare / new.calibration.temperature + new.calibration.bias)))
    assert new.predict(path).probabilities["PNEUMONIA"] == pytest.approx(expected)
    assert new.predict(path).model_version == manifest_in(calibrated).version


@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "folder"])
def test_promotion_takes_it(calibrated: Path, tmp_path: Path, is_packed: bool) -> None:  # noqa: FBT001  # a parameter
    files = [(member(path.name), path.read_bytes()) for path in calibrated.iterdir()]
    source = make_archive(tmp_path / "model.tar.gz", files) if is_packed else calibrated
    promoted = promote_to_folder(str(source), tmp_path / "promoted")
    written = manifest_in(calibrated)
    assert (promoted.version, promoted.calibration) == (written.version, written.calibration)
    assert promoted.calibrated_on == written.calibrated_on


def test_documented_command_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = re.findall(
        r"^\.venv/bin/python -m pneumonia (calibrate .*)$", (PROJECT / "docs/training.md").read_text(), re.MULTILINE
    )
    folder.rename(tmp_path / "my_xrays")
    shutil.copytree(RELEASED_WEIGHTS.parent, tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(line)) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^{name} +[\d.]+ \([\d.]+ to [\d.]+\)", printed, re.MULTILINE) for name in FIGURES)
    assert "gain is shown: the cross-entropy changes by" in printed
    assert re.search(r"^Warning: \d+ of the images carry other warnings than uncertain:$", printed, re.MULTILINE)
    assert max(map(len, printed.splitlines())) <= 200
    assert manifest_in(tmp_path / "calibrated").calibrated_on


def test_weights_without_a_manifest_get_one(xrays: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copyfile(RELEASED_WEIGHTS, tmp_path / "foreign.pth"))
    assert main(["calibrate", str(copy), str(xrays), "--output", str(tmp_path / "new")]) == 0
    manifest = manifest_in(tmp_path / "new")
    assert manifest.calibrated_on
    assert manifest.calibrated_on["release"].startswith("sha256-")
    assert manifest.metrics == {}
    assert manifest.input_check is None


# Prevalence


def test_prevalence_alone_moves_the_bias_by_bayes_rule_and_twice_is_once(tmp_path: Path) -> None:
    before = read_release(RELEASED_WEIGHTS).manifest
    assert before
    for source, share, output in (
        (RELEASED_WEIGHTS.parent, "0.3", "a"),
        (tmp_path / "a", "0.1", "b"),
        (RELEASED_WEIGHTS.parent, "0.1", "c"),
    ):
        assert main(["calibrate", str(source), "--prevalence", share, "--output", str(tmp_path / output)]) == 0
    twice, once = (manifest_in(tmp_path / name).calibration for name in ("b", "c"))
    assert once.bias == pytest.approx(before.calibration.bias + math.log(0.1 / 0.9))
    assert twice.bias == pytest.approx(once.bias)
    assert (once.temperature, once.prevalence) == (before.calibration.temperature, 0.1)
    assert (once.uncertain_low, once.uncertain_high) == (
        before.calibration.uncertain_low,
        before.calibration.uncertain_high,
    )
    image = Image.new("L", (300, 300), 90)
    even, rare = (pneumonia.load(one).predict(image).probabilities for one in (None, tmp_path / "c"))
    odds = (even["PNEUMONIA"] / even["NORMAL"]) * (0.1 / 0.9)
    assert rare["PNEUMONIA"] == pytest.approx(odds / (1 + odds))


def test_prevalence_with_images_does_not_come_from_the_folder() -> None:
    generator = torch.Generator().manual_seed(0)
    pneumonia_images = torch.arange(400) < 100
    odds = torch.randn(400, generator=generator, dtype=torch.float64) + 2 * pneumonia_images
    even, rare = fit_likelihood(odds, pneumonia_images), fit_likelihood(odds, pneumonia_images, 0.1)
    assert (even.prevalence, rare.prevalence) == (0.5, 0.1)
    assert rare.bias - even.bias == pytest.approx(math.log(0.1 / 0.9))
    assert fit_likelihood(odds.repeat(2), pneumonia_images.repeat(2)).bias == pytest.approx(even.bias, abs=0.05)


@pytest.mark.parametrize("share", ["0", "1", "nan", "-0.1", "1.5", "inf"])
def test_prevalence_that_is_no_share_is_refused(share: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [str(RELEASED_WEIGHTS), f"--prevalence={share}", "--output", str(tmp_path / "new")]
    assert failure(argv, capsys) == f"--prevalence must be above 0 and below 1, not {share}.\n"
    with pytest.raises(ValueError, match="prevalence"):
        Calibration().at_prevalence(float(share))


def test_weights_without_a_calibration_have_nothing_to_move(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = failure([str(weights), "--prevalence", "0.1", "--output", str(tmp_path / "new")], capsys)
    assert "has no calibration to adapt: name a FOLDER" in sentence
    assert not (tmp_path / "new").exists()


# The figures


def test_figures_are_of_patients_that_a_calibration_was_not_fitted_on() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    odds = torch.randn(200, generator=generator, dtype=torch.float64) + labels
    patients = [f"patient{index // 4}" for index in range(200)]
    fitted: list[set[float]] = []

    def fit(part: torch.Tensor, _: torch.Tensor) -> Calibration:
        fitted.append(set(part.tolist()))
        return Calibration(bias=float(len(fitted)))

    found = cross_validated(odds, labels, patients, fit)
    fold = [round(bias) for bias in (found.logit() - odds).tolist()]
    assert set(fold) == {1, 2, 3, 4, 5}
    assert not any(value in fitted[number - 1] for value, number in zip(odds.tolist(), fold, strict=True))
    assert all(len({fold[index + step] for step in range(4)}) == 1 for index in range(0, 200, 4))


def test_compared_figures_are_those_counted_by_hand() -> None:
    before = torch.tensor([0.2, 0.6, 0.4, 0.9], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    own, _, change = compare(before, before, labels, list("abcd"), 0.5)
    values = dict(zip(FIGURES, (value for value, _, _ in own), strict=True))
    assert values["cross-entropy"] == pytest.approx(-sum(map(math.log, (0.8, 0.4, 0.4, 0.9))) / 4)
    assert values["Brier score"] == pytest.approx((0.04 + 0.36 + 0.36 + 0.01) / 4)
    assert values["ECE"] == pytest.approx((0.2 + 2 * 0.6 + 0.1) / 4)
    assert (values["sensitivity"], values["specificity"], values["balanced accuracy"]) == (0.5, 0.5, 0.5)
    assert change == [(0, 0, 0)] * len(FIGURES)
    rare = compare(before, before, labels, list("abcd"), 0.1)[0]
    assert rare[1][0] == pytest.approx(0.9 * 0.2 + 0.1 * 0.185)


@pytest.mark.parametrize("odds", [[-1.0, 1.0], [-1e4, 1e4], [5.0, 5.1], [-34.5, -34.4]])
def test_separated_classes_give_a_calibration(odds: list[float]) -> None:
    several = torch.tensor(odds, dtype=torch.float64).repeat_interleave(40)
    labels = torch.arange(2).repeat_interleave(40) == 1
    calibration = fit_likelihood(several, labels)
    assert torch.equal(suspicions(calibration, several) >= 0.5, labels)


# Faults


def test_too_few_patients_are_refused_with_the_numbers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next((folder / "NORMAL").iterdir()).unlink()
    sentence = failure([str(RELEASED_WEIGHTS), str(folder), "--output", str(tmp_path / "new")], capsys)
    assert f"has images of 34 patients in NORMAL, but a calibration needs {PATIENTS_NEEDED} of each class" in sentence
    for index, path in enumerate(sorted((folder / "PNEUMONIA").iterdir())):
        path.rename(path.with_name(f"person1_virus_{index}.jpeg"))
    sentence = failure([str(RELEASED_WEIGHTS), str(folder), "--output", str(tmp_path / "new")], capsys)
    assert "patients in" in sentence
    assert not (tmp_path / "new").exists()


def test_an_image_in_both_classes_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = next((folder / "NORMAL").iterdir())
    shutil.copyfile(image, folder / "PNEUMONIA" / "copy.jpeg")
    sentence = failure([str(RELEASED_WEIGHTS), str(folder), "--output", str(tmp_path / "new")], capsys)
    assert "The same image is in NORMAL and in PNEUMONIA, byte for byte " in sentence
    assert f"(mine/NORMAL/{image.name} and mine/PNEUMONIA/copy.jpeg): remove one of them." in sentence


def test_wrong_labels_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label, other in (("NORMAL", "a"), ("PNEUMONIA", "NORMAL"), ("a", "PNEUMONIA")):
        (folder / label).rename(folder / other)
    for index, path in enumerate([*folder.glob("*/*")]):
        path.rename(path.with_name(f"{index}.jpeg"))
    sentence = failure([str(RELEASED_WEIGHTS), str(folder), "--output", str(tmp_path / "new")], capsys)
    assert "no higher than the normal images (AUROC 0." in sentence


def test_a_broken_image_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next((folder / "NORMAL").iterdir())
    path.write_bytes(b"text")
    sentence = failure([str(RELEASED_WEIGHTS), str(folder), "--output", str(tmp_path / "new")], capsys)
    assert sentence.startswith(f"Images cannot be read, remove or replace them: mine/NORMAL/{path.name}")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["weights.pth"], "Name a FOLDER to calibrate on, or a --prevalence, or both."),
        (["weights.pth", "mine", "--output", "mine/new"], "The release would lie among the images"),
        (["weights.pth", "mine", "--output", "mine"], "mine exists already: name another folder with --output."),
        (["weights.pth", "mine", "--output", "weights.pth"], "weights.pth exists already: name another folder"),
        (["weights.pth", "mine", "--output", "s3://bucket"], "name a file or folder of this machine"),
        (["missing.pth", "mine"], "missing.pth does not exist: name a weights file"),
        (["weights.pth", "nowhere"], "nowhere is not a folder: name one with NORMAL and PNEUMONIA."),
        (["weights.pth", "mine", "--batch-size", "0"], "--batch-size must be above 0, not 0."),
    ],
)
def test_faults_are_told(
    argv: list[str],
    expected: str,
    weights: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder.parent)
    shutil.copyfile(weights, "weights.pth")
    assert expected in failure(argv, capsys)


def test_release_before_is_never_overwritten(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(RELEASED_WEIGHTS.parent, tmp_path / "weights")
    before = (tmp_path / "weights" / MANIFEST_NAME).read_bytes()
    argv = [str(tmp_path / "weights"), str(folder), "--output", str(tmp_path / "weights")]
    assert "exists already" in failure(argv, capsys)
    assert (tmp_path / "weights" / MANIFEST_NAME).read_bytes() == before
    assert json.loads(before)["calibration"]["bias"] < 0


def test_what_does_not_change_with_the_calibration_is_kept(tmp_path: Path) -> None:
    weights = Path(shutil.copyfile(RELEASED_WEIGHTS, tmp_path / WEIGHTS_NAME))
    before = dataclasses.replace(
        manifest_for(weights),
        input_check=InputCheck(**INPUT_CHECK),
        data_check=DataCheck({}, ["train and test share 17 patients."]),
        activations=dict.fromkeys(TENSORS, (-0.5, 2.0)),
        usual_evidence=USUAL,
    )
    before.write_beside(weights)
    argv = ["calibrate", str(tmp_path), "--prevalence", "0.1", "--output", str(tmp_path / "calibrated")]
    assert main(argv) == 0
    after = manifest_in(tmp_path / "calibrated")
    changed = ("version", "created", "calibration", "calibrated_on")
    assert after == dataclasses.replace(before, **{name: getattr(after, name) for name in changed})


def test_a_full_disk_leaves_no_half_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [str(RELEASED_WEIGHTS.parent), "--prevalence", "0.1", "--output", str(tmp_path / "calibrated")]
    with full_after(5_000_000):
        assert f"{WEIGHTS_NAME} cannot be read or written: File too large." in failure(argv, capsys)
    assert list(tmp_path.iterdir()) == []
