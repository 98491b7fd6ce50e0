"""Releases that both engines serve: the answers are the same, or the release is refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

import promote_model
from pneumonia.deadline import Deadline
from pneumonia.errors import WeightsError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import preprocess
from pneumonia.network.classifier import Classifier
from pneumonia.network.contract import MANIFEST_NAME, ONNX_NAME, WEIGHTS_NAME
from pneumonia.network.outputs import probes
from pneumonia.network.training_report import REPORT_NAME
from pneumonia.network.weights_file import load_weights, save_weights, save_whole
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.exporting import with_onnx
from pneumonia.releases.fetch import RELEASED_WEIGHTS, Weights
from pneumonia.releases.history import listing, rollback
from pneumonia.releases.layout import onnx_key
from pneumonia.releases.loading import classifier_of, load, release_at
from pneumonia.releases.manifest import parse
from pneumonia.releases.promotion import promote_to_folder
from pneumonia.releases.release import read_release
from pneumonia.releases.release_files import ReleaseFiles
from pneumonia.releases.trial import check_serving
from pneumonia.serving.api import create_app
from pneumonia.serving.predictor import Predictor
from tests.builders.archives import REPORT, archive_of, model_archive
from tests.builders.images import XRAY
from tests.builders.networks import ranges_of, untrained
from tests.builders.releases import exported, manifest_for, publish, publish_files
from tools.stand_ins.moto import Moto


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that looks trained, and answers with some doubt."""
    path = tmp_path_factory.mktemp("trained") / WEIGHTS_NAME
    save_weights(untrained().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def files(trained: Path) -> ReleaseFiles:
    return exported(trained, manifest_for(trained, "2"))


@pytest.fixture
def _onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE", "onnx")


def suspicions(model: Classifier) -> np.ndarray:
    """Return P(PNEUMONIA) of an X-ray, noise, a black and a white image."""
    pixels = np.concatenate([preprocess(decode(XRAY).image), probes()])
    return np.array([answer.probabilities["PNEUMONIA"] for answer in model.answers(pixels)])


def test_a_promoted_folder_answers_the_same_by_both_engines(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = model_archive(tmp_path, trained)
    manifest = promote_to_folder(str(archive), tmp_path / "released")
    assert {path.name for path in (tmp_path / "released").iterdir()} == {WEIGHTS_NAME, ONNX_NAME, MANIFEST_NAME}
    models = []
    for engine in ("torch", "onnx"):
        monkeypatch.setenv("ENGINE", engine)
        models.append(load(tmp_path / "released"))
    assert [model.version for model in models] == [manifest.version] * 2
    assert models[0].calibration == models[1].calibration
    assert not any(model.is_foreign for model in models)
    assert np.abs(suspicions(models[0]) - suspicions(models[1])).max() < 1e-4


def test_the_same_archive_gives_the_same_onnx_file(tmp_path: Path, trained: Path) -> None:
    archive = model_archive(tmp_path, trained)
    first, second = (promote_to_folder(str(archive), tmp_path / name).onnx for name in ("a", "b"))
    assert first
    assert first == second
    assert first.precision == "half"
    assert first.size == (tmp_path / "a" / ONNX_NAME).stat().st_size < 22_500_000


def test_weights_in_single_precision_are_not_rounded(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    state = {name: tensor * 1.0001 if tensor.dim() > 1 else tensor for name, tensor in untrained().state_dict().items()}
    save_whole(state, tmp_path / "model" / WEIGHTS_NAME)  # as other programs do
    (tmp_path / "model" / REPORT_NAME).write_text(json.dumps(REPORT))
    manifest = promote_to_folder(str(tmp_path / "model"), tmp_path / "released")
    assert manifest.onnx
    assert manifest.onnx.precision == "single"
    torch, onnx = (classifier_of(release_at(tmp_path / "released", engine)) for engine in ("torch", "onnx"))
    assert np.abs(suspicions(torch) - suspicions(onnx)).max() < 1e-5


def test_an_int8_file_is_one_if_the_ranges_are_known(files: ReleaseFiles, trained: Path) -> None:
    ranges = ranges_of(load_weights(trained), probes())
    manifest = dataclasses.replace(files.manifest, activations=ranges)
    quantised = with_onnx(files.read_by("torch", "here"), manifest)
    check_serving(quantised, "here")
    told = quantised.manifest.onnx
    assert told
    assert told.precision == "int8"
    assert told.size < 12_000_000


def test_promotion_builds_the_file_in_int8_if_training_recorded_the_ranges(tmp_path: Path, trained: Path) -> None:
    network = load_weights(trained)
    ranges = ranges_of(network, preprocess(decode(XRAY).image))  # noise, among the probes, exceeds a film's
    archive = archive_of(network.state_dict(), REPORT | {"activations": ranges}, tmp_path)
    manifest = promote_to_folder(str(archive), tmp_path / "released")
    assert manifest.activations == ranges
    assert manifest.onnx
    assert manifest.onnx.precision == "int8"


def test_an_onnx_file_of_another_network_is_refused(bucket: str, files: ReleaseFiles, weights: Path) -> None:
    other = exported(weights, manifest_for(weights, "2"))
    mixed = ReleaseFiles(files.weights, other.onnx, dataclasses.replace(files.manifest, onnx=other.manifest.onnx))
    sentence = r"^The ONNX file of release 2 does not answer as its weights file does: P\(PNEUMONIA\) may differ"
    with pytest.raises(WeightsError, match=sentence):
        check_serving(mixed, "here")
    publish(weights, manifest_for(weights, "1"), bucket)
    WeightsBucket(bucket).add(mixed)
    with pytest.raises(WeightsError, match=sentence):
        rollback(bucket, "2")
    assert listing(bucket).splitlines()[-1].startswith("* 1 ")


@pytest.mark.parametrize("share", [0.3, 30.0])
def test_ranges_that_do_not_fit_the_network_are_refused(share: float) -> None:
    release = read_release(RELEASED_WEIGHTS, engine="torch")
    assert release.manifest
    assert release.manifest.activations
    ranges = {name: (low * share, high * share) for name, (low, high) in release.manifest.activations.items()}
    files = with_onnx(release, dataclasses.replace(release.manifest, activations=ranges))
    with pytest.raises(WeightsError, match="does not answer as its weights file does"):
        check_serving(files, "here")


@pytest.mark.parametrize("share", [0.3, 30.0])
def test_promotion_does_without_8_bit_integers_where_they_change_answers(
    share: float, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = parse(RELEASED_WEIGHTS.with_name(MANIFEST_NAME).read_bytes(), "the released manifest")
    assert released.activations
    ranges = {name: (low * share, high * share) for name, (low, high) in released.activations.items()}
    archive = archive_of(load_weights(RELEASED_WEIGHTS).state_dict(), REPORT | {"activations": ranges}, tmp_path)
    assert promote_model.main([str(archive), "--directory", str(tmp_path / "released")]) == 0
    manifest = read_release(tmp_path / "released" / WEIGHTS_NAME).manifest
    assert manifest
    assert manifest.onnx
    assert (manifest.onnx.precision, manifest.activations) == ("half", None)
    told = f"In 8-bit integers, the ONNX file of release {manifest.version} would not answer as its weights file does"
    assert told in caplog.text
    answers = []
    for engine in ("torch", "onnx"):
        monkeypatch.setenv("ENGINE", engine)
        answers.append(suspicions(load(tmp_path / "released")))
    assert np.abs(answers[0] - answers[1]).max() < 1e-4


def test_an_int8_file_of_another_network_is_refused(files: ReleaseFiles, weights: Path) -> None:
    ranges = ranges_of(load_weights(weights), probes())
    other = exported(weights, dataclasses.replace(manifest_for(weights, "2"), activations=ranges))
    mixed = ReleaseFiles(files.weights, other.onnx, dataclasses.replace(files.manifest, onnx=other.manifest.onnx))
    with pytest.raises(WeightsError, match=r"its features differ by \d\S* of their length, and at most 0\.5 is"):
        check_serving(mixed, "here")


@pytest.mark.usefixtures("_onnx")
def test_an_onnx_file_alone_is_foreign_and_says_so(files: ReleaseFiles, tmp_path: Path) -> None:
    assert files.onnx
    (tmp_path / "mine.onnx").write_bytes(files.onnx)
    model = load(tmp_path / "mine.onnx")
    assert model.is_foreign
    assert model.predict(XRAY).warnings[0] == "uncalibrated"


@pytest.mark.usefixtures("_onnx")
def test_what_is_no_onnx_file_of_this_network_is_refused(tmp_path: Path, trained: Path) -> None:
    for content in (trained.read_bytes(), b"", b"nonsense"):
        (tmp_path / "mine.onnx").write_bytes(content)
        with pytest.raises(WeightsError, match=r"mine\.onnx"):
            load(tmp_path / "mine.onnx")


@pytest.mark.usefixtures("_onnx")
def test_a_release_without_an_onnx_file_leaves_the_old_one_until_it_is_exported(
    bucket: str, files: ReleaseFiles, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_files(files, bucket)
    predictor = Predictor(Weights(tmp_path / "folder" / "model.onnx", bucket), refresh_minutes=0)

    def versions() -> list[str]:
        answered = []
        for _ in range(2):
            answered.append(predictor.predict(XRAY).model_version)
            predictor.finish_refresh(Deadline.after(60))
        return answered

    assert versions() == ["2", "2"]
    publish(weights, manifest_for(weights, "3"), bucket)
    capsys.readouterr()
    assert versions() == ["2", "2"]
    reasons = [json.loads(line)["reason"] for line in capsys.readouterr().out.splitlines() if "RefreshFailures" in line]
    sentence = f"Release 3 has no ONNX file, which the engine onnx reads: `promote_model.py export 3 --bucket {bucket}`"
    assert reasons == [f"{sentence} adds it."] * 2
    assert promote_model.main(["export", "3", "--bucket", bucket]) == 0
    assert versions() == ["2", "3"]


@pytest.mark.usefixtures("_onnx")
def test_a_new_instance_on_a_release_without_an_onnx_file_answers_503(
    bucket: str, weights: Path, tmp_path: Path
) -> None:
    publish(weights, manifest_for(weights, "3"), bucket)
    with TestClient(create_app(Predictor(Weights(tmp_path / "model.onnx", bucket)))) as client:
        response = client.post("/predict", files={"file": XRAY})
    assert response.status_code == 503
    assert response.json() == {
        "detail": "The model is unavailable, as release 3 has no ONNX file, which `promote_model.py export 3` adds. "
        "The server's log says more."
    }


def test_a_rollback_says_whom_the_release_does_not_serve(
    bucket: str, files: ReleaseFiles, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(weights, manifest_for(weights, "1"), bucket)
    publish_files(files, bucket)
    rows = listing(bucket).splitlines()
    assert rows[1].split()[:5] == ["*", "2", "0.9500", "-", "half"]
    assert rows[2].split()[:4] == ["1", "0.9500", "-", "-"]
    assert promote_model.main(["rollback", "--bucket", bucket]) == 0
    told = capsys.readouterr()
    assert told.out == f"s3://{bucket} serves 1 now, instead of 2: `rollback 2` takes that back.\n"
    assert told.err == (
        "It has no ONNX file. Functions with the engine onnx keep what they serve, but new instances answer 503 until "
        "`export 1` adds it.\n"
    )
    assert promote_model.main(["rollback", "2", "--bucket", bucket]) == 0
    assert capsys.readouterr().err == ""


def test_list_and_show_say_what_is_wrong_with_an_onnx_file(
    moto: Moto, bucket: str, files: ReleaseFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_files(files, bucket)
    assert promote_model.main(["show", "2", "--bucket", bucket]) == 0
    assert json.loads(capsys.readouterr().out)["onnx"]["precision"] == "half"
    moto.s3().put_object(Bucket=bucket, Key=onnx_key("2"), Body=b"damage")
    row = listing(bucket).splitlines()[1]
    assert "broken: its ONNX file has 6 bytes, not 22," in row
    assert row.endswith("`promote_model.py export 2` writes it anew.")
    assert promote_model.main(["show", "2", "--bucket", bucket]) == 1
    assert "is missing, or not what the manifest says: `promote_model.py export 2` writes" in capsys.readouterr().err
    assert promote_model.main(["export", "2", "--bucket", bucket]) == 0
    assert WeightsBucket(bucket).files("2") == files


@pytest.mark.parametrize("version", ["7", "../1"])
def test_an_export_of_no_release_is_told(bucket: str, version: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert promote_model.main(["export", version, "--bucket", bucket]) == 1
    assert capsys.readouterr().err == (f"s3://{bucket} has no release {version!r}: `list` shows those it has.\n")


def test_an_export_of_a_release_for_another_code_changes_nothing(
    moto: Moto, bucket: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = dataclasses.replace(manifest_for(weights, "1"), preprocessing={"resize": [256, 256]})
    publish(weights, manifest, bucket)
    assert promote_model.main(["export", "1", "--bucket", bucket]) == 1
    assert "was trained for other classes or another preprocessing" in capsys.readouterr().err
    assert onnx_key("1") not in moto.keys(bucket)
