"""The smoke test of the image, against the real runtime client behind the emulator's address."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import save_weights
from tools.smoke import INVOCATIONS, SmokeError, smoke
from tools.stand_ins.runtime_api import RuntimeApi


@contextlib.contextmanager
def emulator(folder: Path, weights: Path) -> Iterator[str]:
    """Run app.handler with these weights, and yield the address where it is invoked as by Lambda's emulator."""
    with RuntimeApi() as api:

        class Invocations(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # http.server's name
                assert self.path == INVOCATIONS
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = json.dumps(api.invoke(event, process=process)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
                """Say nothing."""

        environment = {"AWS_LAMBDA_RUNTIME_API": api.address, "MODEL_PATH": str(weights)}
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "awslambdaric", "app.handler"]
            process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
        with HTTPServer(("127.0.0.1", 0), Invocations) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                process.kill()
                process.wait()
                server.shutdown()
                thread.join()


def test_it_is_content_with_a_function_that_answers_as_the_checkout_does(tmp_path: Path, weights: Path) -> None:
    with emulator(tmp_path, weights) as address:
        answer = smoke(address, weights)

    assert list(answer) == ["prediction", "confidence", "probabilities", "model_version", "warnings"]


def test_it_finds_a_function_with_other_weights(tmp_path: Path, weights: Path) -> None:
    torch.manual_seed(1)
    save_weights(ResNet18().state_dict(), other := tmp_path / "other.pth")
    with emulator(tmp_path, weights) as address, pytest.raises(SmokeError, match="which weights has it"):
        smoke(address, other)


def test_its_command_fails_with_one_sentence_where_the_function_does(tmp_path: Path, weights: Path) -> None:
    (broken := tmp_path / "broken.pth").write_bytes(b"no weights")
    with emulator(tmp_path, broken) as address:
        command = [sys.executable, "-m", "tools.smoke", address, str(weights)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 1
    assert re.fullmatch(r"The function fails: .*'statusCode': 503.*\.\n", done.stderr)
