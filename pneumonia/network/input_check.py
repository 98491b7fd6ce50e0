"""The statistics behind the warning `not_a_chest_xray`, which marks images unlike the training radiographs.

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
    """

    mean: str
    scale: str
    components: str
    distance: float
    colour: float

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


def input_check_in(content: dict[str, Any]) -> InputCheck | None:
    """Return the input check in a manifest or a training report, or None if it has none.

    Raises:
        ValueError: other fields than an input check's, or values that no fit gives.
        OverflowError: an integer is too large.
    """
    given = content.get("input_check")
    if given is None:
        return None
    texts, limits = ("mean", "scale", "components"), ("distance", "colour")
    # By type, as a bool would pass for an int.
    if (
        not isinstance(given, dict)
        or any(not isinstance(given.get(name), str) for name in texts)
        or any(type(given.get(name)) not in {int, float} for name in limits)
    ):
        raise ValueError(f"its input check has not the texts {', '.join(texts)} and the numbers {', '.join(limits)}")
    return InputCheck(*(given[name] for name in texts), *(float(given[name]) for name in limits))


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
