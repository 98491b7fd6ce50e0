"""The network that training starts from: torchvision's ResNet-18, pretrained or random."""

import socket
from collections.abc import Collection, Iterable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from pneumonia.errors import ConfigurationError, first_line
from pneumonia.network.contract import CLASSES
from pneumonia.network.weights_file import is_state_dict

DOWNLOAD_TIMEOUT = 30  # seconds without a byte; else a subnet without internet would hang for minutes


def build_network(weights: str) -> tuple[nn.Module, Collection[str]]:
    """Return torchvision's ResNet-18 with two outputs, and the names of the tensors that are not random.

    Args:
        weights: "imagenet" for torchvision's weights, "none" for random ones, or a state dict's path, from which the
            tensors that fit are taken.

    Raises:
        ConfigurationError: the weights cannot be had, or none of them fit.
    """
    model = torchvision.models.resnet18(weights=None)
    model.fc = nn.Linear(model.fc.in_features, len(CLASSES))
    if weights == "none":
        print("weights: none, the network starts from random values", flush=True)
        return model, ()
    state = _imagenet_weights() if weights == "imagenet" else _weights_from(Path(weights))
    own = model.state_dict()
    taken = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    if not taken:
        raise ConfigurationError(f"{weights} has no tensor that fits ResNet-18: pass a state dict with its key names.")
    model.load_state_dict(taken, strict=False)
    print(f"weights: {len(taken)} of {len(own)} tensors taken from {weights}", flush=True)
    print(
        f"weights: random, because missing or of another shape there: {_listed(own.keys() - taken.keys())}", flush=True
    )
    print(f"weights: not used from there: {_listed(state.keys() - taken.keys())}", flush=True)
    return model, taken.keys()


def _imagenet_weights() -> dict[str, Tensor]:
    """Download torchvision's ImageNet weights, or take them from torch hub's cache."""
    source = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        return dict(source.get_state_dict(progress=False, check_hash=True))
    except Exception as error:  # no network, a proxy's refusal, a broken download or cache
        raise ConfigurationError(
            f"The ImageNet weights cannot be downloaded from {source.url} ({first_line(error)}): pass a file with "
            "--weights PATH, or --weights none to start from random values."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _weights_from(path: Path) -> dict[str, Tensor]:
    """Read a state dict, running no code in it."""
    if not path.is_file():
        raise ConfigurationError(f"--weights {path}: there is no such file; imagenet, none or a path is expected.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly anything on broken data
        raise ConfigurationError(
            f"--weights {path} is not a state dict that can be read: {first_line(error)}"
        ) from error
    if not is_state_dict(state):
        raise ConfigurationError(f"--weights {path} is not a plain state dict: save model.state_dict().")
    return state


def _listed(names: Iterable[str]) -> str:
    """Return names for a log line, sorted."""
    return ", ".join(sorted(names)) or "none"
