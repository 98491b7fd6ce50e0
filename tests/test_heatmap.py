"""Heatmaps: exact, where they belong, and drawn as large as the image."""

import base64
import io
import math
from random import Random

import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from pneumonia.heatmap import LEVELS, class_activation_map, draw_heatmap, heatmap_png
from pneumonia.image import SIZE, preprocess
from pneumonia.model import ResNet18, load_weights
from pneumonia.weights import RELEASED_WEIGHTS
from tests.synthetic import draw_radiograph


@pytest.fixture(scope="module")
def network() -> ResNet18:
    return load_weights(RELEASED_WEIGHTS)


def opacities(heatmap: Image.Image) -> Tensor:
    """Return how opaque each pixel is, shape (height, width)."""
    alpha = heatmap.convert("RGBA").getchannel("A")
    return torch.frombuffer(bytearray(alpha.tobytes()), dtype=torch.uint8).view(alpha.height, alpha.width).float()


@pytest.mark.parametrize("answer", [0, 1])
@torch.inference_mode()
def test_map_adds_up_to_the_log_odds(network: ResNet18, answer: int) -> None:
    pixels = preprocess(draw_radiograph(Random(1), "PNEUMONIA"))
    evidence = class_activation_map(network.fc, network.layers(pixels)[-1][0], answer)
    logits = network(pixels)[0]
    biases = network.fc.bias[answer] - network.fc.bias[1 - answer]
    assert evidence.shape == (7, 7)
    assert float(evidence.mean() + biases) == pytest.approx(float(logits[answer] - logits[1 - answer]), abs=1e-4)


@pytest.mark.parametrize("place", [(0, 0), (2, 5), (6, 6)])
def test_strongest_place_is_what_that_position_of_the_network_looks_at(network: ResNet18, place: tuple[int, int]) -> None:
    """A position's gradient is centred on what it looks at; the heatmap of that position alone has to lie there."""
    images = torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network.layers(images)[-1][:, :, place[0], place[1]].sum().backward()
    assert images.grad is not None
    weight = images.grad.abs().sum((0, 1))
    looked_at = centre(weight)
    evidence = torch.zeros(7, 7)
    evidence[place] = 1
    drawn = centre(opacities(draw_heatmap(evidence, (SIZE, SIZE))))
    assert math.dist(looked_at, drawn) < SIZE / 7 / 2


def centre(weights: Tensor) -> tuple[float, float]:
    """Return row and column of the middle of a mass."""
    total = float(weights.sum())
    rows, columns = torch.arange(weights.shape[0]).float(), torch.arange(weights.shape[1]).float()
    return float((weights.sum(1) * rows).sum()) / total, float((weights.sum(0) * columns).sum()) / total


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("seed", range(3))
@torch.inference_mode()
def test_opacity_in_one_lung_draws_the_heatmap_there(network: ResNet18, side: str, seed: int) -> None:
    image = draw_radiograph(Random(seed), "NORMAL", 448)
    middle = 0.33 if side == "left" else 0.67
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse([448 * edge for edge in (middle - 0.1, 0.5, middle + 0.1, 0.75)], fill=230)
    image.paste(215, mask=mask.filter(ImageFilter.GaussianBlur(12)))
    evidence = class_activation_map(network.fc, network.layers(preprocess(image))[-1][0], 1)
    mass = opacities(draw_heatmap(evidence, image.size)).sum(0)
    left, right = float(mass[:224].sum()), float(mass[224:].sum())
    share = left / (left + right)
    assert share > 0.7 if side == "left" else share < 0.3


def test_what_speaks_against_the_answer_is_transparent() -> None:
    evidence = torch.linspace(-1, 1, 7).expand(7, 7)
    opaque = opacities(draw_heatmap(evidence, (700, 300)))
    assert opaque[:, :300].max() == 0
    assert opaque[:, -30:].min() > 150


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_image_without_evidence_stays_as_it_is(value: float) -> None:
    assert opacities(draw_heatmap(torch.full((7, 7), value), (50, 40))).max() == 0


@pytest.mark.parametrize("size", [(1, 1), (1604, 1248), (300, 2), (5000, 5000)])
def test_file_is_a_png_as_large_as_the_image(network: ResNet18, size: tuple[int, int]) -> None:
    features = torch.rand(512, 7, 7, generator=torch.Generator().manual_seed(0))
    content = base64.b64decode(heatmap_png(network.fc, features, 1, size), validate=True)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("PNG", size)
        assert len(image.convert("RGBA").getcolors(maxcolors=LEVELS) or []) <= LEVELS
    assert len(content) < 2_000_000  # Lambda lets 6 MB out
