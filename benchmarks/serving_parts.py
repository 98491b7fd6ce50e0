"""The parts of benchmarks/serving.py: each measures all apps, which take turns within a round."""

import base64
import contextlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from serving_apps import APPS, OURS, App, Bench, Function, Server, process_status

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.contract import WEIGHTS_NAME

CLIENTS = (1, 4, 16)
TURNS = 3  # of each app under each number of clients
PAUSE = 0.2  # seconds between invocations of different apps: ONNX Runtime's threads go on spinning for a while
Results = dict[str, Any]


def cold(bench: Bench) -> Results:
    """Time cold starts; the first round only fills the file cache."""
    rounds = [{name: cold_start(bench, app) for name, app in APPS.items()} for _ in range(bench.rounds + 1)]
    imports = [importing_torch(bench) for _ in range(bench.rounds + 1)]
    results: Results = {
        measure: {name: [one[name][measure] for one in rounds[1:]] for name in APPS}
        for measure in ("seconds", "processor_seconds")
    }
    results["seconds"]["import torch"] = imports[1:]
    results["bytes"] = {name: fetched_bytes(bench, app) for name, app in APPS.items()}
    return results


def cold_start(bench: Bench, app: App) -> dict[str, float]:
    """Return the seconds, by the clock and of the processor, from starting the process to the first answer."""
    environment = bench.environment(app)
    started = time.perf_counter()
    with bench.function(app.module, environment) as function:
        function.invoke(bench.event)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "processor_seconds": function.processor_seconds()}


def importing_torch(bench: Bench) -> float:
    """Return the seconds of a process that imports all of torch; this project leaves a part out."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True, env=bench.environment(APPS["ours, torch"]))
    return time.perf_counter() - started


def fetched_bytes(bench: Bench, app: App) -> int:
    """Return the bytes of the objects that a cold start asks the bucket for."""
    asked = len(bench.moto.requests())
    cold_start(bench, app)
    keys = {one.partition(f" /{app.bucket}/")[2] for one in bench.moto.requests()[asked:]}
    listing = bench.moto.s3().list_objects_v2(Bucket=app.bucket)["Contents"]
    return sum(item["Size"] for item in listing if item["Key"] in keys)


def warm(bench: Bench) -> Results:
    """Time warm invocations with memory that pays for one core, and for two."""
    return {str(cores): warm_with(bench, cores) for cores in (1, 2)}


def warm_with(bench: Bench, cores: int) -> Results:
    """Return the milliseconds of each invocation, and the mean of those of processor time."""
    with contextlib.ExitStack() as stack:
        functions = {
            name: stack.enter_context(bench.function(app.module, bench.environment(app, cores)))
            for name, app in APPS.items()
        }
        clocks = {name: invocations(function, bench) for name, function in functions.items()}
        clocks |= {name.replace("ours", "bare"): bare(stack, bench, APPS[name], cores) for name in OURS}
        for _ in range(3):  # by then all is loaded and laid out
            take_turns(clocks)
        before = {name: function.processor_seconds() for name, function in functions.items()}
        turns = [take_turns(clocks) for _ in range(bench.rounds * 3)]
        taken = {name: function.processor_seconds() - before[name] for name, function in functions.items()}
    return {
        "milliseconds": {name: [turn[name] for turn in turns] for name in clocks},
        "processor_milliseconds": {name: 1000 * seconds / len(turns) for name, seconds in taken.items()},
    }


def take_turns(clocks: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Invoke each function once; return the milliseconds."""
    milliseconds = {}
    for name, clock in clocks.items():
        time.sleep(PAUSE)
        milliseconds[name] = clock()
    return milliseconds


def invocations(function: Function, bench: Bench) -> Callable[[], float]:
    """Return a function that invokes an app and returns the milliseconds from the event to the response."""

    def clock() -> float:
        started = time.perf_counter()
        function.invoke(bench.event)
        return (time.perf_counter() - started) * 1000

    return clock


def bare(stack: contextlib.ExitStack, bench: Bench, app: App, cores: int) -> Callable[[], float]:
    """Start benchmarks/bare.py; return a function that invokes it and returns the milliseconds that it measured."""
    environment = bench.environment(app, cores) | {"MODEL_PATH": str(bench.folder / app.bucket / WEIGHTS_NAME)}
    function = stack.enter_context(bench.function("benchmarks.bare", environment))
    event = {"image": base64.b64encode(bench.xray).decode()}
    return lambda: float(function.invoke(event)["seconds"]) * 1000


def memory(bench: Bench) -> Results:
    """Measure the largest resident memory of processes that have answered 100 requests, in MB."""
    megabytes = {}
    for name, app in APPS.items():
        with bench.function(app.module, bench.environment(app)) as function:
            for _ in range(100):
                function.invoke(bench.event)
            megabytes[name] = process_status(function.process.pid, "VmHWM") / 1024
    return megabytes


def uvicorn(bench: Bench) -> Results:
    """Measure throughput, /health and threads while 1, 4 and 16 clients ask."""
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(bench.server(app)) for name, app in APPS.items()}
        turns = [
            {name: {str(clients): under_load(server, bench, clients) for clients in CLIENTS} for name, server in pairs}
            for pairs in [servers.items()] * TURNS
        ]
    return {
        name: {str(clients): [turn[name][str(clients)] for turn in turns] for clients in CLIENTS} for name in servers
    }


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
    requests = bench.rounds * 8
    seconds = server.ask(bench.path, clients, requests)
    finished.set()
    watcher.join()
    return {
        "requests_per_second": requests / seconds,
        "health_p99_ms": statistics.quantiles(healths, n=100)[98] * 1000,
        "threads": max(threads),
    }


def soak(bench: Bench) -> Results:
    """Send this project, with each engine, 10,000 small X-rays from four clients; measure the memory meanwhile."""
    small = bench.folder / "small.jpeg"
    Image.open(bench.path).resize((SIZE, SIZE)).save(small)
    return {name: soaked(bench, APPS[name], small) for name in OURS}


def soaked(bench: Bench, app: App, xray: Path) -> Results:
    """Return an app's resident memory in MB after each thousand X-rays, and the files left in its temporary folder."""
    resident = []
    with bench.server(app) as server:
        for _ in range(10):
            server.ask(xray, clients=4, requests=1000)
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
