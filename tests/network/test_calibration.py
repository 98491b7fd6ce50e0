import math

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from pneumonia.network.calibration import Calibration, calibration_in, is_pneumonia
from pneumonia.training.fitting import SENSITIVITY, TEMPERATURES, at_sensitivity, fit

Simulated = tuple[Tensor, Tensor]
# What validation sets can be like: (normals, pneumonias, how far apart they lie).
SETS = [(400, 600, 3.0), (135, 389, 2.0), (1000, 1000, 0.5), (50, 25, 5.0), (300, 1, 2.0), (30, 30, 0.2)]

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def simulate(
    normals: int, pneumonias: int, distance: float, temperature: float = 2.5, seed: int = 0, shift: float = 0
) -> Simulated:
    """Return float32 logits and labels for which `temperature`, and a bias of -shift, are known to be right.

    Of two normal distributions of variance d² around ±d²/2, the log-ratio of the densities at x is x itself: log-odds
    drawn from them are calibrated for classes that weigh alike.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * normals + [1] * pneumonias)
    odds = distance * torch.randn(len(labels), generator=generator) + distance**2 / 2 * (2 * labels - 1)
    shared = torch.randn(len(labels), generator=generator)  # softmax does not see what both logits have in common
    return torch.stack([shared - odds / 2, shared + odds / 2 + shift], 1) * temperature, labels


def suspicions(calibration: Calibration, logits: Tensor) -> list[float]:
    """Return P(PNEUMONIA) as it is served."""
    return [calibration.probability(yes - no) for no, yes in logits.float().tolist()]


def answers(calibration: Calibration, logits: Tensor) -> Tensor:
    return torch.tensor([is_pneumonia(probability) for probability in suspicions(calibration, logits)])


def balanced_loss(logits: Tensor, labels: Tensor, temperature: float, point: float) -> float:
    """Return the mean over the classes of each one's mean cross-entropy, with Platt's targets.

    The bias is the one that makes a P(PNEUMONIA) of 0.5 of the log-odds `point`.
    """
    counts = labels.bincount()
    wrong = 1 / (counts[labels] + 2)
    targets = torch.where(labels.unsqueeze(1) == torch.arange(2), 1 - wrong.unsqueeze(1), wrong.unsqueeze(1)).double()
    scaled = (logits.double() - torch.tensor([0, point])) / temperature
    losses = cross_entropy(scaled, targets, reduction="none")
    return sum(losses[labels == label].mean().item() for label in (0, 1)) / 2


@pytest.mark.parametrize(("temperature", "shift"), [(0.3, -3.0), (1.0, 0.0), (2.5, 3.0), (7.0, 1.0)])
@pytest.mark.parametrize(("normals", "pneumonias"), [(9000, 9000), (4000, 12000)])
def test_fit_finds_what_was_simulated(temperature: float, shift: float, normals: int, pneumonias: int) -> None:
    """At this distance, 96% of the pneumonias lie above where both classes are equally probable."""
    logits, labels = simulate(normals, pneumonias, 2 * 1.7507, temperature, shift=shift)
    calibration = fit(logits, labels)
    assert calibration.temperature == pytest.approx(temperature, rel=0.1)
    assert calibration.bias == pytest.approx(-shift, abs=0.3)


@pytest.mark.parametrize("classes", SETS)
def test_no_temperature_has_a_lower_class_balanced_loss_with_its_bias(classes: tuple[int, int, float]) -> None:
    logits, labels = simulate(*classes)
    point = at_sensitivity(logits.double().diff().squeeze(1), labels == 1, SENSITIVITY).item()
    finer = torch.logspace(-1, 1, 801).tolist()
    least = min(finer, key=lambda temperature: balanced_loss(logits, labels, temperature, point))
    step = (TEMPERATURES[1] / TEMPERATURES[0]).item()
    assert least / step <= fit(logits, labels).temperature <= least * step


@pytest.mark.parametrize("classes", SETS)
def test_sensitivity_is_reached_and_by_no_more_images_than_it_takes(classes: tuple[int, int, float]) -> None:
    logits, labels = simulate(*classes)
    odds = (logits[:, 1] - logits[:, 0]).double()
    found = answers(fit(logits, labels), logits)
    pneumonias = labels == 1
    assert found[pneumonias].double().mean() >= SENSITIVITY
    lowest_found = odds[found & pneumonias].min()
    assert (odds[pneumonias] > lowest_found).double().mean() < SENSITIVITY
    assert torch.equal(found, odds >= lowest_found)


@pytest.mark.parametrize("classes", SETS)
def test_a_tenth_of_validation_lies_in_the_band_of_doubt(classes: tuple[int, int, float]) -> None:
    logits, labels = simulate(*classes)
    calibration = fit(logits, labels)
    uncertain = sum(map(calibration.is_uncertain, suspicions(calibration, logits)))
    assert uncertain == pytest.approx(0.1 * len(labels), abs=1)


@pytest.mark.parametrize("images", [1, 2, 20])
@pytest.mark.parametrize("scale", [0.01, 1.0, 1e4])
def test_separated_classes_give_an_ordered_calibration_without_an_error(images: int, scale: float) -> None:
    labels = torch.arange(2).repeat_interleave(images)
    noise = torch.rand(2 * images, 2, generator=torch.Generator().manual_seed(0))
    logits = scale * (torch.stack([1 - labels, labels], 1) + 0.3 * noise)
    calibration = fit(logits, labels)
    assert 0.1 <= calibration.temperature <= 10
    assert 0 <= calibration.uncertain_low <= 0.5 <= calibration.uncertain_high <= 1
    assert torch.equal(answers(calibration, logits), labels == 1)


@pytest.mark.parametrize("odds", [[0, 0], [-3, 3], [-1e4, 1e4], [-1, 0, 0, 1]], ids=str)
def test_pneumonias_below_all_normals_are_found_nevertheless(odds: list[float]) -> None:
    logits = torch.tensor([[0, value] for value in odds], dtype=torch.float32)
    labels = torch.tensor([1, 0]).repeat_interleave(len(odds) // 2)
    calibration = fit(logits, labels)
    assert math.isfinite(calibration.temperature)
    assert answers(calibration, logits)[labels == 1].all()


@pytest.mark.parametrize("seed", range(10))
def test_rounding_turns_no_answer(seed: int) -> None:
    logits, labels = simulate(20, 20, 1.0, seed=seed)
    logits += 30  # the larger the numbers, the coarser the rounding
    calibration = fit(logits, labels)
    point = -calibration.bias * calibration.temperature
    assert torch.equal(answers(calibration, logits), logits.double().diff().squeeze(1) >= point)
    assert answers(calibration, logits)[labels == 1].sum() == 20  # 96% of 20 are all of them


def test_default_is_softmax_and_the_larger_probability() -> None:
    logits = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    expected = logits.double().softmax(1)[:, 1].tolist()
    assert suspicions(Calibration(), logits) == pytest.approx(expected, abs=1e-15)
    assert torch.equal(answers(Calibration(), logits), logits.argmax(1) == 1)
    assert not any(map(Calibration().is_uncertain, [*suspicions(Calibration(), logits), 0.5]))


@given(
    st.tuples(FLOATS, FLOATS),
    st.floats(0.01, 100),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_answer_is_the_more_probable_class_at_any_rounding(
    logits: tuple[float, float], temperature: float, bias: float
) -> None:
    (pneumonia,) = suspicions(Calibration(temperature, bias), torch.tensor([logits]))
    normal = 1 - pneumonia
    assert normal + pneumonia == 1
    assert is_pneumonia(pneumonia) == (pneumonia >= normal)
    assert max(normal, pneumonia) >= 0.5


@pytest.mark.parametrize("logits", [(math.inf, 0), (0, math.inf), (-math.inf, 0), (math.nan, 0), (math.inf, math.inf)])
def test_logits_that_are_not_finite_have_no_probabilities(logits: tuple[float, float]) -> None:
    assert math.isnan(*suspicions(Calibration(2, 1), torch.tensor([logits])))


@pytest.mark.parametrize(
    "numbers",
    [
        (0.0, 0.5, 0.4, 0.6),
        (-1.0, 0.5, 0.4, 0.6),
        (1e-320, 0.5, 0.4, 0.6),
        (1e308, 0.5, 0.4, 0.6),
        (math.inf, 0.5, 0.4, 0.6),
        (math.nan, 0.5, 0.4, 0.6),
        (1.0, math.nan, 0.4, 0.6),
        (1.0, math.inf, 0.4, 0.6),
        (1.0, -math.inf, 0.4, 0.6),
        (1.0, 0.5, 0.51, 0.6),
        (1.0, 0.5, 0.4, 0.49),
        (1.0, 0.5, -0.1, 0.6),
        (1.0, 0.5, 0.4, 1.1),
        (1.0, 0.5, math.nan, 0.6),
        (1.0, 0.5, 0.4, math.nan),
    ],
)
def test_numbers_that_are_no_calibration_are_refused(numbers: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="not a calibration"):
        Calibration(*numbers)


# Calibrations from before the bias


def older(temperature: float, threshold: float, low: float, high: float) -> dict[str, dict[str, float]]:
    """Return a calibration as manifests had it: an operating point beside the probability."""
    numbers = {"temperature": temperature, "threshold": threshold, "uncertain_low": low, "uncertain_high": high}
    return {"calibration": numbers}


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted),
    st.floats(0.1, 10),
    st.tuples(st.floats(-100, 100, width=32), st.floats(-15.9, 15.9)).map(lambda pair: (pair[0], sum(pair))),
)
@example([0, 0, 0], 1.0, (0.0, -20.0))
@example([0, 0, 1], 1.0, (20.0, 0.0))
@example([0, 1, 1], 1.0, (0.0, 15.0))
@example([1, 1, 1], 1.0, (0.0, 30.0))
@example([0.3, 1, 1], 1.0, (0.0, 30.0))
@example([0.6575662798537966, 0.9109906835613433, 0.9819981662068847], 0.7585775750291838, (0.0, 1.5))
def test_older_calibration_keeps_its_classes_and_warnings(
    band: list[float], temperature: float, logits: tuple[float, float]
) -> None:
    low, threshold, high = band
    row = torch.tensor([logits]) * temperature
    was = (row / temperature).softmax(1)[0, 1].item()  # float32, as older code had it
    # Rounding decides what lies at an end.
    assume(all(abs(was - end) > 1e-4 * min(end, 1 - end) + 1e-6 for end in band if 0 < end < 1))
    calibration = calibration_in(older(temperature, threshold, low, high))
    (probability,) = suspicions(calibration, row)
    assert is_pneumonia(probability) == (was >= threshold)
    assume(min(probability, 1 - probability) > 1e-9)  # so near to 0 and 1, rounding decides again
    assert calibration.is_uncertain(probability) == (low < high and low <= was <= high)


def test_older_calibration_at_one_half_stays_as_it_is() -> None:
    assert calibration_in(older(1.5, 0.5, 0.25, 0.75)) == Calibration(1.5, 0.0, 0.25, 0.75)


@pytest.mark.parametrize(
    "numbers",
    [(0, 0.5, 0.4, 0.6), (1, math.nan, 0.4, 0.6), (1, 0.3, 0.4, 0.6), (1, 0.7, 0.4, 0.6), (1, 1.1, 0.4, 1.2)],
)
def test_older_numbers_that_are_no_calibration_are_refused(numbers: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="not a calibration"):
        calibration_in(older(*numbers))
