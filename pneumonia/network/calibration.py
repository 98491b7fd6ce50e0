"""From the network's two outputs to an answer: temperature, bias, band of doubt.

`training.fitting` fits all three on validation, the release's manifest carries them, and serving applies them. This
imports nothing heavy, so that a cold start can read a manifest while the engine is being imported.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

NUMBERS = ("temperature", "bias", "uncertain_low", "uncertain_high")
OLDER_NUMBERS = ("temperature", "threshold", "uncertain_low", "uncertain_high")  # as manifests had until November 2026
EVEN = 0.5  # the prevalence that a fit with both classes of equal weight is for
TEMPERATURES = (0.01, 100.0)  # beyond what any fit gives; 1e-320 would make NaN of every answer
# Older manifests were made for a float32 softmax: above the second it gives exactly 1. The first is next to nothing.
OLDER_THRESHOLDS = (1e-13, 1 - 2**-24)


@dataclass(frozen=True)
class Calibration:
    """How a model's outputs become an answer: P(PNEUMONIA) = sigmoid(log-odds / temperature + bias).

    The defaults give plain softmax.

    Attributes:
        temperature: divides the outputs before softmax (Guo et al. 2017).
        bias: added to the log-odds of PNEUMONIA (Platt 1999). It moves the operating point to a P(PNEUMONIA) of 0.5.
        uncertain_low: the answer is uncertain from this P(PNEUMONIA), at most 0.5, …
        uncertain_high: … to this one, at least 0.5, both included.
        prevalence: the share of pneumonias among the patients whom the probabilities are for.
    """

    temperature: float = 1.0
    bias: float = 0.0
    uncertain_low: float = 0.5
    uncertain_high: float = 0.5
    prevalence: float = EVEN

    def __post_init__(self) -> None:
        """Refuse values that no fit gives.

        Raises:
            ValueError: the temperature is not in TEMPERATURES, the bias is not finite, the probabilities are out of
                order or range, or the prevalence is not between 0 and 1.
        """
        lowest, highest = TEMPERATURES
        ordered = 0 <= self.uncertain_low <= 0.5 <= self.uncertain_high <= 1
        is_between = 0 < self.prevalence < 1
        if not (lowest <= self.temperature <= highest and math.isfinite(self.bias) and ordered and is_between):
            raise ValueError(f"not a calibration: {self}")

    def probability(self, odds: float) -> float:
        """Return P(PNEUMONIA) for the log-odds of PNEUMONIA; NaN where they are not finite."""
        if not math.isfinite(odds):
            return math.nan  # an infinity's sigmoid would look like an answer
        value = odds / self.temperature + self.bias
        share = math.exp(-abs(value))  # cannot overflow
        return (1 if value >= 0 else share) / (1 + share)

    def is_uncertain(self, probability: float) -> bool:
        """Return whether P(PNEUMONIA) lies in the band of doubt."""
        return self.uncertain_low < self.uncertain_high and self.uncertain_low <= probability <= self.uncertain_high

    def at_prevalence(self, prevalence: float) -> "Calibration":
        """Return the calibration for patients among whom pneumonia is more frequent or rarer, by Bayes' rule.

        Only the bias changes, by the difference in the log-odds of the two prevalences (Saerens et al. 2002). Of
        several changes, only the last counts. The band of doubt keeps its probabilities.

        Args:
            prevalence: the new share of pneumonias, between 0 and 1.

        Raises:
            ValueError: the prevalence is not between 0 and 1.
        """
        if not 0 < prevalence < 1:
            raise ValueError(f"not a prevalence: {prevalence}")
        moved = self.bias + _log_odds(prevalence) - _log_odds(self.prevalence)
        return dataclasses.replace(self, bias=moved, prevalence=prevalence)


def is_pneumonia(probability: float) -> bool:
    """Return whether the answer for P(PNEUMONIA) is PNEUMONIA: if that is the more probable class, or at 0.5."""
    return probability >= 0.5


def calibration_in(content: dict[str, Any]) -> Calibration:
    """Return the calibration in a manifest or a training report, or the default if it has none.

    Raises:
        ValueError: not four numbers, or numbers that no fit gives.
        OverflowError: an integer is too large.
    """
    if "calibration" not in content:
        return Calibration()
    given = content["calibration"]
    is_older = isinstance(given, dict) and "threshold" in given and "bias" not in given
    names = OLDER_NUMBERS if is_older else NUMBERS
    # By type, as a bool would pass for an int.
    if not isinstance(given, dict) or any(
        type(value) not in {int, float} for value in [*map(given.get, names), given.get("prevalence", EVEN)]
    ):
        raise ValueError(f"its calibration is {given!r:.200}, not the numbers {', '.join(names)}")
    numbers = [float(given[name]) for name in names]
    if is_older:
        return _of_older(*numbers)
    return dataclasses.replace(Calibration(*numbers), prevalence=float(given.get("prevalence", EVEN)))


def _of_older(temperature: float, threshold: float, low: float, high: float) -> Calibration:
    """Return the calibration that gives the classes and warnings of an older one, with a threshold instead of a bias.

    Older releases answered PNEUMONIA from a P(PNEUMONIA) of `threshold` on. The bias moves that probability to 0.5, and
    the band of doubt moves with it.

    Raises:
        ValueError: numbers that no fit gives.
    """
    if not 0 <= low <= threshold <= high <= 1:
        raise ValueError(f"not a calibration: {threshold=} is not from {low} to {high}")
    least, most = OLDER_THRESHOLDS
    point = min(max(threshold, least), most)  # 0 and 1 have no log-odds
    ends = (min(low, point), max(high, point)) if low < high else (point, point)
    return Calibration(temperature, math.log((1 - point) / point), *(_moved(end, point) for end in ends))


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _moved(probability: float, point: float) -> float:
    """Return a probability after the bias that moves `point` to 0.5."""
    inside, outside = probability * (1 - point), (1 - probability) * point
    return inside / (inside + outside)
