"""The network that training starts from: torchvision's ResNet-18, pretrained or random."""

import socket
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor, nn

from pneumonia.command import say
from pneumonia.errors import ConfigurationError, WeightsError, first_line
from pneumonia.names import on_terminal, some
from pneumonia.network.architectures import network_of
from pneumonia.network.weights_file import fits_at_rest, load_state, sound
from pneumonia.training.sparing_resnet import SparingResNet18

DOWNLOAD_TIMEOUT = 30  # seconds without a byte; else a subnet without internet would hang for minutes
LAYERS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
MAY_BE_RANDOM = ("layer4", "fc")  # what is before them has to be pretrained, or nothing is
COUNTERS = (".total_ops", ".total_params")  # of a network's work, which thop leaves in its state


def build_network(weights: str) -> tuple[nn.Module, Collection[str]]:
    """Return torchvision's ResNet-18 with two outputs, and the names of the tensors that are not random.

    Args:
        weights: "imagenet" for torchvision's weights, "none" for random ones, or a state dict's path, from which the
            tensors that fit are taken.

    Raises:
        ConfigurationError: the weights cannot be had, or do not fit.
        OSError: the file cannot be read.
    """
    model = SparingResNet18()
    if weights == "none":
        say("weights: none, the network starts from random values")
        return model, ()
    own = model.state_dict()
    state, taken = _imagenet_weights(own) if weights == "imagenet" else _weights_from(Path(weights), own)
    model.load_state_dict(taken, strict=False)
    say(f"weights: {len(taken)} of {len(own)} tensors taken from {weights}")
    say(f"weights: random, because missing or of another shape there: {_listed(own.keys() - taken.keys())}")
    say(f"weights: not used from there: {_listed(state.keys() - taken.keys())}")
    return model, taken.keys()


def _imagenet_weights(own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return torchvision's ImageNet weights, from torch hub's cache or downloaded into it, and those that fit."""
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if not cached.exists():
        _download(url, cached)
    try:
        return _fitting(cached, own)
    except WeightsError as error:
        raise ConfigurationError(
            f"{error} It is in torch's cache: remove it there, and the next run downloads it anew."
        ) from error


def _download(url: str, path: Path) -> None:
    """Download a file whose name ends with the beginning of its SHA-256, as torch hub does."""
    say(f"weights: downloading {url}")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2], progress=False)
    except Exception as error:  # no network, a proxy's refusal, a broken download
        raise ConfigurationError(
            f"The ImageNet weights cannot be downloaded from {url} ({first_line(error)}): give this machine a "
            "way there, start from random values with --weights none, or, outside SageMaker jobs, pass a file with "
            "--weights PATH."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _weights_from(path: Path, own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a file's state dict, and those of its tensors that fit."""
    if path.is_dir():
        raise ConfigurationError(f"--weights {path} is a folder: name the weights file in it.")
    if not path.exists():
        raise ConfigurationError(f"--weights {path}: there is no such file; imagenet, none or a path is expected.")
    try:
        return _fitting(path, own)
    except WeightsError as error:
        raise ConfigurationError(f"--weights {error}") from error


def _fitting(path: Path, own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read a state dict; return it, and those of its tensors that fit ResNet-18.

    Raises:
        WeightsError: the file holds something else, or weights of another network, or values that no training leaves.
        OSError: the file cannot be read.
    """
    state = load_state(path, "a state dict that can be read")
    taken = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    _check_network(state, taken, own, path)
    values = sound(taken, own, str(path), "name another file")
    if not fits_at_rest(values):
        raise WeightsError(
            f"{path} has kernels with values above 65,504, which half precision does not have, and training saves "
            "kernels in half precision: name another file."
        )
    return state, values


def _check_network(
    state: Mapping[str, Tensor], taken: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path
) -> None:
    """Check that a state dict is of a ResNet-18, of which layer4 and fc may be missing.

    Names and shapes of single tensors prove little: those of ResNet-18 are all in ResNet-34.

    Raises:
        WeightsError: it is not.
    """
    if kind := network_of(state):
        raise WeightsError(f"{path} is of {kind}: name the state dict of a ResNet-18, with torchvision's names.")
    if not taken:
        found = f", but {some([*state])}" if state else ""
        raise WeightsError(f"{path} has no tensor that fits ResNet-18{found}: pass a state dict with its key names.")
    needed = [name for name in own if not name.endswith("num_batches_tracked") and not name.startswith(MAY_BE_RANDOM)]
    if missing := [name for name in needed if name not in taken]:
        raise WeightsError(
            f"{path} lacks {some(missing)}, or has other shapes for them: up to layer3, it must have all that "
            "ResNet-18 learns."
        )
    layers = [name for name in state if name.startswith(LAYERS) and not name.endswith(COUNTERS)]
    if others := [name for name in layers if name not in own]:
        raise WeightsError(
            f"{path} has {some(others)} within its layers, so it is not a ResNet-18: name a file that is."
        )


def _listed(names: Iterable[str]) -> str:
    """Return names for a log line, sorted."""
    return ", ".join(map(on_terminal, sorted(names))) or "none"
