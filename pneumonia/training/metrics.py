"""How good a model's answers are: figures with their intervals, and the curves that plots show.

Those that scikit-learn has are compared with it in the tests. Importing scikit-learn takes 140 MB, which training can
do without.

In all functions `probabilities` are P(PNEUMONIA) after calibration, as served, and both classes are among the labels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pneumonia.network.calibration import Calibration, is_pneumonia
from pneumonia.network.contract import CLASSES

RESAMPLES = 2000
BINS = 15  # of the confidence, as Guo et al. 2017 have
FIGURES = ("accuracy", "balanced_accuracy", "auroc", "sensitivity", "specificity")  # those that get an interval
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence lies in one of the equal parts of 0 to 1.

    Attributes:
        low: the confidences are above this …
        high: … and at most this.
        count: answers, 1 or more.
        confidence: their mean confidence.
        accuracy: share of them that is right.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Doubt:
    """What a warning on the answers in the band of doubt is worth.

    Attributes:
        uncertain_share: share of the answers that carry the warning, 0 to 1.
        accuracy_uncertain: share of those that is right, None where there are none.
        accuracy_certain: share of the others that is right, None where there are none.
    """

    uncertain_share: float
    accuracy_uncertain: float | None
    accuracy_certain: float | None


def summarize(probabilities: Tensor, labels: Tensor, patients: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Return all figures of a split, ready for JSON.

    Shares lie in 0 to 1. `confusion` counts by true class, then by answer. `ece` is the expected calibration error, see
    `ece`; `brier` the mean squared distance of P(PNEUMONIA) from 1 or 0. `intervals` has the lower and upper end of 95%
    bootstrap percentile intervals. They say how far the figures would differ with other patients of the same kind, not
    with another hospital's; a figure of exactly 0 or 1 gets an interval of no width.

    Args:
        probabilities: float, shape (N,).
        labels: int64, shape (N,), indices in CLASSES.
        patients: of each image; one whose patient is not known needs a name of its own.
        seed: of the resampling; the same seed gives the same intervals.
    """
    scores, truth, answers = _arrays(probabilities, labels)
    counts = confusion(probabilities, labels)
    figures = dict(zip(FIGURES, _figures(np.ones(len(truth)), _ranks(scores), truth, answers), strict=True))
    return {
        "images": len(truth),
        "patients": len(set(patients)),
        "counts": {label: sum(row.values()) for label, row in counts.items()},
        **{name: float(value) for name, value in figures.items()},
        "confusion": counts,
        "ece": ece(reliability(probabilities, labels)),
        "brier": float(np.mean((scores - truth) ** 2)),
        "intervals": _intervals(scores, truth, answers, patients, seed),
    }


def confusion(probabilities: Tensor, labels: Tensor) -> dict[str, dict[str, int]]:
    """Return the number of images by true class, then by answer."""
    _, truth, answers = _arrays(probabilities, labels)
    rows = np.bincount(2 * truth + answers, minlength=4).reshape(2, 2).tolist()
    return {label: dict(zip(CLASSES, row, strict=True)) for label, row in zip(CLASSES, rows, strict=True)}


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Return the area under the ROC curve: the share of pairs of a pneumonia and a normal image ranked rightly.

    Args:
        scores: float, shape (N,), higher for pneumonia: probabilities or log-odds.
        labels: int64, shape (N,), indices in CLASSES.

    Returns:
        0 to 1; NaN if a score is.
    """
    if scores.isnan().any():
        return math.nan
    return _auroc(np.ones(len(labels)), _ranks(scores.double().cpu().numpy()), labels.cpu().numpy())


def reliability(probabilities: Tensor, labels: Tensor) -> list[Bin]:
    """Compare confidence and accuracy over equal bins of the confidence; bins without an answer are left out."""
    scores, truth, answers = _arrays(probabilities, labels)
    confidence = np.maximum(scores, 1 - scores)
    correct = answers == truth
    number = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        Bin(
            low=index / BINS,
            high=(index + 1) / BINS,
            count=int((number == index).sum()),
            confidence=float(confidence[number == index].mean()),
            accuracy=float(correct[number == index].mean()),
        )
        for index in np.unique(number).tolist()
    ]


def ece(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error (Guo et al. 2017, equation 3): the bins' mean gap, weighted by answers."""
    gaps = sum(part.count * abs(part.accuracy - part.confidence) for part in bins)
    return gaps / sum(part.count for part in bins)


def coverage(probabilities: Tensor, labels: Tensor) -> tuple[Floats, Floats]:
    """Return how accuracy rises as the images nearest to a P(PNEUMONIA) of 0.5 go without an answer.

    Returns:
        Share of the images that are answered, rising to 1, and the accuracy on them. Images at the same distance are
        dropped together, so that their order decides nothing.
    """
    scores, truth, answers = _arrays(probabilities, labels)
    distance = np.abs(scores - 0.5)
    order = np.argsort(-distance, kind="stable")
    answered = np.arange(1, len(order) + 1)
    accuracy = np.cumsum((answers == truth)[order]) / answered
    complete = np.append(np.diff(distance[order]) != 0, [True])  # the last image of each distance
    return (answered / len(order))[complete], accuracy[complete]


def doubt(probabilities: Tensor, labels: Tensor, calibration: Calibration) -> Doubt:
    """Compare the answers within the band of doubt with the others."""
    _, truth, answers = _arrays(probabilities, labels)
    uncertain = np.array([calibration.is_uncertain(probability) for probability in probabilities.tolist()])
    within, outside = (answers == truth)[uncertain], (answers == truth)[~uncertain]
    return Doubt(
        uncertain_share=float(uncertain.mean()),
        accuracy_uncertain=float(within.mean()) if within.size else None,
        accuracy_certain=float(outside.mean()) if outside.size else None,
    )


def mistakes(probabilities: Tensor, labels: Tensor) -> list[int]:
    """Return the indices of the images answered wrongly, the most confident first."""
    scores, truth, answers = _arrays(probabilities, labels)
    order = np.argsort(-np.abs(scores - 0.5), kind="stable")
    return order[(answers != truth)[order]].tolist()  # type: ignore[no-any-return]


def _arrays(probabilities: Tensor, labels: Tensor) -> tuple[Floats, Integers, Integers]:
    """Return probabilities, labels and answers, the answers as serving gives them."""
    answers = [int(is_pneumonia(probability)) for probability in probabilities.tolist()]
    return probabilities.double().cpu().numpy(), labels.cpu().numpy(), np.array(answers)


def _ranks(scores: Floats) -> Integers:
    """Number the distinct scores from the lowest up; equal scores share a number."""
    return np.unique(scores, return_inverse=True)[1]


def _figures(weights: Floats, ranks: Integers, truth: Integers, answers: Integers) -> list[float]:
    """Return FIGURES of images that count `weights` times each."""
    (right_normal, false_alarm), (missed, found) = np.bincount(2 * truth + answers, weights, minlength=4).reshape(2, 2)
    normal, pneumonia = right_normal + false_alarm, missed + found
    sensitivity, specificity = found / pneumonia, right_normal / normal
    return [
        (right_normal + found) / (normal + pneumonia),
        (sensitivity + specificity) / 2,
        _auroc(weights, ranks, truth),
        sensitivity,
        specificity,
    ]


def _auroc(weights: Floats, ranks: Integers, truth: Integers) -> float:
    """Return the area under the ROC curve of images that count `weights` times each; a pair of equal rank counts half.

    Scikit-learn would sort the scores anew for each resample of `bootstrap`: 7 s for 5,000 images instead of 0.4.
    """
    normal, pneumonia = (np.bincount(ranks, weights * (truth == kind)) for kind in (0, 1))
    below = normal.cumsum() - normal / 2
    return float(pneumonia @ below / (normal.sum() * pneumonia.sum()))


def _intervals(
    scores: Floats, truth: Integers, answers: Integers, patients: Sequence[str], seed: int
) -> dict[str, list[float]]:
    """Return 95% bootstrap percentile intervals of FIGURES."""
    ranks = _ranks(scores)
    ends = bootstrap(truth, patients, lambda times: _figures(times, ranks, truth, answers), seed)
    return dict(zip(FIGURES, ends.tolist(), strict=True))


def bootstrap(
    truth: Integers, patients: Sequence[str], figures: Callable[[Floats], Sequence[float]], seed: int = 0
) -> Floats:
    """Return 95% bootstrap percentile intervals of figures.

    Patients are drawn, not images, because two images of one patient are alike. Those with normal images, with
    pneumonias and with both are drawn apart, so that every resample has both classes.

    Args:
        truth: labels, shape (N,), indices in CLASSES.
        patients: of each image.
        figures: returns K figures of images that count so many times each, shape (N,).
        seed: of the resampling.

    Returns:
        Lower and upper ends, shape (K, 2).
    """
    random = np.random.default_rng(seed)
    patient = np.unique(np.array(patients), return_inverse=True)[1]
    kinds = np.zeros(patient.max() + 1, dtype=int)
    np.bitwise_or.at(kinds, patient, truth + 1)
    strata = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]

    def resample() -> Sequence[float]:
        drawn = np.concatenate([random.choice(members, len(members)) for members in strata])
        times = np.bincount(drawn, minlength=len(kinds)).astype(float)
        return figures(times[patient])

    return np.quantile([resample() for _ in range(RESAMPLES)], [0.025, 0.975], axis=0).T
