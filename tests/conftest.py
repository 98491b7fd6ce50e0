"""What many tests need: moto's server, an empty bucket, and a weights file."""

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import save_weights
from tools.stand_ins.moto import Moto, running_moto

# A shell lets what it starts in the background ignore SIGINT, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    with running_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def bucket(moto: Moto, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, with this process's AWS variables set to moto's server."""
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    return moto.make_bucket(f"{name}-{time.time_ns()}")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of an untrained network; the same in every run."""
    path = tmp_path_factory.mktemp("weights") / WEIGHTS_NAME
    torch.manual_seed(0)
    save_weights(ResNet18().state_dict(), path)
    return path
