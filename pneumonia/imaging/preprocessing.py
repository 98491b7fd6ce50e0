"""From a decoded image to the network's input: the one definition that training, evaluation and serving share.

This uses only Pillow and NumPy. The result equals torchvision's `Resize((224, 224))`, `ToTensor()`,
`Normalize(MEAN, STD)` on the decoded RGB image, bit for bit; a test checks that.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 224  # pixels a side, for which ResNet-18 was designed
MEAN = (0.485, 0.456, 0.406)  # ImageNet's, per RGB channel of values in [0, 1], as torchvision's weights expect
STD = (0.229, 0.224, 0.225)
PREPROCESSING = {
    "color": "RGB",
    "resize": [SIZE, SIZE],
    "interpolation": "bilinear, antialiased (Pillow)",
    "mean": list(MEAN),
    "std": list(STD),
}


def resize(image: Image.Image) -> NDArray[np.uint8]:
    """Resize a decoded image to the network's size, whatever its aspect ratio.

    Args:
        image: mode "L" or "RGB", any size.

    Returns:
        uint8, shape (3, SIZE, SIZE), not to be written to; a grayscale image fills all three channels.
    """
    small = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return np.broadcast_to(small.reshape(SIZE, SIZE, -1).transpose(2, 0, 1), (3, SIZE, SIZE))


def normalized(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Turn pixel values into the network's input. `network.resnet.normalize` does the same to tensors.

    Args:
        pixels: uint8, or float in [0, 255], of shape (…, 3, height, width), or (…, 1, height, width) of gray images.

    Returns:
        float32, of shape (…, 3, height, width), zero mean and unit variance over ImageNet.
    """
    values = pixels.astype(np.float32)
    values /= 255
    values = values - of_channels(MEAN)  # not in place: one channel becomes three
    values /= of_channels(STD)
    return values


def of_channels(values: tuple[float, ...]) -> NDArray[np.float32]:
    """Return a value for each channel, float32, shape (3, 1, 1)."""
    return np.array(values, np.float32).reshape(3, 1, 1)


def preprocess(image: Image.Image) -> NDArray[np.float32]:
    """Return the network's input for one decoded image: float32, shape (1, 3, SIZE, SIZE)."""
    pixels = np.empty((1, 3, SIZE, SIZE), np.float32)
    for shades, channel, normal in zip(SHADES, resize(image), pixels[0], strict=True):
        shades.take(channel, out=normal, mode="clip")  # "clip" skips the check of the range, which 8 bits never leave
    return pixels


# The result of `normalized` for each value of each channel, shape (3, 256): looking it up takes 0.4 of the time.
SHADES = normalized(np.arange(256).reshape(1, 1, 256))[:, 0]
