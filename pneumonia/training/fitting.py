"""Fit on validation what makes answers of outputs: temperature, bias and band of doubt."""

import math

import torch
from torch import Tensor

from pneumonia.network.calibration import Calibration

# The operating point: the share of pneumonias that must be found on validation, above the 93.2% of Kermany et al. 2018.
# Normal images of another collection score higher than those of validation, so this does better there than even odds,
# or than what is best on validation, by benchmarks/operating_point.py (docs/model-card.md).
SENSITIVITY = 0.96
UNCERTAIN_SHARE = 0.1  # of the validation images: those nearest to the operating point carry a warning
TEMPERATURES = torch.logspace(-1, 1, 401, dtype=torch.float64)


def fit(logits: Tensor, labels: Tensor) -> Calibration:
    """Fit the operating point, then what makes a P(PNEUMONIA) of 0.5 of it.

    Args:
        logits: shape (N, 2), of validation images, in the order of CLASSES.
        labels: int64, shape (N,), indices in CLASSES, both classes among them.
    """
    odds, pneumonia = log_odds(logits), labels == 1
    return fit_at(at_sensitivity(odds, pneumonia, SENSITIVITY), odds, pneumonia)


def fit_at(point: Tensor, odds: Tensor, pneumonia: Tensor) -> Calibration:
    """Fit temperature, bias and band of doubt so that the operating point gets a P(PNEUMONIA) of 0.5.

    Args:
        point: log-odds from which on the answer is PNEUMONIA.
        odds: log-odds of PNEUMONIA, float64, shape (N,).
        pneumonia: bool, shape (N,), both values among them.
    """
    temperature = _fit_temperature(odds - point, pneumonia)
    distance = ((odds - point) / temperature).abs().quantile(UNCERTAIN_SHARE)
    low, high = torch.stack([-distance, distance]).sigmoid().tolist()
    return Calibration(temperature, -point.item() / temperature, low, high)


def log_odds(logits: Tensor) -> Tensor:
    """Return the log-odds of PNEUMONIA before calibration, float64, shape (N,), of logits (N, 2)."""
    return (logits[:, 1] - logits[:, 0]).double()


def _fit_temperature(odds: Tensor, pneumonia: Tensor) -> float:
    """Return the temperature of the least cross-entropy, both classes weighing alike.

    Targets are Platt's (1999): not 1 and 0 but (n + 1) / (n + 2) and 1 / (n + 2) for a class of n images, so that a
    validation set without a single error does not ask for endless confidence.

    Args:
        odds: log-odds of PNEUMONIA, 0 at the operating point, shape (N,).
        pneumonia: bool, shape (N,).
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
