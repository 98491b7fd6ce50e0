"""What a network returns for images, and the engine that runs it. Knows neither torch nor ONNX Runtime."""

from random import Random
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumonia.errors import WeightsError
from pneumonia.imaging.preprocessing import SIZE, preprocess

Floats = NDArray[np.float32]


class Outputs(NamedTuple):
    """What answers to N images are made of; float32 all of it.

    Attributes:
        logits: shape (N, 2), in the order of CLASSES.
        evidence: shape (N, 7, 7), what each position adds to the log-odds of PNEUMONIA, before calibration. The map's
            mean, and the difference of the last layer's biases, sum to the log-odds.
        means: shape (N, FEATURES), the means over positions of the last two layers' outputs, which the input check
            looks at.
        features: shape (N, 512, 7, 7), the last layer's outputs.
    """

    logits: Floats
    evidence: Floats
    means: Floats
    features: Floats


class Engine(Protocol):
    """A network that is loaded into PyTorch or ONNX Runtime. Safe to use from many threads."""

    def __call__(self, pixels: Floats, /) -> Outputs:
        """Run the network.

        Args:
            pixels: shape (N, 3, SIZE, SIZE), as `preprocess` gives them.
        """


def check_outputs(engine: Engine, name: str) -> Outputs:
    """Check that an engine's logits for `probes` are finite, and return its outputs.

    Args:
        engine: the engine.
        name: where the network comes from, for the error's sentence.

    Raises:
        WeightsError: a logit is not finite.
    """
    outputs = engine(probes())
    if not np.isfinite(outputs.logits).all():
        raise WeightsError(f"The outputs of the network in {name} are not finite: training diverged, train again.")
    return outputs


def probes() -> Floats:
    """Return the network's input for noise, shades as smooth as a film's, black and white, the same each time."""
    random = Random(0)
    noise = Image.frombytes("RGB", (SIZE, SIZE), random.randbytes(3 * SIZE * SIZE))
    shades = Image.frombytes("L", (9, 9), random.randbytes(81)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    flat = [Image.new("L", (SIZE, SIZE), value) for value in (0, 255)]
    return np.concatenate([preprocess(image) for image in (noise, shades, *flat)])
