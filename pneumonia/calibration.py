"""From the network's two outputs to an answer: temperature, operating point, band of doubt.

All three are fitted on validation, travel in the release's manifest and are applied where the model serves.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# The share of pneumonias that must be found on validation. Models of this data are known to call normal images of other
# origin pneumonia, so we expect the scores of pneumonias to hold better than those of normals. So sensitivity is fixed,
# above the 93.2% of Kermany et al. 2018, and all that is left goes to specificity.
SENSITIVITY = 0.96
UNCERTAIN_SHARE = 0.1  # of the validation images: those nearest to the operating point carry a warning
TEMPERATURES = torch.logspace(-1, 1, 401, dtype=torch.float64)


@dataclass(frozen=True)
class Calibration:
    """How a model's outputs become an answer. The defaults change nothing: softmax, and the larger one wins.

    Attributes:
        temperature: what the outputs are divided by before softmax (Guo et al. 2017).
        threshold: operating point: from this P(PNEUMONIA) on, the answer is PNEUMONIA.
        uncertain_low: from this P(PNEUMONIA) …
        uncertain_high: … to this one, both included, the answer carries a warning.
    """

    temperature: float = 1.0
    threshold: float = 0.5
    uncertain_low: float = 0.5
    uncertain_high: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values that no fit gives.

        Raises:
            ValueError: a temperature that is not above 0, or probabilities out of order or range.
        """
        ordered = 0 <= self.uncertain_low <= self.threshold <= self.uncertain_high <= 1
        if not (0 < self.temperature < math.inf and ordered):
            raise ValueError(f"not a calibration: {self}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the classes' probabilities.

        Args:
            logits: shape (N, 2), in the order of CLASSES.

        Returns:
            Same shape and dtype, rows that sum to 1.
        """
        return (logits / self.temperature).softmax(1)

    def is_pneumonia(self, probability: float) -> bool:
        """Tell the answer for P(PNEUMONIA)."""
        return probability >= self.threshold

    def is_uncertain(self, probability: float) -> bool:
        """Tell whether P(PNEUMONIA) lies in the band of doubt."""
        return self.uncertain_low < self.uncertain_high and self.uncertain_low <= probability <= self.uncertain_high


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
