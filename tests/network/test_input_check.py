"""Images that are no chest X-ray: fitting what tells them, and the warning, on networks of both kinds there are."""

import base64
import dataclasses
import json
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw, ImageOps

from pneumonia.__main__ import main
from pneumonia.errors import WeightsError
from pneumonia.imaging.preprocessing import SIZE, normalized, preprocess, resize
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import CLASSES
from pneumonia.network.detector import Detector, colour, inverted
from pneumonia.network.input_check import (
    FEATURES,
    LAYOUT,
    MAX_COMPONENTS,
    THUMBNAIL,
    InputCheck,
    encoded,
    input_check_in,
)
from pneumonia.network.outputs import Floats, Outputs
from pneumonia.network.resnet import normalize, pooled
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.fetch import RELEASED_WEIGHTS, Weights
from pneumonia.releases.loading import load
from pneumonia.releases.manifest import Manifest, parse
from pneumonia.releases.release import read_release
from pneumonia.serving.api import create_app
from pneumonia.serving.predictor import Predictor
from pneumonia.training.channels import scan_channels
from pneumonia.training.images import load_channel
from pneumonia.training.input_check_fitting import (
    COLOUR,
    MARGIN,
    features_of,
    fit_input_check,
    fit_layout,
    input_check_of,
)
from pneumonia.training.synthetic import draw_dataset, draw_radiograph
from tests.builders.images import encoded as encoded_image
from tests.builders.input_checks import INPUT_CHECK, a_check
from tests.builders.releases import manifest_for

FLAT_LAYOUT = encoded(bytes(2 * LAYOUT))


def flat(value: int) -> Image.Image:
    return Image.new("L", (300, 200), value)


def page(ground: int, ink: int) -> Image.Image:
    image = Image.new("L", (600, 800), ground)
    draw = ImageDraw.Draw(image)
    for line in range(40):
        draw.text((40, 20 + 19 * line), "Findings: the lungs are clear. No effusion is seen. " * 2, fill=ink)
    return image


def landscape() -> Image.Image:
    """Return a coloured scene: sky, sun, hills and trees."""
    random = Random(0)
    image = Image.composite(Image.new("RGB", (640, 480), "#9cf"), Image.new("RGB", (640, 480), "#27c"), gradient())
    draw = ImageDraw.Draw(image)
    draw.ellipse((480, 40, 560, 120), fill="#fd3")
    draw.polygon([(0, 300), (200, 180), (420, 320), (640, 220), (640, 480), (0, 480)], fill="#384")
    for _ in range(60):
        x, y = random.randint(0, 640), random.randint(320, 470)
        draw.polygon([(x, y), (x - 12, y + 40), (x + 12, y + 40)], fill="#142")
    return image


def gradient() -> Image.Image:
    return Image.linear_gradient("L").resize((640, 480))


def noise() -> Image.Image:
    return Image.frombytes("L", (256, 256), Random(0).randbytes(256 * 256))


def discs() -> Image.Image:
    image = flat(30)
    draw = ImageDraw.Draw(image)
    for number in range(6):
        draw.ellipse((40 * number, 20 * number, 40 * number + 70, 20 * number + 90), fill=40 * number + 50)
    return image


def screen() -> Image.Image:
    image = Image.new("RGB", (800, 500), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 800, 40), fill="#dddddd")
    for number in range(5):
        draw.rectangle((20, 60 + 80 * number, 380, 120 + 80 * number), outline="black", fill="#f5f5f5")
        draw.text((30, 70 + 80 * number), f"Patient {number}: open the study", fill="black")
    return image


NO_XRAYS: dict[str, Callable[[], Image.Image]] = {
    "black": lambda: flat(0),
    "gray": lambda: flat(128),
    "white": lambda: flat(255),
    "red": lambda: Image.new("RGB", (100, 100), "red"),
    "gradient": gradient,
    "rings": lambda: Image.radial_gradient("L"),
    "noise": noise,
    "page": lambda: page(250, 20),
    "dark page": lambda: page(15, 230),
    "landscape": landscape,
    "gray landscape": lambda: ImageOps.grayscale(landscape()),
    "discs": discs,
    "screen": screen,
}


@pytest.mark.parametrize("name", NO_XRAYS)
def test_released_weights_flag_what_is_no_xray(name: str) -> None:
    assert "not_a_chest_xray" in load(RELEASED_WEIGHTS).answers(preprocess(NO_XRAYS[name]()))[0].warnings


def test_released_manifest_is_small() -> None:
    assert RELEASED_WEIGHTS.with_name("manifest.json").stat().st_size < 200_000


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn radiographs: train/, val/ and test/."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder, {"train": 24, "val": 8, "test": 8})
    return folder


def manifest_without_doubt(weights: Path) -> Manifest:
    """Return a manifest by which no answer is uncertain, so that all warnings are the input check's."""
    calibration = Calibration(temperature=1.7, bias=-0.4)
    return dataclasses.replace(manifest_for(weights), calibration=calibration)


def check_of(weights: Path) -> InputCheck:
    """Return the input check in the manifest beside a weights file."""
    manifest = read_release(weights).manifest
    assert manifest
    assert manifest.input_check
    return manifest.input_check


def check_for(weights: Path, folder: Path) -> InputCheck:
    """Fit an input check to a network and drawn radiographs, as training does at its end."""
    channels = scan_channels({name: folder / name for name in ("train", "val")}).values()
    train, validation = (load_channel(channel, 2).pixels for channel in channels)
    return input_check_of(load_weights(weights), train, validation, 64)


@pytest.fixture(scope="module")
def checked(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released weights with an input check that was fitted to drawn radiographs."""
    path = Path(shutil.copyfile(RELEASED_WEIGHTS, tmp_path_factory.mktemp("checked") / RELEASED_WEIGHTS.name))
    manifest = dataclasses.replace(manifest_without_doubt(path), input_check=check_for(path, drawn))
    manifest.write_beside(path)
    return path


def test_what_is_like_the_training_images_passes(checked: Path, drawn: Path) -> None:
    model = load(checked)
    for path in (drawn / "test").glob("*/*"):
        with Image.open(path) as image:
            assert model.answers(preprocess(image))[0].warnings == []


@pytest.mark.parametrize("name", ["black", "white", "red", "noise", "page", "landscape", "gray landscape", "screen"])
def test_what_is_unlike_the_training_images_is_flagged(checked: Path, name: str) -> None:
    assert load(checked).answers(preprocess(NO_XRAYS[name]()))[0].warnings == ["not_a_chest_xray"]


def test_what_is_upside_down_is_laid_out_otherwise(checked: Path, drawn: Path) -> None:
    """The drawn radiographs are too few to set a sharp limit by, but not to tell what is upside down."""
    weights = np.frombuffer(base64.b64decode(check_of(checked).layout or ""), np.float16).astype(np.float32)
    images = []
    for path in (drawn / "test").glob("*/*"):
        with Image.open(path) as image:
            images.append(preprocess(image))
    upright, engine = np.concatenate(images), load(checked).engine
    upside_down = np.ascontiguousarray(upright[:, :, ::-1])
    sums = [engine(part).features.reshape(len(part), -1) @ weights for part in (upright, upside_down)]
    assert sums[1].mean() > sums[0].max()


def outputs(means: Floats, features: Floats) -> Outputs:
    """Return what an engine gives, as far as the input check looks at it."""
    count = len(means)
    return Outputs(np.zeros((count, 2), np.float32), np.zeros((count, 7, 7), np.float32), means, features)


def gray(count: int) -> Floats:
    return normalized(np.zeros((count, 3, SIZE, SIZE), np.uint8))


def test_of_the_two_warnings_at_most_one_is_given() -> None:
    layout = encoded(struct.pack(f"<{LAYOUT}e", *[1.0] * LAYOUT))
    check = dataclasses.replace(a_check(torch.zeros(1, FEATURES)), layout=layout, layout_limit=LAYOUT / 2)
    features = np.zeros((3, 512, 7, 7), np.float32)
    features[1:] = 0.9
    means = np.zeros((3, FEATURES), np.float32)
    means[1:, 256:] = 0.9
    means[2, :256] = 9
    given = outputs(means, features), gray(3)
    assert Detector(check).warnings(*given) == [[], ["not_a_frontal_view"], ["not_a_chest_xray"]]
    without = dataclasses.replace(check, layout=None, layout_limit=None)
    assert Detector(without).warnings(*given) == [[], [], ["not_a_chest_xray"]]


def test_an_older_check_knows_no_layout_and_no_negatives(checked: Path, drawn: Path) -> None:
    check = dataclasses.replace(check_of(checked), layout=None, layout_limit=None, thumbnail=None)
    model = dataclasses.replace(load(checked), detector=Detector(check))
    path = next((drawn / "test").glob("*/*"))
    with Image.open(path) as image:
        for variant in (image.transpose(Image.Transpose.ROTATE_180), ImageOps.invert(image)):
            assert not {"not_a_frontal_view", "inverted"} & set(model.answers(preprocess(variant))[0].warnings)
    assert "not_a_chest_xray" in model.answers(preprocess(landscape()))[0].warnings


def test_a_negative_is_answered_as_its_positive(checked: Path, drawn: Path) -> None:
    model = load(checked)
    for path in (drawn / "test").glob("*/*"):
        with Image.open(path) as image:
            positive, negative = model.explain(image), model.explain(ImageOps.invert(image))
        assert positive.warnings == []
        assert negative.warnings == ["inverted"]
        assert negative.probabilities == pytest.approx(positive.probabilities, abs=1e-4)
        assert negative.heatmap == positive.heatmap


def test_negatives_are_inverted_one_by_one(checked: Path, drawn: Path) -> None:
    with Image.open(next((drawn / "test").glob("*/*"))) as image:
        both = np.concatenate([preprocess(image), preprocess(ImageOps.invert(image))])
    assert Detector(check_of(checked)).negatives(both).tolist() == [False, True]
    np.testing.assert_allclose(inverted(both), both[::-1], rtol=0, atol=1e-5)


def test_layout_is_fishers_discriminant() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([1.0, 3.0, 0.1])
    films, others = (torch.randn(4000, 3, generator=generator) * spread for _ in range(2))
    weights = fit_layout(films, others + torch.tensor([1.0, 3.0, 0.0]))
    assert weights[0].item() == pytest.approx(3 * weights[1].item(), rel=0.1)
    assert weights[0] > 0
    assert abs(weights[2]) < weights[0]


@pytest.mark.slow
def test_the_same_images_give_the_same_check_again(checked: Path, drawn: Path) -> None:
    assert check_for(checked, drawn) == check_of(checked)


def test_without_a_check_nothing_is_flagged(weights: Path, tmp_path: Path) -> None:
    path = Path(shutil.copyfile(weights, tmp_path / "model.pth"))
    manifest_for(path).write_beside(path)
    assert load(path).detector is None
    assert "not_a_chest_xray" not in load(path).answers(preprocess(landscape()))[0].warnings


def test_warning_reaches_every_answer(checked: Path, tmp_path: Path) -> None:
    xray = encoded_image(draw_radiograph(Random(5), "NORMAL"), "PNG")
    photograph = encoded_image(landscape(), "PNG")
    expected = [[], ["not_a_chest_xray"]]
    files = [("file", ("a.png", xray)), ("file", ("b.png", photograph))]
    with TestClient(create_app(Predictor(Weights(checked)))) as client:
        alone = [client.post("/predict", files={"file": data}).json()["warnings"] for data in (xray, photograph)]
        together = client.post("/predict/batch", files=files).json()
    assert alone == expected
    assert [answer["warnings"] for answer in together["results"]] == expected

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(xray)
    (tmp_path / "images" / "b.png").write_bytes(photograph)
    output = tmp_path / "answers.csv"
    assert main(["batch", str(tmp_path / "images"), str(output), "--weights", str(checked)]) == 0
    rows = output.read_text().splitlines()[1:]
    assert ["not_a_chest_xray" in row for row in rows] == [False, True]


def test_distance_is_mahalanobis() -> None:
    """Of a Gaussian whose covariance is known: unit variance, but 4 and 9 in two directions."""
    directions = torch.linalg.qr(torch.randn(FEATURES, 2, generator=torch.Generator().manual_seed(0)))[0].T.half()
    variances = torch.tensor([4.0, 9.0])
    detector = Detector(a_check(directions * (1 - 1 / variances).sqrt()[:, None]))
    covariance = torch.eye(FEATURES) + (directions.float().T * (variances - 1)) @ directions.float()
    some = torch.randn(5, FEATURES, generator=torch.Generator().manual_seed(1))
    expected = (some @ covariance.inverse() * some).sum(1) / FEATURES
    np.testing.assert_allclose(detector.distances(some.numpy()), expected.numpy(), rtol=1e-3)


def test_colour_is_the_difference_of_the_channels() -> None:
    half = Image.new("RGB", (224, 224), (255, 51, 51))
    half.paste((90, 90, 90), (0, 0, 112, 224))
    images = np.concatenate([preprocess(image) for image in (flat(77), Image.new("RGB", (9, 9), "red"), half)])
    assert colour(images).tolist() == pytest.approx([0, 1, 0.4], abs=1e-5)


def test_threshold_is_set_on_validation() -> None:
    generator = torch.Generator().manual_seed(0)
    train, near = (torch.randn(count, FEATURES, generator=generator) for count in (2000, 500))
    check = fit_input_check(train, near, torch.zeros(500))
    distances = Detector(check).distances(near.numpy())
    assert check.distance == pytest.approx(MARGIN * np.quantile(distances, 0.99))
    assert check.colour == COLOUR
    wider = fit_input_check(train, 2 * near, torch.linspace(0, 0.5, 500))
    assert wider.distance == pytest.approx(4 * check.distance, rel=0.01)
    assert wider.colour == pytest.approx(MARGIN * 0.495)


def test_features_do_not_depend_on_the_batches_nor_on_the_seed_outside(weights: Path) -> None:
    network = load_weights(weights)
    films = [resize(draw_radiograph(Random(number), CLASSES[number % 2]))[:1] for number in range(4)]
    pixels = torch.from_numpy(np.stack(films))
    plain = features_of(network, pixels, 3, varied=False)
    with torch.inference_mode():
        expected = pooled(network.layers(normalize(pixels)))
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-5)
    torch.manual_seed(1)
    varied = features_of(network, pixels, 4, varied=True)
    assert torch.equal(varied, features_of(network, pixels, 4, varied=True))
    assert not torch.allclose(varied, plain)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)


def test_check_is_read_back_from_a_manifest(checked: Path) -> None:
    manifest = read_release(checked).manifest
    assert manifest
    assert parse(manifest.to_json(), "here") == manifest


@pytest.mark.parametrize(
    "broken",
    [
        [],
        {},
        INPUT_CHECK | {"mean": None},
        INPUT_CHECK | {"mean": "AAAA"},
        INPUT_CHECK | {"scale": "no base64"},
        INPUT_CHECK | {"scale": "ü"},
        INPUT_CHECK | {"components": "AAAA"},
        INPUT_CHECK | {"components": ""},
        INPUT_CHECK | {"components": base64.b64encode(bytes(2 * FEATURES * (MAX_COMPONENTS + 1))).decode()},
        INPUT_CHECK | {"distance": 0},
        INPUT_CHECK | {"distance": True},
        INPUT_CHECK | {"distance": "1"},
        INPUT_CHECK | {"distance": 10**400},
        INPUT_CHECK | {"colour": float("nan")},
        INPUT_CHECK | {"layout": "AAAA", "layout_limit": 0.5},
        INPUT_CHECK | {"layout": 1, "layout_limit": 0.5},
        INPUT_CHECK | {"layout": FLAT_LAYOUT},
        INPUT_CHECK | {"layout_limit": 0.5},
        INPUT_CHECK | {"layout": FLAT_LAYOUT, "layout_limit": float("nan")},
        INPUT_CHECK | {"layout": FLAT_LAYOUT, "layout_limit": True},
        INPUT_CHECK | {"layout": FLAT_LAYOUT, "layout_limit": 10**400},
        INPUT_CHECK | {"thumbnail": "AAAA"},
        INPUT_CHECK | {"thumbnail": []},
    ],
)
def test_broken_check_is_refused(broken: object, weights: Path) -> None:
    assert input_check_in({"input_check": INPUT_CHECK})
    content = dataclasses.asdict(manifest_for(weights)) | {"input_check": broken}
    with pytest.raises(WeightsError, match=r"^here is not a valid manifest \(.*\): promote the model again\.$"):
        parse(json.dumps(content), "here")


@pytest.mark.parametrize(
    ("name", "value"), [("mean", math.nan), ("mean", math.inf), ("scale", math.nan), ("scale", 0.0), ("scale", -1.0)]
)
def test_values_that_no_fit_gives_are_refused(name: str, value: float) -> None:
    broken: dict[str, Any] = {name: encoded(struct.pack(f"<{FEATURES}f", *[value] * FEATURES))}
    with pytest.raises(WeightsError, match="input check has values that no fit gives"):
        Detector(dataclasses.replace(a_check(torch.zeros(1, FEATURES)), **broken))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_layouts_and_thumbnails_that_no_fit_gives_are_refused(value: float) -> None:
    check = a_check(torch.zeros(1, FEATURES))
    layout = encoded(struct.pack(f"<{LAYOUT}e", *[value] * LAYOUT))
    thumbnail = encoded(struct.pack(f"<{THUMBNAIL**2}e", *[value] * THUMBNAIL**2))
    for broken in (
        dataclasses.replace(check, layout=layout, layout_limit=0.5),
        dataclasses.replace(check, thumbnail=thumbnail),
    ):
        with pytest.raises(WeightsError, match="input check has values that no fit gives"):
            Detector(broken)


def test_directions_longer_than_any_fit_gives_are_refused() -> None:
    with pytest.raises(WeightsError, match="input check has values that no fit gives"):
        Detector(a_check(torch.ones(1, FEATURES)))


@pytest.mark.parametrize("name", ["mean", "scale"])
def test_a_distance_that_is_no_number_is_far(name: str) -> None:
    huge: dict[str, Any] = {name: encoded(struct.pack(f"<{FEATURES}f", *[3e38] * FEATURES))}
    detector = Detector(dataclasses.replace(a_check(torch.zeros(1, FEATURES)), **huge))
    assert detector.unlike(np.ones((1, FEATURES), np.float32), gray(1)) == [True]
