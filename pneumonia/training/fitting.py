"""Fit a calibration: temperature, bias and band of doubt."""

import dataclasses
import math

import torch
from torch import Tensor

from pneumonia.network.calibration import EVEN, Calibration

# The operating point: the share of pneumonias that must be found on validation, above the 93.2% of Kermany et al. 2018.
# Normal images of another collection score higher than those of validation, so this does better there than even odds,
# or than what is best on validation, by benchmarks/operating_point.py (docs/model-card.md).
SENSITIVITY = 0.96
UNCERTAIN_SHARE = 0.1  # of the validation images: those nearest to a P(PNEUMONIA) of 0.5 are uncertain
TEMPERATURES = torch.logspace(-1, 1, 401, dtype=torch.float64)


def fit(logits: Tensor, labels: Tensor) -> Calibration:
    """Fit a calibration on validation images: the operating point for SENSITIVITY gets a P(PNEUMONIA) of 0.5.

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
    temperature = float(TEMPERATURES[_losses(odds - point, pneumonia, torch.zeros_like(TEMPERATURES)).argmin()])
    return _with_band(Calibration(temperature, -point.item() / temperature), odds)


def fit_likelihood(odds: Tensor, pneumonia: Tensor, prevalence: float = EVEN) -> Calibration:
    """Fit the temperature and bias of the lowest cross-entropy, both classes of equal weight, and the band of doubt.

    This is Platt scaling (1999) with a positive slope: the probabilities fit images like these. `fit` chooses the bias
    for a sensitivity instead, because the model will also see other images than those of validation.

    Args:
        odds: log-odds of PNEUMONIA, float64, shape (N,).
        pneumonia: bool, shape (N,), both values among them.
        prevalence: share of pneumonias among the patients whom the probabilities are for, 0 to 1; these images may have
            another.
    """
    biases = _biases(odds, pneumonia)
    place = int(_losses(odds, pneumonia, biases).argmin())
    fitted = Calibration(float(TEMPERATURES[place]), float(biases[place]))
    return _with_band(fitted.at_prevalence(prevalence), odds)


def _biases(odds: Tensor, pneumonia: Tensor) -> Tensor:
    """Return for each temperature the bias of the lowest cross-entropy, by bisecting its derivative."""
    targets, weights = _targets(pneumonia)
    scaled = odds / TEMPERATURES[:, None]
    low, high = -scaled.amax(1) - 10, -scaled.amin(1) + 10  # all probabilities are below, and above, any target
    for _ in range(60):
        middle = (low + high) / 2
        is_low = ((scaled + middle[:, None]).sigmoid() - targets).mv(weights) < 0
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    return (low + high) / 2


def _losses(odds: Tensor, pneumonia: Tensor, biases: Tensor) -> Tensor:
    """Return the cross-entropy at each temperature and its bias, with both classes of equal weight."""
    targets, weights = _targets(pneumonia)
    scaled = odds / TEMPERATURES[:, None] + biases[:, None]
    return torch.nn.functional.binary_cross_entropy_with_logits(
        scaled, targets.expand_as(scaled), weights.expand_as(scaled), reduction="none"
    ).sum(1)


def _targets(pneumonia: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's target and its weight in the cross-entropy.

    Targets are Platt's (1999): not 1 and 0 but (n + 1) / (n + 2) and 1 / (n + 2) for a class of n images, so that a
    set without errors does not lead to infinite confidence.
    """
    positives, negatives = int(pneumonia.sum()), int((~pneumonia).sum())
    targets = torch.where(pneumonia, (positives + 1) / (positives + 2), 1 / (negatives + 2)).double()
    return targets, torch.where(pneumonia, 0.5 / positives, 0.5 / negatives).double()


def _with_band(calibration: Calibration, odds: Tensor) -> Calibration:
    """Return the calibration with a band of doubt for the tenth of the images nearest to 0.5."""
    distance = (odds / calibration.temperature + calibration.bias).abs().quantile(UNCERTAIN_SHARE)
    low, high = torch.stack([-distance, distance]).sigmoid().tolist()
    return dataclasses.replace(calibration, uncertain_low=low, uncertain_high=high)


def log_odds(logits: Tensor) -> Tensor:
    """Return the log-odds of PNEUMONIA before calibration, float64, shape (N,), of logits (N, 2)."""
    return (logits[:, 1] - logits[:, 0]).double()


def suspicions(calibration: Calibration, odds: Tensor) -> Tensor:
    """Return the calibrated P(PNEUMONIA), float64, shape (N,), for log-odds as `log_odds` gives them."""
    return torch.tensor([calibration.probability(one) for one in odds.tolist()], dtype=torch.float64)


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
    # Half-way, so that rounding changes no answer. If no image is below, the point is half a unit lower.
    return (lowest + (below.max() if len(below) else lowest - 1)) / 2
