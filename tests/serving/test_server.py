"""`make run` and the command behind it: what they say, and how they end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.checkout import PROJECT, copy_checkout

pytestmark = pytest.mark.processes

# Not what the make that runs the tests has for those that it starts.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
SERVE = """
import argparse
from pneumonia.serving import server
parser = argparse.ArgumentParser()
server.add_arguments(parser)
server.run(parser.parse_args(["--port", "0"]))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout") / "copy")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def make_run(checkout: Path, port: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `make run` where it cannot serve."""
    command = ["make", "run", f"PORT={port}"]
    env = ENVIRONMENT | environment
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)


def log_of_serving(command: list[str], folder: Path, environment: dict[str, str], *paths: str) -> str:
    """Serve, get the page, Swagger UI and other paths, press Ctrl-C, and return the log."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal gives it
    )
    try:
        assert process.stdout
        page, swagger = process.stdout.readline().split(), process.stdout.readline().split()
        address = page[1]
        assert page == ["Page:", address]
        assert swagger == ["Swagger:", f"{address}/docs"]
        for url in (address, f"{address}/docs", *(f"{address}{path}" for path in paths)):
            with urllib.request.urlopen(url, timeout=60) as response:
                assert response.status == 200
    finally:
        os.killpg(process.pid, signal.SIGINT)
        _, log = process.communicate(timeout=60)
    return log


def test_it_ends_with_what_to_open_and_ctrl_c_ends_it(checkout: Path) -> None:
    log = log_of_serving(["make", "run", "PORT=0"], checkout, ENVIRONMENT)
    assert "Finished server process" in log
    assert "Traceback" not in log


def test_it_serves_where_nothing_is_but_the_package(tmp_path: Path, weights: Path) -> None:
    """As after `pip install .`, without app.py."""
    shutil.copytree(PROJECT / "pneumonia", tmp_path / "installed" / "pneumonia")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed"), "MODEL_PATH": str(weights)}
    log = log_of_serving([sys.executable, "-c", SERVE], tmp_path, environment, "/ready?load=1")
    assert f"INFO:pneumonia.releases.loading:loaded {weights}, model version sha256-" in log
    assert "Finished server process" in log
    assert "Traceback" not in log


def test_a_port_in_use_is_told_in_one_sentence(checkout: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    process = make_run(checkout, port)
    assert process.returncode != 0
    sentence, make = process.stderr.splitlines()
    assert sentence == (
        f"Port {port} cannot be listened on (Address already in use): choose another with --port, or with "
        "make run PORT=8001."
    )
    assert make.startswith("make: *** ")
    assert process.stdout == ""


def test_a_port_that_cannot_be_is_told(checkout: Path) -> None:
    process = make_run(checkout, 99999)
    assert process.returncode != 0
    assert process.stderr.startswith("Port 99999 cannot be listened on (ports are numbers from 0 to 65535): ")


def test_a_setting_that_is_wrong_is_told_in_one_sentence(checkout: Path) -> None:
    process = make_run(checkout, 0, MODEL_REFRESH_MINUTES="abc")
    sentence, make = process.stderr.splitlines()
    assert sentence == "MODEL_REFRESH_MINUTES is 'abc': set it to a number of minutes."
    assert make.startswith("make: *** ")
    assert "Error 1" in make
    assert process.stdout == ""
