import shutil
from pathlib import Path

import pytest
import torch
import torchvision

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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"text", r"is not a state dict that can be read", id="text"),
        pytest.param(b"", r"is not a state dict that can be read", id="empty"),
        pytest.param([torch.zeros(1)], r"is not a plain state dict", id="list"),
        pytest.param({0: torch.zeros(1)}, r"is not a plain state dict", id="names that are numbers"),
        pytest.param({"model": {"fc.bias": torch.zeros(2)}}, r"is not a plain state dict", id="checkpoint"),
        pytest.param({"head.bias": torch.zeros(2)}, r"has no tensor that fits ResNet-18", id="another network"),
        pytest.param({}, r"has no tensor that fits ResNet-18", id="nothing"),
        pytest.param(ResNet18(), r"is not a state dict that can be read", id="a model itself"),
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
