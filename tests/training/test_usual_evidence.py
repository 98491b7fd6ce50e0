import numpy as np
import pytest
import torch
from torch import Tensor

from pneumonia.engines.torch import engine_of
from pneumonia.network.resnet import ResNet18, normalize
from pneumonia.network.usual_evidence import usual_evidence_in
from pneumonia.training.usual_evidence import usual_evidence_of
from tests.builders.networks import noise, untrained

LABELS = torch.tensor([0, 1, 1, 1, 0])


@pytest.fixture(scope="module")
def network() -> ResNet18:
    return untrained()


@pytest.mark.parametrize("batch_size", [2, 32])
def test_it_is_the_mean_of_what_is_served_and_both_classes_count_the_same(network: ResNet18, batch_size: int) -> None:
    images = noise(len(LABELS))
    served = engine_of(untrained())(normalize(images).numpy()).evidence
    expected = (served[[0, 4]].mean(0) + served[1:4].mean(0)) / 2
    usual = usual_evidence_of(network, images, LABELS, batch_size)
    assert np.abs(np.array(usual) - expected).max() < 1e-3
    assert usual_evidence_in({"usual_evidence": [list(row) for row in usual]}) == usual
    assert usual == tuple(tuple(round(value, 3) for value in row) for row in usual)


def test_processes_find_together_what_one_would_find(network: ResNet18) -> None:
    """The second process has no normal image."""
    images = noise(len(LABELS))
    alone = usual_evidence_of(network, images, LABELS, 4)
    shares = slice(0, None, 2), slice(1, None, 2)

    def rows(share: slice) -> list[Tensor]:
        """Return what a process gathers."""
        seen: list[Tensor] = []
        both = images[share], LABELS[share]

        def see(part: Tensor) -> Tensor:
            seen.append(part)
            return part

        usual_evidence_of(network, *both, 4, see)
        return seen

    assert LABELS[shares[1]].tolist() == [1, 1]
    gathered = iter([torch.cat(parts) for parts in zip(*map(rows, shares), strict=True)])
    together = usual_evidence_of(network, images[shares[0]], LABELS[shares[0]], 4, lambda _: next(gathered))
    assert np.array(together) == pytest.approx(np.array(alone), abs=1.1e-3)
