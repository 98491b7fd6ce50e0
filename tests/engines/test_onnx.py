import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pneumonia.engines.onnx import engine_in
from pneumonia.engines.onnx_file import onnx_file
from pneumonia.errors import WeightsError
from pneumonia.network.contract import ONNX_NAME
from pneumonia.network.outputs import probes
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from tests.builders.checkout import PROJECT
from tests.builders.networks import ranges_of, untrained

Damage = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def half() -> bytes:
    return onnx_file(untrained())


@pytest.fixture(scope="module")
def integers() -> bytes:
    network = untrained()
    return onnx_file(network, ranges_of(network, probes()))


@pytest.fixture(scope="module")
def single() -> bytes:
    network = untrained()
    network.conv1.weight.detach().mul_(1.0001)
    return onnx_file(network)


def test_eight_threads_at_once_get_the_same_outputs(integers: bytes) -> None:
    engine = engine_in(integers, "model.onnx", is_checked=True)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(engine, np.split(probes(), 4) * 4))
    expected = engine(probes())
    for index, outputs in enumerate(together):
        assert all(np.array_equal(one[0], other[index % 4]) for one, other in zip(outputs, expected, strict=True))


def test_layout_of_the_image_does_not_matter(integers: bytes) -> None:
    engine = engine_in(integers, "model.onnx", is_checked=True)
    channels_last = np.ascontiguousarray(probes().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert np.array_equal(engine(channels_last).logits, engine(probes()).logits)


def test_a_release_file_is_read_as_any_other(half: bytes, integers: bytes, single: bytes) -> None:
    for data in (half, integers, single, RELEASED_WEIGHTS.with_name(ONNX_NAME).read_bytes()):
        checked, other = (engine_in(data, "model.onnx", is_checked=is_checked) for is_checked in (True, False))
        assert np.array_equal(checked(probes()).logits, other(probes()).logits)


def refused(data: bytes, *, is_checked: bool = False) -> str:
    with pytest.raises(WeightsError) as error:
        engine_in(data, "model.onnx", is_checked=is_checked)
    return str(error.value)


@pytest.mark.parametrize("is_checked", [False, True])
def test_what_is_no_onnx_file_is_named(capfd: pytest.CaptureFixture[str], *, is_checked: bool) -> None:
    for data, kind in {
        b"": "empty",
        b"<!doctype html><html>": "a web page",
        b"version https://git-lfs.github.com/spec/v1": "a Git LFS pointer",
        b"hello": "text",
        b'{"a": 1}': "JSON",
        bytes(1000): "a file of an unknown kind",
        b"\0\0\0\0ORTM" + bytes(100): "a file of an unknown kind",
    }.items():
        expected = f"model.onnx is not an ONNX file of this network, but {kind}: name the ONNX file of a release."
        assert refused(data, is_checked=is_checked) == expected
    assert "weights files of PyTorch are: set ENGINE to torch" in refused(RELEASED_WEIGHTS.read_bytes())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("is_checked", [False, True])
def test_a_damaged_file_is_refused(half: bytes, capfd: pytest.CaptureFixture[str], *, is_checked: bool) -> None:
    for data in (half[:-3], half[: len(half) // 2], half[:100], half[:90] + b"\xff\xff" + half[92:]):
        sentence = refused(data, is_checked=is_checked)
        assert re.fullmatch(
            r"model\.onnx is (not an ONNX file of this network, but an ONNX model that cannot be run \(.+\): "
            r"copy or download it again|an ONNX file of another network: .+)\.",
            sentence,
        ), sentence
    assert capfd.readouterr() == ("", "")


def of_another_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 299


def of_one_image(model: onnx.ModelProto) -> None:
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1


def without_evidence(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def with_another_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "images"
    for node in model.graph.node:
        node.input[:] = ["images" if name == "pixels" else name for name in node.input]


@pytest.mark.parametrize("is_checked", [False, True])
@pytest.mark.parametrize("change", [of_another_size, of_one_image, without_evidence, with_another_name])
def test_a_network_with_other_inputs_or_outputs_is_refused(half: bytes, change: Damage, *, is_checked: bool) -> None:
    assert refused(changed(half, change), is_checked=is_checked).startswith("model.onnx is an ONNX file of another")


def changed(data: bytes, change: Damage) -> bytes:
    model = onnx.load_from_string(data)
    change(model)
    return bytes(model.SerializeToString())


def poison(model: onnx.ModelProto, value: float) -> None:
    for constant in model.graph.initializer:
        if constant.data_type in {TensorProto.FLOAT16, TensorProto.FLOAT} and constant.dims:
            values = numpy_helper.to_array(constant).copy()
            values.flat[0] = value
            constant.raw_data = values.tobytes()
            return


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(half: bytes, integers: bytes, value: float) -> None:
    for data, tensor in ((half, "relu.half"), (integers, "relu.weight.scales")):
        assert refused(changed(data, lambda model: poison(model, value))) == (
            f"model.onnx has NaN or infinite values in {tensor}: promote another model."
        )


def test_no_other_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bytes) -> None:
    (tmp_path / "kernel.bin").write_bytes(np.zeros((64, 3, 7, 7), np.float16).tobytes())
    monkeypatch.chdir(tmp_path)

    def outside(model: onnx.ModelProto) -> None:
        kernel = model.graph.initializer[0]
        kernel.ClearField("raw_data")
        kernel.data_location = TensorProto.EXTERNAL
        kernel.external_data.add(key="location", value="kernel.bin")

    data = changed(half, outside)
    assert refused(data) == "model.onnx is an ONNX file of another network: it has parts that this one never has."
    assert "kernel.bin" in refused(data, is_checked=True)  # by ONNX Runtime: there is no such file where it may look


def with_a_loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["endless"], body=onnx.GraphProto(name="body")))


def with_a_great_constant(model: onnx.ModelProto) -> None:
    """Add a tensor that doubles 40 times, in operators that this network has."""
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 8), np.float32), "0"))
    model.graph.node.extend(helper.make_node("Concat", [f"{i}"] * 2, [f"{i + 1}"], axis=1) for i in range(40))


def with_broad_padding(model: onnx.ModelProto) -> None:
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    for attribute in convolution.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [30_000] * 4


def with_other_logits(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.output[0] == "logits").input[2] = "layer4.1.bn2.bias"


def of_another_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version += 1


@pytest.mark.parametrize(
    "change", [with_a_loop, with_a_great_constant, with_broad_padding, with_other_logits, of_another_opset]
)
def test_graphs_of_other_networks_are_refused(half: bytes, integers: bytes, change: Damage) -> None:
    for data in (half, integers):
        assert refused(changed(data, change)) == (
            "model.onnx is an ONNX file of another network: it has other operators or constants."
        )


WITHOUT_TORCH = """
import sys
from pathlib import Path
sys.modules |= {"torch": None, "onnx": None}
from pneumonia.engines.onnx import engine_in
from pneumonia.network.outputs import probes
print(engine_in(Path(sys.argv[1]).read_bytes(), "model.onnx", is_checked=False)(probes()).logits.tolist())
try:
    engine_in(b"text", "model.onnx", is_checked=False)
except Exception as error:
    print(error)
"""


@pytest.mark.processes
def test_runs_and_refuses_without_torch_and_the_onnx_package(tmp_path: Path, integers: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(integers)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "model.onnx")]
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    logits, sentence = done.stdout.splitlines()
    assert json.loads(logits) == engine_in(integers, "model.onnx", is_checked=True)(probes()).logits.tolist()
    assert sentence.startswith("model.onnx is not an ONNX file of this network, but text: ")
    assert done.stderr == ""
