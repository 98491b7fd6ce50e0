"""Detect negatives, and, from features that the network computes anyway, images that are not frontal chest X-rays."""

import numpy as np
from numpy.typing import NDArray

from pneumonia.errors import WeightsError
from pneumonia.imaging.preprocessing import MEAN, STD, of_channels
from pneumonia.network.input_check import FEATURES, THUMBNAIL, InputCheck, decoded
from pneumonia.network.outputs import Floats, Outputs

# Extreme weights, or extreme limits of the check, give infinities here. Such an image counts as far from an X-ray.
_quiet = np.errstate(over="ignore", invalid="ignore")


class Detector:
    """Finds images unlike those that the network was trained on; safe to use from many threads.

    Args:
        check: the distribution of the training images' features in this very network.

    Raises:
        WeightsError: the check has values that no fit gives.
    """

    def __init__(self, check: InputCheck) -> None:
        self._mean = _array(check.mean, "<f4")
        self._scale = _array(check.scale, "<f4")
        self._components = _array(check.components, "<f2").reshape(-1, FEATURES)
        self._layout = _array(check.layout, "<f2") if check.layout else None
        self._thumbnail = _array(check.thumbnail, "<f2") if check.thumbnail else None
        arrays = (self._mean, self._scale, self._components, self._layout, self._thumbnail)
        is_sound = all(np.isfinite(array).all() for array in arrays if array is not None)
        # A direction longer than 1 would take more from the distance than it holds, and let any image pass.
        if not is_sound or (self._scale <= 0).any() or (np.linalg.norm(self._components, axis=1) > 1.01).any():
            raise WeightsError("The input check has values that no fit gives: promote another model.")
        self.check = check

    @_quiet
    def warnings(self, outputs: Outputs, pixels: Floats) -> list[list[str]]:
        """Return for each image why its answer means nothing: `not_a_chest_xray`, `not_a_frontal_view` or nothing.

        Args:
            outputs: the network's for `pixels`.
            pixels: float32, shape (N, 3, SIZE, SIZE), as `normalized` gives them.
        """
        pairs = zip(self.unlike(outputs.means, pixels), self.other_view(outputs.features), strict=True)
        return [["not_a_chest_xray"] * unlike or ["not_a_frontal_view"] * other for unlike, other in pairs]

    def unlike(self, means: Floats, pixels: Floats) -> list[bool]:
        """Return for each image whether its features or colours are unlike those of the training images."""
        is_far = ~(self.distances(means) <= self.check.distance)  # NaN counts as far, too
        return (is_far | (colour(pixels) > self.check.colour)).tolist()  # type: ignore[no-any-return]

    def other_view(self, features: Floats) -> list[bool]:
        """Return for each image whether it is not laid out like an upright frontal film."""
        if self._layout is None or self.check.layout_limit is None:
            return [False] * len(features)
        sums = features.reshape(len(features), -1) @ self._layout
        return (~(sums <= self.check.layout_limit)).tolist()  # type: ignore[no-any-return]

    def negatives(self, pixels: Floats) -> NDArray[np.bool_]:
        """Return for each image whether it is a negative: its thumbnail correlates negatively with the usual one.

        Args:
            pixels: float32, shape (N, 3, SIZE, SIZE), as `normalized` gives them.

        Returns:
            bool, shape (N,).
        """
        if self._thumbnail is None:
            return np.zeros(len(pixels), np.bool_)
        return thumbnails(pixels) @ self._thumbnail < 0

    @_quiet
    def distances(self, means: Floats) -> Floats:
        """Return squared Mahalanobis distances from the training images, divided by FEATURES.

        Args:
            means: as in `Outputs`, float32, shape (N, FEATURES).

        Returns:
            float32, shape (N,), about 1 for a training image.
        """
        deviations = (means - self._mean) * self._scale
        within = deviations @ self._components.T
        return (np.square(deviations).sum(1) - np.square(within).sum(1)) / FEATURES  # type: ignore[no-any-return]


def colour(pixels: Floats) -> Floats:
    """Return each image's mean over the pixels of the brightest channel minus the darkest, 0 (gray) to 1.

    Args:
        pixels: float32, shape (N, 3, height, width), as `normalized` gives them.
    """
    some = pixels[..., ::4, ::4] * of_channels(STD) + of_channels(MEAN)  # 1 in 16
    return (some.max(1) - some.min(1)).mean((1, 2))  # type: ignore[no-any-return]


def thumbnails(pixels: Floats) -> Floats:
    """Return thumbnails of the images' inner parts, without frames and labels; each has mean 0 and length 1.

    Args:
        pixels: float32, shape (N, 3, SIZE, SIZE), as `normalized` gives them.

    Returns:
        float32, shape (N, THUMBNAIL²).
    """
    count, border = len(pixels), pixels.shape[-1] // 14
    inner = pixels[:, 1, border:-border, border:-border]  # of green alone: the channels of a film hardly differ
    part = inner.shape[-1] // THUMBNAIL
    small = inner.reshape(count, THUMBNAIL, part, THUMBNAIL, part).mean((2, 4)).reshape(count, -1)
    small -= small.mean(1, keepdims=True)
    return small / np.linalg.norm(small, axis=1, keepdims=True).clip(1e-12)  # type: ignore[no-any-return]


def inverted(pixels: Floats) -> Floats:
    """Return the network's input for the negatives of images: 255 minus each pixel value.

    Args:
        pixels: float32, shape (N, 3, SIZE, SIZE), as `normalized` gives them.
    """
    white = of_channels(tuple((1 - 2 * mean) / std for mean, std in zip(MEAN, STD, strict=True)))
    return white - pixels


def _array(text: str, dtype: str) -> Floats:
    return np.frombuffer(decoded(text), dtype).astype(np.float32)
