"""The pictures that the input check is fitted on."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor

from pneumonia.imaging.preprocessing import SIZE, resize
from pneumonia.network.contract import CLASSES
from pneumonia.training.other_views import KINDS, depicted, frontal, no_frontal
from pneumonia.training.synthetic import draw_radiograph


@pytest.fixture(scope="module")
def films() -> Tensor:
    drawn = [resize(draw_radiograph(Random(number), CLASSES[number % 2]))[:1] for number in range(4)]
    return torch.from_numpy(np.stack(drawn)).float() / 255


@pytest.mark.parametrize("make", [frontal, no_frontal, *KINDS])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_made_of_films(make: Callable[[Tensor], Tensor], channels: int, films: Tensor) -> None:
    torch.manual_seed(0)
    made = make(films.expand(-1, channels, -1, -1))
    assert made.shape == (4, channels, SIZE, SIZE)
    assert 0 <= made.min() < 0.3 < made.max() <= 1 + 1e-5
    assert ((made - films).abs().mean((1, 2, 3)) > 0.02).all()  # each has changed


@pytest.mark.parametrize("make", [frontal, *KINDS])
def test_no_pictures_are_made_of_no_films(make: Callable[[Tensor], Tensor], films: Tensor) -> None:
    assert make(films[:0]).shape == (0, 1, SIZE, SIZE)


def test_a_seed_gives_the_same_pictures(films: Tensor) -> None:
    torch.manual_seed(3)
    first = depicted(no_frontal(films))
    torch.manual_seed(3)
    assert torch.equal(depicted(no_frontal(films)), first)
    assert not torch.equal(depicted(no_frontal(films)), first)


def test_depicted_pictures_are_tinted_within_the_gray_levels(films: Tensor) -> None:
    torch.manual_seed(0)
    made = depicted(films)
    assert made.shape == (4, 3, SIZE, SIZE)
    assert made.min() >= 0
    assert made.max() <= 255
    assert (made[:, 0] != made[:, 1]).any()
