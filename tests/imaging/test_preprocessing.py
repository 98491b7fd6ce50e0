"""Equalised histograms: what the step does to values, and that NumPy and torch agree on it."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pneumonia.imaging.preprocessing import BORDER, SIZE, equalization, network_input, normalized, resize
from pneumonia.network import resnet
from pneumonia.training.synthetic import draw_radiograph

Gray = NDArray[np.uint8]


def films(count: int) -> NDArray[np.uint8]:
    """Return drawn radiographs, shape (count, 3, SIZE, SIZE)."""
    return np.stack([resize(draw_radiograph(Random(number), "PNEUMONIA", 300)) for number in range(count)])


def noise() -> NDArray[np.uint8]:
    """Return coloured noise, shape (1, 3, SIZE, SIZE)."""
    return np.random.default_rng(0).integers(0, 256, (1, 3, SIZE, SIZE), np.uint8)


def flat(value: int) -> NDArray[np.uint8]:
    return np.full((1, 3, SIZE, SIZE), value, np.uint8)


def of_two_values(share: float) -> NDArray[np.uint8]:
    """Return an image whose upper part is of 90 and whose rest is of 200."""
    pixels = flat(200)
    pixels[:, :, : round(share * SIZE)] = 90
    return pixels


@pytest.mark.parametrize(
    "pixels",
    [films(3), noise(), flat(0), flat(77), flat(255), of_two_values(0.5), of_two_values(0.99), noise() // 128],
    ids=["films", "noise", "black", "gray", "white", "two values", "a thin strip", "0 and 1"],
)
def test_numpy_and_torch_give_the_same_input(pixels: NDArray[np.uint8]) -> None:
    for equalized in (False, True):
        ours = network_input(pixels, equalized=equalized)
        theirs = resnet.network_input(torch.from_numpy(pixels), equalized=equalized)
        assert np.array_equal(ours, theirs.numpy())


def test_one_channel_is_equalised_as_three_alike() -> None:
    pixels = torch.from_numpy(films(2))
    assert torch.equal(resnet.network_input(pixels[:, :1]), resnet.network_input(pixels))


def test_varied_images_are_equalised_as_rounded_ones() -> None:
    pixels = torch.from_numpy(films(1)).float()
    assert torch.equal(resnet.equalize(pixels + 0.3), resnet.equalize(pixels.byte()))


def test_a_value_moves_half_way_to_the_mean_rank_of_its_pixels() -> None:
    for channel in films(3)[:, 0]:
        inner = np.sort(channel[BORDER:-BORDER, BORDER:-BORDER].ravel())
        ranks = {int(value): np.flatnonzero(inner == value).mean() for value in np.unique(inner)}
        lowest, highest = ranks[inner[0]], ranks[inner[-1]]
        for value, rank in ranks.items():
            full = (rank - lowest) / (highest - lowest) * 255
            assert equalization(channel)[value] == pytest.approx((full + value) / 2, abs=0.76)


def test_a_flat_image_stays_as_it_is() -> None:
    for value in (0, 77, 255):
        assert np.array_equal(network_input(flat(value), equalized=True), normalized(flat(value)))


def test_the_darkest_moves_half_way_to_black_and_the_brightest_to_white() -> None:
    changed = equalization(of_two_values(0.3)[0, 0])
    assert changed[90] == 45
    assert changed[200] == 228


@pytest.mark.parametrize(
    "change",
    [lambda v: v // 2, lambda v: v // 2 + 100, lambda v: (v / 255) ** 0.5 * 255, lambda v: v / 4 + 3],
    ids=["darker", "brighter", "gamma", "faint"],
)
def test_the_same_film_exposed_otherwise_gives_an_input_half_as_far_away(
    change: Callable[[Gray], NDArray[np.float64]],
) -> None:
    film = films(1)
    changed = change(film).round().astype(np.uint8)
    one, other = (network_input(pixels, equalized=True) for pixels in (film, changed))
    without, with_change = (network_input(pixels, equalized=False) for pixels in (film, changed))
    assert np.abs(one - other).mean() < 0.55 * np.abs(without - with_change).mean()


def test_what_lies_at_the_border_does_not_change_the_inside() -> None:
    film, framed = films(1), films(1)
    framed[:, :, :BORDER] = 255
    framed[:, :, :, -BORDER:] = 0
    inside = np.s_[:, :, BORDER:-BORDER, BORDER:-BORDER]
    one, other = (network_input(pixels, equalized=True) for pixels in (film, framed))
    assert np.array_equal(one[inside], other[inside])
