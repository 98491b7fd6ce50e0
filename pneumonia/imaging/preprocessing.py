"""From a decoded image to the network's input: the one definition that training, evaluation and serving share.

This uses only Pillow and torch, because importing torchvision would nearly double what a cold start imports. The result
equals torchvision's `Resize((224, 224))`, `ToTensor()`, `Normalize(MEAN, STD)` on the decoded RGB image, bit for bit;
a test checks that.
"""

import torch
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


def resize(image: Image.Image) -> torch.Tensor:
    """Resize a decoded image to the network's size, whatever its aspect ratio.

    Args:
        image: mode "L" or "RGB", any size.

    Returns:
        uint8 tensor of shape (3, SIZE, SIZE); a grayscale image fills all three channels.
    """
    small = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
    return pixels.view(SIZE, SIZE, -1).permute(2, 0, 1).expand(3, SIZE, SIZE)


def normalize(pixels: torch.Tensor) -> torch.Tensor:
    """Turn pixel values into the network's input.

    Args:
        pixels: uint8, or float in [0, 255], of shape (…, 3, height, width), or (…, 1, height, width) of gray images.

    Returns:
        float32 tensor of shape (…, 3, height, width), zero mean and unit variance over ImageNet.
    """
    # Creating them on a GPU, or copying them there and waiting, would make training wait for the GPU at every step.
    mean = torch.tensor(MEAN).view(3, 1, 1).to(pixels.device, non_blocking=True)
    std = torch.tensor(STD).view(3, 1, 1).to(pixels.device, non_blocking=True)
    return pixels.float().div(255).sub(mean).div_(std)  # not sub_: one channel becomes three


def preprocess(image: Image.Image) -> torch.Tensor:
    """Return the network's input for one decoded image: float32, shape (1, 3, SIZE, SIZE)."""
    return normalize(resize(image)).unsqueeze(0)
