"""What many tests need: moto's server, an empty bucket, weights, both engines; and the tests that `--unit` runs."""

import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from tests.builders.weights import write_weights
from tools.stand_ins.moto import Moto, running_moto

# A shell lets what it starts in the background ignore SIGINT, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No example fails because it takes long: other work may run beside the tests.
settings.register_profile("however long", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("however long")


E2E = Path(__file__).with_name("e2e")
# What a test does that has the marker `processes`, by the names of Python's audit events.
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "socket.bind"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unit", action="store_true", help="run the tests that start no process, server or browser")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.unit:
        config.option.markexpr = "not processes and not slow and not image"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use moto's server, and all of the whole way.

    Raises:
        UsageError: tests have the same name: of those pytest-xdist runs one, as often as there are.
    """
    names = Counter(item.nodeid for item in items)
    if same := [name for name, count in names.items() if count > 1]:
        raise pytest.UsageError(f"These names are of several tests each: {', '.join(same)}")
    for item in items:
        if "moto" in getattr(item, "fixturenames", ()) or E2E in item.path.parents:
            item.add_marker("processes")


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_started(request: pytest.FixtureRequest) -> None:
    """With `--unit`, fail a test that starts a process or a server and has no marker that says so."""

    def refuse(event: str, _: tuple[object, ...]) -> None:
        if event in STARTS:
            pytest.fail(f"This test is for `make test` alone, as it does {event}: mark it with pytest.mark.processes.")

    if request.config.option.unit:
        sys.addaudithook(refuse)


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
    """A weights file of an untrained network, the same in every run, and beside it the ONNX file."""
    torch.manual_seed(0)
    return write_weights(ResNet18().state_dict(), tmp_path_factory.mktemp("weights") / WEIGHTS_NAME)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute on one thread: the order of additions depends on their number, and small networks gain nothing from more.

    Beside other work they would lose much.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each engine in turn, for this process and those that it starts; the second only in `make slow-test`.

    What loads a model for a whole module takes this fixture, so that it does so once for each.
    """
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ENGINE", request.param)
        yield request.param
