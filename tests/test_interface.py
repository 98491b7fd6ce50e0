"""`import pneumonia`: what Python gets without knowing a room."""

import dataclasses
import doctest
import importlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from PIL import Image

import pneumonia
from pneumonia.errors import ConfigurationError, ImageError, WeightsUnavailableError
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.prediction import Prediction
from pneumonia.releases.fetch import Weights
from pneumonia.releases.loading import load, load_served
from pneumonia.serving.predictor import Predictor
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.images import encoded
from tests.builders.releases import manifest_for, publish

# Nothing may come with the package alone; "PIL" is Pillow.
HEAVY = ("torch", "PIL", "numpy", "boto3", "fastapi")
DOCUMENTED = ("pneumonia", "pneumonia.network.classifier", "pneumonia.releases.loading")


@pytest.fixture(scope="module")
def model(weights: Path) -> pneumonia.Classifier:
    return pneumonia.load(weights)


@pytest.fixture(scope="module")
def radiograph() -> Image.Image:
    return draw_radiograph(Random(0), "PNEUMONIA", 300)


@pytest.mark.processes
def test_importing_the_package_imports_nothing_heavy() -> None:
    program = f"import sys, pneumonia; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_the_package_names_its_interface() -> None:
    assert set(dir(pneumonia)) == set(pneumonia.__all__)
    assert all(getattr(pneumonia, name) for name in pneumonia.__all__)
    assert pneumonia.CLASSES == ("NORMAL", "PNEUMONIA")
    with pytest.raises(AttributeError, match="module 'pneumonia' has no attribute 'lod'"):
        pneumonia.lod  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_examples_in_docstrings_are_true(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 1
    assert result.failed == 0


def test_an_image_gets_the_same_answer_however_it_is_given(
    model: pneumonia.Classifier, radiograph: Image.Image, weights: Path, tmp_path: Path
) -> None:
    data = encoded(radiograph, "PNG")
    path = tmp_path / "xray.png"
    path.write_bytes(data)
    served = Predictor(Weights(weights)).predict(data)
    assert [model.predict(given) for given in (path, str(path), data, radiograph)] == [served] * 4


def test_a_pillow_image_is_understood_as_its_file_is(model: pneumonia.Classifier) -> None:
    wide = Image.frombytes("I;16", (64, 64), b"".join((64 * n % 4096).to_bytes(2, "little") for n in range(4096)))
    sideways = Image.linear_gradient("L").resize((300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = Image.open(io.BytesIO(encoded(sideways, "PNG", exif=exif)))
    assert model.predict(wide) == model.predict(encoded(wide, "PNG"))
    assert model.predict(rotated) == model.predict(encoded(sideways, "PNG", exif=exif))


def rounded(answer: Prediction | ImageError) -> Prediction:
    """Return an answer without the digits of its probabilities that depend on the size of a batch."""
    assert isinstance(answer, Prediction)
    probabilities = {label: round(share, 6) for label, share in answer.probabilities.items()}
    return dataclasses.replace(answer, confidence=round(answer.confidence, 6), probabilities=probabilities)


def test_many_images_are_answered_lazily_and_in_order(model: pneumonia.Classifier, tmp_path: Path) -> None:
    taken = []

    def images() -> Iterator[bytes | str]:
        for number in range(7):
            taken.append(number)
            yield str(tmp_path / "none.png") if number == 4 else encoded(Image.new("L", (20, 20), 30 * number), "PNG")

    answers = model.predict_many(images(), batch_size=3)
    assert taken == []
    first = next(answers)
    assert taken == [0, 1, 2]
    rest = list(answers)
    assert rounded(first) == rounded(model.predict(encoded(Image.new("L", (20, 20), 0), "PNG")))
    assert [isinstance(one, ImageError) for one in rest] == [False, False, False, True, False, False]
    assert str(rest[3]) == f"{tmp_path / 'none.png'} does not exist: check the name."


def test_an_explanation_is_the_answer_with_the_heatmap_that_the_api_sends(
    model: pneumonia.Classifier, radiograph: Image.Image, weights: Path
) -> None:
    data = encoded(radiograph, "PNG")
    assert model.explain(radiograph) == Predictor(Weights(weights)).explain(data)


def test_what_cannot_be_used_is_told(model: pneumonia.Classifier, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not an image"):
        model.predict(b"text")
    with pytest.raises(FileNotFoundError):
        model.predict(tmp_path / "none.png")
    with pytest.raises(ImageError, match="not a plain file"):
        model.predict(tmp_path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB", "I"])
def test_a_pillow_image_of_any_mode_is_answered(model: pneumonia.Classifier, mode: str) -> None:
    image = Image.new(mode, (30, 20))
    image.paste(Image.new(mode, (15, 20), "gray"))
    assert model.predict(image).prediction in pneumonia.CLASSES


def test_one_bad_image_spoils_no_other(model: pneumonia.Classifier) -> None:
    good = encoded(Image.linear_gradient("L"), "PNG")
    truncated = Image.open(io.BytesIO(encoded(Image.effect_noise((200, 200), 50), "JPEG")[:3000]))
    closed = Image.new("L", (20, 20))
    closed.close()
    bad: list[Image.Image | bytes | str] = [truncated, closed, Image.new("L", (0, 5)), "a\0b.png", b"", "."]
    answers = list(model.predict_many([good, *bad, good]))
    assert [type(one) for one in answers[1:-1]] == [ImageError] * len(bad)
    assert rounded(answers[0]) == rounded(answers[-1]) == rounded(model.predict(good))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_no_images_is_refused_at_once(model: pneumonia.Classifier, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be 1 or more, not {batch_size}"):
        model.predict_many([], batch_size)


def test_a_folder_with_weights_is_loaded(weights: Path, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_NAME).write_bytes(weights.read_bytes())
    manifest_for(weights).write_beside(tmp_path / WEIGHTS_NAME)
    assert pneumonia.load(tmp_path).version == manifest_for(weights).version


def test_the_release_that_a_bucket_serves_is_loaded(bucket: str, weights: Path) -> None:
    publish(weights, manifest_for(weights), bucket)
    assert pneumonia.load(f"s3://{bucket}").version == manifest_for(weights).version
    with pytest.raises(ConfigurationError, match="name the weights bucket alone, as s3://bucket"):
        pneumonia.load(f"s3://{bucket}/{WEIGHTS_NAME}")
    with pytest.raises(WeightsUnavailableError, match="NoSuchBucket"):
        pneumonia.load(f"s3://{bucket}-2")


def test_a_broken_file_is_fetched_anew_as_by_serving(
    bucket: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(weights, manifest_for(weights), bucket)
    path = tmp_path / "model.pth"
    path.write_bytes(weights.read_bytes()[:1000])
    monkeypatch.setenv("MODEL_BUCKET", bucket)
    monkeypatch.setenv("MODEL_PATH", str(path))
    assert load_served().version == manifest_for(weights).version
    assert path.read_bytes() == weights.read_bytes()


def test_weights_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist: name a weights file, a folder with one, or s3://"):
        pneumonia.load(tmp_path / "none.pth")


def test_without_a_source_the_released_weights_answer() -> None:
    assert pneumonia.load().version == load(PROJECT / "weights" / WEIGHTS_NAME).version
