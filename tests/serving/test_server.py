"""`make run`: what it says, and how it ends."""

import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.checkout import copy_checkout

# Not what the make that runs the tests has for those that it starts.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout") / "copy")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_it_ends_with_what_to_open_and_ctrl_c_ends_it(checkout: Path) -> None:
    process = subprocess.Popen(
        ["make", "run", "PORT=0"],
        cwd=checkout,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal gives it
    )
    assert process.stdout
    assert process.stderr
    page, swagger = process.stdout.readline().split(), process.stdout.readline().split()
    address = page[1]
    assert page == ["Page:", address]
    assert swagger == ["Swagger:", f"{address}/docs"]
    for url in (address, f"{address}/docs"):
        with urllib.request.urlopen(url, timeout=60) as response:
            assert response.status == 200

    os.killpg(process.pid, signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert "Finished server process" in log
    assert "Traceback" not in log


def test_a_port_in_use_is_told_in_one_sentence(checkout: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    process = subprocess.run(
        ["make", "run", f"PORT={port}"], cwd=checkout, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert process.returncode != 0
    sentence, make = process.stderr.splitlines()
    assert sentence == (
        f"Port {port} cannot be listened on (Address already in use): choose another, for example with "
        "make run PORT=8001."
    )
    assert make.startswith("make: *** ")
    assert process.stdout == ""


def test_a_port_that_cannot_be_is_told(checkout: Path) -> None:
    process = subprocess.run(
        ["make", "run", "PORT=99999"], cwd=checkout, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert process.returncode != 0
    assert process.stderr.startswith("Port 99999 cannot be listened on (ports are numbers from 0 to 65535): ")
