"""Networks that look trained, images for them, and what their tensors hold."""

import torch
from torch import Tensor, nn

from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.outputs import Floats
from pneumonia.network.resnet import BasicBlock, ResNet18
from pneumonia.network.weights_file import at_rest


def untrained() -> ResNet18:
    """Return a network as of a weights file after training: its batch norms have statistics, scales and shifts."""
    torch.manual_seed(0)
    network = ResNet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high)
    network.load_state_dict(at_rest(network.state_dict()))
    return network.eval()


def noise(count: int) -> Tensor:
    """Return images, each of another contrast."""
    images = torch.randint(0, 256, (count, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    return (images / torch.arange(1, count + 1).view(-1, 1, 1, 1)).to(torch.uint8)


@torch.inference_mode()
def ranges_of(network: ResNet18, pixels: Floats) -> dict[str, tuple[float, float]]:
    """Return the least and the greatest value of each of `TENSORS` for these images."""
    ranges: dict[str, tuple[float, float]] = {}

    def seen(name: str, tensor: Tensor) -> Tensor:
        ranges[name] = float(tensor.min()), float(tensor.max())
        return tensor

    def block(name: str, x: Tensor, parts: BasicBlock) -> Tensor:
        shortcut = x if parts.downsample is None else seen(f"{name}.downsample", parts.downsample(x))
        first = seen(f"{name}.relu1", parts.bn1(parts.conv1(x)).relu())
        return seen(f"{name}.out", (seen(f"{name}.bn2", parts.bn2(parts.conv2(first))) + shortcut).relu())

    x = seen("pixels", torch.from_numpy(pixels))
    x = network.maxpool(seen("relu", network.bn1(network.conv1(x)).relu()))
    for name, parts in network.named_modules():
        if isinstance(parts, BasicBlock):
            x = block(name, x, parts)
    del ranges["layer4.1.out"]
    return ranges
