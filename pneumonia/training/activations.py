"""Record the activation ranges of a network, for an ONNX file in 8-bit integers."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from pneumonia.network.activations import TENSORS, Ranges
from pneumonia.network.resnet import ResNet18, normalize

# Chosen on the test films; docs/model-card.md compares other rules.
IMAGES = 256  # training images that the ranges are recorded from, over all processes
SHARE = 1e-5  # of a tensor's values lie beyond each end of its range and are clipped; the others get finer steps
# For a tensor that is recorded as a module's input, the name of that module, within the block if there is one.
INPUT_OF = {"pixels": "conv1", "relu": "maxpool", "relu1": "conv2"}


def activations_of(
    network: ResNet18,
    train: Tensor,
    batch_size: int,
    gather: Callable[[Tensor], Tensor] = lambda part: part,
) -> Ranges:
    """Return the activation ranges on about IMAGES training images, without the SHARE of values at each end.

    Args:
        network: in evaluation mode, on any device.
        train: this process's training images, uint8, shape (N, 1 or 3, SIZE, SIZE).
        batch_size: images that go through the network at a time.
        gather: concatenates the tensors of all processes, each of which has a share of the images.
    """
    some = train[:: math.ceil(len(gather(train[:, 0, 0, :1])) / IMAGES)]
    tails = tails_of(network, some, batch_size, len(gather(some[:, 0, 0, :1])))
    ranges = {}
    for name, own in tails.items():
        below, above = gather(own).topk(len(own), 0).values[-1].tolist()
        ranges[name] = -below, above
    return ranges


@torch.inference_mode()
def tails_of(network: ResNet18, pixels: Tensor, batch_size: int, count: int) -> dict[str, Tensor]:
    """Return the extreme values of each of TENSORS, at each end as many as SHARE of the values of all processes.

    Args:
        network: in evaluation mode, on any device.
        pixels: uint8, shape (N, 1 or 3, SIZE, SIZE).
        batch_size: images that go through the network at a time.
        count: the number of images over all processes.

    Returns:
        For each tensor, float32 of shape (K, 2): the least values with their signs changed, and the greatest values.
    """
    device = network.fc.weight.device
    tails: dict[str, Tensor] = {}

    def see(name: str, tensor: Tensor) -> None:
        values, most = tensor.flatten(), max(1, round(SHARE * count * tensor[0].numel()))
        own = torch.stack([(-values).topk(most).values, values.topk(most).values], 1)
        tails[name] = torch.cat([tails[name], own]).topk(most, 0).values if name in tails else own

    with watched(network, see):
        for part in torch.split(pixels, batch_size):
            network(normalize(part.to(device)))
    return tails


@contextmanager
def watched(network: ResNet18, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `see` with the name and the values of each of TENSORS whenever the network runs within the block."""
    with ExitStack() as hooks:
        for name in TENSORS:
            place, _, part = name.rpartition(".")
            block = network.get_submodule(place)  # the network itself, for what is in no block
            if part in INPUT_OF:
                taker = block.get_submodule(INPUT_OF[part])
                hooks.enter_context(taker.register_forward_pre_hook(lambda _, given, name=name: see(name, given[0])))
            else:
                giver = block if part == "out" else block.get_submodule(part)
                hooks.enter_context(giver.register_forward_hook(lambda _, __, made, name=name: see(name, made)))
        yield
