"""ResNet-18 with an output for each class, and running it over images.

`ResNet18` loads the state dict of torchvision's `resnet18` with two outputs and gives the same outputs, without
importing torchvision (its cost: docs/performance.md). Training uses torchvision's own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pneumonia.imaging.preprocessing import MEAN, STD
from pneumonia.network.contract import CLASSES


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2015, figure 5, left)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + shortcut)  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2015, table 1) with one output per class, under torchvision's key names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images, float32 (N, 3, 224, 224), to logits (N, 2) in the order of CLASSES."""
        return self.fc(torch.flatten(self.avgpool(self.layers(x)[-1]), 1))  # type: ignore[no-any-return]

    def layers(self, x: Tensor) -> list[Tensor]:
        """Map images as `forward` takes them to the outputs of the four layers.

        Returns:
            (N, 64, 56, 56), (N, 128, 28, 28), (N, 256, 14, 14) and (N, 512, 7, 7). `fc` turns the means over the last
            one's positions into logits.
        """
        outputs = [self.maxpool(self.relu(self.bn1(self.conv1(x))))]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            outputs.append(layer(outputs[-1]))
        return outputs[1:]


def pooled(layers: Sequence[Tensor]) -> Tensor:
    """Return the means over positions of the last two layers' outputs, float32, shape (N, FEATURES).

    The third layer still distinguishes what no radiograph shows; the last layer, trained to tell one radiograph from
    another, does so less. To the first two layers, frames, labels and a scan's tint look as unusual as other images.
    """
    return torch.cat([layer.mean((2, 3)) for layer in layers[-2:]], 1)


def evidence_of(fc: nn.Linear, features: Tensor) -> Tensor:
    """Return what each position adds to the log-odds of PNEUMONIA, as in `Outputs`, float32, shape (N, 7, 7).

    Args:
        fc: the network's fully connected layer.
        features: the last layer's output, float32, shape (N, 512, 7, 7).
    """
    normal, pneumonia = fc.weight.detach()
    return torch.einsum("c,nchw->nhw", pneumonia - normal, features)


def normalize(pixels: Tensor) -> Tensor:
    """Turn pixel values into the network's input, as `imaging.preprocessing.normalized` does, on any device.

    Args:
        pixels: uint8, or float in [0, 255], of shape (N, 3, height, width), or (N, 1, height, width) of gray images.

    Returns:
        float32 tensor of shape (N, 3, height, width), zero mean and unit variance over ImageNet. Its channels lie last
        in memory: convolutions are fastest so.
    """
    # Creating them on a GPU, or copying them there and waiting, would make training wait for the GPU at every step.
    mean = torch.tensor(MEAN).view(3, 1, 1).to(pixels.device, non_blocking=True)
    std = torch.tensor(STD).view(3, 1, 1).to(pixels.device, non_blocking=True)
    normal = pixels.float().div(255).sub(mean).div_(std)  # not sub_: one channel becomes three
    return normal.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def logits_of(network: nn.Module, pixels: Tensor, batch_size: int) -> Tensor:
    """Run a network over many images, in float32 as in serving.

    Args:
        network: in evaluation mode, on any device.
        pixels: uint8, shape (N, 3, SIZE, SIZE), SIZE as in `imaging.preprocessing`.
        batch_size: images at a time.

    Returns:
        float32, shape (N, 2), on the network's device, in the order of CLASSES.
    """
    device = next(network.parameters()).device
    parts = (pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size))
    return torch.cat([network(normalize(part.to(device))) for part in parts])
