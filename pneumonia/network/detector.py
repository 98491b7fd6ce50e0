"""Detect images that are not chest X-rays, from features that the network computes anyway."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pneumonia.errors import WeightsError
from pneumonia.imaging.preprocessing import MEAN, STD
from pneumonia.network.input_check import FEATURES, InputCheck, decoded


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
        is_sound = all(array.isfinite().all() for array in (self._mean, self._scale, self._components))
        # A direction longer than 1 would take more from the distance than it holds, and let any image pass.
        if not is_sound or (self._scale <= 0).any() or (self._components.norm(dim=1) > 1.01).any():
            raise WeightsError("The input check has values that no fit gives: promote another model.")
        self._check = check

    def unlike(self, layers: Sequence[Tensor], pixels: Tensor) -> list[bool]:
        """Return for each image whether it is unlike the training images.

        Args:
            layers: what `Network.layers` returns for `pixels`.
            pixels: float32, shape (N, 3, SIZE, SIZE), as `normalize` gives them.
        """
        is_far = ~(self.distances(pooled(layers)) <= self._check.distance)  # NaN counts as far, too
        return (is_far | (colour(pixels) > self._check.colour)).tolist()

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


def _array(text: str, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(decoded(text)), dtype=dtype)
