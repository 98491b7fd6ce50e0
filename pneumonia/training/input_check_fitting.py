"""Fit the input check: how the network's features of training images are distributed, and how far is too far."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pneumonia.imaging.preprocessing import SIZE, normalized
from pneumonia.network.detector import Detector, colour, thumbnails
from pneumonia.network.input_check import InputCheck, encoded
from pneumonia.network.outputs import Floats
from pneumonia.network.resnet import ResNet18, normalize, pooled
from pneumonia.training.augmentation import augment
from pneumonia.training.other_views import TINT, depicted, frontal, no_frontal

# Chosen on images that are no chest X-rays, and on X-rays of adults and of other depictions (docs/model-card.md).
COMPONENTS = 32  # directions in which training images differ by more than equally in all
COLOUR = 0.15  # a sepia scan has 0.1, most photographs more than 0.2
MARGIN = 1.7  # times the distance that 99% of the varied validation images keep
CHANNELS = 64  # principal directions of the last layer's channels, in which the layout is fitted
RIDGE = 0.5  # how strongly small weights of the layout are preferred
FRONTAL_SHARE = 0.99  # of the varied validation images, that pass as frontal
IMAGES = 1200  # training images that the layout is fitted on at most, of all processes together: more help little
SEED = 0
Change = Callable[[Tensor], Tensor]


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
            features.append(pooled(network.layers(inputs)))
    return torch.cat(features)


@torch.inference_mode()
def maps_of(network: ResNet18, pixels: Tensor, batch_size: int, change: Change, seed: int) -> Tensor:
    """Return the last layer's outputs for images whose layout, exposure and storage were varied.

    Args:
        network: in evaluation mode, on any device.
        pixels: uint8, shape (N, 1 or 3, SIZE, SIZE).
        batch_size: images at a time.
        change: as the functions of `other_views`.
        seed: with the same one, the same images are changed in the same way.

    Returns:
        float16, on the CPU, shape (N, 512, 7, 7).
    """
    device = network.fc.weight.device
    maps = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for part in torch.split(pixels, batch_size):
            inputs = normalize(depicted(change(part.to(device).float() / 255)))
            maps.append(network.layers(inputs)[-1].half().cpu())
    return torch.cat(maps)


def thumbnails_of(pixels: Tensor) -> Tensor:
    """Return `thumbnails` of many images, uint8, shape (N, 1 or 3, SIZE, SIZE)."""
    return _in_parts(thumbnails, pixels)


def colours_of(pixels: Tensor) -> Tensor:
    """Return `colour` of many images, uint8, shape (N, 1 or 3, SIZE, SIZE)."""
    return _in_parts(colour, pixels)


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
    check = fit_input_check(seen, features(validation, varied=True), colours)
    return with_layout(check, network, train, validation, batch_size, gather)


def with_layout(
    check: InputCheck,
    network: ResNet18,
    train: Tensor,
    validation: Tensor,
    batch_size: int,
    gather: Callable[[Tensor], Tensor] = lambda part: part,
) -> InputCheck:
    """Return the input check with what detects other views and negatives; arguments as for `input_check_of`."""
    usual = gather(thumbnails_of(train)).mean(0)
    total = len(gather(torch.zeros(len(train), 1)))
    some = train[:: max(1, math.ceil(total / IMAGES))]

    def maps(pixels: Tensor, change: Change, seed: int = SEED) -> Tensor:
        return maps_of(network, pixels, batch_size, change, seed)

    films = [maps(some, lambda images: images), maps(some, frontal)]
    others = [maps(some, no_frontal, seed) for seed in range(2)]
    directions = _directions(torch.cat([*films, *others]), gather)
    # Each by itself: `gather` puts shares of the same images in their order.
    reduced = ([gather(_reduced(part, directions)) for part in kind] for kind in (films, others))
    weights = fit_layout(*map(torch.cat, reduced))
    layout = torch.einsum("dc,dp->cp", directions, weights.view(CHANNELS, -1)).half()
    sums = gather(maps(validation, frontal).float().flatten(1) @ layout.float().flatten())
    return dataclasses.replace(
        check,
        layout=_encoded(layout),
        layout_limit=sums.double().quantile(FRONTAL_SHARE).item(),
        thumbnail=_encoded(usual.half()),
    )


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
    distances = torch.from_numpy(Detector(check).distances(validation.cpu().numpy()))
    return dataclasses.replace(
        check,
        distance=MARGIN * distances.double().quantile(0.99).item(),
        colour=max(COLOUR, MARGIN * colours.double().quantile(0.99).item()),
    )


def fit_layout(films: Tensor, others: Tensor) -> Tensor:
    """Return the weights of Fisher's linear discriminant, by ridge regression, both classes of equal weight.

    Args:
        films: features of frontal films, shape (N, F).
        others: features of other pictures, shape (M, F).

    Returns:
        float32, shape (F,): the weighted sum is higher for other pictures.
    """
    both = torch.cat([films, others]).float()
    deviation = both.std(0)
    scale = 1 / deviation.clamp(min=max(1e-6, deviation.mean().item() / 100))
    alike = torch.cat([torch.full((len(part),), 0.5 / len(part)) for part in (films, others)])
    sides = torch.cat([-torch.ones(len(films)), torch.ones(len(others))])
    normal = (both - alike @ both) * scale
    weighted = (normal * alike[:, None]).T
    solution: Tensor = torch.linalg.solve(weighted @ normal + RIDGE * torch.eye(normal.shape[1]), weighted @ sides)
    return solution * scale


def _directions(maps: Tensor, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the CHANNELS principal directions of the standardised channels, float32, shape (CHANNELS, 512)."""
    rows = maps[::4].float().permute(0, 2, 3, 1).flatten(0, 2)
    mean, products = (gather(part[None]).mean(0) for part in (rows.mean(0), rows.T @ rows / len(rows)))
    covariance = products - mean.outer(mean)
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    scale = 1 / deviation.clamp(min=max(1e-6, deviation.mean().item() / 100))
    vectors: Tensor = torch.linalg.eigh(covariance * scale.outer(scale)).eigenvectors
    return vectors[:, -CHANNELS:].T * scale


def _reduced(maps: Tensor, directions: Tensor) -> Tensor:
    """Return the maps in CHANNELS directions, float16, shape (N, CHANNELS * 7 * 7)."""
    parts = [torch.einsum("dc,nchw->ndhw", directions, part.float()).half() for part in torch.split(maps, 256)]
    return torch.cat(parts).flatten(1)


def _in_parts(look: Callable[[Floats], Floats], pixels: Tensor) -> Tensor:
    """Return the results of a function of the network's input for all images, 64 at a time, on the CPU."""
    parts = (part.cpu().numpy() for part in torch.split(pixels, 64))
    return torch.from_numpy(np.concatenate([look(normalized(part)) for part in parts]))


def _depict_otherwise(images: Tensor) -> Tensor:
    """Vary images as in training, and tint them, as radiographs on file are not; float32, 3 channels."""
    varied = augment(images, SIZE)
    tint = 1 - (torch.rand(len(images), 3, 1, 1) * TINT).to(images.device)
    return varied * tint


def _encoded(array: Tensor) -> str:
    return encoded(array.contiguous().cpu().numpy().tobytes())
