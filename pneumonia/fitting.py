"""Fitting the calibration on validation: temperature, operating point, band of doubt."""

import math

import torch
from torch import Tensor

from pneumonia.calibration import Calibration

# The share of pneumonias that must be found on validation. Models of this data are known to call normal images of other
# origin pneumonia, so we expect the scores of pneumonias to hold better than those of normals. So sensitivity is fixed,
# above the 93.2% of Kermany et al. 2018, and all that is left goes to specificity.
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
    threshold = _fit_threshold(odds, pneumonia)
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


def _fit_threshold(odds: Tensor, pneumonia: Tensor) -> Tensor:
    """Return the log-odds from which on SENSITIVITY of the pneumonias lie, half-way to the next image below."""
    falling = odds[pneumonia].sort(descending=True).values
    lowest = falling[math.ceil(SENSITIVITY * len(falling)) - 1]
    below = odds[odds < lowest]
    # Half-way, so that the last digit of a probability decides nothing; where no image is below, one is made up.
    return (lowest + (below.max() if len(below) else lowest - 1)) / 2
