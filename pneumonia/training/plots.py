"""Pictures of a training and an evaluation, as PNG files.

`probabilities` are P(PNEUMONIA) after calibration, float, shape (N,); `labels` int64, shape (N,), indices in CLASSES.
Every function raises OSError where `path` cannot be written.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import roc_curve
from torch import Tensor

from pneumonia.files import replacing
from pneumonia.network.calibration import Calibration, is_pneumonia
from pneumonia.network.contract import CLASSES
from pneumonia.training import metrics

DOTS_PER_INCH = 160
# Apart in print without colours as well: one is dark, the other light.
BLUE, ORANGE, GRAY = "#1b4f8a", "#e08a3c", "#8c8c8c"
MISTAKES, COLUMNS = 16, 4  # images on the sheet, at most, and in a row


def draw_learning_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss, accuracy and AUROC over the epochs, the best checkpoint marked.

    Args:
        history: an epoch each, with epoch, train_loss, val_loss, val_accuracy, val_auroc and best.
        path: file to write.
    """
    figure = _figure(9, 3.8)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    best = [row["epoch"] for row in history if row["best"]][-1:]
    curves = (
        (left, "train_loss", "training", BLUE, "o--"),
        (left, "val_loss", "validation", ORANGE, "o-"),
        (right, "val_accuracy", "accuracy", BLUE, "o--"),
        (right, "val_auroc", "AUROC", ORANGE, "o-"),
    )
    for axes, name, label, color, style in curves:
        axes.plot(epochs, [row[name] for row in history], style, color=color, label=label, markersize=3.5)
    for axes in (left, right):
        for epoch in best:
            axes.axvline(epoch, color=GRAY, linestyle=":", label="best checkpoint", zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _label(axes, "epoch", "")
        axes.legend(frameon=False)
    left.set(title="Loss", ylabel="cross-entropy (nats per image)")
    right.set(title="Validation", ylabel="accuracy (share of images), AUROC")
    _save(figure, path)


def draw_roc(probabilities: Tensor, labels: Tensor, path: Path) -> None:
    """Draw the ROC curve with the operating point on it."""
    false_alarms, found, _ = roc_curve(labels.cpu().numpy(), probabilities.double().cpu().numpy())
    answers = np.array([is_pneumonia(probability) for probability in probabilities.tolist()])
    truth = labels.cpu().numpy() == 1
    point = float(answers[~truth].mean()), float(answers[truth].mean())
    figure = _figure(4.8, 4.9)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle=":", linewidth=1)
    axes.plot(false_alarms, found, color=BLUE, clip_on=False)
    told = f"operating point: sensitivity {point[1]:.1%}, specificity {1 - point[0]:.1%}"
    axes.plot(*point, "o", color=ORANGE, markersize=8, markeredgecolor="black", label=told, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=f"ROC, AUROC {metrics.auroc(probabilities, labels):.4f}")
    _label(axes, "1 - specificity (share of normal images)", "sensitivity (share of pneumonias)")
    axes.legend(loc="lower right", frameon=False)
    _save(figure, path)


def draw_confusion(confusion: Mapping[str, Mapping[str, int]], path: Path) -> None:
    """Draw the confusion matrix: counts, and shares of each true class.

    Args:
        confusion: true class to answer to its number of images, as `metrics.summarize` gives it.
        path: file to write.
    """
    counts = np.array([[confusion[true][answer] for answer in CLASSES] for true in CLASSES])
    shares = counts / counts.sum(1, keepdims=True)
    figure = _figure(4.6, 4.2)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        color = "white" if share > 0.5 else "black"
        axes.text(column, row - 0.06, f"{count:,}", ha="center", va="center", color=color, fontsize=17)
        axes.text(column, row + 0.17, f"{share:.1%}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(range(len(CLASSES)), CLASSES, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="answer", ylabel="true class", title="Images, and share of the true class")
    _save(figure, path)


def draw_reliability(probabilities: Tensor, labels: Tensor, path: Path) -> None:
    """Draw accuracy against confidence, and below it how many answers have which confidence."""
    bins = metrics.reliability(probabilities, labels)
    figure = _figure(4.8, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middles = [(part.low + part.high) / 2 for part in bins]
    width = 0.9 / metrics.BINS
    upper.bar(middles, [part.accuracy for part in bins], width, color=BLUE, alpha=0.25, linewidth=0)
    upper.plot([0, 1], [0, 1], color=GRAY, linestyle=":", linewidth=1, label="confidence = accuracy")
    upper.plot([part.confidence for part in bins], [part.accuracy for part in bins], "o-", color=BLUE, markersize=4)
    upper.set(ylim=(0, 1.02), title=f"Reliability, ECE {metrics.ece(bins):.4f}")
    _label(upper, "", "accuracy (share of answers)")
    upper.legend(loc="lower right", frameon=False)
    lower.bar(middles, [part.count for part in bins], width, color=BLUE)
    lower.set_xlim(0.45, 1.02)
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    _label(lower, "confidence (probability of the answer)", "answers")
    _save(figure, path)


def draw_coverage(probabilities: Tensor, labels: Tensor, calibration: Calibration, path: Path) -> None:
    """Draw accuracy against the share of images that are answered, from half of them on, the band of doubt marked."""
    shares, accuracies = metrics.coverage(probabilities, labels)
    doubt = metrics.doubt(probabilities, labels, calibration)
    figure = _figure(5.4, 3.8)
    axes = figure.subplots()
    half = shares >= 0.5  # beyond it the images left are few, and nobody would drop so many
    axes.plot(shares[half], accuracies[half], color=BLUE)
    axes.plot(1, accuracies[-1], "s", color=BLUE, clip_on=False, label=f"every image: {accuracies[-1]:.1%} right")
    if doubt.uncertain_share > 0 and doubt.accuracy_certain is not None:
        told = f"without the {doubt.uncertain_share:.1%} with a warning: {doubt.accuracy_certain:.1%} right"
        point = 1 - doubt.uncertain_share, doubt.accuracy_certain
        axes.plot(*point, "o", color=ORANGE, markersize=8, markeredgecolor="black", label=told, clip_on=False)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
    axes.set(xlim=(0.5, 1), title="Dropping the least confident answers")
    _label(axes, "images answered (% of all)", "accuracy (% of the answered)")
    axes.legend(loc="lower left", frameon=False)
    _save(figure, path)


def draw_mistakes(probabilities: Tensor, labels: Tensor, pixels: Tensor, names: Sequence[str], path: Path) -> None:
    """Draw the most confident of the wrong answers, the worst first.

    Args:
        probabilities: P(PNEUMONIA), float, shape (N,).
        labels: int64, shape (N,), indices in CLASSES.
        pixels: uint8, shape (N, 1 or 3, height, width).
        names: of the images' files.
        path: file to write.
    """
    wrong = metrics.mistakes(probabilities, labels)
    shown = wrong[:MISTAKES]
    rows = -(-len(shown) // COLUMNS)
    figure = _figure(2.2 * COLUMNS, 2.8 * rows + 0.6)
    figure.suptitle(_count_of_mistakes(len(wrong), len(labels)))
    for place, index in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, COLUMNS, place, xticks=[], yticks=[], frame_on=False)
        axes.imshow(pixels[index].expand(3, -1, -1).permute(1, 2, 0).cpu().numpy())
        told = f"true class {CLASSES[int(labels[index])]}\nP(PNEUMONIA) {float(probabilities[index]):.3f}"
        axes.set_title(told, fontsize=9, loc="left")
        axes.set_xlabel(_shorten(names[index]), fontsize=7, color="#404040", parse_math=False)
    _save(figure, path)


def _count_of_mistakes(wrong: int, images: int) -> str:
    counted = {0: "No mistakes", 1: "1 mistake"}.get(wrong, f"{wrong:,} mistakes")
    shown = f": the {MISTAKES} most confident" if wrong > MISTAKES else ""
    return f"{counted} in {images:,} images{shown}"


def _shorten(name: str) -> str:
    """Return a file's name without its middle where it is long, and escaped, because the font lacks most scripts."""
    escaped = ascii(name)[1:-1]
    return escaped if len(escaped) <= 38 else f"{escaped[:18]}…{escaped[-19:]}"


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure; width and height in inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def _label(axes: Axes, horizontal: str, vertical: str) -> None:
    axes.set(xlabel=horizontal, ylabel=vertical)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
