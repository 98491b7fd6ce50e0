"""`make run` and the command behind it: what they say, and how they end."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.checkout import PROJECT, copy_checkout
from tests.builders.uploads import FORM, GOOD

pytestmark = pytest.mark.processes

# Not what the make that runs the tests has for those that it starts.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
HEALTH = b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n"
PICTURE = b"GET /guide/model-card/learning_curves.png HTTP/1.1\r\nHost: test\r\n\r\n"
PREDICT = (
    f"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: {FORM}\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode()
)
SERVE = """
import argparse
from pneumonia.serving import server
parser = argparse.ArgumentParser()
server.add_arguments(parser)
server.run(parser.parse_args(["--port", "0"]))
"""

# With less than the seconds that `pneumonia serve` has to end.
BRIEF = """
import sys
from pneumonia.serving.server import APP, LocalServer, listen
with listen(0) as listener:
    try:
        LocalServer(APP, listener, grace=float(sys.argv[1]), factory=True).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
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


@contextlib.contextmanager
def serving_briefly(grace: float, log: Path, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Serve in a process that has so many seconds to end; yield it and its port."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", BRIEF, str(grace)],
            cwd=PROJECT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout
    with process.stdout:
        try:
            yield process, int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.kill()
            process.wait()


def ask(stack: contextlib.ExitStack, port: int, request: bytes) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
    connection.sendall(request)
    return connection


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_it_ends_whatever_its_clients_do(tmp_path: Path, weights: Path, sent: signal.Signals, status: int) -> None:
    log = tmp_path / "log"
    with (
        serving_briefly(5, log, MODEL_PATH=str(weights)) as (process, port),
        contextlib.ExitStack() as stack,
    ):
        assert ask(stack, port, HEALTH).recv(65536).startswith(b"HTTP/1.1 200 ")  # its connection stays
        assert ask(stack, port, PREDICT + GOOD).recv(65536).startswith(b"HTTP/1.1 200 ")
        ask(stack, port, b"")
        ask(stack, port, PICTURE * 60)  # and nothing is read
        stalled = ask(stack, port, PREDICT)
        whole = ask(stack, port, PREDICT + GOOD[:-1])
        ask(stack, port, HEALTH).recv(65536)  # so the others are under way
        process.send_signal(sent)
        while b"Shutting down" not in log.read_bytes():
            stalled.sendall(b"x")
            time.sleep(0.05)
        whole.sendall(GOOD[-1:])
        assert whole.recv(65536).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(ConnectionError):
            ask(stack, port, HEALTH)
        assert process.wait(60) == status
    assert "Connections cut off" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_it_ends_at_once_at_a_second_signal(tmp_path: Path) -> None:
    with (
        serving_briefly(1000, tmp_path / "log") as (process, port),
        contextlib.ExitStack() as stack,
    ):
        ask(stack, port, PREDICT)
        ask(stack, port, HEALTH).recv(65536)
        process.terminate()
        while b"Waiting for connections" not in (tmp_path / "log").read_bytes():
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM


def test_it_ends_while_the_model_is_fetched(tmp_path: Path, listener: socket.socket) -> None:
    silent = f"http://127.0.0.1:{listener.getsockname()[1]}"  # an S3 that never answers
    aws = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-central-1"}
    bucket = {"MODEL_BUCKET": "weights", "MODEL_PATH": str(tmp_path / "model.pth"), "AWS_ENDPOINT_URL": silent}
    with (
        serving_briefly(1, tmp_path / "log", **aws, **bucket) as (process, port),
        contextlib.ExitStack() as stack,
    ):
        ask(stack, port, PREDICT + GOOD)
        stack.enter_context(listener.accept()[0])
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
        assert time.monotonic() - began < 25  # loading alone may take 30 seconds


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
    assert sentence == (
        "MODEL_REFRESH_MINUTES is 'abc': set it to a number of minutes, 0 or more, or to inf for never."
    )
    assert make.startswith("make: *** ")
    assert "Error 1" in make
    assert process.stdout == ""
