from copy import deepcopy

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from pneumonia.engines import onnx as onnx_engine
from pneumonia.engines import torch as torch_engine
from pneumonia.engines.onnx_file import onnx_file, precision_of
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.activations import GREATEST, TENSORS
from pneumonia.network.outputs import Floats, Outputs, probes
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from tests.builders.networks import ranges_of, untrained


@pytest.fixture(params=["untrained", "released"], scope="module")
def network(request: pytest.FixtureRequest) -> ResNet18:
    """Return a network with the values of its weights file."""
    if request.param == "released":
        return load_weights(RELEASED_WEIGHTS)
    return untrained()


@pytest.fixture(scope="module")
def half(network: ResNet18) -> bytes:
    return onnx_file(network)


@pytest.fixture(scope="module")
def integers(network: ResNet18) -> bytes:
    return onnx_file(network, ranges_of(network, probes()))


def by_torch(network: ResNet18, pixels: Floats) -> Outputs:
    return torch_engine.engine_of(deepcopy(network))(pixels)


def by_onnx(data: bytes, pixels: Floats) -> Outputs:
    return onnx_engine.engine_in(data, "model.onnx", is_checked=True)(pixels)


def noise(number: int) -> Floats:
    return np.random.default_rng(number).standard_normal((number, 3, SIZE, SIZE), np.float32)


def log_odds(outputs: Outputs) -> Floats:
    return outputs.logits[:, 1] - outputs.logits[:, 0]


def check_outputs_are_those_of_torch(network: ResNet18, half: bytes, pixels: Floats) -> None:
    for one, other in zip(by_onnx(half, pixels), by_torch(network, pixels), strict=True):
        assert (str(one.dtype), one.shape) == ("float32", other.shape)
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


@pytest.mark.parametrize("pixels", [probes(), noise(1), noise(5)], ids=["probes", "1", "5"])
def test_outputs_are_those_of_torch(network: ResNet18, half: bytes, pixels: Floats) -> None:
    check_outputs_are_those_of_torch(network, half, pixels)


def test_outputs_of_64_images_are_those_of_torch() -> None:
    network = load_weights(RELEASED_WEIGHTS)
    check_outputs_are_those_of_torch(network, onnx_file(network), noise(64))


def test_weights_that_half_precision_would_round_or_not_hold_stay_as_they_are() -> None:
    network = untrained()
    network.get_parameter("layer1.0.conv1.weight").detach().mul_(1e6)
    network.get_buffer("layer1.0.bn1.running_var").mul_(1e12)
    network.get_buffer("layer1.0.bn1.running_mean").mul_(1e6)
    assert precision_of(network, None) == "single"
    check_outputs_are_those_of_torch(network, onnx_file(network), probes())


def test_integers_give_nearly_the_same_outputs(network: ResNet18, integers: bytes) -> None:
    for one, other in zip(by_onnx(integers, probes()), by_torch(network, probes()), strict=True):
        assert np.abs(one - other).mean() <= 0.05 * np.abs(other).max()


@pytest.mark.parametrize("file", ["half", "integers"])
def test_evidence_and_biases_sum_to_the_log_odds(network: ResNet18, file: str, request: pytest.FixtureRequest) -> None:
    outputs = by_onnx(request.getfixturevalue(file), probes())
    bias = network.fc.bias.detach().numpy()
    sums = outputs.evidence.mean((1, 2)) + bias[1] - bias[0]
    np.testing.assert_allclose(sums, log_odds(outputs), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs.features.mean((2, 3)), outputs.means[:, 256:], rtol=1e-4, atol=1e-4)


def test_file_is_valid_and_the_same_for_the_same_values(network: ResNet18, half: bytes, integers: bytes) -> None:
    assert half == onnx_file(deepcopy(network))
    assert integers == onnx_file(deepcopy(network), ranges_of(network, probes()))
    assert precision_of(network, None) == "half"
    for data, most in ((half, 22_500_000), (integers, 11_500_000)):
        onnx.checker.check_model(data, full_check=True)
        assert len(data) < most


def test_tensors_to_record_are_all_that_pass_through_8_bits() -> None:
    network = untrained()
    assert ranges_of(network, probes()).keys() == set(TENSORS)
    model = onnx.load_from_string(onnx_file(network, dict.fromkeys(TENSORS, (0.0, 1.0))))
    passing = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert passing == {*TENSORS, "maxpool"}


def kernels_of(data: bytes) -> list[NDArray[np.int8]]:
    constants = onnx.load_from_string(data).graph.initializer
    return [numpy_helper.to_array(one) for one in constants if one.data_type == TensorProto.INT8]


def test_no_two_products_exceed_16_bits_on_processors_without_vnni(integers: bytes) -> None:
    """They add an activation times a weight, twice, in 16 bits: of neighbouring input channels, at one position."""
    kernels = kernels_of(integers)
    assert len(kernels) == 20
    for kernel in kernels:
        products = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1).astype(np.int32) * 255
        pairs = np.pad(products, ((0, 0), (0, products.shape[1] % 2))).reshape(len(kernel), -1, 2)
        assert pairs.clip(0).sum(2).max() <= np.iinfo(np.int16).max
        assert pairs.clip(None, 0).sum(2).min() >= np.iinfo(np.int16).min
        assert np.abs(kernel).max() > 64  # more than 7 bits are in use


def test_channels_without_weights_and_with_great_biases_are_written() -> None:
    network = untrained()
    network.get_parameter("layer1.0.conv1.weight").detach()[:2] = 0
    network.get_parameter("layer1.0.bn1.bias").detach()[1] = 1e4
    ranges = ranges_of(network, probes())
    expected, outputs = by_torch(network, probes()), by_onnx(onnx_file(network, ranges), probes())
    assert np.abs(outputs.logits - expected.logits).max() <= 0.2 * np.abs(expected.logits).max()


@pytest.mark.parametrize("ends", [(0.0, 0.0), (0.0, 1e-30), (-GREATEST, GREATEST)])
def test_ranges_that_cannot_be_print_no_warnings(ends: tuple[float, float]) -> None:
    assert by_onnx(onnx_file(untrained(), dict.fromkeys(TENSORS, ends)), probes()).logits.shape == (4, 2)
