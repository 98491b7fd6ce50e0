from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from pneumonia.errors import WeightsError
from pneumonia.network.contract import CLASSES
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import load_weights, save_weights, save_whole
from tests.builders.disk import full_after
from tests.builders.pickles import Payload

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    """The ResNet-18 of torchvision with two outputs; its running statistics are not those of a new network."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    network.fc = torch.nn.Linear(network.fc.in_features, len(CLASSES))
    with torch.no_grad():
        for _ in range(2):
            network(torch.randn(4, 3, 64, 64))
    result: torch.nn.Module = network.eval()
    return result


@pytest.fixture
def state(reference: torch.nn.Module) -> State:
    return dict(reference.state_dict())


def test_keys_and_shapes_are_torchvisions(state: State) -> None:
    own = ResNet18().state_dict()
    assert list(own) == list(state)
    assert [tensor.shape for tensor in own.values()] == [tensor.shape for tensor in state.values()]


def test_outputs_are_torchvisions(reference: torch.nn.Module, state: State) -> None:
    network = ResNet18()
    network.load_state_dict(state)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(images), reference(images), rtol=0, atol=1e-6)


def test_the_classes_have_one_output_each_in_the_contracts_order() -> None:
    assert CLASSES == ("NORMAL", "PNEUMONIA")
    assert ResNet18().fc.out_features == 2


def test_saved_weights_are_small_kernels_half_and_vectors_whole(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_weights(state, path)
    saved = torch.load(path, weights_only=True)
    assert path.stat().st_size < 23_000_000
    assert saved.keys() == state.keys()
    for name, tensor in saved.items():
        expected = torch.half if state[name].ndim > 1 else state[name].dtype
        assert tensor.dtype == expected, name
        assert torch.equal(tensor, state[name].to(expected)), name


def test_loaded_weights_are_the_saved_ones_ready_for_inference(state: State, tmp_path: Path) -> None:
    save_weights(state, tmp_path / "weights.pth")
    network = load_weights(tmp_path / "weights.pth")
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == state[name].dtype, name
        torch.testing.assert_close(tensor, state[name], rtol=1e-3, atol=1e-6, msg=name)


def test_saving_what_was_loaded_changes_nothing(state: State, tmp_path: Path) -> None:
    save_weights(state, tmp_path / "first.pth")
    first = load_weights(tmp_path / "first.pth").state_dict()
    save_weights(first, tmp_path / "second.pth")
    second = load_weights(tmp_path / "second.pth").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in state)


def test_single_precision_files_load_exactly(reference: torch.nn.Module, state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth")
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        outputs = load_weights(tmp_path / "weights.pth")(images)
        torch.testing.assert_close(outputs, reference(images), rtol=0, atol=1e-6)


def test_a_loaded_network_does_not_change_with_its_file(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_weights(state, path)
    network = load_weights(path).state_dict()
    before = {name: tensor.clone() for name, tensor in network.items()}
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert all(torch.equal(network[name], before[name]) for name in state)


def test_saving_leaves_the_network_as_it_is(state: State, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in state.items()}
    save_weights(state, tmp_path / "weights.pth")
    assert all(torch.equal(state[name], before[name]) and state[name].dtype == before[name].dtype for name in state)


def test_a_full_disk_is_an_os_error_and_keeps_the_old_weights(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_weights(state, path)
    before = path.read_bytes()
    with full_after(1_000_000), pytest.raises(OSError, match="too large") as caught:
        save_whole(state, path)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [b"", b"not weights at all", b"PK\x03\x04 only looks like a zip archive", b"\x80\x02.", b"\x80\x02K\x05."],
)
def test_a_file_that_torch_did_not_write_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.pth is not a weights file"):
        load_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("kept", [100, 1_000, 10_000, 100_000, 1_000_000, -1])
def test_a_truncated_file_is_refused(kept: int, state: State, tmp_path: Path) -> None:
    save_weights(state, tmp_path / "whole.pth")
    (tmp_path / "weights.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"is not a weights file that torch\.save wrote whole"):
        load_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [{}, {"model": {"fc.weight": torch.zeros(2, 512)}}, [torch.zeros(1)], 5, None, "x"])
def test_something_else_than_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"is not a plain state dict|lacks bn1\.bias, .* and 119 more"):
        load_weights(tmp_path / "weights.pth")


def test_names_that_are_no_strings_are_refused(state: State, tmp_path: Path) -> None:
    content: dict[object, Tensor] = {name: tensor for name, tensor in state.items()}  # noqa: C416
    content[0] = torch.zeros(1)
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="is not a plain state dict"):
        load_weights(tmp_path / "weights.pth")


def test_a_pickled_model_is_refused(reference: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(reference, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="is not a weights file"):
        load_weights(tmp_path / "weights.pth")


def test_code_in_a_pickle_does_not_run(state: State, tmp_path: Path) -> None:
    torch.save({**state, "payload": Payload(tmp_path / "ran")}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="is not a weights file"):
        load_weights(tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()


def without(state: State, *names: str) -> State:
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda s: without(s, "fc.bias"), r"lacks fc\.bias: it is not a ResNet-18", id="one missing"),
        pytest.param(
            lambda s: without(s, "conv1.weight", "fc.bias", "fc.weight", "bn1.bias", "bn1.weight"),
            r"lacks bn1\.bias, bn1\.weight, conv1\.weight and 2 more",
            id="many missing",
        ),
        pytest.param(
            lambda s: {f"backbone.{name}": tensor for name, tensor in s.items()},
            r"and 119 more: it is not .* key names, but a network whose ResNet has the prefix 'backbone\.'\.",
            id="a part of a larger network",
        ),
        pytest.param(
            lambda _: torchvision.models.resnet34(weights=None).state_dict(),
            r"tensors that ResNet-18 lacks: layer1\.2\.bn1\.bias, .* It is a ResNet-34\.",
            id="more layers",
        ),
        pytest.param(
            lambda s: {**s, "\x1b[31mred": torch.zeros(1)},
            r"tensors that ResNet-18 lacks: \$'\\x1b\[31mred'\.",
            id="a terminal's control code",
        ),
        pytest.param(
            lambda s: {**s, "head.weight": torch.zeros(1)}, r"tensors that ResNet-18 lacks: head\.weight", id="unknown"
        ),
        pytest.param(
            lambda s: {**s, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)},
            r"fc\.weight of shape \(1000, 512\) where this network has \(2, 512\)",
            id="ImageNet's classes",
        ),
        pytest.param(
            lambda s: {**s, "conv1.weight": torch.zeros(64, 1, 7, 7)},
            r"conv1\.weight of shape \(64, 1, 7, 7\)",
            id="grayscale network",
        ),
        pytest.param(lambda s: {**s, "fc.bias": torch.tensor([0, 1])}, r"fc\.bias of type torch\.int64", id="integers"),
        pytest.param(
            lambda s: {**s, "bn1.num_batches_tracked": torch.tensor(1.0)},
            r"bn1\.num_batches_tracked of type torch\.float32",
            id="a counter that is no integer",
        ),
    ],
)
def test_weights_of_another_network_are_refused(
    change: Callable[[State], State], message: str, state: State, tmp_path: Path
) -> None:
    torch.save(change(state), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=message):
        load_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(lambda name: f"module.{name}", id="DataParallel"),
        pytest.param(lambda name: f"_orig_mod.{name}", id="compiled"),
        pytest.param(lambda name: f"_orig_mod.module.{name}", id="both"),
        pytest.param(lambda name: name.replace("layer1.", "layer1._orig_mod."), id="a compiled layer"),
    ],
)
def test_what_wrappers_add_to_names_is_taken_off(wrapped: Callable[[str], str], state: State, tmp_path: Path) -> None:
    torch.save({wrapped(name): tensor for name, tensor in state.items()}, tmp_path / "weights.pth")
    loaded = load_weights(tmp_path / "weights.pth").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_names_that_would_be_the_same_without_wrappers_stay(state: State, tmp_path: Path) -> None:
    torch.save({**state, "module.fc.bias": state["fc.bias"]}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"tensors that ResNet-18 lacks: module\.fc\.bias"):
        load_weights(tmp_path / "weights.pth")


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("conv1.weight", float("nan"), "NaN or infinite"),
        ("layer4.1.conv2.weight", float("inf"), "NaN or infinite"),
        ("layer2.0.bn1.running_var", -5.0, "negative"),
        ("fc.bias", float("-inf"), "NaN or infinite"),
    ],
)
def test_values_that_no_training_leaves_are_refused(tmp_path: Path, name: str, value: float, kind: str) -> None:
    state = ResNet18().state_dict()
    state[name].view(-1)[0] = value
    save_weights(state, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=rf"has {kind} values that no training leaves in {name}: promote another"):
        load_weights(tmp_path / "weights.pth")
