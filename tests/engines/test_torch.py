from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from pneumonia.engines.torch import fuse
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from tests.builders.networks import untrained


@pytest.fixture(params=["untrained", "released"])
def network(request: pytest.FixtureRequest) -> ResNet18:
    return untrained() if request.param == "untrained" else load_weights(RELEASED_WEIGHTS)


def images(number: int, seed: int = 1) -> Tensor:
    return torch.randn(number, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("number", [1, 3])
@torch.inference_mode()
def test_outputs_are_the_plain_networks(network: ResNet18, number: int) -> None:
    fused = fuse(deepcopy(network))
    assert fused is not network
    for seed in range(2):
        given = images(number, seed)
        before = given.clone()
        torch.testing.assert_close(fused(given), network(given), rtol=1e-5, atol=1e-5)
        assert torch.equal(given, before)


@torch.inference_mode()
def test_layers_are_the_plain_networks(network: ResNet18) -> None:
    expected = network.layers(images(2))
    assert [tuple(output.shape) for output in expected] == [
        (2, 64, 56, 56), (2, 128, 28, 28), (2, 256, 14, 14), (2, 512, 7, 7)
    ]  # fmt: skip
    for output, plain in zip(fuse(network).layers(images(2)), expected, strict=True):
        torch.testing.assert_close(output, plain, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_layout_of_the_image_does_not_matter(network: ResNet18) -> None:
    fused, given = fuse(network), images(2)
    expected = fused(given)
    assert torch.equal(fused(given.contiguous(memory_format=torch.channels_last)), expected)
    assert torch.equal(fused(given.transpose(2, 3).contiguous().transpose(2, 3)), expected)


def test_eight_threads_at_once_get_the_same_outputs() -> None:
    network = untrained()
    fused = fuse(deepcopy(network))

    def run(seed: int) -> Tensor:
        with torch.inference_mode():
            return fused(images(1, seed))

    with ThreadPoolExecutor(8) as pool:
        outputs = torch.cat(list(pool.map(run, range(8))))
    with torch.inference_mode():
        expected = network(torch.cat([images(1, seed) for seed in range(8)]))
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
