"""Training images shown otherwise: as photographs of a screen, and with other grays."""

from random import Random

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional

from pneumonia.training.augmentation import Draws
from pneumonia.training.shown_otherwise import PIECES, framed, lit, shown_otherwise, with_other_grays
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.draws import Chosen

UNFRAMED = (0, 0, 0, 0, 0.5, 0.5, 0)  # left, top, right, bottom, slope across, slope down, margin
# angle, gradient, vignette, the spot's place across and down, its width, height and gray, haze, exposure
UNLIT = (0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0, 0, 0.625)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def film() -> Tensor:
    """Return a drawn film in [0, 1], shape (1, 1, 64, 64)."""
    pixels: Tensor = functional.to_tensor(draw_radiograph(Random(3), "PNEUMONIA", 64)).unsqueeze(0)
    return pixels


def test_a_share_of_the_images_is_photographed_and_a_share_gets_other_grays() -> None:
    films = film().expand(400, 1, 64, 64) * 255
    before = films.clone()
    changed = ((shown_otherwise(films, 0.3) - films).abs().amax((1, 2, 3)) > 1).float().mean()
    assert changed == pytest.approx(1 - 0.7**2, abs=0.08)
    state = torch.get_rng_state()
    assert shown_otherwise(films, 0) is films
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(films, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_photograph_has_the_shape_and_the_range_of_its_images(channels: int) -> None:
    images = torch.rand(16, channels, 64, 64) * 255
    varied = shown_otherwise(images, 1)
    assert varied.shape == images.shape
    assert varied.min() >= 0
    assert 150 < varied.max() <= 255.001


def test_a_film_seen_from_the_front_without_a_margin_stays_as_it_is() -> None:
    image = film()
    assert torch.allclose(framed(image, Chosen(*UNFRAMED)), image, atol=1e-4)


@pytest.mark.parametrize(("fraction", "gray"), [(0, 0.75), (0.58, 0.9994), (0.59, 0.0037), (1, 0.18)])
@pytest.mark.parametrize("edge", ["left", "top", "right", "bottom"])
def test_a_margin_is_dark_or_bright_and_as_wide_as_said(edge: str, fraction: float, gray: float) -> None:
    margins = [float(name == edge) for name in ("left", "top", "right", "bottom")]
    photograph = framed(torch.full((1, 1, 200, 200), 0.5), Chosen(*margins, 0.5, 0.5, fraction))
    is_margin = (photograph != 0.5)[0, 0]
    assert is_margin.float().mean() == pytest.approx(0.3 / 2.3, abs=0.01)
    assert photograph[0, 0][is_margin].mean() == pytest.approx(gray, abs=1e-3)
    edges = {"left": is_margin[:, 0], "top": is_margin[0], "right": is_margin[:, -1], "bottom": is_margin[-1]}
    assert edges[edge].all()


def test_what_is_nearer_is_larger() -> None:
    image = torch.zeros(1, 1, 200, 200)
    image[..., 80:120] = 1  # a bar from top to bottom
    seen = framed(image, Chosen(0, 0, 0, 0, 0.5, 1, 0))[0, 0, :, 50:150]  # without the margin
    assert seen[20].sum() == pytest.approx(40 * (1 - 0.06 * 0.8), abs=0.5)
    assert seen[180].sum() == pytest.approx(40 * (1 + 0.06 * 0.8), abs=0.5)


def test_even_light_without_a_reflection_leaves_the_image() -> None:
    image = film()
    assert torch.allclose(lit(image, Chosen(*UNLIT)), image, atol=1e-6)


@pytest.mark.parametrize(
    ("angle", "bright", "dark"), [(0, "right", "left"), (0.25, "bottom", "top"), (0.5, "left", "right")]
)
def test_light_comes_from_one_side(angle: float, bright: str, dark: str) -> None:
    photograph = lit(torch.full((1, 1, 100, 100), 0.5), Chosen(angle, 1, *UNLIT[2:]))[0, 0]
    edges = {"left": photograph[:, 0], "top": photograph[0], "right": photograph[:, -1], "bottom": photograph[-1]}
    assert edges[bright].mean() == pytest.approx(0.5 * 1.2, abs=0.01)
    assert edges[dark].mean() == pytest.approx(0.5 * 0.8, abs=0.01)


def test_corners_are_darker_than_the_middle() -> None:
    photograph = lit(torch.full((1, 1, 101, 101), 0.5), Chosen(0, 0, 1, *UNLIT[3:]))[0, 0]
    assert photograph[50, 50] == pytest.approx(0.5)
    assert photograph[0, 0] == pytest.approx(0.5 * 0.7, abs=0.01)


def test_a_reflection_is_brightest_at_its_place_and_haze_lies_everywhere() -> None:
    photograph = lit(torch.full((1, 1, 100, 100), 0.2), Chosen(0, 0, 0, 1, 0, 0, 0, 1, 1, 0.625))[0, 0]
    row, column = divmod(int(photograph.argmax()), 100)
    assert abs(row - 10) <= 1
    assert abs(column - 90) <= 1
    assert photograph.max() == pytest.approx(0.2 + 0.3 + 0.06, abs=0.01)
    assert photograph[90, 10] == pytest.approx(0.2 + 0.06, abs=0.001)


@pytest.mark.parametrize(("fraction", "exposure"), [(0, 0.75), (1, 1.15)])
def test_a_photograph_is_exposed_more_or_less(fraction: float, exposure: float) -> None:
    photograph = lit(torch.full((1, 1, 8, 8), 0.5), Chosen(*UNLIT[:-1], fraction))
    assert torch.allclose(photograph, torch.tensor(0.5 * exposure))


def test_grays_change_by_a_curve_of_straight_pieces_from_black_to_white() -> None:
    ramp = torch.linspace(0, 1, 11).view(1, 1, 1, 11)
    rises = torch.tensor([0.05, 1.05, 1.05, 0.05, 0.05])
    mapped = with_other_grays(ramp, Chosen(0, 1, 1, 0, 0)).flatten()
    ends = torch.cat([torch.zeros(1), rises.cumsum(0) / rises.sum()])
    assert torch.allclose(mapped[::2], ends, atol=1e-6)
    assert torch.allclose(mapped[1::2], (ends[1:] + ends[:-1]) / 2, atol=1e-6)


def test_equal_rises_change_no_gray() -> None:
    image = film()
    assert torch.allclose(with_other_grays(image, Chosen(*[0.3] * PIECES)), image, atol=1e-6)


def test_each_image_has_a_curve_of_its_own_and_its_channels_share_it() -> None:
    images = torch.rand(1, 1, 8, 8).expand(4, 3, 8, 8).contiguous()
    mapped = with_other_grays(images, Draws(4, torch.device("cpu")))
    assert len({tuple(image.flatten().tolist()) for image in mapped}) == 4
    assert torch.equal(mapped[:, 0], mapped[:, 1])
    assert torch.equal(mapped[:, 0], mapped[:, 2])
