"""Fit on validation what makes answers of outputs: temperature, operating point, band of doubt, and input check."""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from pneumonia.imaging.preprocessing import SIZE, normalize
from pneumonia.network.calibration import Calibration
from pneumonia.network.detector import Detector, colour, pooled
from pneumonia.network.input_check import InputCheck, encoded
from pneumonia.network.resnet import ResNet18
from pneumonia.training.augmentation import augment

# The share of pneumonias that must be found on validation, above the 93.2% of Kermany et al. 2018. Normal images of
# another collection score higher than those of validation, so this does better there than 0.5, or than what is best on
# validation, by benchmarks/operating_point.py (docs/model-card.md).
SENSITIVITY = 0.96
UNCERTAIN_SHARE = 0.1  # of the validation images: those nearest to the operating point carry a warning
# The input check: chosen on images that are no chest X-rays, and on X-rays of adults and of other depictions
# (docs/model-card.md).
COMPONENTS = 32  # directions in which training images differ by more than equally in all
COLOUR = 0.15  # a sepia scan has 0.1, most photographs more than 0.2
MARGIN = 1.7  # times the distance that 99% of the varied validation images keep
TINT = 0.2  # the most that one channel of a training image is darkened by
SEED = 0
TEMPERATURES = torch.logspace(-1, 1, 401, dtype=torch.float64)


def fit(logits: Tensor, labels: Tensor) -> Calibration:
    """Fit temperature, operating point and band of doubt, in this order.

    Args:
        logits: shape (N, 2), of validation images, in the order of CLASSES.
        labels: int64, shape (N,), indices in CLASSES, both classes among them.
    """
    odds = (logits[:, 1] - logits[:, 0]).double()
    pneumonia = labels == 1
    temperature = _fit_temperature(odds, pneumonia)
    odds = odds / temperature
    threshold = at_sensitivity(odds, pneumonia, SENSITIVITY)
    distance = (odds - threshold).abs().quantile(UNCERTAIN_SHARE)
    low, middle, high = torch.stack([threshold - distance, threshold, threshold + distance]).sigmoid().tolist()
    return Calibration(temperature, middle, low, high)


def _fit_temperature(odds: Tensor, pneumonia: Tensor) -> float:
    """Return the temperature of the least cross-entropy, both classes weighing alike.

    Targets are Platt's (1999): not 1 and 0 but (n + 1) / (n + 2) and 1 / (n + 2) for a class of n images, so that a
    validation set without a single error does not ask for endless confidence.
    """
    positives, negatives = int(pneumonia.sum()), int((~pneumonia).sum())
    targets = torch.where(pneumonia, (positives + 1) / (positives + 2), 1 / (negatives + 2)).double()
    weights = torch.where(pneumonia, 0.5 / positives, 0.5 / negatives).double()
    scaled = odds / TEMPERATURES[:, None]
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        scaled, targets.expand_as(scaled), weights.expand_as(scaled), reduction="none"
    )
    return float(TEMPERATURES[losses.sum(1).argmin()])


def at_sensitivity(odds: Tensor, pneumonia: Tensor, sensitivity: float) -> Tensor:
    """Return the log-odds from which on a share of the pneumonias lie, half-way to the next image below.

    Args:
        odds: log-odds of PNEUMONIA, shape (N,).
        pneumonia: bool, shape (N,), at least one True.
        sensitivity: the share, above 0.
    """
    falling = odds[pneumonia].sort(descending=True).values
    lowest = falling[math.ceil(sensitivity * len(falling)) - 1]
    below = odds[odds < lowest]
    # Half-way, so that the last digit of a probability decides nothing; where no image is below, one is made up.
    return (lowest + (below.max() if len(below) else lowest - 1)) / 2


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
