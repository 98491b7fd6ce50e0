"""From the network's two outputs to an answer: temperature, operating point, band of doubt.

`training.fitting` fits all three on validation, the release's manifest carries them, and serving applies them. This
does not import torch, so that a cold start can read a manifest while torch is being imported.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Calibration:
    """How a model's outputs become an answer. The defaults change nothing: softmax, and the larger one wins.

    Attributes:
        temperature: divides the outputs before softmax (Guo et al. 2017).
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
            ValueError: the temperature is not above 0, or the probabilities are out of order or range.
        """
        ordered = 0 <= self.uncertain_low <= self.threshold <= self.uncertain_high <= 1
        if not (0 < self.temperature < math.inf and ordered):
            raise ValueError(f"not a calibration: {self}")

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """Return the classes' probabilities.

        Args:
            logits: shape (N, 2), in the order of CLASSES.

        Returns:
            Same shape and dtype, rows that sum to 1.
        """
        return (logits / self.temperature).softmax(1)

    def is_pneumonia(self, probability: float) -> bool:
        """Return whether the answer for P(PNEUMONIA) is PNEUMONIA."""
        return probability >= self.threshold

    def is_uncertain(self, probability: float) -> bool:
        """Return whether P(PNEUMONIA) lies in the band of doubt."""
        return self.uncertain_low < self.uncertain_high and self.uncertain_low <= probability <= self.uncertain_high


def calibration_in(content: dict[str, Any]) -> Calibration:
    """Return the calibration in a manifest or a training report, or the default if it has none.

    Raises:
        ValueError: not four numbers, or numbers that no fit gives.
        OverflowError: an integer is too large.
    """
    if "calibration" not in content:
        return Calibration()
    given = content["calibration"]
    names = [field.name for field in dataclasses.fields(Calibration)]
    # By type, as a bool would pass for an int.
    if not isinstance(given, dict) or any(type(given.get(name)) not in {int, float} for name in names):
        raise ValueError(f"its calibration is {given!r:.200}, not the numbers {', '.join(names)}")
    return Calibration(*(float(given[name]) for name in names))
