"""What a network returns for images, and the engine that runs it. Knows neither torch nor ONNX Runtime."""

from random import Random
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pneumonia.errors import WeightsError
from pneumonia.imaging.preprocessing import SIZE, normalized

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


def check_outputs(engine: Engine, name: str) -> Floats:
    """Check that an engine's logits are finite for noise, a black and a white image, and return them.

    Args:
        engine: the engine.
        name: where the network comes from, for the error's sentence.

    Returns:
        Those of `probes`, shape (4, 2).

    Raises:
        WeightsError: a logit is not finite.
    """
    logits = engine(probes()).logits
    if not np.isfinite(logits).all():
        raise WeightsError(f"The outputs of the network in {name} are not finite: training diverged, train again.")
    return logits


def probes() -> Floats:
    """Return the network's input for two images of noise, a black and a white one, the same each time."""
    noise = np.frombuffer(Random(0).randbytes(2 * 3 * SIZE * SIZE), np.uint8).reshape(2, 3, SIZE, SIZE)
    black, white = np.zeros_like(noise[:1]), np.full_like(noise[:1], 255)
    return normalized(np.concatenate([noise, black, white]))
