"""Measure the usual evidence of a network: what each position of a film usually adds to the log-odds of PNEUMONIA."""

from collections.abc import Callable

import torch
from torch import Tensor

from pneumonia.network.contract import CLASSES
from pneumonia.network.resnet import ResNet18, evidence_of, normalize
from pneumonia.network.usual_evidence import UsualEvidence

DIGITS = 3  # after the point; the released model's are from -3 to 4.3


@torch.inference_mode()
def usual_evidence_of(
    network: ResNet18,
    pixels: Tensor,
    labels: Tensor,
    batch_size: int,
    gather: Callable[[Tensor], Tensor] = lambda part: part,
) -> UsualEvidence:
    """Return the mean evidence of each position, both classes of equal weight, rounded.

    Args:
        network: in evaluation mode, on any device.
        pixels: this process's validation images, uint8, shape (N, 1 or 3, SIZE, SIZE).
        labels: theirs, int64, shape (N,), indices in CLASSES; over all processes, each class has an image.
        batch_size: images that go through the network at a time.
        gather: concatenates the tensors of all processes, each of which has a share of the images.
    """
    device = network.fc.weight.device
    inputs = (normalize(part.to(device)) for part in torch.split(pixels, batch_size))
    features = (network.layers(part)[-1] for part in inputs)
    evidence = gather(torch.cat([evidence_of(network.fc, part) for part in features]).cpu()).double()
    classes = gather(labels)
    means = torch.stack([evidence[classes == index].mean(0) for index in range(len(CLASSES))])
    return tuple(map(tuple, means.mean(0).round(decimals=DIGITS).tolist()))
