"""Detect negatives, and, from features that the network computes anyway, images that are not frontal chest X-rays."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pneumonia.errors import WeightsError
from pneumonia.imaging.preprocessing import MEAN, STD
from pneumonia.network.input_check import FEATURES, THUMBNAIL, InputCheck, decoded


class Detector:
    """Finds images unlike those that the network was trained on; safe to use from many threads.

    Args:
        check: the distribution of the training images' features in this very network.

    Raises:
        WeightsError: the check has values that no fit gives.
    """

    def __init__(self, check: InputCheck) -> None:
        self._mean = _array(check.mean, torch.float32)
        self._scale = _array(check.scale, torch.float32)
        self._components = _array(check.components, torch.float16).float().view(-1, FEATURES)
        self._layout = _array(check.layout, torch.float16).float() if check.layout else None
        self._thumbnail = _array(check.thumbnail, torch.float16).float() if check.thumbnail else None
        arrays = (self._mean, self._scale, self._components, self._layout, self._thumbnail)
        is_sound = all(array.isfinite().all() for array in arrays if array is not None)
        # A direction longer than 1 would take more from the distance than it holds, and let any image pass.
        if not is_sound or (self._scale <= 0).any() or (self._components.norm(dim=1) > 1.01).any():
            raise WeightsError("The input check has values that no fit gives: promote another model.")
        self.check = check

    def warnings(self, layers: Sequence[Tensor], pixels: Tensor) -> list[list[str]]:
        """Return for each image why its answer means nothing: `not_a_chest_xray`, `not_a_frontal_view` or nothing.

        Args:
            layers: what `Network.layers` returns for `pixels`.
            pixels: float32, shape (N, 3, SIZE, SIZE), as `normalize` gives them.
        """
        pairs = zip(self.unlike(layers, pixels), self.other_view(layers), strict=True)
        return [["not_a_chest_xray"] * unlike or ["not_a_frontal_view"] * other for unlike, other in pairs]

    def unlike(self, layers: Sequence[Tensor], pixels: Tensor) -> list[bool]:
        """Return for each image whether its features or colours are unlike those of the training images."""
        is_far = ~(self.distances(pooled(layers)) <= self.check.distance)  # NaN counts as far, too
        return (is_far | (colour(pixels) > self.check.colour)).tolist()

    def other_view(self, layers: Sequence[Tensor]) -> list[bool]:
        """Return for each image whether it is not laid out like an upright frontal film."""
        if self._layout is None or self.check.layout_limit is None:
            return [False] * len(layers[-1])
        return (~(layers[-1].flatten(1) @ self._layout <= self.check.layout_limit)).tolist()

    def negatives(self, pixels: Tensor) -> Tensor:
        """Return for each image whether it is a negative: its thumbnail correlates negatively with the usual one.

        Args:
            pixels: float32, shape (N, 3, SIZE, SIZE), as `normalize` gives them.

        Returns:
            bool, shape (N,).
        """
        if self._thumbnail is None:
            return torch.zeros(len(pixels), dtype=torch.bool)
        return thumbnails(pixels) @ self._thumbnail < 0

    def distances(self, features: Tensor) -> Tensor:
        """Return squared Mahalanobis distances from the training images, divided by FEATURES.

        Args:
            features: as `pooled` returns them, float32, shape (N, FEATURES).

        Returns:
            float32, shape (N,), about 1 for a training image.
        """
        deviations = (features - self._mean) * self._scale
        within = deviations @ self._components.T
        return (deviations.square().sum(1) - within.square().sum(1)) / FEATURES


def pooled(layers: Sequence[Tensor]) -> Tensor:
    """Return the means over positions of the last two layers' outputs, shape (N, FEATURES).

    The third layer still distinguishes what no radiograph shows; the last layer, trained to tell one radiograph from
    another, does so less. To the first two layers, frames, labels and a scan's tint look as unusual as other images.
    """
    return torch.cat([layer.mean((2, 3)) for layer in layers[-2:]], 1)


def colour(pixels: Tensor) -> Tensor:
    """Return each image's mean over the pixels of the brightest channel minus the darkest, 0 (gray) to 1.

    Args:
        pixels: float32, shape (N, 3, height, width), as `normalize` gives them.
    """
    some = pixels[..., ::4, ::4] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)  # 1 in 16
    return (some.amax(1) - some.amin(1)).mean((1, 2))


def thumbnails(pixels: Tensor) -> Tensor:
    """Return thumbnails of the images' inner parts, without frames and labels; each has mean 0 and length 1.

    Args:
        pixels: float32, shape (N, 3, SIZE, SIZE), as `normalize` gives them.

    Returns:
        float32, shape (N, THUMBNAIL²).
    """
    border = pixels.shape[-1] // 14
    inner = pixels[:, 1, border:-border, border:-border]  # of green alone: the channels of a film hardly differ
    small = functional.adaptive_avg_pool2d(inner, THUMBNAIL).flatten(1)
    return functional.normalize(small - small.mean(1, keepdim=True), dim=1)


def inverted(pixels: Tensor) -> Tensor:
    """Return the network's input for the negatives of images: 255 minus each pixel value.

    Args:
        pixels: float32, shape (N, 3, SIZE, SIZE), as `normalize` gives them.
    """
    white = torch.tensor([(1 - 2 * mean) / std for mean, std in zip(MEAN, STD, strict=True)])
    return white.view(3, 1, 1) - pixels


def _array(text: str, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(decoded(text)), dtype=dtype)
