"""The statistics behind the warnings `not_a_chest_xray`, `not_a_frontal_view` and `inverted`.

`training.input_check_fitting` fits them on the training images, and the release's manifest carries them. This does not
import torch, so that a cold start can read a manifest while torch is being imported.
"""

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Any

FEATURES = 256 + 512  # the means over positions of the last two layers' outputs
MAX_COMPONENTS = 64
LAYOUT = 512 * 7 * 7  # the last layer's output, position by position
THUMBNAIL = 8  # pixels a side


@dataclass(frozen=True)
class InputCheck:
    """How the network's features of training images are distributed, and how far from them is too far.

    A Gaussian of few directions and equal variance in all others (Tipping and Bishop, *Probabilistic Principal
    Component Analysis*, 1999): the squared Mahalanobis distance is |z|² - |components z|² for z = (features - mean) *
    scale, and needs no matrix of FEATURES x FEATURES.

    Attributes:
        mean: of each feature; float32, little-endian, FEATURES of them, in base64.
        scale: the factor for each deviation from the mean, encoded as `mean`.
        components: float16, little-endian, 1 to MAX_COMPONENTS rows of FEATURES, in base64.
        distance: squared Mahalanobis distance, divided by FEATURES, above which an image is unlike the training images.
        colour: mean over the pixels of the brightest channel minus the darkest, 0 to 1, above which it is as well.
        layout: float16, little-endian, LAYOUT weights of the last layer's output in base64. The weighted sum is high
            for images that are not laid out like an upright frontal film. None in older releases, where no image gets
            `not_a_frontal_view`.
        layout_limit: the weighted sum above which an image is not a frontal view; None without `layout`.
        thumbnail: float16, little-endian, the mean training image of THUMBNAIL x THUMBNAIL pixels in base64, as
            `thumbnails` makes it. None in older releases, where no image is taken for a negative.
    """

    mean: str
    scale: str
    components: str
    distance: float
    colour: float
    layout: str | None = None
    layout_limit: float | None = None
    thumbnail: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that no fit gives.

        Raises:
            ValueError: arrays of another size or not in base64, or limits that are not above 0.
        """
        sizes = [len(decoded(text)) for text in (self.mean, self.scale, self.components)]
        rows, rest = divmod(sizes[2], 2 * FEATURES)
        if sizes[:2] != [4 * FEATURES] * 2 or rest or not 0 < rows <= MAX_COMPONENTS:
            raise ValueError(f"not an input check: its arrays have {sizes} bytes")
        if not all(0 < limit < math.inf for limit in (self.distance, self.colour)):
            raise ValueError(f"not an input check: its limits are {self.distance} and {self.colour}")
        if (self.layout is None) != (self.layout_limit is None):
            raise ValueError("not an input check: it has layout or layout_limit without the other")
        for name, size in (("layout", LAYOUT), ("thumbnail", THUMBNAIL**2)):
            text = getattr(self, name)
            if text is not None and len(decoded(text)) != 2 * size:
                raise ValueError(f"not an input check: {name} has {len(decoded(text))} bytes instead of {2 * size}")
        if self.layout_limit is not None and not math.isfinite(self.layout_limit):
            raise ValueError(f"not an input check: its layout_limit is {self.layout_limit}")


def input_check_in(content: dict[str, Any]) -> InputCheck | None:
    """Return the input check in a manifest or a training report, or None if it has none.

    Raises:
        ValueError: other fields than an input check's, or values that no fit gives.
        OverflowError: an integer is too large.
    """
    given = content.get("input_check")
    if given is None:
        return None
    required = {"mean": str, "scale": str, "components": str, "distance": float, "colour": float}
    optional = {"layout": str, "layout_limit": float, "thumbnail": str}
    if not isinstance(given, dict) or any(given.get(name) is None for name in required):
        raise ValueError(f"its input check has not all of {', '.join(required)}")
    kinds = required | {name: kind for name, kind in optional.items() if given.get(name) is not None}
    for name, kind in kinds.items():
        if type(given[name]) not in ({str} if kind is str else {int, float}):  # by type: a bool would pass for an int
            raise ValueError(f"its input check's {name} is not {'a text' if kind is str else 'a number'}")
    return InputCheck(**{name: kind(given[name]) for name, kind in kinds.items()})


def encoded(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


def decoded(text: str) -> bytes:
    """Return the bytes of base64.

    Raises:
        ValueError: the text is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not an input check: {error}") from error
