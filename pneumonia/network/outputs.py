"""The interface of the engines: what an engine takes and returns. This imports neither torch nor ONNX Runtime."""

from random import Random
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumonia.errors import WeightsError
from pneumonia.imaging.preprocessing import SIZE, preprocess

Floats = NDArray[np.float32]


class Outputs(NamedTuple):
    """The network's outputs for N images, all float32.

    Attributes:
        logits: shape (N, 2), in the order of CLASSES.
        evidence: shape (N, 7, 7), what each position adds to the log-odds of PNEUMONIA, before calibration. The
            log-odds are its mean plus the difference of the two biases of the fully connected layer.
        means: shape (N, FEATURES), the means over positions of the outputs of the last two layers of blocks, for the
            input check.
        features: shape (N, 512, 7, 7), the outputs of the last layer of blocks.
    """

    logits: Floats
    evidence: Floats
    means: Floats
    features: Floats


class Engine(Protocol):
    """Runs one network with PyTorch or ONNX Runtime. Safe to use from many threads."""

    def __call__(self, pixels: Floats, /) -> Outputs:
        """Run the network.

        Args:
            pixels: float32, shape (N, 3, SIZE, SIZE), as `preprocess` gives them.
        """


def check_outputs(engine: Engine, name: str) -> Outputs:
    """Check that an engine's logits for `probes` are finite, and return its outputs.

    Args:
        engine: the engine.
        name: where the network comes from, for error messages.

    Raises:
        WeightsError: a logit is not finite.
    """
    outputs = engine(probes())
    if not np.isfinite(outputs.logits).all():
        raise WeightsError(f"The outputs of the network in {name} are not finite: training diverged, train again.")
    return outputs


def probes() -> Floats:
    """Return an image of noise, one as smooth as a film, a black and a white one, which are the same at each call.

    Returns:
        The network's input, float32, shape (4, 3, SIZE, SIZE).
    """
    random = Random(0)
    noise = Image.frombytes("RGB", (SIZE, SIZE), random.randbytes(3 * SIZE * SIZE))
    shades = Image.frombytes("L", (9, 9), random.randbytes(81)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    flat = [Image.new("L", (SIZE, SIZE), value) for value in (0, 255)]
    return np.concatenate([preprocess(image) for image in (noise, shades, *flat)])
