import dataclasses
import io
import math
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from pneumonia.deadline import Deadline
from pneumonia.errors import BusyError, ImageError, WeightsError, WeightsUnavailableError
from pneumonia.files import locked, sha256
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import preprocess
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import CLASSES, MANIFEST_NAME, WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import load_weights, save_weights
from pneumonia.releases.fetch import RELEASED_WEIGHTS, Weights
from pneumonia.releases.release import read_release
from pneumonia.serving.predictor import Predictor
from tests.builders.pickles import Payload
from tests.builders.releases import manifest_for, publish
from tools.stand_ins.faulty_s3 import PLAIN, held, refusal, standing_for_s3, wait_for_requests, whole
from tools.stand_ins.moto import Moto


@pytest.fixture
def image() -> bytes:
    picture = Image.linear_gradient("L").resize((400, 300))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def copy(weights: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(weights, tmp_path / "model.pth"))


def calibrated(weights: Path, calibration: Calibration) -> Predictor:
    """Return a predictor for a release with this calibration."""
    dataclasses.replace(manifest_for(weights), calibration=calibration).write_beside(weights)
    return Predictor(Weights(weights))


def softmax(weights: Path, image: bytes, temperature: float = 1, bias: float = 0) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = load_weights(weights)(torch.from_numpy(preprocess(decode(image).image)))
        return (logits / temperature + torch.tensor([0, bias])).softmax(1)[0]


def test_an_image_waits_for_others_until_its_deadline(copy: Path, image: bytes) -> None:
    predictor, large = Predictor(Weights(copy)), io.BytesIO()
    Image.linear_gradient("L").resize((5000, 5000)).save(large, "PNG", compress_level=1)
    predictor.predict(image)  # loads the model
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(predictor.predict_many, [large.getvalue()] * 8)
        with pytest.raises(BusyError, match="busy with other images"):
            for _ in iter(lambda: predictor.predict(image, Deadline.after(0)), None):
                pass  # until both of those that are decoded at once are others


def test_answer_is_the_networks(copy: Path, image: bytes) -> None:
    answer = Predictor(Weights(copy)).predict(image)
    expected = softmax(copy, image).tolist()
    assert answer.probabilities == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-6)
    assert answer.confidence == max(answer.probabilities.values())
    assert answer.prediction == CLASSES[expected.index(max(expected))]
    assert answer.warnings == ["uncalibrated"]


def test_probabilities_are_the_networks_at_the_temperature(copy: Path, image: bytes) -> None:
    answer = calibrated(copy, Calibration(temperature=2.7)).predict(image)
    assert list(answer.probabilities.values()) == pytest.approx(softmax(copy, image, 2.7).tolist(), abs=1e-6)
    assert list(answer.probabilities.values()) != softmax(copy, image).tolist()


@pytest.mark.parametrize("step", [-5, -1e-6, -1e-12, -1e-16, 0, 1e-16, 1e-12, 1e-6, 5])
def test_bias_moves_the_answer_which_is_the_more_probable_class(copy: Path, image: bytes, step: float) -> None:
    normal, pneumonia = calibrated(copy, Calibration(2.7)).predict(image).probabilities.values()
    even = math.log(normal / pneumonia)  # the bias at which both classes are equally probable
    answer = calibrated(copy, Calibration(2.7, even + step)).predict(image)
    assert answer.confidence == answer.probabilities[answer.prediction] == max(answer.probabilities.values())
    assert 0.5 <= answer.confidence <= 1
    assert answer.probabilities["PNEUMONIA"] == pytest.approx(1 / (1 + math.exp(-step)), abs=1e-12)
    if abs(step) > 1e-14:
        assert answer.prediction == CLASSES[step > 0]


def test_answer_within_the_band_of_doubt_is_uncertain(copy: Path, image: bytes) -> None:
    pneumonia = calibrated(copy, Calibration()).predict(image).probabilities["PNEUMONIA"]
    below, above = math.nextafter(pneumonia, 0), math.nextafter(pneumonia, 1)
    outside, inside = ((0.5, below), (0.5, pneumonia)) if pneumonia > 0.5 else ((above, 0.5), (pneumonia, 0.5))
    for low, high in (inside, (0, 1)):
        assert calibrated(copy, Calibration(1, 0, low, high)).predict(image).warnings == ["uncertain"]
    for low, high in (outside, (0.5, 0.5)):
        assert calibrated(copy, Calibration(1, 0, low, high)).predict(image).warnings == []


def test_manifest_of_other_weights_is_damage(copy: Path, image: bytes) -> None:
    dataclasses.replace(manifest_for(copy), sha256="0" * 64).write_beside(copy)
    with pytest.raises(WeightsError, match=f"but its manifest says [0-9]+ bytes with {'0' * 64}"):
        Predictor(Weights(copy)).predict(image)


def test_version_without_a_manifest_is_the_files_digest(copy: Path, image: bytes) -> None:
    assert Predictor(Weights(copy)).predict(image).model_version == f"sha256-{sha256(copy)[:12]}"


def test_version_is_the_manifests(copy: Path, image: bytes) -> None:
    manifest_for(copy).write_beside(copy)
    assert Predictor(Weights(copy)).predict(image).model_version == "20260102-030405-0a1b2c3d"


def test_model_is_loaded_when_first_needed_and_kept(copy: Path, image: bytes) -> None:
    predictor = Predictor(Weights(copy))
    assert predictor.model_version is None
    first = predictor.predict(image)
    copy.write_bytes(b"overwritten in place")
    assert predictor.predict(image) == first
    assert predictor.model_version == first.model_version


def test_broken_image_is_told_before_any_weights_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not an image"):
        Predictor(Weights(tmp_path / "none.pth", "no-such-bucket")).predict(b"text")


def test_first_need_downloads_once_however_many_ask(
    moto: Moto, bucket: str, weights: Path, tmp_path: Path, image: bytes
) -> None:
    publish(weights, manifest_for(weights), bucket)
    predictor = Predictor(Weights(tmp_path / "model.pth", bucket))
    together = threading.Barrier(8)

    def ask() -> str:
        together.wait()
        return predictor.predict(image).model_version

    with ThreadPoolExecutor(8) as pool:
        versions = {answer.result() for answer in [pool.submit(ask) for _ in range(8)]}
    assert versions == {"20260102-030405-0a1b2c3d"}
    got = [request for request in moto.requests() if request.startswith(f"GET /{bucket}/releases/")]
    assert len([request for request in got if WEIGHTS_NAME in request]) == 1


@pytest.mark.parametrize("is_named", [True, False])
def test_file_at_the_path_comes_before_a_bucket_that_cannot_be_asked(
    bucket: str,
    copy: Path,
    image: bytes,
    is_named: bool,  # noqa: FBT001
) -> None:
    predictor = Predictor(Weights(copy, f"no-{bucket}"[:63], is_named=is_named))
    assert predictor.predict(image).model_version == f"sha256-{sha256(copy)[:12]}"


def test_failed_load_is_not_remembered(bucket: str, weights: Path, tmp_path: Path, image: bytes) -> None:
    predictor = Predictor(Weights(tmp_path / "model.pth", bucket))
    with pytest.raises(WeightsUnavailableError, match="promote a model"):
        predictor.predict(image)
    publish(weights, manifest_for(weights), bucket)
    assert predictor.predict(image).model_version == "20260102-030405-0a1b2c3d"


def test_who_waited_while_a_load_failed_shares_its_failure(
    moto: Moto, bucket: str, tmp_path: Path, image: bytes
) -> None:
    predictor = Predictor(Weights(tmp_path / "model.pth", f"no-{bucket}"[:63]))
    together = threading.Barrier(8)
    before = len(moto.requests())

    def ask() -> str:
        together.wait()
        with pytest.raises(WeightsUnavailableError) as failure:
            predictor.predict(image)
        return str(failure.value)

    with ThreadPoolExecutor(8) as pool:
        sentences = {answer.result() for answer in [pool.submit(ask) for _ in range(8)]}
    assert len(sentences) == 1
    assert len(moto.requests()) - before < 8


def test_network_without_finite_probabilities_gives_no_answer(tmp_path: Path, image: bytes) -> None:
    state = ResNet18().state_dict()
    state["layer4.1.bn2.weight"].fill_(3e35)  # every value is finite, but not what they give
    state["fc.weight"].fill_(1e4)
    save_weights(state, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"gives no finite probabilities: promote another model"):
        Predictor(Weights(tmp_path / "model.pth")).predict(image)


def test_broken_weights_are_told(copy: Path, image: bytes) -> None:
    copy.write_bytes(copy.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"model\.pth is not a weights file"):
        Predictor(Weights(copy)).predict(image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: torch.zeros(3), r"is not a plain state dict, but a saved Tensor: save model\.state_dict\(\)"),
        (lambda state: state | {"fc.bias": torch.zeros(1000)}, r"fc\.bias of shape \(1000,\) where this network has"),
        (lambda state: state | {"payload": Payload(Path("ran"))}, "is not a weights file"),
    ],
    ids=["no state dict", "another shape", "code"],
)
def test_weights_that_are_none_of_ours_are_told(
    change: Callable[[dict[str, object]], object],
    message: str,
    tmp_path: Path,
    image: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(change(dict(ResNet18().state_dict())), "model.pth")
    predictor = Predictor(Weights(Path("model.pth")))
    for _ in range(2):
        with pytest.raises(WeightsError, match=message):
            predictor.predict(image)
    assert predictor.model_version is None
    assert list(Path().iterdir()) == [Path("model.pth")]  # code would have made a folder


def test_half_a_file_is_fetched_anew_where_there_is_a_bucket(
    moto: Moto, bucket: str, weights: Path, copy: Path, image: bytes
) -> None:
    publish(weights, manifest_for(weights), bucket)
    copy.write_bytes(weights.read_bytes()[:1_000_000])
    answer = Predictor(Weights(copy, bucket)).predict(image)
    assert answer.model_version == "20260102-030405-0a1b2c3d"
    assert copy.read_bytes() == weights.read_bytes()
    assert downloads(moto, bucket) == 1


@pytest.mark.parametrize("damage", ["other manifest", "half a manifest", "flipped bit", "pipe", "endless"])
def test_what_does_not_fit_is_fetched_anew_before_the_first_answer(
    bucket: str, weights: Path, copy: Path, image: bytes, damage: str
) -> None:
    publish(weights, manifest_for(weights), bucket)
    beside = copy.with_name(MANIFEST_NAME)
    dataclasses.replace(manifest_for(copy), version="older", calibration=Calibration()).write_beside(copy)
    if damage == "other manifest":
        beside.write_text(beside.read_text().replace(sha256(copy), "0" * 64))
    elif damage == "half a manifest":
        beside.write_bytes(beside.read_bytes()[:200])
    elif damage == "flipped bit":
        copy.write_bytes(copy.read_bytes()[:-9] + bytes([copy.read_bytes()[-9] ^ 1]) + copy.read_bytes()[-8:])
    elif damage == "endless":
        os.truncate(copy, 10**12)
    else:
        copy.unlink()
        os.mkfifo(copy)
    answer = Predictor(Weights(copy, bucket)).predict(image)
    assert answer.model_version == "20260102-030405-0a1b2c3d"
    assert "uncalibrated" not in answer.warnings
    assert read_release(copy).manifest == manifest_for(weights)


def test_half_a_file_is_told_where_there_is_no_other(bucket: str, weights: Path, copy: Path, image: bytes) -> None:
    half = weights.read_bytes()[:1_000_000]
    copy.write_bytes(half)
    with pytest.raises(WeightsError, match=r"model\.pth is not a weights file that torch\.save wrote whole"):
        Predictor(Weights(copy)).predict(image)
    with pytest.raises(
        WeightsUnavailableError, match=rf"cannot be fetched from s3://{bucket}/{WEIGHTS_NAME}, S3 answers NoS"
    ):
        Predictor(Weights(copy, bucket)).predict(image)
    assert copy.read_bytes() == half


def test_empty_object_in_the_bucket_is_told(moto: Moto, bucket: str, tmp_path: Path, image: bytes) -> None:
    moto.s3().put_object(Bucket=bucket, Key=WEIGHTS_NAME, Body=b"")
    with pytest.raises(WeightsError, match=rf"^s3://{bucket}/{WEIGHTS_NAME} is not a weights file"):
        Predictor(Weights(tmp_path / "model.pth", bucket)).predict(image)


def test_fifty_requests_to_a_cold_process_load_once_and_are_answered_right(
    moto: Moto, bucket: str, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = dataclasses.replace(manifest_for(weights), calibration=Calibration())
    publish(weights, manifest, bucket)
    path = tmp_path / "model.pth"
    pictures = [Image.effect_noise((64, 64), 20 * number) for number in range(1, 6)]
    images = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "PNG")
        images.append(file.getvalue())
    predictor = Predictor(Weights(path, bucket))
    together = threading.Barrier(50)

    def ask(number: int) -> dict[str, float]:
        together.wait()
        return predictor.predict(images[number % 5], Deadline.after(120)).probabilities

    with caplog.at_level("INFO", "pneumonia"), ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    expected = [softmax(weights, image).tolist() for image in images]
    for number, answer in enumerate(answers):
        assert list(answer.values()) == pytest.approx(expected[number % 5], abs=1e-5)
    assert downloads(moto, bucket) == 1
    assert len([line for line in caplog.messages if line.startswith("loaded ")]) == 1


@pytest.mark.processes
def test_who_has_less_time_than_a_load_takes_is_told(
    weights: Path, tmp_path: Path, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    predictor = Predictor(Weights(tmp_path / "model.pth", "models"))
    answers = {PLAIN: [held(gate, whole(weights.read_bytes()))]}
    with standing_for_s3(monkeypatch, answers) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(predictor.predict, image)
        wait_for_requests(server, 1)
        for seconds, shown in ((0.6, 1), (-5.0, 0)):
            with pytest.raises(WeightsUnavailableError) as caught:
                predictor.predict(image, Deadline.after(seconds))
            assert str(caught.value) == f"The model is still being loaded after {shown} s: try again."
        gate.set()
        assert first.result().model_version.startswith("sha256-")
        assert predictor.predict(image, Deadline.after(0)) == first.result()
    assert server.count(PLAIN) == 1


@pytest.mark.processes
def test_load_that_would_take_too_long_is_given_up_and_tried_again(
    weights: Path, tmp_path: Path, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    predictor = Predictor(Weights(tmp_path / "model.pth", "models"))
    with standing_for_s3(monkeypatch, {PLAIN: [held(gate, whole(weights.read_bytes()))]}):
        with pytest.raises(WeightsUnavailableError, match=r"the time is up|timed out|is still being loaded"):
            predictor.predict(image, Deadline.after(0.5))
        gate.set()
        assert predictor.predict(image).model_version.startswith("sha256-")


def test_request_does_not_wait_for_a_disk_beyond_its_time(
    bucket: str, weights: Path, tmp_path: Path, image: bytes
) -> None:
    publish(weights, manifest_for(weights), bucket)
    predictor = Predictor(Weights(tmp_path / "model.pth", bucket))
    # As a disk that does not answer, the lock keeps the load from its end.
    with locked(tmp_path), pytest.raises(WeightsUnavailableError, match=r"is still being loaded after \d s|time is up"):
        predictor.predict(image, Deadline.after(3))
    assert predictor.predict(image).model_version == "20260102-030405-0a1b2c3d"


def test_fetch_in_the_background_is_the_only_one(
    moto: Moto, bucket: str, weights: Path, tmp_path: Path, image: bytes
) -> None:
    publish(weights, manifest_for(weights), bucket)
    source = Weights(tmp_path / "model.pth", bucket)
    source.fetch_in_background(Deadline.after(60))
    assert Predictor(source).predict(image).model_version == "20260102-030405-0a1b2c3d"
    assert downloads(moto, bucket) == 1


@pytest.mark.processes
def test_failed_fetch_in_the_background_does_no_harm(
    weights: Path, tmp_path: Path, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Weights(tmp_path / "model.pth", "models")
    answers = {PLAIN: [refusal(403, "ExpiredToken"), whole(weights.read_bytes())]}
    with standing_for_s3(monkeypatch, answers) as server:
        source.fetch_in_background(Deadline.after(60))
        wait_for_requests(server, 1)
        assert Predictor(source).predict(image).model_version.startswith("sha256-")
    assert server.count(PLAIN) == 2


def downloads(moto: Moto, bucket: str) -> int:
    """Return how often a release's weights were asked for."""
    asked = [request for request in moto.requests() if request.startswith(f"GET /{bucket}/releases/")]
    return len([request for request in asked if request.endswith(WEIGHTS_NAME)])


def test_folder_in_place_of_the_weights_is_told(tmp_path: Path, image: bytes) -> None:
    with pytest.raises(WeightsError, match=r"cannot be read: it is not a plain file but a folder"):
        Predictor(Weights(tmp_path)).predict(image)


def test_with_no_bucket_the_released_model_serves(
    tmp_path: Path, image: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read_release(RELEASED_WEIGHTS).manifest
    assert manifest
    answer = Predictor(Weights(tmp_path / "none.pth")).predict(image)
    assert f"{tmp_path}/none.pth does not exist: the released model serves." in caplog.text
    expected = softmax(RELEASED_WEIGHTS, image, manifest.calibration.temperature, manifest.calibration.bias)
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
