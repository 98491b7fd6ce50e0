"""Heatmaps: exact, where they belong, and drawn as large as the image."""

import base64
import dataclasses
import io
import itertools
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from pneumonia.imaging.preprocessing import SIZE, normalized, preprocess
from pneumonia.network.calibration import Calibration
from pneumonia.network.classifier import Classifier
from pneumonia.network.contract import CLASSES
from pneumonia.network.heatmap import CENTRE, LEVELS, draw_heatmap, heatmap_png
from pneumonia.network.outputs import Engine, Floats
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.releases.loading import load
from pneumonia.training.synthetic import draw_radiograph


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load(RELEASED_WEIGHTS).engine


def opacities(heatmap: Image.Image) -> Floats:
    """Return how opaque each pixel is, shape (height, width)."""
    alpha = heatmap.convert("RGBA").getchannel("A")
    return np.asarray(alpha, np.float32)


def test_map_adds_up_to_the_log_odds(engine: Engine) -> None:
    outputs = engine(preprocess(draw_radiograph(Random(1), "PNEUMONIA")))
    normal, pneumonia = load_weights(RELEASED_WEIGHTS).fc.bias.tolist()
    assert outputs.evidence.shape == (1, 7, 7)
    log_odds = float(outputs.logits[0, 1] - outputs.logits[0, 0])
    assert float(outputs.evidence.mean()) + pneumonia - normal == pytest.approx(log_odds, abs=1e-4)


def test_change_is_drawn_where_a_patch_is(engine: Engine) -> None:
    """On average within 3 pixels on both axes; 7 positions, which see far, cannot place each patch so exactly."""
    places = [(row, column) for row in range(54, 160, 21) for column in range(54, 160, 21)]
    offsets = []
    for gray, value in itertools.product((96.0, 128.0, 160.0), (0.0, 230.0)):
        images = np.full((1 + len(places), 3, SIZE, SIZE), gray)
        for image, (row, column) in zip(images[1:], places, strict=True):
            image[:, row : row + 16, column : column + 16] = value
        features = engine(normalized(images)).features
        # Over all last layers: the mean square of what layers with random weights would see.
        changes = np.square(features[1:] - features[0]).sum(1)
        drawn = np.array([centre(opacities(draw_heatmap(one, (SIZE, SIZE)))) for one in changes])
        offsets.append((drawn - (np.array(places) + 7.5)).mean(0))
    below, right = np.stack(offsets).mean(0).tolist()
    assert abs(below) < 3
    assert abs(right) < 3


@pytest.mark.parametrize("size", [(224, 224), (448, 112), (131, 977), (1604, 1248)])
@pytest.mark.parametrize("place", [(2, 2), (3, 3), (2, 5), (5, 3)])
def test_position_has_the_same_place_in_every_size(place: tuple[int, int], size: tuple[int, int]) -> None:
    evidence = np.zeros((7, 7), np.float32)
    evidence[place] = 1
    row, column = centre(opacities(draw_heatmap(evidence, size)))
    shares = (row + 0.5) / size[1], (column + 0.5) / size[0]
    assert shares == pytest.approx(
        [(first + 0.5 + 32 * one) / SIZE for first, one in zip(CENTRE, place, strict=True)], abs=0.005
    )


def test_first_and_last_positions_reach_the_edges() -> None:
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        evidence = np.zeros((7, 7), np.float32)
        evidence[row, column] = 1
        opaque = opacities(draw_heatmap(evidence, (300, 200)))
        assert opaque[row, column] > 0.95 * opaque.max() > 150


def centre(weights: Floats) -> tuple[float, float]:
    """Return row and column of the middle of a mass."""
    total = float(weights.sum())
    rows, columns = map(np.arange, weights.shape)
    return float(weights.sum(1) @ rows) / total, float(weights.sum(0) @ columns) / total


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("seed", range(3))
def test_opacity_in_one_lung_changes_the_map_there(engine: Engine, side: str, seed: int) -> None:
    plain = draw_radiograph(Random(seed), "NORMAL", 448)
    cloudy, mask = plain.copy(), Image.new("L", plain.size)
    middle = 0.33 if side == "left" else 0.67
    ImageDraw.Draw(mask).ellipse([448 * edge for edge in (middle - 0.1, 0.5, middle + 0.1, 0.75)], fill=230)
    cloudy.paste(215, mask=mask.filter(ImageFilter.GaussianBlur(12)))
    maps = [engine(preprocess(one)).evidence[0] for one in (plain, cloudy)]
    change = opacities(draw_heatmap(np.abs(maps[1] - maps[0]), plain.size)).sum(0)
    here = change[:224] if side == "left" else change[224:]
    assert float(here.sum() / change.sum()) > 0.6


def test_what_speaks_against_the_answer_is_transparent() -> None:
    evidence = np.broadcast_to(np.linspace(-1, 1, 7, dtype=np.float32), (7, 7))
    opaque = opacities(draw_heatmap(evidence, (700, 300)))
    assert opaque[:, :300].max() == 0
    assert opaque[:, -30:].min() > 150


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_image_without_evidence_stays_as_it_is(value: float) -> None:
    assert opacities(draw_heatmap(np.full((7, 7), value, np.float32), (50, 40))).max() == 0


def test_evidence_is_drawn_however_weak_it_is_beside_what_speaks_against_the_answer() -> None:
    evidence = np.full((7, 7), -1e4, np.float32)
    evidence[:, 5:] = 1e-36
    with np.errstate(all="raise"):
        opaque = opacities(draw_heatmap(evidence, (700, 300)))
    assert opaque[:, :400].max() == 0
    assert opaque[:, -30:].min() > 150


@pytest.fixture(scope="module")
def model(weights: Path) -> Classifier:
    """An untrained model, for which the usual evidence is that of a drawn radiograph."""
    bare = load(weights)
    usual = bare.engine(preprocess(draw_radiograph(Random(0), "NORMAL"))).evidence[0]
    return dataclasses.replace(bare, usual_evidence=tuple(map(tuple, usual.tolist())))


@pytest.mark.parametrize("label", CLASSES)
def test_an_answer_is_supported_by_what_exceeds_the_usual_evidence(model: Classifier, label: str) -> None:
    """An operating point far from the network's makes the answer this one."""
    model = dataclasses.replace(model, calibration=Calibration(bias=99 if label == "PNEUMONIA" else -99))
    pixels = preprocess(draw_radiograph(Random(1), "PNEUMONIA"))
    (answer,), (evidence,) = model.answers_with_evidence(pixels)
    assert answer.prediction == label
    unusual = evidence - np.array(model.usual_evidence, np.float32)
    expected = unusual if label == "PNEUMONIA" else -unusual
    support = model.support(answer, evidence)
    assert support.dtype == np.float32
    assert np.array_equal(support, expected)
    assert model.heatmap(answer, evidence, (50, 40)) == heatmap_png(expected, (50, 40))
    older = dataclasses.replace(model, usual_evidence=None)
    assert np.array_equal(older.support(answer, evidence), evidence if label == "PNEUMONIA" else -evidence)


@pytest.mark.parametrize("bias", [-99.0, 99.0])
def test_a_film_with_the_usual_evidence_everywhere_stays_as_it_is(model: Classifier, bias: float) -> None:
    usual = draw_radiograph(Random(0), "NORMAL")
    explained = dataclasses.replace(model, calibration=Calibration(bias=bias)).explain(usual)
    with Image.open(io.BytesIO(base64.b64decode(explained.heatmap or ""))) as heatmap:
        assert heatmap.size == usual.size
        assert opacities(heatmap).max() == 0


@pytest.mark.parametrize("size", [(1, 1), (1604, 1248), (300, 2), (5000, 5000)])
def test_file_is_a_png_as_large_as_the_image(size: tuple[int, int]) -> None:
    evidence = np.random.default_rng(0).standard_normal((7, 7), np.float32)
    content = base64.b64decode(heatmap_png(evidence, size), validate=True)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("PNG", size)
        assert len(image.convert("RGBA").getcolors(maxcolors=LEVELS) or []) <= LEVELS
    assert len(content) < 2_000_000  # Lambda lets 6 MB out


@pytest.mark.parametrize("size", [(384, 65_000), (65_000, 384), (2000, 12_500), (4000, 6250)])
def test_a_heatmap_of_any_shape_leaves_lambda(size: tuple[int, int]) -> None:
    """Evidence like a checkerboard has most edges; an answer of 6 MB or more Lambda would refuse."""
    evidence = (np.indices((7, 7)).sum(0) % 2).astype(np.float32)
    assert len(heatmap_png(evidence, size)) < 3_000_000
