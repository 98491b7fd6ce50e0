"""Heatmaps: exact, where they belong, and drawn as large as the image."""

import base64
import io
import math
from random import Random

import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from pneumonia.imaging.preprocessing import SIZE, preprocess
from pneumonia.network.heatmap import LEVELS, class_activation_map, draw_heatmap, heatmap_png
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.training.synthetic import draw_radiograph


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


@pytest.mark.parametrize("place", [(2, 2), (3, 3), (2, 5), (5, 3)])
def test_position_is_drawn_where_it_looks(network: ResNet18, place: tuple[int, int]) -> None:
    """A position's gradient says where it looks: nearer to pixel 32 * i than to the middle of the i-th of 7 parts."""
    image = preprocess(draw_radiograph(Random(2), "NORMAL")).repeat(8, 1, 1, 1)
    image += torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(network.layers(image)[-1][:, :, place[0], place[1]].sum(), image)
    looked_at = centre(gradient.square().sum((0, 1)))
    evidence = torch.zeros(7, 7)
    evidence[place] = 1
    drawn = centre(opacities(draw_heatmap(evidence, (SIZE, SIZE))))
    assert drawn == pytest.approx((32 * place[0], 32 * place[1]), abs=1)
    parts = tuple(SIZE / 7 * (position + 0.5) for position in place)
    assert math.dist(looked_at, drawn) < math.dist(looked_at, parts)


def centre(weights: Tensor) -> tuple[float, float]:
    """Return row and column of the middle of a mass."""
    total = float(weights.sum())
    rows, columns = torch.arange(weights.shape[0]).float(), torch.arange(weights.shape[1]).float()
    return float((weights.sum(1) * rows).sum()) / total, float((weights.sum(0) * columns).sum()) / total


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("seed", range(3))
@torch.inference_mode()
def test_opacity_in_one_lung_changes_the_map_there(network: ResNet18, side: str, seed: int) -> None:
    plain = draw_radiograph(Random(seed), "NORMAL", 448)
    cloudy, mask = plain.copy(), Image.new("L", plain.size)
    middle = 0.33 if side == "left" else 0.67
    ImageDraw.Draw(mask).ellipse([448 * edge for edge in (middle - 0.1, 0.5, middle + 0.1, 0.75)], fill=230)
    cloudy.paste(215, mask=mask.filter(ImageFilter.GaussianBlur(12)))
    maps = [class_activation_map(network.fc, network.layers(preprocess(one))[-1][0], 1) for one in (plain, cloudy)]
    change = opacities(draw_heatmap((maps[1] - maps[0]).abs(), plain.size)).sum(0)
    here = change[:224] if side == "left" else change[224:]
    assert float(here.sum() / change.sum()) > 0.6


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
