"""The network that trains with less memory, against torchvision's own."""

import contextlib
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional

from pneumonia.network.contract import CLASSES
from pneumonia.training.sparing_resnet import SparingResNet18

LABELS = torch.tensor([0, 1, 1])


@pytest.fixture
def networks() -> tuple[nn.Module, nn.Module]:
    """The sparing network and torchvision's with the same weights, channels last, both in training mode."""
    torch.manual_seed(0)
    sparing, usual = SparingResNet18(), torchvision.models.resnet18(num_classes=len(CLASSES))
    usual.load_state_dict(sparing.state_dict())
    return sparing.to(memory_format=torch.channels_last), usual.to(memory_format=torch.channels_last)


def images(size: int) -> Tensor:
    return torch.randn(len(LABELS), 3, size, size, generator=torch.manual_seed(1)).contiguous(
        memory_format=torch.channels_last
    )


def precision(name: str) -> contextlib.AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16, enabled=name == "bfloat16")


def loss_of(network: nn.Module, pixels: Tensor, kind: str) -> Tensor:
    with precision(kind):
        logits = network(pixels)
    return functional.cross_entropy(logits.float(), LABELS)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("size", "layout"), [(224, torch.channels_last), (97, torch.channels_last), (97, torch.contiguous_format)]
)
def test_loss_and_gradients_are_torchvisions_to_the_last_bit(
    networks: tuple[nn.Module, nn.Module], size: int, layout: torch.memory_format, kind: str
) -> None:
    networks = (networks[0].to(memory_format=layout), networks[1].to(memory_format=layout))
    losses = [loss_of(network, images(size).contiguous(memory_format=layout), kind) for network in networks]
    assert torch.equal(*losses)
    gradients = [
        torch.autograd.grad(loss, list(network.parameters())) for network, loss in zip(networks, losses, strict=True)
    ]
    for (name, _), gradient, expected in zip(networks[0].named_parameters(), *gradients, strict=True):
        assert expected.any()
        assert torch.equal(gradient, expected), name


def test_as_many_random_numbers_are_drawn_as_for_torchvisions() -> None:
    torch.manual_seed(0)
    usual = torchvision.models.resnet18()
    usual.fc = nn.Linear(usual.fc.in_features, len(CLASSES))
    torch.manual_seed(0)
    for name, value in SparingResNet18().state_dict().items():
        assert torch.equal(value, usual.state_dict()[name]), name


@pytest.mark.parametrize("is_training", [True, False])
def test_without_gradients_it_is_torchvisions(networks: tuple[nn.Module, nn.Module], is_training: bool) -> None:  # noqa: FBT001
    sparing, usual = (network.train(is_training) for network in networks)
    with torch.inference_mode():
        assert torch.equal(sparing(images(97)), usual(images(97)))
    for name, value in sparing.state_dict().items():
        assert torch.equal(value, usual.state_dict()[name]), name


@pytest.mark.parametrize(
    ("kind", "freed"),
    [("float32", ["bn1", "layer1.0.bn1", "layer1.1.bn1"]), ("bfloat16", ["bn1"])],
)
def test_outputs_that_can_be_done_without_are_freed_before_the_backward_pass(
    networks: tuple[nn.Module, nn.Module], kind: str, freed: list[str]
) -> None:
    watched = ["bn1", "layer1.0.bn1", "layer1.1.bn1", "layer2.0.bn1"]
    for network, expected in zip(networks, (freed, []), strict=True):
        outputs = {name: output_of(network.get_submodule(name)) for name in watched}
        loss = loss_of(network, images(97), kind)  # holds what its backward pass needs
        assert [name for name in watched if outputs[name][0].expired()] == expected
        assert loss.requires_grad


def output_of(module: nn.Module) -> list[Any]:
    """Return a list that gets a weak reference to the values of each output."""
    references: list[Any] = []

    def remember(_module: nn.Module, _given: object, output: Tensor) -> None:
        references.append(StorageWeakRef(output.untyped_storage()))  # type: ignore[no-untyped-call]

    module.register_forward_hook(remember)
    return references
