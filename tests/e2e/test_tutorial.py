"""docs/tutorial.md, as a newcomer follows it: every command, in order, in a checkout of its own.

`pytest -s` shows what each command took.
"""

import itertools
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from PIL import Image, ImageChops, ImageStat

from tests.builders.checkout import PROJECT, copy_checkout

PORT = "8000"  # the tutorial's, in the place of which comes one that is free here
SERVER_SECONDS = 300  # until a server says where to look, on a busy machine

pytestmark = pytest.mark.slow


@dataclass
class Step:
    """A block of commands, and the blocks of what they print."""

    commands: str
    outputs: list[str] = field(default_factory=list)


def steps_of(markdown: str) -> list[Step]:
    steps: list[Step] = []
    for kind, content in re.findall(r"^```(\w+)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        if kind == "bash":
            steps.append(Step(content))
        else:
            assert kind == "text", f"neither commands nor what they print: {kind}"
            steps[-1].outputs.append(content)
    return steps


def pattern_of(line: str) -> str:
    """Return what a line of the tutorial stands for: other figures, and anything where it has an ellipsis."""
    figures = re.sub(r"\d+(\\\.\d+)?", r"[\\d.]+", re.escape(line))
    return re.sub(r"(\\ )+", r"\\s+", figures).replace("…", ".*")


def missing_lines(expected: str, output: str) -> list[str]:
    """Return the lines that the output does not have, in the order of the tutorial."""
    rest = output
    missing = []
    for line in expected.splitlines():
        if found := re.search(rf"^\s*{pattern_of(line)}$", rest, re.MULTILINE):
            rest = rest[found.end() :]
        else:
            missing.append(line)
    return missing


def test_figures_may_differ_and_words_may_not() -> None:
    printed = 'starting\nepoch=1 loss=0.1 best=no\nepoch=2 loss=0.12 best=yes\n{"prediction":"NORMAL","warnings":[]}\n'
    assert missing_lines("epoch=1 loss=0.5 best=…\nepoch=2 loss=0.4 best=yes\n", printed) == []
    assert missing_lines('{"prediction":"NORMAL",…}', printed) == []
    assert missing_lines("epoch=2 loss=0.4 best=no", printed.replace("=no", "=yes")) == ["epoch=2 loss=0.4 best=no"]
    assert missing_lines('{"prediction":"PNEUMONIA",…}', printed) == ['{"prediction":"PNEUMONIA",…}']
    assert missing_lines("epoch", printed) == ["epoch"]


class Terminal:
    """What a newcomer has open: one terminal for commands, another for the server."""

    def __init__(self, checkout: Path, port: int) -> None:
        self._checkout = checkout
        self._port = str(port)
        settings = ("AWS_", "MODEL_", "MAKE", "MFLAGS", "DATA", "ARGUMENTS", "SM_")  # of whoever runs the test
        own = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
        self._environment = own | {"PORT": self._port, "OMP_WAIT_POLICY": "passive"}
        self._server: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_server()

    def run(self, commands: str) -> str:
        """Run commands, a server among them in the background; return what they print, with the tutorial's port."""
        commands = commands.replace(f":{PORT}", f":{self._port}")
        output = self._serve(commands) if commands.startswith("make run") else self._finish(commands)
        return output.replace(f":{self._port}", f":{PORT}")

    def _finish(self, commands: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self._checkout,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}"
        return done.stdout

    def _serve(self, command: str) -> str:
        """Start a server, in the place of the one before, and return what it prints until it listens."""
        self._end_server()
        self._server = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self._checkout,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C goes to a terminal's whole group
        )
        assert self._server.stdout
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=forward, args=(self._server.stdout, lines))
        self._reader.start()
        said = ""
        while "Swagger:" not in said:
            line = lines.get(timeout=SERVER_SECONDS)
            assert line, f"{command}\n{said}"  # empty where the server has ended
            said += line
        return said

    def _end_server(self) -> None:
        if self._server:
            os.killpg(self._server.pid, signal.SIGINT)
            self._server.wait(timeout=60)
            self._reader.join()
            self._server = None


def forward(lines: IO[str], to: "queue.SimpleQueue[str]") -> None:
    """Read what a server says for as long as it says something, or it would wait for a reader; then an empty line."""
    with lines:
        for line in itertools.chain(lines, [""]):
            to.put(line)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_checkout(tmp_path / "checkout")


@pytest.fixture
def terminal(checkout: Path) -> Iterator[Terminal]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Terminal(checkout, port) as terminal:
        yield terminal


def test_every_command_does_what_the_tutorial_says(checkout: Path, terminal: Terminal) -> None:
    steps = steps_of((PROJECT / "docs/tutorial.md").read_text())
    assert len(steps) > 10
    for step in steps:
        started = time.perf_counter()
        output = terminal.run(step.commands)
        print(f"{time.perf_counter() - started:6.1f} s  {step.commands.strip().splitlines()[-1]}")
        for expected in step.outputs:
            assert missing_lines(expected, output) == [], f"{step.commands}\n{output}"
    for picture in (checkout / "docs/tutorial").iterdir():
        (drawn,) = (checkout / "xrays/test").glob(f"*/{picture.name}")
        with Image.open(picture) as shown, Image.open(drawn) as seen:
            (difference,) = ImageStat.Stat(ImageChops.difference(shown, seen)).mean
        assert difference < 2  # gray levels: another Pillow may round otherwise
