"""Fit on validation what makes answers of outputs: temperature, operating point and band of doubt."""

import math

import torch
from torch import Tensor

from pneumonia.network.calibration import Calibration

# The share of pneumonias that must be found on validation, above the 93.2% of Kermany et al. 2018. Normal images of
# another collection score higher than those of validation, so this does better there than 0.5, or than what is best on
# validation, by benchmarks/operating_point.py (docs/model-card.md).
SENSITIVITY = 0.96
UNCERTAIN_SHARE = 0.1  # of the validation images: those nearest to the operating point carry a warning
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
