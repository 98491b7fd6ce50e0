"""Whether answers stay right, and come, while releases change, S3 misbehaves, and clients hold the server up.

`python benchmarks/load.py` starts `pneumonia serve` with moto's S3. 16 clients ask it for predictions for a minute
while the bucket changes its release, and for another minute while, beside that, S3 misbehaves in every way of `FAULTS`
and the clients of tools/stand_ins/rude_clients.py do what they can. Then new servers start while S3 misbehaves. The
whole of each answer has to be what the release that it names gives for that X-ray. It prints Markdown tables, and exits
with 1 if an answer was wrong, or if something failed in another way than with 503.
"""

import argparse
import contextlib
import io
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from judging_clients import Clients, Outcome, figures
from known_releases import KnownReleases
from load_tables import cold_table, load_tables
from serving_apps import image_variables, process_status

from pneumonia.files import write_json
from pneumonia.training.synthetic import draw_radiograph
from tools.stand_ins import rude_clients
from tools.stand_ins.faulty_s3 import Answer, refusal, reset, silence
from tools.stand_ins.moto import running_moto
from tools.stand_ins.s3_in_front import broken_off, handed_on, in_front_of, slowly

PROJECT = Path(__file__).parent.parent
NONE = "none"
FAULTS: dict[str, Answer] = {
    "slow: 20 s for each object": slowly(20),
    "cut: half of each object": broken_off(0.5),
    "503 SlowDown": refusal(503, "SlowDown"),
    "403 AccessDenied": refusal(403, "AccessDenied"),
    "connections reset": reset,
    "no answer": silence,
}
SHARE = 2 / 3  # of a fault's turn; then S3 is well again, until the next one
COLD_SECONDS = 5.0  # that a fault lasts, at most, after a new server was asked for the first time
RECOVERY_SECONDS = 60.0  # to wait, at most, for an answer by the served release once S3 is well again
REFRESH_MINUTES = 1 / 30
RUDE = 10  # clients of each kind: as many as it takes to fill the server's memory for uploads
SETTLING_SECONDS = 3.0  # until these hold all that they can
XRAYS, PIXELS = 3, 1024
Results = dict[str, Any]


class S3:
    """Moto's S3, which misbehaves as it is told to."""

    fault = NONE

    def choose(self, _method: str, _path: str) -> Answer:
        """Return the answer to a request."""
        return FAULTS.get(self.fault, handed_on)


class Server:
    """`pneumonia serve`, in a process of its own that has no weights yet."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log
        self.port = self._port()

    def _port(self) -> int:
        while self.process.poll() is None:
            if found := re.search(r"^Swagger: http://127\.0\.0\.1:(\d+)", self.log.read_text(), re.MULTILINE):
                return int(found[1])
            time.sleep(0.05)
        raise RuntimeError(f"the server ended: {self.log.read_text()}")

    def megabytes(self) -> float:
        """Return its resident memory."""
        return process_status(self.process.pid, "VmRSS") / 1024

    def logged(self) -> Results:
        """Return how much it has logged so far."""
        text = self.log.read_text(errors="replace")
        return {"log_bytes": len(text), "tracebacks": text.count("Traceback (most recent call last)")}


class Bench:
    """What all parts share: S3, the releases, the X-rays, servers' settings, and a folder for their files."""

    def __init__(self, folder: Path, endpoint: str, bucket: str, s3: S3, clients: int) -> None:
        self.s3 = s3
        self.clients = clients
        self.xrays = [drawn(number) for number in range(XRAYS)]
        self._folder = folder
        (folder / "releases").mkdir()
        self.releases = KnownReleases(bucket, folder / "releases", self.xrays)
        self._environment = image_variables() | {"AWS_ENDPOINT_URL": endpoint, "MODEL_BUCKET": bucket}
        self._environment["MODEL_REFRESH_MINUTES"] = str(REFRESH_MINUTES)

    @contextlib.contextmanager
    def server(self) -> Iterator[Server]:
        """Run a server until the block ends."""
        own = Path(tempfile.mkdtemp(dir=self._folder))
        environment = os.environ | self._environment | {"MODEL_PATH": str(own / "model.pth")}
        with (own / "log").open("wb") as log:
            command = [sys.executable, "-m", "pneumonia", "serve", "--port", "0"]
            process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield Server(process, own / "log")
        finally:
            process.kill()
            process.wait()

    def asking(self, server: Server, clients: int) -> Clients:
        """Return clients that ask a server about the X-rays until the block ends."""
        return Clients(server.port, self.releases, self.xrays, clients, lambda: self.s3.fault)

    def turn(self, fault: str, seconds: float) -> float:
        """Change the release under a fault, and again at its end; return the moment of that."""
        ends = time.monotonic() + seconds
        self.s3.fault = fault
        self.releases.serve_next()
        time.sleep(max(0.0, ends - seconds * (1 - SHARE) - time.monotonic()))
        self.s3.fault = NONE
        self.releases.serve_next()
        well = time.monotonic()
        time.sleep(max(0.0, ends - time.monotonic()))
        return well


def drawn(number: int) -> bytes:
    """Return a drawn X-ray as a JPEG."""
    file = io.BytesIO()
    draw_radiograph(random.Random(number), ("NORMAL", "PNEUMONIA")[number % 2], PIXELS).save(file, "JPEG")
    return file.getvalue()


def warm_up(bench: Bench, server: Server) -> None:
    """Have the server answer by each release, so that all that it keeps is in its memory."""
    with bench.asking(server, bench.clients) as clients:
        for _ in range(bench.releases.number):
            bench.releases.serve_next()
            clients.wait_for_current(time.monotonic(), RECOVERY_SECONDS)


def run(bench: Bench, server: Server, seconds: float, faults: Sequence[str]) -> tuple[list[Outcome], Results]:
    """Have the clients ask while each fault has its turn.

    Returns:
        What came of all requests, and for each fault the seconds from its end to an answer by the served release.
    """
    well: dict[str, float] = {}
    with bench.asking(server, bench.clients) as clients:
        for fault in faults:
            well[fault] = bench.turn(fault, seconds / len(faults))
        clients.wait_for_current(well[faults[-1]], RECOVERY_SECONDS)
    return clients.outcomes, {fault: clients.seconds_to_current(moment) for fault, moment in well.items()}


def under_load(bench: Bench, seconds: float) -> Results:
    """Compare a server without faults to the same one with them, and with rude clients beside the others.

    Half of the time without faults comes before, the other half after: other work on the machine weighs on both.
    """
    quiet, rude = [NONE] * (len(FAULTS) // 2), rude_clients.kinds(RUDE)
    with bench.server() as server:
        megabytes = {"at the start": server.megabytes()}
        warm_up(bench, server)
        megabytes["warm"] = server.megabytes()
        before, _ = run(bench, server, seconds / 2, quiet)
        megabytes["after half a run without faults"] = server.megabytes()
        logged = server.logged()
        with rude_clients.beside(server.port, rude):
            time.sleep(SETTLING_SECONDS)
            outcomes, current_after = run(bench, server, seconds, list(FAULTS))
        logged = {name: count - logged[name] for name, count in server.logged().items()}
        megabytes["after the run with faults"] = server.megabytes()
        after, _ = run(bench, server, seconds / 2, quiet)
        megabytes["after the other half without"] = server.megabytes()
        megabytes["at most"] = process_status(server.process.pid, "VmHWM") / 1024
    by_fault = {
        fault: figures([one for one in outcomes if one.fault == fault])
        | {"current_after_seconds": current_after.get(fault)}
        for fault in (*FAULTS, NONE)
    }
    held = {kind.name: {"connections": len(kind.held), "longest_seconds": max(kind.held)} for kind in rude}
    return {
        "megabytes": megabytes,
        "without": figures([*before, *after]),
        "with": figures(outcomes) | logged | {"by_fault": by_fault},
        "rude": held,
    }


def cold(bench: Bench, seconds: float) -> Results:
    """Start a new server under each fault, which ends after a turn's seconds; return when it first answered."""
    lasts = min(COLD_SECONDS, seconds / len(FAULTS))
    results: Results = {}
    for fault in (NONE, *FAULTS):
        bench.releases.serve_next()
        with bench.server() as server:
            bench.s3.fault = fault
            started = time.monotonic()
            with bench.asking(server, 4) as clients:
                time.sleep(lasts)
                bench.s3.fault = NONE
                clients.wait_for_current(started, RECOVERY_SECONDS)
            results[fault] = figures(clients.outcomes) | {"first_seconds": clients.seconds_to_current(started)}
    return results


PARTS: dict[str, Callable[[Bench, float], Results]] = {"load": under_load, "cold": cold}
TABLES: dict[str, Callable[[Results], str]] = {"load": load_tables, "cold": cold_table}


def surprises(report: Results) -> list[str]:
    """Return what must not happen, and did: wrong answers, and failures other than 503."""
    parts = [part for results in report.values() for part in results.values() if "reasons" in part]
    failures = [why for part in parts for why in part["reasons"] if not why.startswith("503 ")]
    return failures + [f"wrong: {answer}" for part in parts for answer in part["wrong_answers"]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=60, metavar="N", help="of each run (%(default)s)")
    parser.add_argument("--clients", type=int, default=16, metavar="N", help="that ask at once (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all figures there as JSON")
    args = parser.parse_args(argv)
    s3, report = S3(), {}
    with tempfile.TemporaryDirectory() as folder, running_moto(Path(folder)) as moto:
        os.environ.update(moto.environment)
        with in_front_of(moto.endpoint, s3.choose) as proxy:
            bench = Bench(Path(folder), proxy.endpoint, moto.make_bucket("weights"), s3, args.clients)
            for part in args.parts:
                report[part] = PARTS[part](bench, args.seconds)
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores ({platform.machine()})"
    print(f"{machine}; {args.clients} clients, {args.seconds:g} s.\n")
    for part in args.parts:
        print(TABLES[part](report[part]))
    if args.output:
        write_json(args.output, {"machine": machine, "clients": args.clients, "seconds": args.seconds} | report)
    for one in (found := surprises(report)):
        print(one, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
