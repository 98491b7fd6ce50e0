import dataclasses
import json
import math

import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    recall_score,
    roc_auc_score,
)
from torch import Tensor

from pneumonia.network.calibration import Calibration, is_pneumonia
from pneumonia.training.metrics import Doubt, auroc, coverage, doubt, ece, mistakes, reliability, summarize

# Three normal images, four pneumonias; the answers are N, P, N and N, P, P, P.
PROBABILITIES = torch.tensor([0.1, 0.75, 0.2, 0.3, 0.6, 0.9, 0.85], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1])
CALIBRATION = Calibration(uncertain_low=0.3, uncertain_high=0.6)
PATIENTS = ["a", "b", "b", "c", "d", "e", "e"]


@pytest.fixture
def many() -> tuple[Tensor, Tensor, list[str]]:
    """Probabilities with ties, labels, and patients with two images each."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(400, generator=generator) < 0.7).long()
    probabilities = (torch.randn(400, generator=generator) + 2 * labels - 1).sigmoid()
    return (probabilities * 50).round() / 50, labels, [f"patient{index // 2}" for index in range(400)]


# Figures


def test_summary_of_a_case_counted_by_hand() -> None:
    summary = summarize(PROBABILITIES, LABELS, PATIENTS)
    del summary["intervals"]
    # Of 12 pairs, 0.75 stands above 0.3 and 0.6. Squares: 0.01 + 0.5625 + 0.04 + 0.49 + 0.16 + 0.01 + 0.0225.
    # Confidences: right with 0.9 twice, 0.8, 0.6 and 0.85, wrong with 0.75 and 0.7; 0.8 and 0.75 share a bin.
    assert summary == {
        "images": 7,
        "patients": 5,
        "counts": {"NORMAL": 3, "PNEUMONIA": 4},
        "accuracy": pytest.approx(5 / 7),
        "balanced_accuracy": pytest.approx((3 / 4 + 2 / 3) / 2),
        "auroc": pytest.approx(10 / 12),
        "sensitivity": pytest.approx(3 / 4),
        "specificity": pytest.approx(2 / 3),
        "confusion": {"NORMAL": {"NORMAL": 2, "PNEUMONIA": 1}, "PNEUMONIA": {"NORMAL": 1, "PNEUMONIA": 3}},
        "ece": pytest.approx((2 * 0.1 + 2 * 0.275 + 0.4 + 0.15 + 0.7) / 7),
        "brier": pytest.approx(1.295 / 7),
    }


def test_summary_is_json() -> None:
    summary = summarize(PROBABILITIES.float(), LABELS, PATIENTS)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_figures_are_scikit_learns(many: tuple[Tensor, Tensor, list[str]]) -> None:
    probabilities, labels, patients = many
    summary = summarize(probabilities, labels, patients)
    answers = (probabilities >= 0.5).long()
    assert summary["accuracy"] == pytest.approx(accuracy_score(labels, answers))
    assert summary["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, answers))
    assert summary["sensitivity"] == pytest.approx(recall_score(labels, answers))
    assert summary["specificity"] == pytest.approx(recall_score(labels, answers, pos_label=0))
    assert summary["auroc"] == pytest.approx(roc_auc_score(labels, probabilities))
    assert auroc(probabilities, labels) == summary["auroc"]
    assert summary["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    counts = [list(row.values()) for row in summary["confusion"].values()]
    assert counts == confusion_matrix(labels, answers).tolist()


def test_scores_that_are_no_numbers_have_no_auroc() -> None:
    assert math.isnan(auroc(torch.tensor([math.nan, 1.0]), torch.tensor([0, 1])))


def test_an_image_at_one_half_is_answered_as_when_serving() -> None:
    at = torch.tensor([math.nextafter(0.5, 0), 0.5], dtype=torch.float64)
    assert [is_pneumonia(probability) for probability in at.tolist()] == [False, True]
    summary = summarize(at, torch.tensor([0, 1]), ["a", "b"])
    assert (summary["specificity"], summary["sensitivity"]) == (1, 1)


def test_auroc_counts_a_tie_half_and_takes_any_scores() -> None:
    assert auroc(torch.tensor([-3.0, 2.0, 2.0, 5.0]), torch.tensor([0, 0, 1, 1])) == pytest.approx(3.5 / 4)


# Intervals


def test_the_seed_decides_the_intervals(many: tuple[Tensor, Tensor, list[str]]) -> None:
    probabilities, labels, patients = many
    first, again, other = (summarize(probabilities, labels, patients, seed) for seed in (0, 0, 1))
    assert first == again
    assert first["intervals"] != other["intervals"]


def test_intervals_have_the_width_that_theory_gives() -> None:
    """Of 300 pneumonias 240 are found, and 80% has a standard error of the root of 0.8 * 0.2 / 300."""
    probabilities = torch.cat([torch.zeros(300), torch.ones(240), torch.zeros(60)])
    labels = torch.arange(600) // 300
    interval = summarize(probabilities, labels, [str(index) for index in range(600)])["intervals"]
    error = math.sqrt(0.8 * 0.2 / 300)
    assert interval["sensitivity"] == pytest.approx([0.8 - 1.96 * error, 0.8 + 1.96 * error], abs=0.007)
    # Nothing but the pneumonias varies, and a pair with a missed one is a tie.
    assert interval["auroc"] == pytest.approx([0.9 - 0.98 * error, 0.9 + 0.98 * error], abs=0.004)
    assert interval["specificity"] == [1, 1]


def test_patients_are_drawn_and_not_images(many: tuple[Tensor, Tensor, list[str]]) -> None:
    probabilities, labels, _ = many
    fourfold = probabilities.repeat(4), labels.repeat(4)
    own = [str(index) for index in range(len(labels))]

    def width(patients: list[str]) -> float:
        low, high = summarize(*fourfold, patients)["intervals"]["auroc"]
        return float(high - low)

    by_image = width([str(index) for index in range(4 * len(labels))])
    assert width(own * 4) == pytest.approx(2 * by_image, rel=0.15)


def test_every_resample_has_both_classes() -> None:
    """Drawn from one lot, the one normal patient would be missing in a third of the resamples."""
    labels = torch.tensor([0] + [1] * 50)
    intervals = summarize(labels * 0.8, labels, [str(index) for index in range(51)])["intervals"]
    assert all(ends == [1, 1] for ends in intervals.values())


def test_a_patient_may_have_images_of_both_classes() -> None:
    summary = summarize(PROBABILITIES, LABELS, ["a"] * 7)
    assert summary["intervals"]["accuracy"] == [pytest.approx(5 / 7)] * 2


# Reliability


def test_reliability_is_of_the_answers_given() -> None:
    probabilities = torch.tensor([0.52, 0.52, 0.41, 0.02, 1.0, 0.0], dtype=torch.float64)
    labels = torch.tensor([1, 0, 0, 0, 1, 1])
    bins = reliability(probabilities, labels)
    # 0.52 is answered PNEUMONIA, 0.41 NORMAL with a confidence of 0.59, the rest with 0.98, 1 and 1.
    assert [dataclasses.astuple(part) for part in bins] == [
        (7 / 15, 8 / 15, 2, pytest.approx(0.52), 0.5),
        (8 / 15, 9 / 15, 1, pytest.approx(0.59), 1),
        (14 / 15, 1, 3, pytest.approx(2.98 / 3), pytest.approx(2 / 3)),
    ]
    assert ece(bins) == pytest.approx((2 * 0.02 + 0.41 + 0.98) / 6)


def test_ends_of_the_bins_belong_below() -> None:
    bins = reliability(torch.tensor([0.6, 0.0], dtype=torch.float64), torch.tensor([1, 0]))
    assert [(part.low, part.high) for part in bins] == [(8 / 15, 9 / 15), (14 / 15, 1)]


# Coverage and doubt


def test_coverage_drops_the_least_confident_first() -> None:
    probabilities = torch.tensor([0.1, 0.75, 0.2, 0.27, 0.6, 0.95, 0.85], dtype=torch.float64)
    shares, accuracies = coverage(probabilities, LABELS)
    assert shares.tolist() == pytest.approx([1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1])
    assert accuracies.tolist() == pytest.approx([1, 1, 1, 1, 4 / 5, 4 / 6, 5 / 7])


def test_coverage_drops_equally_near_images_together() -> None:
    probabilities = torch.tensor([0.0, 0.0, 0.0, 0.6, 1.0], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 1])
    shares, accuracies = coverage(probabilities[1:4], labels[1:4])
    assert (shares.tolist(), accuracies.tolist()) == ([2 / 3, 1], [1 / 2, 2 / 3])
    for order in ([0, 1, 2, 3, 4], [2, 4, 3, 1, 0]):
        shares, accuracies = coverage(probabilities[order], labels[order])
        assert (shares[-1], accuracies[-1]) == (1, 4 / 5)
        assert (shares[-2], accuracies[-2]) == (4 / 5, 3 / 4)


def test_doubt_compares_the_answers_within_the_band_with_the_others() -> None:
    # 0.3, answered wrongly, and 0.6 lie at the band's ends; of the others 0.75 is wrong.
    assert doubt(PROBABILITIES, LABELS, CALIBRATION) == Doubt(2 / 7, 1 / 2, 4 / 5)


@pytest.mark.parametrize(
    ("calibration", "expected"),
    [
        pytest.param(Calibration(), Doubt(0, None, 5 / 7), id="no band"),
        pytest.param(Calibration(uncertain_low=0, uncertain_high=1), Doubt(1, 5 / 7, None), id="nothing but band"),
    ],
)
def test_without_such_answers_there_is_no_accuracy(calibration: Calibration, expected: Doubt) -> None:
    assert doubt(PROBABILITIES, LABELS, calibration) == expected


def test_worst_mistakes_come_first() -> None:
    assert mistakes(PROBABILITIES, LABELS) == [1, 3]
    assert mistakes(LABELS.float(), LABELS) == []
    assert mistakes(torch.tensor([0.8, 0.05]), torch.tensor([0, 1])) == [1, 0]
    assert mistakes(1 - LABELS.float(), LABELS) == [0, 1, 2, 3, 4, 5, 6]
