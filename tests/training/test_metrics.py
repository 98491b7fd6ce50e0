import dataclasses
import json
import math

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score, roc_auc_score
from torch import Tensor

from pneumonia.network.calibration import Calibration
from pneumonia.training.metrics import Doubt, auroc, coverage, doubt, ece, mistakes, reliability, summarize

# Three normal images, four pneumonias; the answers at 0.4 are N, P, N and N, P, P, P.
PROBABILITIES = torch.tensor([0.1, 0.6, 0.2, 0.3, 0.5, 0.9, 0.85], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1])
CALIBRATION = Calibration(threshold=0.4, uncertain_low=0.3, uncertain_high=0.5)
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
    summary = summarize(PROBABILITIES, LABELS, CALIBRATION, PATIENTS)
    del summary["intervals"]
    # Of 12 pairs, 0.6 stands above 0.3 and 0.5. Squares: 0.01 + 0.36 + 0.04 + 0.49 + 0.25 + 0.01 + 0.0225.
    # Confidences: right with 0.9 twice, 0.8, 0.5 and 0.85, wrong with 0.6 and 0.7; only the first two share a bin.
    assert summary == {
        "images": 7,
        "patients": 5,
        "counts": {"NORMAL": 3, "PNEUMONIA": 4},
        "threshold": 0.4,
        "accuracy": pytest.approx(5 / 7),
        "balanced_accuracy": pytest.approx((3 / 4 + 2 / 3) / 2),
        "auroc": pytest.approx(10 / 12),
        "sensitivity": pytest.approx(3 / 4),
        "specificity": pytest.approx(2 / 3),
        "confusion": {"NORMAL": {"NORMAL": 2, "PNEUMONIA": 1}, "PNEUMONIA": {"NORMAL": 1, "PNEUMONIA": 3}},
        "ece": pytest.approx((2 * 0.1 + 0.2 + 0.5 + 0.15 + 0.6 + 0.7) / 7),
        "brier": pytest.approx(1.1825 / 7),
    }


def test_summary_is_json() -> None:
    summary = summarize(PROBABILITIES.float(), LABELS, CALIBRATION, PATIENTS)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_figures_are_scikit_learns(many: tuple[Tensor, Tensor, list[str]]) -> None:
    probabilities, labels, patients = many
    summary = summarize(probabilities, labels, CALIBRATION, patients)
    answers = (probabilities >= 0.4).long()
    assert summary["accuracy"] == pytest.approx(accuracy_score(labels, answers))
    assert summary["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, answers))
    assert summary["sensitivity"] == pytest.approx(recall_score(labels, answers))
    assert summary["specificity"] == pytest.approx(recall_score(labels, answers, pos_label=0))
    assert summary["auroc"] == pytest.approx(roc_auc_score(labels, probabilities))


def test_an_image_at_the_operating_point_is_answered_as_when_serving() -> None:
    at = torch.tensor([0.7, 0.7])  # float32 0.7 lies below the threshold's float64
    calibration = Calibration(threshold=0.7, uncertain_low=0.7, uncertain_high=0.7)
    assert not calibration.is_pneumonia(at[0].item())
    summary = summarize(at, torch.tensor([0, 1]), calibration, ["a", "b"])
    assert (summary["specificity"], summary["sensitivity"]) == (1, 0)


def test_auroc_counts_a_tie_half_and_takes_any_scores() -> None:
    assert auroc(torch.tensor([-3.0, 2.0, 2.0, 5.0]), torch.tensor([0, 0, 1, 1])) == pytest.approx(3.5 / 4)


# Intervals


def test_the_seed_decides_the_intervals(many: tuple[Tensor, Tensor, list[str]]) -> None:
    probabilities, labels, patients = many
    first, again, other = (summarize(probabilities, labels, CALIBRATION, patients, seed) for seed in (0, 0, 1))
    assert first == again
    assert first["intervals"] != other["intervals"]


def test_intervals_have_the_width_that_theory_gives() -> None:
    """Of 300 pneumonias 240 are found, and 80% has a standard error of the root of 0.8 * 0.2 / 300."""
    probabilities = torch.cat([torch.zeros(300), torch.ones(240), torch.zeros(60)])
    labels = torch.arange(600) // 300
    interval = summarize(probabilities, labels, Calibration(), [str(index) for index in range(600)])["intervals"]
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
        low, high = summarize(*fourfold, CALIBRATION, patients)["intervals"]["auroc"]
        return float(high - low)

    by_image = width([str(index) for index in range(4 * len(labels))])
    assert width(own * 4) == pytest.approx(2 * by_image, rel=0.15)


def test_every_resample_has_both_classes() -> None:
    """Drawn from one lot, the one normal patient would be missing in a third of the resamples."""
    labels = torch.tensor([0] + [1] * 50)
    intervals = summarize(labels * 0.8, labels, CALIBRATION, [str(index) for index in range(51)])["intervals"]
    assert all(ends == [1, 1] for ends in intervals.values())


def test_a_patient_may_have_images_of_both_classes() -> None:
    summary = summarize(PROBABILITIES, LABELS, CALIBRATION, ["a"] * 7)
    assert summary["intervals"]["accuracy"] == [pytest.approx(5 / 7)] * 2


# Reliability


def test_reliability_is_of_the_answers_given() -> None:
    probabilities = torch.tensor([0.45, 0.45, 0.41, 0.02, 1.0, 0.0], dtype=torch.float64)
    labels = torch.tensor([1, 0, 0, 0, 1, 1])
    bins = reliability(probabilities, labels, Calibration(threshold=0.42, uncertain_low=0.4, uncertain_high=0.5))
    # 0.45 is answered PNEUMONIA, 0.41 NORMAL with a confidence of 0.59, the rest with 0.98, 1 and 1.
    assert [dataclasses.astuple(part) for part in bins] == [
        (6 / 15, 7 / 15, 2, pytest.approx(0.45), 0.5),
        (8 / 15, 9 / 15, 1, pytest.approx(0.59), 1),
        (14 / 15, 1, 3, pytest.approx(2.98 / 3), pytest.approx(2 / 3)),
    ]
    assert ece(bins) == pytest.approx((2 * 0.05 + 0.41 + 0.98) / 6)


def test_ends_of_the_bins_belong_below() -> None:
    bins = reliability(torch.tensor([0.6, 0.0], dtype=torch.float64), torch.tensor([1, 0]), Calibration())
    assert [(part.low, part.high) for part in bins] == [(8 / 15, 9 / 15), (14 / 15, 1)]


# Coverage and doubt


def test_coverage_drops_the_nearest_in_log_odds_first() -> None:
    # Log-odds from 0.4's: 0.1 -1.79, 0.6 +0.81, 0.2 -0.98, 0.3 -0.44, 0.5 +0.41, 0.9 +2.60, 0.85 +2.14.
    shares, accuracies = coverage(PROBABILITIES, LABELS, CALIBRATION)
    assert shares.tolist() == pytest.approx([1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1])
    assert accuracies.tolist() == pytest.approx([1, 1, 1, 1, 4 / 5, 4 / 6, 5 / 7])


def test_coverage_drops_equally_near_images_together() -> None:
    probabilities = torch.tensor([0.0, 0.0, 0.0, 0.6, 1.0], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 1])
    shares, accuracies = coverage(probabilities[1:4], labels[1:4], Calibration())
    assert (shares.tolist(), accuracies.tolist()) == ([2 / 3, 1], [1 / 2, 2 / 3])
    for order in ([0, 1, 2, 3, 4], [2, 4, 3, 1, 0]):
        shares, accuracies = coverage(probabilities[order], labels[order], Calibration())
        assert (shares[-1], accuracies[-1]) == (1, 4 / 5)
        assert (shares[-2], accuracies[-2]) == (4 / 5, 3 / 4)


def test_doubt_compares_the_answers_within_the_band_with_the_others() -> None:
    # 0.3, answered wrongly, and 0.5 lie at the band's ends; of the others 0.6 is wrong.
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
    assert mistakes(PROBABILITIES, LABELS, CALIBRATION) == [1, 3]
    assert mistakes(LABELS.float(), LABELS, CALIBRATION) == []
    # 0.8 is farther from 0.4 in probability, 0.05 in log-odds.
    assert mistakes(torch.tensor([0.8, 0.05]), torch.tensor([0, 1]), CALIBRATION) == [1, 0]
    assert mistakes(1 - LABELS.float(), LABELS, Calibration(threshold=1, uncertain_high=1)) == [3, 4, 5, 6, 0, 1, 2]
