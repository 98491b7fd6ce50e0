"""A warm process notices that the bucket serves another release."""

import dataclasses
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pneumonia.deadline import Deadline
from pneumonia.errors import ConfigurationError, WeightsError, WeightsUnavailableError
from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import save_weights
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.fetch import Weights
from pneumonia.releases.release import read_release
from pneumonia.serving.predictor import Predictor
from tests.builders.images import XRAY
from tests.builders.releases import manifest_for, publish
from tools.stand_ins.moto import Moto
from tools.stand_ins.s3_proxy import proxy


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
    publish(weights, manifest_for(weights, "1"), bucket)
    predictor = Predictor(Weights(folder / "model.pth", bucket), refresh_minutes=0)
    assert version(predictor) == "1"
    yield predictor
    predictor.finish_refresh(Deadline.after(60))
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.pth"]


def version(predictor: Predictor) -> str:
    """Return the release that answers a request; then Lambda would wait for what the request began."""
    answer = predictor.predict(XRAY)
    predictor.finish_refresh(Deadline.after(60))
    return answer.model_version


def failures(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the reasons of the refreshes that failed since the last look."""
    return [json.loads(line)["reason"] for line in capsys.readouterr().out.splitlines() if "RefreshFailures" in line]


def test_another_release_is_taken_over_and_rolled_back(bucket: str, predictor: Predictor, other: Path) -> None:
    publish(other, manifest_for(other, "2"), bucket)
    assert [version(predictor) for _ in range(2)] == ["1", "2"]  # the request that notices is answered by the old one
    assert predictor.predict(XRAY).prediction == "NORMAL"
    releases = WeightsBucket(bucket)
    releases.serve("1", *releases.pointer())
    assert [version(predictor) for _ in range(2)] == ["2", "1"]


def test_what_is_looked_for_at_once_answers_the_next_request(
    bucket: str, weights: Path, folder: Path, other: Path
) -> None:
    publish(weights, manifest_for(weights, "1"), bucket)
    predictor = Predictor(Weights(folder / "model.pth", bucket), refresh_minutes=60)
    assert version(predictor) == "1"
    publish(other, manifest_for(other, "2"), bucket)
    assert version(predictor) == "1"
    predictor.refresh(Deadline.after(60))
    assert version(predictor) == "2"


def test_the_same_release_is_not_fetched_again(moto: Moto, bucket: str, predictor: Predictor) -> None:
    for _ in range(3):
        assert version(predictor) == "1"
    asked = [request.removeprefix(f"GET /{bucket}/") for request in moto.requests() if f"GET /{bucket}/" in request]
    assert asked.count(f"releases/1/{WEIGHTS_NAME}") == 1
    assert asked.count("current.json") >= 4


def test_nothing_is_asked_before_it_is_time(moto: Moto, bucket: str, weights: Path, folder: Path) -> None:
    publish(weights, manifest_for(weights, "1"), bucket)
    predictor = Predictor(Weights(folder / "model.pth", bucket), refresh_minutes=60)
    for _ in range(3):
        version(predictor)
    asked = [request for request in moto.requests() if request == f"GET /{bucket}/current.json"]
    assert len(asked) == 1 + 1  # publishing asks once as well


def test_a_release_that_cannot_be_used_leaves_the_old_one_and_is_counted(
    moto: Moto, bucket: str, predictor: Predictor, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(other, manifest_for(other, "2"), bucket)
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
    publish(other, manifest, bucket)
    assert [version(predictor) for _ in range(2)] == ["1", "1"]
    assert "was trained for other classes or another preprocessing" in failures(capsys)[0]


def test_a_release_whose_outputs_are_no_numbers_leaves_the_old_one(
    bucket: str, predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ResNet18().state_dict()
    state["layer4.1.bn2.weight"].fill_(3e35)
    state["fc.weight"].fill_(1e4)
    path = tmp_path / "broken.pth"
    save_weights(state, path)
    publish(path, manifest_for(path, "2"), bucket)
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


def test_minutes_come_from_the_environment(
    moto: Moto, bucket: str, weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(weights, manifest_for(weights, "1"), bucket)
    for minutes, asked in (("", 1), ("inf", 1), ("0", 3)):
        monkeypatch.setenv("MODEL_REFRESH_MINUTES", minutes)
        (folder / "model.pth").unlink(missing_ok=True)
        before = pointer_reads(moto, bucket)
        predictor = Predictor.from_environment(Weights(folder / "model.pth", bucket))
        for _ in range(3):
            version(predictor)
        assert pointer_reads(moto, bucket) - before == asked + (minutes == "0")


@pytest.mark.parametrize("text", ["often", "nan", "-1", "-inf"])
def test_what_is_no_number_of_minutes_is_told(weights: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MODEL_REFRESH_MINUTES", text)
    with pytest.raises(ConfigurationError) as caught:
        Predictor.from_environment(Weights(weights))
    assert str(caught.value) == (
        f"MODEL_REFRESH_MINUTES is '{text}': set it to a number of minutes, 0 or more, or to inf for never."
    )


def test_who_never_looks_looks_when_told_to(
    bucket: str, left: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    restarted = Predictor(Weights(left, bucket, is_named=False), refresh_minutes=math.inf)
    assert [version(restarted) for _ in range(2)] == ["1", "1"]
    assert failures(capsys) == []
    restarted.refresh(Deadline.after(60))
    (reason,) = failures(capsys)
    assert "Connection refused" in reason


def pointer_reads(moto: Moto, bucket: str) -> int:
    return moto.requests().count(f"GET /{bucket}/current.json")


@pytest.fixture
def left(bucket: str, weights: Path, folder: Path) -> Path:
    """Release 1 of the bucket, as a process leaves it that crashes on Lambda, whose /tmp stays."""
    publish(weights, manifest_for(weights, "1"), bucket)
    path = folder / "model.pth"
    Weights(path, bucket).find(Deadline.after(60))
    return path


def test_a_restarted_process_answers_by_what_is_served_now(bucket: str, left: Path, other: Path) -> None:
    publish(other, manifest_for(other, "2"), bucket)
    restarted = Predictor(Weights(left, bucket, is_named=False))
    assert [version(restarted) for _ in range(2)] == ["2", "2"]
    assert read_release(left).version == "2"


def test_a_file_that_the_user_named_answers_first_and_is_not_overwritten(
    bucket: str, weights: Path, other: Path, folder: Path
) -> None:
    publish(weights, manifest_for(weights, "1"), bucket)
    folder.mkdir()
    own = folder / "mine.pth"
    own.write_bytes(other.read_bytes())
    predictor = Predictor(Weights(own, bucket))
    assert [version(predictor) for _ in range(2)] == [f"sha256-{sha256(other)[:12]}", "1"]  # it is looked for at once
    assert own.read_bytes() == other.read_bytes()
    assert list(folder.iterdir()) == [own]


def test_a_restarted_process_keeps_what_is_served_still(moto: Moto, bucket: str, left: Path) -> None:
    before = len(moto.requests())
    restarted = Predictor(Weights(left, bucket, is_named=False))
    assert [version(restarted) for _ in range(2)] == ["1", "1"]
    assert moto.requests()[before:] == [f"GET /{bucket}/current.json"]


def test_another_buckets_release_is_not_answered_by(moto: Moto, bucket: str, left: Path, other: Path) -> None:
    plain = moto.make_bucket(f"{bucket}-2"[-63:].strip("-"))
    moto.s3().put_object(Bucket=plain, Key=WEIGHTS_NAME, Body=other.read_bytes())  # of a bucket without current.json
    assert version(Predictor(Weights(left, plain, is_named=False))) == f"sha256-{sha256(other)[:12]}"
    assert version(Predictor(Weights(left, bucket, is_named=False))) == "1"


def test_a_restarted_process_answers_by_what_it_has_while_the_bucket_does_not_say(
    moto: Moto,
    bucket: str,
    left: Path,
    other: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(other, manifest_for(other, "2"), bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    restarted = Predictor(Weights(left, bucket, is_named=False), refresh_minutes=1)
    assert [version(restarted) for _ in range(2)] == ["1", "1"]
    assert f"Until the bucket answers, 1 serves, which is at {left}." in caplog.text
    (reason,) = failures(capsys)  # the first look is at once, the second a minute later
    assert "Connection refused" in reason
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
    restarted.refresh(Deadline.after(60))
    assert version(restarted) == "2"


def test_what_is_known_not_to_be_served_is_not_answered_by(
    moto: Moto, bucket: str, left: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(other, manifest_for(other, "2"), bucket)
    moto.s3().delete_object(Bucket=bucket, Key=f"releases/2/{WEIGHTS_NAME}")
    restarted = Predictor(Weights(left, bucket, is_named=False))
    with pytest.raises(WeightsUnavailableError, match="names a release that is not whole"):
        version(restarted)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailableError, match="Connection refused"):
        restarted.predict(XRAY, Deadline.after(1))


def test_a_restarted_process_does_not_guess_what_a_broken_pointer_names(moto: Moto, bucket: str, left: Path) -> None:
    moto.s3().put_object(Bucket=bucket, Key="current.json", Body=b"nonsense")
    with pytest.raises(WeightsError, match=r"current\.json names no version"):
        version(Predictor(Weights(left, bucket, is_named=False)))


def test_time_is_counted_from_when_the_bucket_was_asked(bucket: str, weights: Path, other: Path, folder: Path) -> None:
    publish(weights, manifest_for(weights, "1"), bucket)
    early = Weights(folder / "model.pth", bucket)
    early.find(Deadline.after(60))
    early.asked -= 600  # the instance was made ready ten minutes before the first request
    publish(other, manifest_for(other, "2"), bucket)
    predictor = Predictor(early)
    assert [version(predictor) for _ in range(2)] == ["1", "2"]


def test_a_pointer_that_is_gone_is_a_failure(
    moto: Moto, bucket: str, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    moto.s3().delete_object(Bucket=bucket, Key="current.json")
    assert version(predictor) == "1"
    (reason,) = failures(capsys)
    assert reason.endswith("/current.json is gone: put it back with promote_model.py.")


def test_the_plain_key_has_nothing_to_follow(
    moto: Moto, bucket: str, weights: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moto.s3().put_object(Bucket=bucket, Key=WEIGHTS_NAME, Body=weights.read_bytes())
    predictor = Predictor(Weights(folder / "model.pth", bucket), refresh_minutes=0)
    assert version(predictor) == version(predictor)
    assert failures(capsys) == []


def test_who_waits_for_a_refresh_waits_no_longer_than_it_may(
    moto: Moto, bucket: str, predictor: Predictor, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(other, manifest_for(other, "2"), bucket)
    answered = threading.Event()

    def hold(_number: int, _what: str) -> None:
        answered.wait()

    with proxy(moto.endpoint, before=hold) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        assert predictor.predict(XRAY).model_version == "1"
        predictor.finish_refresh(Deadline.after(0))
        predictor.finish_refresh(Deadline.after(-1))
        assert predictor.model_version == "1"
        answered.set()
        predictor.finish_refresh(Deadline.after(60))
    assert predictor.model_version == "2"
