"""Run the apps that benchmarks/serving.py compares, under Lambda's runtime client or uvicorn.

ours, torch       app.py with ENGINE=torch
ours, onnx        app.py with ENGINE=onnx, the released ONNX file
ours, onnx half   the same with an ONNX file in half precision, computed in single precision
straightforward   benchmarks/straightforward_app.py, what tutorials show; float32 weights
plain onnx        benchmarks/onnx_app.py, a simple app with ONNX Runtime; float32 weights
"""

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.engines.cores import MEGABYTES_OF_A_CORE
from tools.stand_ins.events import function_url_event, multipart
from tools.stand_ins.moto import Moto
from tools.stand_ins.runtime_api import RuntimeApi

PROJECT = Path(__file__).parent.parent
SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
TICKS = os.sysconf("SC_CLK_TCK")  # a second, in /proc


@dataclass(frozen=True)
class App:
    """One of the apps that are compared.

    Attributes:
        module: the name of the module, which has `app` and `handler`.
        bucket: the bucket with its weights.
        key: the key of its weights, for an app that knows no releases.
        engine: the engine, for this project's app.
    """

    module: str
    bucket: str
    key: str = ""
    engine: str = ""


# The first two buckets are for this project: they serve the same network, with ONNX files of different precision.
AS_PROMOTED, IN_HALF, PEERS = "as-promoted", "in-half", "peers"
APPS = {
    "ours, torch": App("app", AS_PROMOTED, engine="torch"),
    "ours, onnx": App("app", AS_PROMOTED, engine="onnx"),
    "ours, onnx half": App("app", IN_HALF, engine="onnx"),
    "straightforward": App("benchmarks.straightforward_app", PEERS, "float32.pth"),
    "plain onnx": App("benchmarks.onnx_app", PEERS, "network.onnx"),
}
OURS = [name for name, app in APPS.items() if app.engine]


class Bench:
    """What all parts share: the S3 server, a folder, and the X-ray that is sent."""

    def __init__(self, xray: Path, moto: Moto, folder: Path, rounds: int) -> None:
        self.rounds = rounds
        self.path = xray
        self.xray = xray.read_bytes()
        self.body, self.content_type = multipart("file", xray.name, self.xray, "image/jpeg")
        self.event = function_url_event("POST", "/predict", self.body, {"Content-Type": self.content_type})
        self.folder = folder
        self.moto = moto

    def environment(self, app: App, cores: int | None = None) -> dict[str, str]:
        """Return the variables that an app runs with; its temporary folder is empty.

        Args:
            app: the app.
            cores: the number that the function's memory pays for; by default there is no limit, and the app uses all.
        """
        temporary = tempfile.mkdtemp(dir=self.folder)
        return (
            {key: value for key, value in os.environ.items() if not key.endswith("_PROXY")}
            | self.moto.environment
            | (cores_paid(cores) if cores else {})
            | image_variables()
            | {"MODEL_BUCKET": app.bucket, "MODEL_KEY": app.key, "MODEL_PATH": f"{temporary}/model.pth"}
            | {"ENGINE": app.engine, "TMPDIR": temporary, "PYTHONPATH": str(PROJECT)}
            | {"AWS_EC2_METADATA_DISABLED": "true"}
        )

    @contextlib.contextmanager
    def function(self, module: str, environment: dict[str, str]) -> Iterator["Function"]:
        """Start an app under the runtime client."""
        with RuntimeApi() as api:
            command = [sys.executable, "-m", "awslambdaric", f"{module}.handler"]
            variables = environment | {"AWS_LAMBDA_RUNTIME_API": api.address}
            process = subprocess.Popen(command, cwd=PROJECT, env=variables, **SILENT)
            try:
                yield Function(api, process)
            finally:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def server(self, app: App) -> Iterator["Server"]:
        """Start an app under uvicorn, loaded and warm."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", f"{app.module}:app", "--port", str(port), "--log-level", "warning"]
        environment = self.environment(app)
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
        server = Server(process, port, Path(environment["TMPDIR"]))
        try:
            server.wait()
            server.ask(self.path, clients=2, requests=6)  # by now all is loaded and laid out
            yield server
        finally:
            process.terminate()
            process.wait()


class Function:
    """An app under the runtime client."""

    def __init__(self, api: RuntimeApi, process: "subprocess.Popen[bytes]") -> None:
        self._api = api
        self.process = process

    def invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the response to an event.

        Raises:
            RuntimeError: the status is not 200.
        """
        response = self._api.invoke(event, process=self.process)
        if response["statusCode"] != 200:
            raise RuntimeError(f"answered {response}")
        return response

    def processor_seconds(self) -> float:
        """Return the CPU seconds, user's and system's, that the process has taken since it started."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS  # utime and stime of proc(5), which counts from pid and comm


class Server:
    """An app under uvicorn."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, temporary: Path) -> None:
        self.process = process
        self.port = port
        self.temporary = temporary

    def ask(self, xray: Path, clients: int, requests: int) -> float:
        """Have a number of clients ask for a number of predictions; return the seconds that all took."""
        script = str(PROJECT / "benchmarks/clients.py")
        command = [sys.executable, script, str(self.port), str(xray), str(clients), str(requests)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def health(self, connection: http.client.HTTPConnection) -> float:
        """Return the seconds that /health took."""
        started = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        return time.perf_counter() - started

    def wait(self) -> None:
        """Wait until it answers /health."""
        while self.process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError):
                self.health(self.connect())
                return
            time.sleep(0.1)
        raise RuntimeError("uvicorn ended")

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)


def cores_paid(cores: int) -> dict[str, str]:
    """Return the variables that set the number of threads: the memory size for this project, else OpenMP's."""
    return {"OMP_NUM_THREADS": str(cores), "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(cores * MEGABYTES_OF_A_CORE)}


def image_variables() -> dict[str, str]:
    """Return the environment variables that the Dockerfile sets, except those that depend on the engine."""
    lines = re.findall(r"^ENV (.+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    return {name: value for line in lines for name, value in re.findall(r"(\w+)=(\S+)", line) if "$" not in value}


def process_status(pid: int, name: str) -> int:
    """Return a number from /proc/PID/status: memory in KB, or a count."""
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if not found:
        raise RuntimeError(f"/proc/{pid}/status has no {name}")
    return int(found[1])
