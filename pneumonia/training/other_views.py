"""Make varied frontal films, and pictures that are not a frontal view, from frontal films, to fit the input check on.

No lateral films and no other body parts are needed. Pictures with the same gray levels and textures in another layout
show what is special about the layout of a frontal film: outlier exposure (Hendrycks et al., *Deep Anomaly Detection
with Outlier Exposure*, 2019). All functions take and return float32 in [0, 1], of shape (N, C, SIZE, SIZE).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pneumonia.imaging.preprocessing import SIZE
from pneumonia.training.augmentation import augment, places

TINT = 0.2  # the most that one channel of a training image is darkened by


def frontal(images: Tensor) -> Tensor:
    """Vary the films, more than `augment` does; half of them are mirrored, as in situs inversus."""
    x, y = _turned(images, 0.2)
    zoom, aspect = _between(images, 0.75, 1.2), _between(images, -0.25, 0.25).exp()
    x, y = x * zoom * aspect * _sign(images), y * zoom / aspect
    return _sampled(images, x + _between(images, -0.12, 0.12), y + _between(images, -0.12, 0.12))


def no_frontal(images: Tensor) -> Tensor:
    """Make from each film a picture that is not an upright frontal film, of a kind drawn at random from KINDS."""
    kinds = torch.randint(len(KINDS), (len(images),)).to(images.device)
    made = torch.empty_like(images)
    for number, make in enumerate(KINDS):
        made[kinds == number] = make(images[kinds == number])
    return made


def depicted(images: Tensor) -> Tensor:
    """Vary the exposure, storage and tint of images; 3 channels, in [0, 255] as `normalize` takes them."""
    exposed = torch.where(_between(images, 0, 1)[:, None] < 0.5, _exposed(images), images)
    stored = augment((exposed * 255).round().byte(), SIZE, retaken=0.5)
    return stored * (1 - (torch.rand(len(images), 3, 1, 1) * TINT).to(images.device))


def _on_its_side(images: Tensor) -> Tensor:
    """Rotate by about 90, 180 or 270 degrees."""
    quarters = torch.randint(1, 4, (len(images), 1, 1)).to(images.device) * (math.pi / 2)
    x, y = _turned(images, 0.17, quarters)
    return _sampled(images, x * _between(images, 0.85, 1.15), y * _between(images, 0.85, 1.15))


def _upside_down(images: Tensor) -> Tensor:
    """Mirror about the horizontal axis."""
    x, y = _turned(images, 0.17)
    return _sampled(images, x, -y)


def _one_lung(images: Tensor) -> Tensor:
    """Stretch one side of the chest over the picture."""
    x, y = _turned(images, 0.25)
    x = x * _sign(images) * _between(images, 0.25, 0.55) + _sign(images) * _between(images, 0.4, 0.55)
    return _sampled(images, x, y * _between(images, 0.6, 1.1) + _between(images, -0.1, 0.1))


def _side(images: Tensor) -> Tensor:
    """Lay both lungs over each other, with black beside the body, as in a lateral film."""
    x, y = _turned(images, 0.2)
    x = x * _sign(images) / _between(images, 0.6, 1.1) + _between(images, -0.2, 0.2) + y * _between(images, -0.25, 0.25)
    inside = torch.sigmoid((1 - x.abs()) * _between(images, 6, 30)).unsqueeze(1)
    y = y * _between(images, 0.8, 1.15) + _between(images, -0.1, 0.1)
    middle, width = _between(images, 0.38, 0.6), _between(images, 0.38, 0.6)
    one = _sampled(images, width * x - middle, y)
    other = _sampled(images, middle + _between(images, 0, 0.25) - width * x, y + _between(images, -0.1, 0.1))
    overlaid = torch.lerp(one, other, _between(images, 0.3, 0.7).unsqueeze(1))
    return (overlaid * inside * _between(images, 0.8, 1.4).unsqueeze(1)).clamp(0, 1)


def _detail(images: Tensor) -> Tensor:
    """Enlarge a detail, rotated by any angle."""
    x, y = _turned(images, math.pi)
    zoom = _between(images, 0.2, 0.5)
    x = x * zoom * _between(images, 0.8, 1.25) + _between(images, -1, 1) * (1 - zoom)
    return _sampled(images, x, y * zoom + _between(images, -1, 1) * (1 - zoom))


def _tiles(images: Tensor) -> Tensor:
    """Cut into 2 x 2 to 4 x 4 tiles and shuffle them."""
    made = []
    for image in images:
        count = int(torch.randint(2, 5, ()))
        rows = image[:, : SIZE // count * count, : SIZE // count * count].chunk(count, 1)
        tiles = [tile for row in rows for tile in row.chunk(count, 2)]
        shuffled = [tiles[index] for index in torch.randperm(len(tiles)).tolist()]
        rows = [torch.cat(shuffled[start : start + count], 2) for start in range(0, len(tiles), count)]
        made.append(functional.interpolate(torch.cat(rows, 1)[None], (SIZE, SIZE), mode="bilinear"))
    return torch.cat(made) if made else images


def _warped(images: Tensor) -> Tensor:
    """Bend strongly."""
    x, y = _places(images)
    coarse = torch.randn(len(images), 2, 4, 4).to(images.device) * 0.45
    bends = functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic", align_corners=True)
    return _sampled(images, 0.8 * x + bends[:, 0], 0.8 * y + bends[:, 1])


def _stretched(images: Tensor) -> Tensor:
    """Stretch the upper or the lower part over the picture."""
    x, y = _places(images)
    y = y * _between(images, 0.2, 0.4) + _sign(images) * _between(images, 0.5, 0.7)
    return _sampled(images, x * _between(images, 0.7, 1.3), y)


KINDS: tuple[Callable[[Tensor], Tensor], ...] = (
    _on_its_side,
    _upside_down,
    _one_lung,
    _side,
    _detail,
    _tiles,
    _warped,
    _stretched,
)


def _exposed(images: Tensor) -> Tensor:
    """Change gamma, shading, contrast and brightness, more than `augment` does."""
    x, y = (place.unsqueeze(1) for place in _places(images))

    def draw(low: float, high: float) -> Tensor:
        return _between(images, low, high).unsqueeze(1)

    exposed = images.clamp(1e-6, 1) ** draw(-0.9, 0.9).exp()
    exposed = exposed * (1 + draw(-0.25, 0.25) * x + draw(-0.25, 0.25) * y)
    mean = exposed.mean((1, 2, 3), keepdim=True)
    return ((exposed - mean) * draw(0.6, 1.6) + mean + draw(-0.15, 0.15)).clamp(0, 1)


def _places(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return each pixel's place in the picture, from -1 to 1: x and y, shape (N, SIZE, SIZE)."""
    place = places(images)
    y, x = torch.meshgrid(place, place, indexing="ij")
    return x.expand(len(images), -1, -1), y.expand(len(images), -1, -1)


def _turned(images: Tensor, most: float, about: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the places, rotated by `about` plus or minus up to `most` radians."""
    x, y = _places(images)
    angle = _between(images, -most, most) + about
    return angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y


def _sampled(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return what the images show at these places; black beyond them."""
    return functional.grid_sample(images, torch.stack([x, y], -1), padding_mode="zeros", align_corners=False)


def _between(images: Tensor, low: float, high: float) -> Tensor:
    """Return a number for each image, shape (N, 1, 1), drawn on the CPU so that a seed gives the same on any device."""
    return (torch.rand(len(images), 1, 1) * (high - low) + low).to(images.device)


def _sign(images: Tensor) -> Tensor:
    """Return -1 or 1 for each image, shape (N, 1, 1)."""
    return _between(images, -1, 1).sign()
