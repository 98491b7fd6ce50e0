"""From a decoded image to the network's input: the one definition that training, evaluation and serving share.

An image is resized, its histogram is equalised if the network was trained so, and its values are normalised. This uses
only Pillow and NumPy. Without the equalisation the result equals torchvision's `Resize((224, 224))`, `ToTensor()`,
`Normalize(MEAN, STD)` on the decoded RGB image, bit for bit; a test checks that.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 224  # pixels a side, for which ResNet-18 was designed
MEAN = (0.485, 0.456, 0.406)  # ImageNet's, per RGB channel of values in [0, 1], as torchvision's weights expect
STD = (0.229, 0.224, 0.225)
BORDER = SIZE // 10  # pixels at each edge that the histogram leaves out: frames, labels, what lies around a photograph
# What manifests say: of releases until November 2026, and of those that this code trains.
PLAIN: dict[str, Any] = {
    "color": "RGB",
    "resize": [SIZE, SIZE],
    "interpolation": "bilinear, antialiased (Pillow)",
    "mean": list(MEAN),
    "std": list(STD),
}
PREPROCESSING = PLAIN | {
    "intensity": f"half-way to each channel's equalised histogram, counted without {BORDER} pixels at each edge"
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


def preprocess(image: Image.Image, *, equalized: bool = False) -> NDArray[np.float32]:
    """Return the network's input for one decoded image: float32, shape (1, 3, SIZE, SIZE)."""
    return network_input(resize(image)[np.newaxis], equalized=equalized)


def network_input(pixels: NDArray[np.uint8], *, equalized: bool) -> NDArray[np.float32]:
    """Turn resized images into the network's input. `network.resnet.network_input` does the same to tensors.

    Args:
        pixels: shape (N, 3, SIZE, SIZE).
        equalized: whether the network was trained on images equalised half-way.

    Returns:
        float32, shape (N, 3, SIZE, SIZE).
    """
    inputs = np.empty(pixels.shape, np.float32)
    for image, normal in zip(pixels, inputs, strict=True):
        for channel, shades, out in zip(image, SHADES, normal, strict=True):
            table = shades[equalization(channel)] if equalized else shades
            table.take(channel, out=out, mode="clip")  # "clip" skips the check of the range, which 8 bits never leave
    return inputs


def equalization(channel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the new value of each value: half-way to that by which all values would be about equally frequent.

    By that, a value becomes the mean rank of its pixels, scaled so that the darkest inside the border becomes 0 and the
    brightest 255. So it hardly matters how finely a file tells shades apart: where two values are merged, the new one
    lies between theirs. (Gonzalez and Woods, *Digital Image Processing*, section 3.3, take the rank of a value's last
    pixel.) Only half-way, because networks that saw fully equalised images did worse on another collection
    (docs/model-card.md). An image of one value stays as it is.

    Args:
        channel: shape (SIZE, SIZE).

    Returns:
        Shape (256,).
    """
    inner = channel[BORDER:-BORDER, BORDER:-BORDER]
    counts = np.bincount(inner.ravel(), minlength=256)
    ranks = 2 * counts.cumsum() - counts  # twice the mean rank
    ranks -= ranks[inner.min()]
    most = ranks[inner.max()]
    if most == 0:
        return np.arange(256, dtype=np.uint8)
    full = ((ranks * 255 + most // 2) // most).clip(0, 255)
    half: NDArray[np.uint8] = ((full + np.arange(256) + 1) // 2).astype(np.uint8)
    return half


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


# The result of `normalized` for each value of each channel, shape (3, 256): looking it up takes 0.4 of the time.
SHADES = normalized(np.arange(256).reshape(1, 1, 256))[:, 0]
