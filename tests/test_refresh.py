"""A warm process notices that the bucket serves another release."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import app
from pneumonia import WEIGHTS_NAME, store
from pneumonia.errors import ConfigurationError
from pneumonia.image import PREPROCESSING
from pneumonia.model import ResNet18, save_weights
from pneumonia.predictor import Predictor
from pneumonia.weights import Weights
from tests.conftest import Moto
from tests.test_manifest import manifest_for
from tests.test_telemetry import XRAY


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that call everything NORMAL."""
    state = ResNet18().state_dict()
    state["fc.bias"] = torch.tensor([1000.0, 0.0])
    path = tmp_path_factory.mktemp("other") / "other.pth"
    save_weights(state, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What stands for /tmp."""
    return tmp_path / "folder"


@pytest.fixture
def predictor(bucket: str, weights: Path, folder: Path) -> Iterator[Predictor]:
    """A warm predictor that has release 1 of the bucket, and looks for another at each prediction."""
    store.publish(weights, manifest_for(weights, "1"), bucket)
    predictor = Predictor(Weights(folder / "model.pth", bucket), refresh_minutes=0)
    assert version(predictor) == "1"
    yield predictor
    predictor.finish_refresh()
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.pth"]


def version(predictor: Predictor) -> str:
    """Return the release that answers a request; then Lambda would wait for what the request began."""
    answer = predictor.predict(XRAY)
    predictor.finish_refresh()
    return answer.model_version


def failures(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the reasons of the refreshes that failed since the last look."""
    return [json.loads(line)["reason"] for line in capsys.readouterr().out.splitlines() if "RefreshFailures" in line]


def test_another_release_is_taken_over_and_rolled_back(bucket: str, predictor: Predictor, other: Path) -> None:
    store.publish(other, manifest_for(other, "2"), bucket)
    assert [version(predictor) for _ in range(2)] == ["1", "2"]  # the request that notices is answered by the old one
    assert predictor.predict(XRAY).prediction == "NORMAL"
    releases = store.WeightsBucket(bucket)
    releases.serve("1", *releases.pointer())
    assert [version(predictor) for _ in range(2)] == ["2", "1"]


def test_the_same_release_is_not_fetched_again(moto: Moto, bucket: str, predictor: Predictor) -> None:
    for _ in range(3):
        assert version(predictor) == "1"
    asked = [request.removeprefix(f"GET /{bucket}/") for request in moto.requests() if f"GET /{bucket}/" in request]
    assert asked.count(f"releases/1/{WEIGHTS_NAME}") == 1
    assert asked.count("current.json") >= 4


def test_nothing_is_asked_before_it_is_time(moto: Moto, bucket: str, weights: Path, folder: Path) -> None:
    store.publish(weights, manifest_for(weights, "1"), bucket)
    predictor = Predictor(Weights(folder / "model.pth", bucket), refresh_minutes=60)
    for _ in range(3):
        version(predictor)
    asked = [request for request in moto.requests() if request == f"GET /{bucket}/current.json"]
    assert len(asked) == 1 + 1  # publishing asks once as well


def test_a_release_that_cannot_be_used_leaves_the_old_one_and_is_counted(
    moto: Moto, bucket: str, predictor: Predictor, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.publish(other, manifest_for(other, "2"), bucket)
    key = f"releases/2/{WEIGHTS_NAME}"
    whole = other.read_bytes()
    for content, reason in ((whole[:-1] + b"x", "but its manifest says"), (b"", "but its manifest says")):
        moto.s3().put_object(Bucket=bucket, Key=key, Body=content)
        assert [version(predictor) for _ in range(2)] == ["1", "1"]
        assert [reason in failure for failure in failures(capsys)] == [True, True]
    moto.s3().put_object(Bucket=bucket, Key=key, Body=whole)
    assert [version(predictor) for _ in range(2)] == ["1", "2"]
    assert failures(capsys) == []


def test_a_release_for_another_code_leaves_the_old_one(
    bucket: str, predictor: Predictor, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = dataclasses.replace(manifest_for(other, "2"), preprocessing=PREPROCESSING | {"resize": [256, 256]})
    store.publish(other, manifest, bucket)
    assert [version(predictor) for _ in range(2)] == ["1", "1"]
    assert "was made for other classes or another preprocessing" in failures(capsys)[0]


def test_a_release_whose_outputs_are_no_numbers_leaves_the_old_one(
    bucket: str, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ResNet18().state_dict()
    state["layer4.1.bn2.weight"].fill_(3e35)
    state["fc.weight"].fill_(1e4)
    path = tmp_path / "broken.pth"
    save_weights(state, path)
    store.publish(path, manifest_for(path, "2"), bucket)
    assert [version(predictor) for _ in range(2)] == ["1", "1"]
    assert failures(capsys)[0].startswith("The outputs of the network in release 2 are not finite")


def test_a_bucket_that_is_gone_or_broken_leaves_the_old_one(
    moto: Moto,
    bucket: str,
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    moto.s3().put_object(Bucket=bucket, Key="current.json", Body=b"nonsense")
    assert version(predictor) == "1"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert version(predictor) == "1"
    broken, gone = failures(capsys)
    assert "current.json names no version" in broken
    assert "Connection refused" in gone


def test_without_a_bucket_nothing_is_looked_for(weights: Path) -> None:
    predictor = Predictor(Weights(weights), refresh_minutes=0)
    assert version(predictor) == version(predictor)


def test_minutes_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_REFRESH_MINUTES", raising=False)
    assert app.refresh_minutes() == 5
    monkeypatch.setenv("MODEL_REFRESH_MINUTES", "0.5")
    assert app.refresh_minutes() == 0.5
    monkeypatch.setenv("MODEL_REFRESH_MINUTES", "often")
    with pytest.raises(ConfigurationError, match=r"^MODEL_REFRESH_MINUTES is 'often': set it to a number of minut"):
        app.refresh_minutes()
