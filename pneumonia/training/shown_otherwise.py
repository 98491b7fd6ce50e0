"""Training images as if they were shown otherwise: photographed with a phone, or with other grays.

Photographs are of a screen: at an angle, with a margin, in uneven light and with a reflection. Grays change by a random
rising curve, as if another program had chosen them. This module works on a batch at a time, as `augmentation` does, and
is simpler than benchmarks/photographs.py, by which models are judged. But both imitate the same things with much the
same ranges: networks that are trained so have seen photographs like those that they are judged by.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from pneumonia.training.augmentation import Draws, places

PIECES = 5  # of the curve by which grays change


def shown_otherwise(images: Tensor, share: float) -> Tensor:
    """Photograph some of the images, and change the grays of some.

    Args:
        images: float32, shape (N, C, size, size), in [0, 255].
        share: of the images, by chance, that are photographed, and share whose grays change; both may happen to one.

    Returns:
        As `images`.
    """
    if not share:
        return images  # nor are random numbers drawn
    draws = Draws(len(images), images.device)
    images = images / 255
    photographs = lit(framed(images, draws), draws)
    images = torch.where(draws.chance(share), photographs, images)
    return torch.where(draws.chance(share), with_other_grays(images, draws), images) * 255


def framed(images: Tensor, draws: Draws) -> Tensor:
    """Show images, in [0, 1], with a dark or bright margin of up to 13% at each edge, and at an angle.

    The middle of an edge is up to 6% nearer or farther, so the margin may be wider there.
    """
    place = places(images)
    x, y = place.expand(len(images), len(place), -1), place.view(-1, 1).expand(len(images), -1, len(place))
    left, top, right, bottom = (draws.between(0, 0.3).squeeze(1) for _ in range(4))  # as shares of half the film
    nearness = 1 + draws.between(-0.06, 0.06).squeeze(1) * x + draws.between(-0.06, 0.06).squeeze(1) * y
    across = x / nearness * (1 + (left + right) / 2) + (right - left) / 2
    down = y / nearness * (1 + (top + bottom) / 2) + (bottom - top) / 2
    seen = functional.grid_sample(images, torch.stack([across, down], -1), padding_mode="border", align_corners=False)
    outside = torch.maximum(across.abs(), down.abs()).unsqueeze(1) > 1
    margin = draws.between(-0.25, 0.18) % 1  # 0 to 0.18, or 0.75 to 1
    return torch.where(outside, margin, seen)


def lit(images: Tensor, draws: Draws) -> Tensor:
    """Light images, in [0, 1], more from one side and less in the corners; add a soft reflection and some haze.

    They are exposed by 0.75 to 1.15 times besides.
    """
    x, y = places(images), places(images).view(-1, 1)
    angle = draws.between(0, 2 * math.pi)
    gradient = 1 + draws.between(0, 0.2) * (x * angle.cos() + y * angle.sin())
    vignette = 1 - draws.between(0, 0.3) * (x**2 + y**2) / 2
    right, down = x - draws.between(-0.8, 0.8), y - draws.between(-0.8, 0.8)
    spot = (-((right / draws.between(0.15, 0.5)) ** 2) - (down / draws.between(0.15, 0.5)) ** 2).exp()
    reflected = draws.between(0, 0.3) * spot + draws.between(0, 0.06)
    return (images * draws.between(0.75, 1.15) * gradient * vignette + reflected).clamp(0, 1)


def with_other_grays(images: Tensor, draws: Draws) -> Tensor:
    """Map grays by a random rising curve from black to white, made of PIECES straight pieces."""
    rises = torch.cat([draws.between(0.05, 1.05) for _ in range(PIECES)], 1).flatten(1)
    heights = functional.pad((rises / rises.sum(1, keepdim=True)).cumsum(1), (1, 0))
    place = (images * PIECES).flatten(1)
    piece = place.long().clamp(0, PIECES - 1)
    low, high = heights.gather(1, piece), heights.gather(1, piece + 1)
    return torch.lerp(low, high, place - piece).view_as(images)
