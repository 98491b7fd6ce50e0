"""Cold start, warm invocations, memory and concurrency, against the straightforward app and ONNX Runtime.

`python benchmarks/serving.py XRAY` runs all parts, or those named by --parts, prints Markdown tables and writes
DIR/serving.json. All apps run under the real runtime client, `awslambdaric`, or under uvicorn, with weights from a
local S3 server (moto's), taking turns within a round.

ours             app.py
straightforward  benchmarks/straightforward_app.py, what tutorials show; float32 weights
onnx             benchmarks/onnx_app.py, the network by ONNX Runtime; float32 weights
import torch     `python -c "import torch"`, all of it; ours leaves a part out
bare             benchmarks/bare.py, decoding and the network alone

cold       from starting the process to the first answer, wall time; and the bytes fetched
warm       an invocation from the event to the response, with one thread and with two
memory     largest resident memory (VmHWM) after 100 invocations
uvicorn    requests per second by clients at once, the 99th percentile of /health meanwhile, and threads
soak       resident memory over 10,000 requests, and what is left in the temporary folder
"""

import argparse
import base64
import contextlib
import http.client
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.files import write_json
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.releases.release_files import ReleaseFiles
from tools.stand_ins.events import function_url_event, multipart
from tools.stand_ins.moto import Moto, running_moto
from tools.stand_ins.runtime_api import RuntimeApi

PROJECT = Path(__file__).parent.parent
APPS = {
    "ours": "app",
    "straightforward": "benchmarks.straightforward_app",
    "onnx": "benchmarks.onnx_app",
}
KEYS = {"straightforward": "float32.pth", "onnx": "network.onnx"}
CLIENTS = (1, 4, 16)
PAUSE = 0.2  # seconds between invocations of different apps: ONNX Runtime's threads go on spinning for a while
SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
Results = dict[str, Any]


class Bench:
    """What all parts share: the S3 server's address, a folder, and the X-ray that is sent."""

    def __init__(self, xray: Path, moto: Moto, folder: Path, rounds: int) -> None:
        self.rounds = rounds
        self.path = xray
        self.xray = xray.read_bytes()
        self.body, self.content_type = multipart("file", xray.name, self.xray, "image/jpeg")
        self.event = function_url_event("POST", "/predict", self.body, {"Content-Type": self.content_type})
        self.folder = folder
        self.moto = moto
        self.bucket = moto.make_bucket("weights")

    def environment(self, name: str, threads: int | None = None) -> dict[str, str]:
        """Return the variables that an app runs with; its temporary folder is empty."""
        temporary = tempfile.mkdtemp(dir=self.folder)
        # Torch's own default, all cores, unless a number is asked for; and, for all apps alike, what the image sets.
        chosen = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        chosen |= image_variables()
        return (
            {key: value for key, value in os.environ.items() if not key.endswith("_PROXY")}
            | self.moto.environment
            | chosen
            | {"MODEL_BUCKET": self.bucket, "MODEL_KEY": KEYS.get(name, ""), "MODEL_PATH": f"{temporary}/model.pth"}
            | {"TMPDIR": temporary, "PYTHONPATH": str(PROJECT), "AWS_EC2_METADATA_DISABLED": "true"}
        )

    @contextlib.contextmanager
    def function(self, module: str, environment: dict[str, str]) -> Iterator["Function"]:
        """Start an app under the runtime client."""
        with RuntimeApi() as api:
            command = [sys.executable, "-m", "awslambdaric", f"{module}.handler"]
            process = subprocess.Popen(
                command,
                cwd=PROJECT,
                env=environment | {"AWS_LAMBDA_RUNTIME_API": api.address},
                **SILENT,
            )
            try:
                yield Function(api, process)
            finally:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def server(self, name: str) -> Iterator["Server"]:
        """Start an app under uvicorn, loaded and warm."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", f"{APPS[name]}:app", "--port", str(port), "--log-level", "warning"]
        environment = self.environment(name)
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
        """Return the response to an event, which must be a good one."""
        response = self._api.invoke(event, process=self.process)
        if response["statusCode"] != 200:
            raise RuntimeError(f"answered {response}")
        return response


class Server:
    """An app under uvicorn."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, temporary: Path) -> None:
        self.process = process
        self.port = port
        self.temporary = temporary

    def ask(self, xray: Path, clients: int, requests: int) -> float:
        """Have clients ask for so many predictions; return the seconds."""
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


def image_variables() -> dict[str, str]:
    """Return the environment variables that the Dockerfile sets."""
    return dict(re.findall(r"^ENV (\w+)=(\S+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE))


def process_status(pid: int, name: str) -> int:
    """Return a number from /proc/PID/status: memory in KB, or a count."""
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if not found:
        raise RuntimeError(f"/proc/{pid}/status has no {name}")
    return int(found[1])


def cold(bench: Bench) -> Results:
    """Time cold starts, alternating; the first round only fills the file cache."""
    seconds: dict[str, list[float]] = {name: [] for name in (*APPS, "import torch")}
    for _ in range(bench.rounds + 1):
        for name, module in APPS.items():
            environment = bench.environment(name)
            started = time.perf_counter()
            with bench.function(module, environment) as function:
                function.invoke(bench.event)
                seconds[name].append(time.perf_counter() - started)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True, env=bench.environment("ours"))
        seconds["import torch"].append(time.perf_counter() - started)
    return {"seconds": {name: values[1:] for name, values in seconds.items()}, "bytes": fetched_bytes(bench)}


def fetched_bytes(bench: Bench) -> dict[str, int]:
    """Return the sizes of what a cold start fetches."""
    listing = bench.moto.s3().list_objects_v2(Bucket=bench.bucket)["Contents"]
    sizes = {item["Key"]: item["Size"] for item in listing}
    ours = sum(size for key, size in sizes.items() if key.startswith("releases/") or key == "current.json")
    return {"ours": ours} | {name: sizes[key] for name, key in KEYS.items()}


def warm(bench: Bench) -> Results:
    """Time warm invocations with one thread and with two, taking turns."""
    results: Results = {}
    for threads in (1, 2):
        milliseconds: dict[str, list[float]] = {name: [] for name in (*APPS, "bare")}
        with contextlib.ExitStack() as stack:
            functions = {
                name: stack.enter_context(bench.function(module, bench.environment(name, threads)))
                for name, module in APPS.items()
            }
            alone = bench.environment("bare", threads) | {"MODEL_PATH": str(RELEASED_WEIGHTS)}
            bare = stack.enter_context(bench.function("benchmarks.bare", alone))
            bare_event = {"image": base64.b64encode(bench.xray).decode()}
            for turn in range(bench.rounds * 3 + 3):
                for name, function in functions.items():
                    time.sleep(PAUSE)
                    started = time.perf_counter()
                    function.invoke(bench.event)
                    milliseconds[name].append((time.perf_counter() - started) * 1000)
                time.sleep(PAUSE)
                milliseconds["bare"].append(bare.invoke(bare_event)["seconds"] * 1000)
                if turn == 2:  # by now all is loaded and laid out
                    for values in milliseconds.values():
                        values.clear()
        results[str(threads)] = milliseconds
    return results


def memory(bench: Bench) -> Results:
    """Measure the largest resident memory of processes that have answered 100 requests, in MB."""
    megabytes = {}
    for name, module in APPS.items():
        with bench.function(module, bench.environment(name)) as function:
            for _ in range(100):
                function.invoke(bench.event)
            megabytes[name] = process_status(function.process.pid, "VmHWM") / 1024
    return megabytes


def uvicorn(bench: Bench) -> Results:
    """Measure throughput, /health and threads while 1, 4 and 16 clients ask."""
    results: Results = {}
    for name in APPS:
        with bench.server(name) as server:
            results[name] = {str(clients): under_load(server, bench, clients) for clients in CLIENTS}
    return results


def under_load(server: Server, bench: Bench, clients: int) -> Results:
    """Have clients ask for predictions, and look at /health every 20 ms meanwhile."""
    finished = threading.Event()
    healths: list[float] = []
    threads: list[int] = []

    def watch() -> None:
        connection = server.connect()
        while not finished.wait(0.02):
            healths.append(server.health(connection))
            threads.append(process_status(server.process.pid, "Threads"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    requests = bench.rounds * 16
    seconds = server.ask(bench.path, clients, requests)
    finished.set()
    watcher.join()
    return {
        "requests_per_second": requests / seconds,
        "health_p99_ms": statistics.quantiles(healths, n=100)[98] * 1000,
        "threads": max(threads),
    }


def soak(bench: Bench) -> Results:
    """Send 10,000 small X-rays from four clients; note resident memory, in MB, after each thousand."""
    small = bench.folder / "small.jpeg"
    Image.open(bench.path).resize((SIZE, SIZE)).save(small)
    resident = []
    with bench.server("ours") as server:
        for _ in range(10):
            server.ask(small, clients=4, requests=1000)
            resident.append(process_status(server.process.pid, "VmRSS") / 1024)
        left = sorted(path.name for path in server.temporary.iterdir())
    return {"resident_mb": resident, "left": left}


PARTS: dict[str, Callable[[Bench], Results]] = {
    "cold": cold,
    "warm": warm,
    "memory": memory,
    "uvicorn": uvicorn,
    "soak": soak,
}


def fill_bucket(bench: Bench) -> None:
    """Put the released weights into the bucket in the form that each app takes."""
    files = ReleaseFiles.in_folder(RELEASED_WEIGHTS.parent)
    os.environ.update(bench.moto.environment)
    releases = WeightsBucket(bench.bucket)
    releases.add(files)
    releases.serve(files.manifest.version, *releases.pointer())
    network = load_weights(RELEASED_WEIGHTS)
    single, exported = bench.folder / "float32.pth", bench.folder / "network.onnx"
    torch.save(network.state_dict(), single)
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, SIZE, SIZE),),
        exported,
        input_names=["pixels"],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    for file, name in ((single, "straightforward"), (exported, "onnx")):
        bench.moto.s3().upload_file(str(file), bench.bucket, KEYS[name])


def tables(report: Results) -> str:
    """Return what was measured as Markdown."""
    return "\n\n".join(TABLES[part](report[part]) for part in PARTS if part in report)


def cold_table(result: Results) -> str:
    """Return medians and ratios of cold starts."""
    medians = {name: statistics.median(values) for name, values in result["seconds"].items()}
    lines = ["| cold start | s, median | least to most | of straightforward | of `import torch` | MB fetched |"]
    lines.append("|---" * 6 + "|")
    for name, median in medians.items():
        values = result["seconds"][name]
        fetched = f"{result['bytes'][name] / 1e6:.2f}" if name in result["bytes"] else ""
        lines.append(
            f"| {name} | {median:.2f} | {min(values):.2f} to {max(values):.2f} | "
            f"{median / medians['straightforward']:.2f} | {median / medians['import torch']:.2f} | {fetched} |"
        )
    return "\n".join(lines)


def warm_table(result: Results) -> str:
    """Return medians and ratios of warm invocations."""
    lines = ["| warm invocation | threads | ms, median | of straightforward | of bare |", "|---" * 5 + "|"]
    for threads, milliseconds in result.items():
        medians = {name: statistics.median(values) for name, values in milliseconds.items()}
        for name, median in medians.items():
            ratios = f"{median / medians['straightforward']:.2f} | {median / medians['bare']:.2f}"
            lines.append(f"| {name} | {threads} | {median:.1f} | {ratios} |")
    return "\n".join(lines)


def memory_table(result: Results) -> str:
    """Return largest resident memory."""
    lines = ["| memory after 100 requests | MB | of straightforward |", "|---" * 3 + "|"]
    lines += [f"| {name} | {mb:.0f} | {mb / result['straightforward']:.2f} |" for name, mb in result.items()]
    return "\n".join(lines)


def uvicorn_table(result: Results) -> str:
    """Return throughput, /health and threads by clients."""
    lines = ["| uvicorn | clients | requests/s | of one client | /health, p99, ms | threads |", "|---" * 6 + "|"]
    for name, by_clients in result.items():
        for clients, one in by_clients.items():
            ratio = one["requests_per_second"] / by_clients["1"]["requests_per_second"]
            lines.append(
                f"| {name} | {clients} | {one['requests_per_second']:.1f} | {ratio:.2f} | {one['health_p99_ms']:.0f} | "
                f"{one['threads']} |"
            )
    return "\n".join(lines)


def soak_table(result: Results) -> str:
    """Return resident memory by thousands of requests."""
    numbers = ", ".join(f"{mb:.0f}" for mb in result["resident_mb"])
    return (
        f"Resident memory after each of 10 thousand requests, MB: {numbers}. Files left: {', '.join(result['left'])}."
    )


TABLES: dict[str, Callable[[Results], str]] = {
    "cold": cold_table,
    "warm": warm_table,
    "memory": memory_table,
    "uvicorn": uvicorn_table,
    "soak": soak_table,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the JSON after each part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("xray", type=Path, metavar="XRAY", help="full-size JPEG, about 2 megapixels")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("serving"), metavar="DIR", help="(%(default)s)")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    packages = ("torch", "torchvision", "fastapi", "boto3", "onnxruntime")
    report: Results = {
        "machine": f"Python {platform.python_version()}, {os.cpu_count()} cores ({platform.machine()})",
        "packages": {name: version(name) for name in packages},
    }
    with tempfile.TemporaryDirectory() as temporary, running_moto(Path(temporary)) as moto:
        bench = Bench(args.xray, moto, Path(temporary), args.rounds)
        fill_bucket(bench)
        for part in args.parts:
            report[part] = PARTS[part](bench)
            write_json(args.output / "serving.json", report)
    print(f"{report['machine']}; {', '.join(f'{name} {number}' for name, number in report['packages'].items())}.\n")
    print(tables(report))


if __name__ == "__main__":
    main()
