"""Run ResNet-18 with PyTorch, for serving: the same outputs in about four fifths of the time (docs/performance.md).

Batch norm becomes part of the convolution before it, because after training it is a fixed scale and shift. Kernels are
laid out for oneDNN once instead of at every call. What follows a convolution, the shortcut's sum and ReLU, happens
while the output is still in the processor's cache. `torch.compile` does the same with the same operators, but takes a
compiler and a minute.
"""

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pneumonia.engines.cores import paid_cores
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.outputs import Engine, Floats, Outputs
from pneumonia.network.resnet import BasicBlock, ResNet18, evidence_of, pooled
from pneumonia.network.weights_file import network_in


def engine_in(data: bytes, name: str, *, is_checked: bool) -> Engine:
    """Return an engine that runs the network in a weights file; arguments as for `engines.choice.engine_in`.

    Raises:
        WeightsError: the bytes are not a state dict of this network.
    """
    if cores := paid_cores():
        torch.set_num_threads(cores)
    return engine_of(network_in(data, name, is_checked=is_checked))


def engine_of(network: ResNet18) -> Engine:
    """Return an engine that runs a network; arguments as for `fuse`."""
    return _TorchEngine(fuse(network))


class _TorchEngine:
    """Runs a network with PyTorch; safe to use from many threads."""

    def __init__(self, network: "Network") -> None:
        self._network = network

    def __call__(self, pixels: Floats, /) -> Outputs:
        with torch.inference_mode():
            layers = self._network.layers(torch.from_numpy(pixels))
            features, means = layers[-1], pooled(layers)
            logits = self._network.fc(features.mean((2, 3)))
            evidence = evidence_of(self._network.fc, features)
        return Outputs(*(output.numpy() for output in (logits, evidence, means, features.contiguous())))


class Network(Protocol):
    """A network that serves: `ResNet18`, or the same network fused."""

    fc: nn.Linear

    def __call__(self, x: Tensor, /) -> Tensor:
        """Map images to logits."""

    def layers(self, x: Tensor) -> list[Tensor]:
        """Map images to the outputs of the four layers."""


def fuse(network: ResNet18) -> Network:
    """Return a faster network with the same outputs, within 1e-5.

    Args:
        network: in evaluation mode, float32, on the CPU. It cannot be used afterwards: keeping a second copy of the
            kernels would set the process's peak of memory.

    Returns:
        The network itself if torch has no oneDNN, as on Macs.
    """
    return _Fused(network) if torch.backends.mkldnn.is_available() else network  # type: ignore[no-untyped-call]


class _Fused:
    """ResNet-18 made of fused convolutions; safe to use from many threads."""

    def __init__(self, network: ResNet18) -> None:
        side = SIZE
        self._stem = _Convolution(network.conv1, network.bn1, side)
        side //= 4  # the stem's stride, and the pooling's
        self._pool = network.maxpool
        self._layers: list[list[_Block]] = []
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            self._layers.append([])
            for block in cast("list[BasicBlock]", layer):
                self._layers[-1].append(_Block(block, side))
                side //= block.conv1.stride[0]
        self.fc = network.fc

    def __call__(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(x)[-1].mean((2, 3)))  # type: ignore[no-any-return]

    def layers(self, x: Tensor) -> list[Tensor]:
        x = self._pool(self._stem(x.contiguous(memory_format=torch.channels_last), "relu"))
        outputs = []
        for layer in self._layers:
            for block in layer:
                x = block(x)
            outputs.append(x)
        return outputs


class _Block:
    """A BasicBlock for inputs of `side` pixels a side."""

    def __init__(self, block: BasicBlock, side: int) -> None:
        self._first = _Convolution(block.conv1, block.bn1, side)
        self._second = _Convolution(block.conv2, block.bn2, side // block.conv1.stride[0])
        self._downsample: _Convolution | None = None
        if isinstance(block.downsample, nn.Sequential):
            self._downsample = _Convolution(*cast("tuple[nn.Conv2d, nn.BatchNorm2d]", block.downsample), side)

    def __call__(self, x: Tensor) -> Tensor:
        shortcut = self._downsample(x, "none") if self._downsample else x
        return self._second.onto(shortcut, self._first(x, "relu"))


class _Convolution:
    """A convolution with its batch norm, laid out for square inputs of `side` pixels a side."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, side: int) -> None:
        self._geometry = (
            list(cast("tuple[int, ...]", convolution.padding)),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        shape = [1, convolution.in_channels, side, side]
        kernel, bias = _fused(convolution, norm)
        self._kernel = torch.ops.mkldnn._reorder_convolution_weight(kernel, *self._geometry, shape)
        self._bias = bias  # the batch norm's shift, if nothing else

    def __call__(self, x: Tensor, then: str) -> Tensor:
        """Return the convolution of x, after `then`: "relu" or "none"."""
        operator = torch.ops.mkldnn._convolution_pointwise
        return operator(x, self._kernel, self._bias, *self._geometry, then, [], "")  # type: ignore[no-any-return]

    def onto(self, shortcut: Tensor, x: Tensor) -> Tensor:
        """Return the ReLU of a shortcut plus the convolution of x."""
        operator = torch.ops.mkldnn._convolution_pointwise.binary
        arguments: Any = (x, shortcut, self._kernel, self._bias, *self._geometry, "add", 1.0, "relu", [], "")
        return operator(*arguments)  # type: ignore[no-any-return]


def _fused(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return a convolution's kernel and bias with its batch norm in them; the convolution loses its kernel."""
    mean, variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
    kernel, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )
    del convolution.weight
    return kernel.detach(), bias.detach()
