"""Fit the input check: how the network's features of training images are distributed, and how far is too far."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from pneumonia.imaging.preprocessing import SIZE, normalize
from pneumonia.network.detector import Detector, colour, pooled
from pneumonia.network.input_check import InputCheck, encoded
from pneumonia.network.resnet import ResNet18
from pneumonia.training.augmentation import augment

# Chosen on images that are no chest X-rays, and on X-rays of adults and of other depictions (docs/model-card.md).
COMPONENTS = 32  # directions in which training images differ by more than equally in all
COLOUR = 0.15  # a sepia scan has 0.1, most photographs more than 0.2
MARGIN = 1.7  # times the distance that 99% of the varied validation images keep
TINT = 0.2  # the most that one channel of a training image is darkened by
SEED = 0


@torch.inference_mode()
def features_of(network: ResNet18, pixels: Tensor, batch_size: int, *, varied: bool) -> Tensor:
    """Return what the input check looks at, as `pooled` gives it.

    Args:
        network: in evaluation mode, on any device.
        pixels: uint8, shape (N, 1 or 3, SIZE, SIZE).
        batch_size: images at a time.
        varied: vary each image first as in training, and tint it; the same images in the same way each time.

    Returns:
        float32, shape (N, FEATURES), on the network's device.
    """
    device = network.fc.weight.device
    features = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        for part in torch.split(pixels, batch_size):
            images = part.to(device)
            inputs = normalize(_depict_otherwise(images) if varied else images)
            features.append(pooled(network.layers(inputs.contiguous(memory_format=torch.channels_last))))
    return torch.cat(features)


def colours_of(pixels: Tensor) -> Tensor:
    """Return `colour` of many images, uint8, shape (N, 1 or 3, SIZE, SIZE)."""
    return torch.cat([colour(normalize(part)) for part in torch.split(pixels.cpu(), 64)])


def input_check_of(
    network: ResNet18,
    train: Tensor,
    validation: Tensor,
    batch_size: int,
    gather: Callable[[Tensor], Tensor] = lambda part: part,
) -> InputCheck:
    """Fit the input check to a network and the images that it was trained on.

    Args:
        network: in evaluation mode, on any device.
        train: training images, as `features_of` takes them: plain and varied ones count.
        validation: validation images.
        batch_size: images at a time.
        gather: makes one tensor of what several processes have, each for its share of the images.
    """

    def features(pixels: Tensor, *, varied: bool) -> Tensor:
        return gather(features_of(network, pixels, batch_size, varied=varied))

    seen = torch.cat([features(train, varied=varied) for varied in (False, True)])
    colours = gather(colours_of(validation))
    return fit_input_check(seen, features(validation, varied=True), colours)


def fit_input_check(train: Tensor, validation: Tensor, colours: Tensor) -> InputCheck:
    """Fit how training images are distributed, and by validation images what is too far from them.

    Args:
        train: `features_of` training images, as they are and varied, shape (N, FEATURES).
        validation: `features_of` validation images, varied, shape (M, FEATURES).
        colours: `colours_of` the validation images, shape (M,).
    """
    mean, deviation = train.double().mean(0), train.double().std(0)
    deviation = deviation.clamp(min=max(1e-6, deviation.mean().item() / 100))  # of features that are hardly ever active
    normal = (train - mean) / deviation
    variances, directions = torch.linalg.eigh(normal.T @ normal / len(normal))  # ascending
    # Equal in all other directions, and not too small: a handful of images leave most without any variance.
    rest = variances[:-COMPONENTS].mean().clamp(min=0.1)
    shares = (1 - rest / variances[-COMPONENTS:]).clamp(min=0)
    components = directions[:, -COMPONENTS:] * shares.sqrt()
    check = InputCheck(
        mean=_encoded(mean.float()),
        scale=_encoded((1 / (deviation * rest.sqrt())).float()),
        components=_encoded(components.T.half()),
        distance=1.0,
        colour=1.0,
    )
    distances = Detector(check).distances(validation.cpu())
    return dataclasses.replace(
        check,
        distance=MARGIN * distances.double().quantile(0.99).item(),
        colour=max(COLOUR, MARGIN * colours.double().quantile(0.99).item()),
    )


def _depict_otherwise(images: Tensor) -> Tensor:
    """Vary images as in training, and tint them, as radiographs on file are not; float32, 3 channels."""
    varied = augment(images, SIZE)
    tint = 1 - (torch.rand(len(images), 3, 1, 1) * TINT).to(images.device)
    return varied * tint


def _encoded(array: Tensor) -> str:
    return encoded(array.contiguous().cpu().numpy().tobytes())
