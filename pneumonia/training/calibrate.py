"""Calibrate a model on a labelled folder, and measure the calibration on images that it was not fitted on."""

import dataclasses
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from pneumonia.errors import DataError
from pneumonia.names import in_text
from pneumonia.network.calibration import EVEN, Calibration
from pneumonia.network.classifier import Classifier
from pneumonia.network.contract import CLASSES
from pneumonia.training import metrics
from pneumonia.training.channels import fingerprint, scan_folder
from pneumonia.training.data_checking import PATIENTS_NEEDED, about_names, check_labels, tell
from pneumonia.training.evaluate import Answered, answers_to
from pneumonia.training.fitting import fit_likelihood, suspicions
from pneumonia.training.images import load_channel
from pneumonia.training.metrics import Floats, Integers
from pneumonia.training.patients import joined

FOLDS = 5
CERTAIN = 1e-15  # log-odds beyond ±34 count as 34: no calibration tells them apart
FIGURES = ("cross-entropy", "Brier score", "ECE", "balanced accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class Calibrated:
    """A calibration fitted on a folder.

    Attributes:
        calibration: fitted on all images of the folder.
        before: FIGURES of the model as it was, each with its 95% interval: (value, low, high).
        after: the same of calibrations that were fitted on other patients' images.
        change: after minus before, with the interval of the difference.
        source: what the release's manifest says about the images.
        flagged: names of the images that carry another warning than `uncertain`.
    """

    calibration: Calibration
    before: list[tuple[float, float, float]]
    after: list[tuple[float, float, float]]
    change: list[tuple[float, float, float]]
    source: dict[str, Any]
    flagged: list[str]

    @property
    def has_gain(self) -> bool:
        """Whether the cross-entropy is lower, and the interval of the difference does not include 0."""
        return self.change[0][2] < 0


def calibrate(
    model: Classifier,
    folder: Path,
    prevalence: float | None,
    batch_size: int,
    workers: int,
    pattern: re.Pattern[str] | None = None,
) -> Calibrated:
    """Fit a calibration to a folder, and compare it with the model's own by cross-validation.

    Args:
        model: as it serves.
        folder: NORMAL/ and PNEUMONIA/ with images.
        prevalence: share of pneumonias among the patients whom the probabilities are for; None for 0.5, whatever it is
            in the folder.
        batch_size: images at a time.
        workers: threads that decode images.
        pattern: where the patient is in a file's name, as `patients.pattern_of` returns it.

    Raises:
        DataError: images that cannot be used, too few patients, an image in both classes, or a model that ranks
            pneumonias no higher than normal images.
        WeightsError: the network gives no finite numbers.
    """
    channel = scan_folder(folder, pattern)
    tell(about_names([channel]))
    images = load_channel(channel, workers)
    check_labels([(channel, images.digests)])
    patients = joined(channel.patients(), images.digests)
    _check_number(channel.labels, patients, folder)
    bare = answers_to(channel, images, dataclasses.replace(model, calibration=Calibration()), batch_size)
    odds, labels = bare.probabilities.logit(eps=CERTAIN), images.labels
    _check_ranking(metrics.auroc(odds, labels), folder)
    fit = functools.partial(fit_likelihood, prevalence=prevalence or EVEN)
    others = cross_validated(odds, labels, patients, fit)
    before, after, change = compare(suspicions(model.calibration, odds), others, labels, patients, prevalence or EVEN)
    calibration = fit(odds, labels == 1)
    return Calibrated(calibration, before, after, change, _source(bare, model, patients), _flagged(bare))


def cross_validated(
    odds: Tensor, labels: Tensor, patients: list[str], fit: Callable[[Tensor, Tensor], Calibration], seed: int = 0
) -> Tensor:
    """Return each image's P(PNEUMONIA) by a calibration that was fitted on other patients' images, shape (N,).

    Args:
        odds: log-odds of PNEUMONIA, float64, shape (N,).
        labels: int64, shape (N,), indices in CLASSES.
        patients: of each image.
        fit: fits a calibration to log-odds, and to which of them are pneumonias.
        seed: of the division into folds.
    """
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    result = torch.empty_like(odds)
    for fitted, held_out in folds.split(np.zeros(len(odds)), labels.numpy(), patients):
        result[held_out] = suspicions(fit(odds[fitted], labels[fitted] == 1), odds[held_out])
    return result


def compare(
    before: Tensor, after: Tensor, labels: Tensor, patients: list[str], prevalence: float
) -> tuple[list[tuple[float, float, float]], ...]:
    """Return FIGURES before, after, and after minus before, each with its 95% bootstrap interval by patient.

    All figures but sensitivity, specificity and balanced accuracy are for a share of pneumonias of `prevalence`.
    """
    truth = labels.numpy()

    def values(times: Floats) -> list[float]:
        pair = [figures(one.numpy(), truth, times, prevalence) for one in (before, after)]
        return [*pair[0], *pair[1], *(late - early for early, late in zip(*pair, strict=True))]

    ends = metrics.bootstrap(truth, patients, values)
    rows = [(value, low, high) for value, (low, high) in zip(values(np.ones(len(truth))), ends, strict=True)]
    count = len(FIGURES)
    return rows[:count], rows[count : 2 * count], rows[2 * count :]


def table(found: Calibrated) -> str:
    """Return the comparison as text for a terminal."""
    source = found.source
    counts = ", ".join(f"{count:,} {label}" for label, count in source["images"].items())
    lines = [f"{counts}, {source['patients']:,} patients; at least {PATIENTS_NEEDED} of each class are needed"]
    if found.flagged:
        lines.append(f"Warning: {len(found.flagged):,} of the images carry other warnings than uncertain:")
        lines += [f"  {in_text(name)}" for name in found.flagged]
    share = found.calibration.prevalence
    lines += ["", f"95% intervals. After: with calibrations fitted on other patients' images. Prevalence {share:g}."]
    lines.append(f"{'':<18} {'before':<26} {'after':<26} change")
    for name, *rows in zip(FIGURES, found.before, found.after, found.change, strict=True):
        cells = (f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in rows)
        lines.append(f"{name:<18} " + " ".join(f"{cell:<26}" for cell in cells).rstrip())
    return "\n".join([*lines, "", _verdict(found)])


def _verdict(found: Calibrated) -> str:
    value, low, high = found.change[0]
    interval = f"by {value:+.3f} (95% interval {low:+.3f} to {high:+.3f})"
    if found.has_gain:
        return f"A gain is shown: the cross-entropy changes {interval}."
    doubt = "it rises" if low > 0 else "these images do not tell the two calibrations apart"
    return f"No gain is shown: the cross-entropy changes {interval}; {doubt}. Prefer the model as it was."


def _check_ranking(auroc: float, folder: Path) -> None:
    if auroc <= 0.5:
        raise DataError(
            f"The model ranks the pneumonias in {folder} no higher than the normal images (AUROC {auroc:.3f}): check "
            "the labels. No calibration can improve that."
        )


def _check_number(labels: list[int], patients: list[str], folder: Path) -> None:
    for index, label in enumerate(CLASSES):
        found = len({patient for patient, one in zip(patients, labels, strict=True) if one == index})
        if found < PATIENTS_NEEDED:
            raise DataError(
                f"{folder} has images of {found} patients in {label}, but a calibration needs {PATIENTS_NEEDED} of "
                "each class: with fewer, the 95% interval of a sensitivity of 0.9 is wider than 0.1 to either side."
            )


def figures(probabilities: Floats, truth: Integers, times: Floats, prevalence: float) -> list[float]:
    """Return FIGURES of images that count `times` times each."""
    pneumonia = truth == 1
    shares = np.where(pneumonia, times / times[pneumonia].sum(), times / times[~pneumonia].sum())
    weights = shares * np.where(pneumonia, prevalence, 1 - prevalence)
    of_truth = np.where(pneumonia, probabilities, 1 - probabilities).clip(CERTAIN)
    answers = probabilities >= 0.5
    sensitivity, specificity = shares @ (answers & pneumonia), shares @ (~answers & ~pneumonia)
    brier = weights @ (probabilities - truth) ** 2
    ece = _ece(np.maximum(probabilities, 1 - probabilities), answers == pneumonia, weights)
    return [-weights @ np.log(of_truth), brier, ece, (sensitivity + specificity) / 2, sensitivity, specificity]


def _ece(confidence: Floats, right: Any, weights: Floats) -> float:  # noqa: ANN401
    """Return the expected calibration error as `metrics.ece` does, of images that have weights."""
    bins = np.clip(np.ceil(confidence * metrics.BINS).astype(int) - 1, 0, metrics.BINS - 1)
    return float(np.abs(np.bincount(bins, weights * (right - confidence))).sum())


def _source(answered: Answered, model: Classifier, patients: list[str]) -> dict[str, Any]:
    labelled = zip(answered.channel.labels, answered.images.digests, strict=True)
    return {
        "release": model.version,
        "folder": answered.channel.name,
        "dataset_fingerprint": fingerprint({"calibration": labelled}),
        "images": answered.channel.counts(),
        "patients": len(set(patients)),
        "rule": "lowest cross-entropy, both classes of equal weight",
    }


def _flagged(answered: Answered) -> list[str]:
    pairs = zip(answered.channel.paths, answered.predictions, strict=True)
    return [path.name for path, answer in pairs if set(answer.warnings) - {"uncertain"}]
