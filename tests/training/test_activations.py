import numpy as np
import pytest
import torch

from pneumonia.engines import onnx as onnx_engine
from pneumonia.engines import torch as torch_engine
from pneumonia.engines.onnx_file import onnx_file
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.activations import TENSORS
from pneumonia.network.resnet import ResNet18, normalize
from pneumonia.training.activations import activations_of, tails_of, watched
from tests.builders.networks import noise, ranges_of, untrained


@pytest.fixture(scope="module")
def network() -> ResNet18:
    return untrained()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_ranges_of_few_images_leave_out_next_to_nothing(network: ResNet18, batch_size: int) -> None:
    images = noise(3)
    ranges, full = activations_of(network, images, batch_size), ranges_of(network, normalize(images).numpy())
    assert ranges.keys() == set(TENSORS)
    for name, (low, high) in ranges.items():
        assert full[name][0] - 1e-3 <= low <= high <= full[name][1] + 1e-3
    # Of the 75,264 values of the last layer's input, SHARE is less than one: it has the range of all.
    assert ranges["layer4.1.relu1"] == pytest.approx(full["layer4.1.relu1"], rel=1e-4)


def test_what_is_rarer_than_a_share_of_the_values_is_left_out(network: ResNet18) -> None:
    image = torch.full((1, 3, SIZE, SIZE), 100, dtype=torch.uint8)
    image[0, 1, 0, 0], image[0, 1, 0, 1:3] = 0, 255
    low, high = activations_of(network, image, 1)["pixels"]  # SHARE of the image's values are two
    green = normalize(image)[0, 1, 0, :4].tolist()
    assert low == pytest.approx(min(normalize(image)[0, :, 9, 9].tolist()))
    assert high == pytest.approx(green[1])


def test_each_tensor_is_seen_once_and_only_within_the_context(network: ResNet18) -> None:
    seen: list[str] = []
    with watched(network, lambda name, _: seen.append(name)):
        network(normalize(noise(1)))
    assert sorted(seen) == sorted(TENSORS)
    network(normalize(noise(1)))
    assert len(seen) == len(TENSORS)


def test_processes_find_together_what_one_would_find(network: ResNet18) -> None:
    images = noise(4)
    one, other = (tails_of(network, share, 4, len(images)) for share in (images[::2], images[1::2]))
    gathered = iter([images[:, 0, 0, :1]] * 2 + [torch.cat([one[name], other[name]]) for name in one])
    together = activations_of(network, images[::2], 4, lambda _: next(gathered))
    alone = activations_of(network, images, 4)
    assert together.keys() == alone.keys()
    for name, ends in alone.items():
        assert together[name] == pytest.approx(ends, rel=1e-4, abs=1e-4)


def test_integers_within_these_ranges_answer_nearly_as_floats(network: ResNet18) -> None:
    images = noise(4)
    pixels = normalize(images).numpy()
    data = onnx_file(network, activations_of(network, images, 4))
    outputs = onnx_engine.engine_in(data, "model.onnx", is_checked=True)(pixels)
    expected = torch_engine.engine_of(untrained())(pixels)
    assert np.abs(outputs.logits - expected.logits).max() <= 0.1 * np.abs(expected.logits).max()
