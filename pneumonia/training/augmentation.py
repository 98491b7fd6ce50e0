"""Vary the training images, a batch at a time on the device: no Python runs per image.

Each step imitates what differs between hospitals, machines and files rather than between lungs: where the patient
stands, how the image was exposed, how sharp and how noisy it is, how it was compressed, and what lies at its borders.
Images are never mirrored: the heart lies on the left.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

DRAWS = 25  # random numbers an image, drawn at once; `Draws` fails where they do not suffice
# The luminance table of ITU-T T.81 (1992), annex K.1, from which JPEG encoders scale theirs.
_JPEG_TABLE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)


class Draws:
    """Random numbers for one batch.

    Drawn on the CPU, so that a seed means the same everywhere, and in one piece, so that a GPU gets them in one copy.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self._uniform: Iterator[Tensor] = iter(torch.rand(DRAWS, count, 1, 1, 1).to(device, non_blocking=True))

    def between(self, low: float, high: float) -> Tensor:
        """Return one number an image, shape (N, 1, 1, 1)."""
        return next(self._uniform) * (high - low) + low

    def chance(self, share: float) -> Tensor:
        """Return True for about this share of the images, shape (N, 1, 1, 1)."""
        return next(self._uniform) < share


def augment(images: Tensor, size: int, retaken: float = 1.0) -> Tensor:
    """Vary each image in its own way.

    Args:
        images: uint8, shape (N, C, H, W).
        size: height and width of the result in pixels, a multiple of 8.
        retaken: share of the images, by chance, that look as if they had been taken otherwise; all look as if they had
            been stored otherwise.

    Returns:
        float32 of shape (N, C, size, size), in [0, 255].
    """
    draws = Draws(len(images), images.device)
    resized = images.float() / 255
    if images.shape[-1] != size:
        resized = functional.interpolate(resized, (size, size), mode="bilinear", antialias=True)
    varied = torch.where(draws.chance(retaken), _retake(resized, draws), resized)
    return _compress(_sharpen(varied, draws), draws) * 255


def _retake(images: Tensor, draws: Draws) -> Tensor:
    """Vary what depends on where and how an image is taken."""
    retaken = _move(images, draws)
    retaken = _expose(retaken, draws)
    retaken = _add_noise(retaken, draws)
    return _cover_border(retaken, draws)


def _move(images: Tensor, draws: Draws) -> Tensor:
    """Turn by up to 10 degrees, zoom by 0.87 to 1.25, stretch each side by 15% at most, shift by 7%; black beyond."""
    angle = draws.between(-0.175, 0.175)
    zoom, aspect = draws.between(0.8, 1.15), draws.between(-0.14, 0.14).exp()
    width, height = zoom * aspect, zoom / aspect
    x, y = draws.between(-0.14, 0.14), draws.between(-0.14, 0.14)  # of half the image, as affine_grid counts
    rows = [angle.cos() * width, -angle.sin() * height, x, angle.sin() * width, angle.cos() * height, y]
    affine = torch.cat(rows, 1).view(-1, 2, 3)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _expose(images: Tensor, draws: Draws) -> Tensor:
    """Change gamma, contrast and brightness."""
    gamma = draws.between(-0.5, 0.5).exp()
    exposed = images.clamp(1e-6, 1) ** gamma  # a base below 0, by rounding, would give NaN
    mean = exposed.mean((1, 2, 3), keepdim=True)
    contrast, brightness = draws.between(0.7, 1.3), draws.between(-0.12, 0.12)
    return ((exposed - mean) * contrast + mean + brightness).clamp(0, 1)


def _add_noise(images: Tensor, draws: Draws) -> Tensor:
    """Add Gaussian noise of up to 8 gray levels, the same to all channels."""
    deviation = draws.between(0, 8 / 255)
    noise = torch.randn_like(images[:, :1])  # drawn on the device: a batch's noise would be megabytes to copy
    return (images + deviation * noise).clamp(0, 1)


def _cover_border(images: Tensor, draws: Draws) -> Tensor:
    """Cover two rectangles on the border, where labels, cables and collimators lie, with one gray each."""
    place = places(images)
    for _ in range(2):
        along, edge = draws.between(-1, 1), draws.between(-1, 1).sign()
        lies_across = draws.chance(0.5)
        x, y = torch.where(lies_across, along, edge), torch.where(lies_across, edge, along)
        # A rectangle centred on the border shows half of itself: at most a fifth of the image's depth.
        width, height = draws.between(0, 0.4), draws.between(0, 0.4)
        inside = ((place - x).abs() < width) & ((place.view(-1, 1) - y).abs() < height)
        images = torch.where(inside, draws.between(0, 1), images)
    return images


def places(images: Tensor) -> Tensor:
    """Return where the middle of each column of square images lies, and of each row: from -1 to 1, shape (size,)."""
    size = images.shape[-1]
    return (torch.arange(size, device=images.device) + 0.5) / size * 2 - 1


def _sharpen(images: Tensor, draws: Draws) -> Tensor:
    """Blur or sharpen: take away all of an image's fine detail, or add as much again."""
    channels = images.shape[1]
    distance = torch.arange(-2.0, 3.0, device=images.device)
    weights = (-(distance**2) / 2).exp()  # a Gaussian of one pixel
    kernel = (weights / weights.sum()).expand(channels, 1, 1, 5)
    blurred = functional.pad(images, (2, 2, 2, 2), mode="replicate")  # zeros would draw a frame around the image
    blurred = functional.conv2d(functional.conv2d(blurred, kernel, groups=channels), kernel.mT, groups=channels)
    return (images + draws.between(-1, 1) * (images - blurred)).clamp(0, 1)


def _compress(images: Tensor, draws: Draws) -> Tensor:
    """Degrade half of the images as JPEG of quality 20 to 90 does."""
    quality = draws.between(20, 90)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)  # libjpeg's rule
    table = (_JPEG_TABLE.to(images.device, non_blocking=True) * scale).clamp(1, 255).unsqueeze(1).unsqueeze(1) / 255
    basis = _cosines(images.device)
    count, channels, height, width = images.shape
    blocks = images.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    frequencies = basis @ blocks @ basis.mT
    kept = basis.mT @ ((frequencies / table).round() * table) @ basis
    compressed = kept.transpose(3, 4).reshape(images.shape).clamp(0, 1)
    return torch.where(draws.chance(0.5), compressed, images)


def _cosines(device: torch.device) -> Tensor:
    """Return the matrix of JPEG's transform of 8 values, orthonormal: row k holds the k-th cosine."""
    position = torch.arange(8.0, device=device)
    basis = torch.cos((2 * position + 1) * position[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis
