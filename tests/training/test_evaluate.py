import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from pneumonia.__main__ import main
from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.calibration import Calibration, calibration_in
from pneumonia.network.contract import CLASSES, WEIGHTS_NAME
from pneumonia.network.data_check import DataCheck
from pneumonia.network.resnet import ResNet18
from pneumonia.network.training_report import TrainingReport
from pneumonia.network.weights_file import save_weights
from pneumonia.releases.fetch import Weights
from pneumonia.serving.predictor import Predictor
from pneumonia.training.synthetic import draw_dataset
from tests.builders.checkout import PROJECT
from tests.builders.disk import full_after
from tests.builders.releases import manifest_for

PICTURES = ["confusion.png", "coverage.png", "mistakes.png", "reliability.png", "roc.png"]
FILES = sorted([*PICTURES, "evaluation.json", "predictions.csv"])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, each a patient, of another size than the network's; one of them has colours."""
    root = tmp_path_factory.mktemp("drawn")
    draw_dataset(root, {"test": 6}, size=150)
    for folder in (root / "test").iterdir():  # two patients, though their files' names tell none
        min(folder.iterdir()).rename(folder / "scan.jpeg")
    picture = Image.linear_gradient("L")
    Image.merge("RGB", (picture, picture.rotate(90), picture)).save(root / "test" / "NORMAL" / "IM-0006-0001.jpeg")
    return root / "test"


@pytest.fixture(scope="module")
def release(drawn: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file and a manifest whose calibration divides the images of `drawn`, half of them in doubt."""
    copy = Path(shutil.copyfile(weights, tmp_path_factory.mktemp("release") / WEIGHTS_NAME))
    manifest = dataclasses.replace(manifest_for(copy), calibration=Calibration(temperature=0.5))
    manifest.write_beside(copy)
    predictor = Predictor(Weights(copy))
    found = sorted(predictor.predict(path.read_bytes()).probabilities["PNEUMONIA"] for path in drawn.glob("*/*"))
    low, middle, high = ((found[index - 1] + found[index]) / 2 for index in (3, 6, 9))
    older = {"temperature": 0.5, "threshold": middle, "uncertain_low": low, "uncertain_high": high}
    dataclasses.replace(manifest, calibration=calibration_in({"calibration": older})).write_beside(copy)
    return copy


@pytest.fixture(scope="module")
def report(release: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("report") / "new" / "evaluation"
    assert (
        main(["evaluate", str(release), str(drawn), "--output", str(output), "--batch-size", "5", "--num-workers", "2"])
        == 0
    )
    return output


def rows_of(report: Path) -> list[dict[str, str]]:
    with (report / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_answer_is_the_one_that_serving_gives(report: Path, release: Path, drawn: Path) -> None:
    predictor = Predictor(Weights(release))
    rows = rows_of(report)
    assert [row["file"] for row in rows] == [str(path.relative_to(drawn)) for path in sorted(drawn.glob("*/*"))]
    for row in rows:
        served = predictor.predict((drawn / row["file"]).read_bytes())
        assert float(row["probability"]) == pytest.approx(served.probabilities["PNEUMONIA"], abs=1e-5)
        assert row["prediction"] == served.prediction
        assert row["uncertain"] == ("true" if served.warnings else "false")
        assert row["label"] == row["file"].partition("/")[0]
    assert {row["prediction"] for row in rows} == {"NORMAL", "PNEUMONIA"}
    assert [row["uncertain"] for row in rows].count("true") == 6


def test_the_report_tells_model_images_and_figures(report: Path, release: Path, drawn: Path) -> None:
    assert sorted(path.name for path in report.iterdir()) == FILES
    content = json.loads((report / "evaluation.json").read_text())
    rows = rows_of(report)
    labels = [row["label"] == "PNEUMONIA" for row in rows]
    right = [row["label"] == row["prediction"] for row in rows]
    certain = [correct for row, correct in zip(rows, right, strict=True) if row["uncertain"] == "false"]
    assert content["model_version"] == "20260102-030405-0a1b2c3d"
    assert content["weights_sha256"] == sha256(release)
    assert list(content["calibration"]) == [*("temperature", "bias", "uncertain_low", "uncertain_high", "prevalence")]
    assert content["folder"] == "test"
    assert len(content["dataset_fingerprint"]) == 64
    assert (content["images"], content["patients"]) == (12, 12)
    assert content["counts"] == {"NORMAL": 6, "PNEUMONIA": 6}
    assert content["accuracy"] == pytest.approx(sum(right) / 12)
    assert content["auroc"] == pytest.approx(roc_auc_score(labels, [float(row["probability"]) for row in rows]))
    assert content["doubt"]["uncertain_share"] == pytest.approx(6 / 12)
    assert content["doubt"]["accuracy_certain"] == pytest.approx(sum(certain) / 6)
    assert [point["share"] for point in content["coverage"]] == pytest.approx(
        [1, 1, 11 / 12, 10 / 12, 9 / 12, 8 / 12, 6 / 12]
    )
    assert content["coverage"][0]["accuracy"] == content["accuracy"]
    assert str(drawn) not in (report / "evaluation.json").read_text()


@pytest.mark.parametrize("name", PICTURES)
def test_the_report_has_pictures(report: Path, name: str) -> None:
    with Image.open(report / name) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width > 600


@pytest.mark.processes
def test_the_command_prints_a_table(weights: Path, drawn: Path, tmp_path: Path) -> None:
    """Into `evaluation/` where it is called; without a manifest, the model is named by its file's digest."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "pneumonia", "evaluate", str(weights), str(drawn)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "evaluation").iterdir()) == FILES
    content = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    low, high = content["intervals"]["auroc"]
    assert low < high
    assert content["sensitivity"] == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == f"test: 12 images, model sha256-{sha256(weights)[:12]}"
    assert "6 NORMAL, 6 PNEUMONIA, 12 patients" in lines
    assert f"AUROC {content['auroc']:.4f} {low:.4f} to {high:.4f}" in lines
    assert "sensitivity 0.0000 none, as no resample differs" in lines
    assert f"ECE {content['ece']:.4f}" in lines
    assert "NORMAL {NORMAL} {PNEUMONIA}".format(**content["confusion"]["NORMAL"]) in lines
    assert "PNEUMONIA {NORMAL} {PNEUMONIA}".format(**content["confusion"]["PNEUMONIA"]) in lines
    assert (
        "The answers are not calibrated: beside the weights there is no manifest with a calibration of them." in lines
    )
    assert "warning" not in result.stdout
    first, warning, *table = result.stdout.splitlines()
    assert warning.startswith("Warning: 2 of 12 file names tell no patient, such as NORMAL/scan.jpeg and PNEUMONIA/")
    assert content["warnings"] == [warning.removeprefix("Warning: ")]
    assert max(map(len, [first, *table])) <= 100


def test_the_table_tells_what_the_warnings_are_worth(
    release: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(release), str(drawn), "--output", str(tmp_path)]) == 0
    doubt = json.loads((tmp_path / "evaluation.json").read_text())["doubt"]
    printed = capsys.readouterr().out
    assert "not calibrated" not in printed
    assert (
        f"50.0% of the answers carry the warning uncertain: {doubt['accuracy_uncertain']:.1%} of them are right, and "
        f"{doubt['accuracy_certain']:.1%} of the others."
    ) in printed


FOUND = DataCheck({"train and test": {"patients": 17}}, ["train and test share 17 patients."])


def by_manifest(weights: Path) -> None:
    dataclasses.replace(manifest_for(weights), data_check=FOUND).write_beside(weights)


def by_report(weights: Path) -> None:
    TrainingReport(
        weights_sha256=sha256(weights),
        finished=datetime(2026, 1, 2, tzinfo=UTC),
        classes=list(CLASSES),
        preprocessing=PREPROCESSING,
        data_check=FOUND,
    ).write_beside(weights)


@pytest.mark.parametrize("write", [by_manifest, by_report])
def test_what_training_found_in_its_images_is_told(
    write: Callable[[Path], None], weights: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copyfile(weights, tmp_path / WEIGHTS_NAME))
    write(copy)
    assert main(["evaluate", str(copy), str(drawn), "--output", str(tmp_path / "report")]) == 0
    warning = "In the model's training: train and test share 17 patients."
    assert f"Warning: {warning}\n" in capsys.readouterr().out
    content = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert content["warnings"][-1] == warning


def test_patients_are_counted_by_a_pattern(weights: Path, drawn: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(weights), str(drawn), "--output", str(tmp_path), "--patients", "^[a-z]+"]) == 0
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["patients"] == 7  # 5 images called IM-…, which the pattern does not match; person; scan
    assert "5 of 12 file names tell no patient by --patients '^[a-z]+'" in content["warnings"][0]


def test_names_that_are_not_utf8_leave_the_table_readable(release: Path, drawn: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(drawn, tmp_path / "copy"))
    (copy / "NORMAL" / "scan.jpeg").rename(copy / "NORMAL" / os.fsdecode(b"bytes\xff\n.jpeg"))
    assert main(["evaluate", str(release), str(copy), "--output", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "predictions.csv").read_text(encoding="utf-8")
    assert r"$'NORMAL/bytes\xff\x0a.jpeg',NORMAL," in text


def test_an_earlier_report_is_replaced_and_the_fingerprint_is_the_images(
    report: Path, weights: Path, drawn: Path, tmp_path: Path
) -> None:
    (tmp_path / "roc.png").write_bytes(b"old")
    shutil.copytree(drawn, tmp_path / "elsewhere")
    assert main(["evaluate", str(weights), str(tmp_path / "elsewhere"), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "roc.png").read_bytes() != b"old"
    first, second = (json.loads((folder / "evaluation.json").read_text()) for folder in (report, tmp_path))
    assert first["dataset_fingerprint"] == second["dataset_fingerprint"]
    assert (first["folder"], second["folder"]) == ("test", "elsewhere")


# Faults


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "images"))


def failure(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, check that it fails with one sentence, and return it."""
    assert main(["evaluate", *argv]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_broken_image_is_named(
    weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "PNEUMONIA" / "person0_virus_1.jpeg"
    path.write_bytes(next(folder.glob("NORMAL/*")).read_bytes()[:500])
    sentence = failure([str(weights), str(folder), "--output", str(tmp_path / "report")], capsys)
    assert sentence.startswith("Images cannot be read, remove or replace them: images/PNEUMONIA/person0_virus_1.jpeg (")
    assert not (tmp_path / "report").exists()


def test_an_image_in_both_classes_is_named(
    weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = min((folder / "NORMAL").glob("IM-*"))
    shutil.copyfile(image, folder / "PNEUMONIA" / "copy.jpeg")
    argv = [str(weights), str(folder), "--output", str(tmp_path / "report")]
    assert f"(images/NORMAL/{image.name} and images/PNEUMONIA/copy.jpeg): remove" in failure(argv, capsys)
    assert not (tmp_path / "report").exists()


def test_a_folder_that_is_not_there_is_named(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = failure([str(weights), str(tmp_path / "nowhere"), "--output", str(tmp_path / "report")], capsys)
    assert sentence == f"{tmp_path / 'nowhere'} is not a folder: name one with NORMAL and PNEUMONIA.\n"


def test_both_classes_are_needed(
    weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (folder / "NORMAL").iterdir():
        path.unlink()
    sentence = failure([str(weights), str(folder), "--output", str(tmp_path / "report")], capsys)
    assert "There are no images in images/NORMAL" in sentence
    (folder / "NORMAL").rmdir()
    sentence = failure([str(weights), str(folder), "--output", str(tmp_path / "report")], capsys)
    assert "lacks NORMAL" in sentence


def test_missing_weights_are_named(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = failure([str(tmp_path / "none.pth"), str(drawn), "--output", str(tmp_path / "report")], capsys)
    assert (
        sentence == f"{tmp_path / 'none.pth'} does not exist: name a weights file, a folder with one, or s3://bucket.\n"
    )


def test_broken_weights_are_named(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.pth").write_bytes(b"text")
    sentence = failure([str(tmp_path / "broken.pth"), str(drawn), "--output", str(tmp_path / "report")], capsys)
    assert "broken.pth is not a weights file" in sentence


def test_network_without_finite_probabilities_is_told(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ResNet18().state_dict()
    state["layer4.1.bn2.weight"].fill_(3e35)  # every value is finite, but not what they give
    state["fc.weight"].fill_(1e4)
    save_weights(state, tmp_path / "model.pth")
    sentence = failure([str(tmp_path / "model.pth"), str(drawn), "--output", str(tmp_path / "report")], capsys)
    assert "gives no finite probabilities: promote another model." in sentence


@pytest.mark.parametrize("option", ["--batch-size", "--num-workers"])
def test_numbers_have_to_be_above_0(
    option: str, weights: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failure([str(weights), str(drawn), option, "0"], capsys) == f"{option} must be above 0, not 0.\n"


def test_the_report_is_not_written_among_the_images(
    weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training and the next evaluation would refuse the folder for having more than two classes."""
    monkeypatch.chdir(folder)
    assert "name a folder elsewhere with --output" in failure([str(weights), "."], capsys)
    assert sorted(path.name for path in folder.iterdir()) == ["NORMAL", "PNEUMONIA"]


def test_a_file_in_place_of_the_reports_folder_is_named(
    weights: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report").touch()
    sentence = failure([str(weights), str(drawn), "--output", str(tmp_path / "report")], capsys)
    assert sentence == f"{tmp_path / 'report'} cannot be read or written: File exists.\n"


def test_a_full_disk_is_told_with_the_file(
    weights: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_after(500):
        sentence = failure([str(weights), str(drawn), "--output", str(tmp_path)], capsys)
    assert sentence.startswith(f"{tmp_path / 'evaluation.json'} cannot be read or written: File too large.")
    assert not list(tmp_path.iterdir())
