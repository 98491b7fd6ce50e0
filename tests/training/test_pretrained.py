import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from pneumonia.errors import ConfigurationError
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import load_weights, save_weights
from pneumonia.training.pretrained import build_network


@pytest.fixture(scope="module")
def imagenet_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict as torchvision's: the same network with 1,000 outputs."""
    path = tmp_path_factory.mktemp("imagenet") / "resnet18-f37072fd.pth"
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


def test_a_partial_state_dict_fills_what_it_can_and_reports_the_rest(
    imagenet_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = torch.load(imagenet_like, weights_only=True)
    del given["layer4.1.conv2.weight"]
    given["head.bias"] = torch.zeros(3)
    torch.save(given, tmp_path / "partial.pth")
    network, pretrained = build_network(str(tmp_path / "partial.pth"))
    own = network.state_dict()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"weights: 119 of 122 tensors taken from {tmp_path / 'partial.pth'}"
    assert lines[1].endswith("there: fc.bias, fc.weight, layer4.1.conv2.weight")
    assert lines[2].endswith("not used from there: fc.bias, fc.weight, head.bias")
    assert set(pretrained) == own.keys() - {"fc.weight", "fc.bias", "layer4.1.conv2.weight"}
    assert all(torch.equal(own[name], given[name]) for name in pretrained)
    assert own["fc.weight"].shape == (2, 512)


def test_a_released_model_can_be_trained_further(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_weights(ResNet18().state_dict(), tmp_path / "weights.pth")
    network, pretrained = build_network(str(tmp_path / "weights.pth"))
    own = network.state_dict()
    assert capsys.readouterr().out.count("none\n") == 2  # nothing random, nothing unused
    assert set(pretrained) == own.keys()
    released = load_weights(tmp_path / "weights.pth").state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in released.items())


def test_random_weights_follow_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    kernels = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network, pretrained = build_network("none")
        assert not pretrained
        kernels.append(network.state_dict()["conv1.weight"])
    assert torch.equal(kernels[0], kernels[1])
    assert not torch.equal(kernels[0], kernels[2])
    assert "random values" in capsys.readouterr().out


def test_imagenet_weights_come_from_torch_hubs_cache_where_they_are(
    imagenet_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    shutil.copyfile(imagenet_like, cache / imagenet_like.name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network, pretrained = build_network("imagenet")
    own = network.state_dict()
    assert "120 of 122 tensors taken from imagenet" in capsys.readouterr().out
    assert set(pretrained) == own.keys() - {"fc.weight", "fc.bias"}
    assert torch.equal(own["conv1.weight"], torch.load(imagenet_like, weights_only=True)["conv1.weight"])


def test_a_broken_file_in_torch_hubs_cache_is_named_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"<html>Log in to the network</html>")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    sentence = rf"{cached} is not a state dict .* but a web page.* torch's cache: remove it there, and the next run"
    with pytest.raises(ConfigurationError, match=sentence):
        build_network("imagenet")
    assert cached.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"text", r"is not a state dict that can be read, but text", id="text"),
        pytest.param(b"", r"is not a state dict that can be read, but empty", id="empty"),
        pytest.param([torch.zeros(1)], r"is not a plain state dict, but a saved list", id="list"),
        pytest.param({0: torch.zeros(1)}, r"is not a plain state dict", id="names that are numbers"),
        pytest.param({"model": {"fc.bias": torch.zeros(2)}}, r"is not a plain state dict", id="checkpoint"),
        pytest.param({"head.bias": torch.zeros(2)}, r"has no tensor that fits ResNet-18, but head\.bias", id="another"),
        pytest.param({}, r"has no tensor that fits ResNet-18", id="nothing"),
        pytest.param(ResNet18(), r"is not a state dict that can be read, but a whole pickled model", id="model itself"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "given.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigurationError, match=rf"given\.pth {message}"):
        build_network(str(path))


def test_a_folder_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"--weights {tmp_path} is a folder: name the weights file in it"):
        build_network(str(tmp_path))


State = dict[str, Tensor]


def narrow(state: State, width: int) -> State:
    """Return a state dict of a ResNet-18 with fewer channels, as from a network that was made so."""
    scale = 64 // width
    return {
        name: value[tuple(slice(size // scale) if size >= 64 else slice(None) for size in value.shape)]
        for name, value in state.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda s: narrow(s, 32), "is of a ResNet-18 of 32 channels in its first layer instead of 64", id="half"
        ),
        pytest.param(
            lambda _: torchvision.models.resnet34().state_dict(),
            "is of a ResNet-34: name the state dict of a ResNet-18",
            id="34",
        ),
        pytest.param(lambda _: torchvision.models.resnet50().state_dict(), "is of a ResNet-50", id="50"),
        pytest.param(lambda _: torchvision.models.wide_resnet50_2().state_dict(), "is of a wide ResNet-50", id="wide"),
        pytest.param(
            lambda _: torchvision.models.resnext50_32x4d().state_dict(),
            "is of a ResNeXt kind of ResNet-50",
            id="ResNeXt",
        ),
        pytest.param(
            lambda s: s | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, "for images of 1 channel instead of 3", id="gray"
        ),
        pytest.param(
            lambda s: s | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, "whose first kernel is 3 pixels wide", id="CIFAR"
        ),
        pytest.param(
            lambda s: {f"encoder.{name}": one for name, one in s.items()}, r"has the prefix 'encoder\.'", id="part"
        ),
        pytest.param(
            lambda s: {name: one for name, one in s.items() if not name.startswith("layer3")},
            r"lacks layer3\.0\.conv1\.weight, layer3\.0\.bn1\.weight, .* and 22 more, or has other shapes",
            id="without layer3",
        ),
        pytest.param(
            lambda s: {name: one for name, one in s.items() if name.endswith("tracked")},
            r"lacks conv1\.weight, .* up to layer3, it must have all that ResNet-18 learns",
            id="counters alone",
        ),
        pytest.param(
            lambda s: {name: one for name, one in s.items() if "running" not in name and "tracked" not in name},
            r"lacks bn1\.running_mean, bn1\.running_var, .* up to layer3, it must have all",
            id="with group norm",
        ),
        pytest.param(
            lambda s: s | {"layer2.0.se.fc1.weight": torch.zeros(8, 128)},
            r"has layer2\.0\.se\.fc1\.weight within its layers, so it is not a ResNet-18",
            id="parts of its own",
        ),
        pytest.param(
            lambda s: s | {"layer2.0.conv1.weight": s["layer2.0.conv1.weight"] * math.nan},
            r"has NaN or infinite values that no training leaves in layer2\.0\.conv1\.weight: name another file",
            id="NaN",
        ),
        pytest.param(
            lambda s: s | {"layer2.0.conv1.weight": s["layer2.0.conv1.weight"] * 1e7},
            "has kernels with values above 65,504, which half precision",
            id="too large to be saved",
        ),
        pytest.param(lambda s: s | {"bn1.bias": s["bn1.bias"].int()}, r"bn1\.bias of type torch\.int32", id="integers"),
        pytest.param(
            lambda s: s | {"conv1.weight": s["conv1.weight"].to_sparse()},
            "save plain, dense",
            id="sparse",
        ),
        pytest.param(
            lambda s: s | {"conv1.weight": s["conv1.weight"].to("meta")}, "without values of its own", id="meta"
        ),
    ],
)
def test_weights_of_another_network_are_refused(
    change: Callable[[State], State], message: str, imagenet_like: Path, tmp_path: Path
) -> None:
    torch.save(change(torch.load(imagenet_like, weights_only=True)), tmp_path / "given.pth")
    with pytest.raises(ConfigurationError, match=rf"^--weights {tmp_path}/given\.pth .*{message}"):
        build_network(str(tmp_path / "given.pth"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_taken(dtype: torch.dtype, imagenet_like: Path, tmp_path: Path) -> None:
    given = torch.load(imagenet_like, weights_only=True)
    given = {f"module.{name}": one.to(dtype) if one.is_floating_point() else one for name, one in given.items()}
    torch.save(given, tmp_path / "given.pth", _use_new_zipfile_serialization=False)
    network, pretrained = build_network(str(tmp_path / "given.pth"))
    assert len(pretrained) == 120
    assert torch.equal(network.state_dict()["conv1.weight"], given["module.conv1.weight"].float())


@pytest.mark.parametrize("missing", ["fc.", "layer4."])
def test_the_last_layers_may_be_missing(missing: str, imagenet_like: Path, tmp_path: Path) -> None:
    given = torch.load(imagenet_like, weights_only=True)
    torch.save({name: one for name, one in given.items() if not name.startswith(missing)}, tmp_path / "given.pth")
    _, pretrained = build_network(str(tmp_path / "given.pth"))
    assert set(pretrained) == {name for name in given if not name.startswith((missing, "fc."))}


def test_what_a_tool_counted_is_left_out(imagenet_like: Path, tmp_path: Path) -> None:
    given = torch.load(imagenet_like, weights_only=True)
    counters = {name: torch.zeros(1) for name in ("total_ops", "layer1.total_params", "layer1.0.conv1.total_ops")}
    torch.save(given | counters, tmp_path / "given.pth")
    _, pretrained = build_network(str(tmp_path / "given.pth"))
    assert set(pretrained) == given.keys() - {"fc.weight", "fc.bias"}


def test_names_in_the_log_hold_no_control_codes(
    imagenet_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = torch.load(imagenet_like, weights_only=True)
    torch.save(given | {"\x1b[31mred": torch.zeros(1)}, tmp_path / "given.pth")
    build_network(str(tmp_path / "given.pth"))
    assert r"$'\x1b[31mred'" in capsys.readouterr().out
