"""What an instance still does after it was restored from a snapshot, against a cold start.

`python benchmarks/snapstart.py XRAY.jpeg --engine torch` prints a Markdown table of medians. All run under the real
runtime client, with moto's server as S3, and take turns within a round; the first round only fills the file cache.

cold start                  from starting the process to the first answer
until the snapshot          from starting the process to where Lambda takes the snapshot, as publishing a version waits
restored                    from there to the first answer
restored, another release   the same where another release was promoted meanwhile
warm                        the restored process's second answer

No snapshot is taken: the process waits. What Lambda itself takes to restore one, and the pages of its memory that are
fetched when they are first read, are not in these figures.
"""

import argparse
import contextlib
import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from serving_apps import PROJECT, SILENT, App, Bench
from serving_bucket import released_manifest, serve, store

sys.path.insert(0, str(PROJECT))
from pneumonia.engines.choice import PACKAGES
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from tools.stand_ins.moto import Moto, running_moto
from tools.stand_ins.runtime_api import RuntimeApi

MEASURES = ("cold start", "until the snapshot", "restored", "restored, another release", "warm")
Seconds = dict[str, list[float]]


@contextlib.contextmanager
def started(bench: Bench, app: App, initialization: str) -> Iterator[tuple[RuntimeApi, "subprocess.Popen[bytes]"]]:
    """Start the app under the runtime client, as Lambda would for this type of initialisation."""
    with RuntimeApi() as api:
        variables = {"AWS_LAMBDA_RUNTIME_API": api.address, "AWS_LAMBDA_INITIALIZATION_TYPE": initialization}
        process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", "app.handler"],
            cwd=PROJECT,
            env=bench.environment(app) | variables,
            **SILENT,
        )
        try:
            yield api, process
        finally:
            process.kill()
            process.wait()


def answer(bench: Bench, api: RuntimeApi, process: "subprocess.Popen[bytes]") -> None:
    """Have the X-ray classified."""
    response = api.invoke(bench.event, process=process)
    if response["statusCode"] != 200:
        raise RuntimeError(f"answered {response}")


def cold(bench: Bench, app: App, seconds: Seconds) -> None:
    """Time a cold start."""
    begun = time.perf_counter()
    with started(bench, app, "on-demand") as (api, process):
        answer(bench, api, process)
        seconds["cold start"].append(time.perf_counter() - begun)


def restored(bench: Bench, app: App, seconds: Seconds, promoted: str | None = None) -> None:
    """Time a restored process.

    Args:
        bench: with the bucket.
        app: this project's, with one engine.
        seconds: gets the times.
        promoted: release that is served while the process waits.
    """
    begun = time.perf_counter()
    with started(bench, app, "snap-start") as (api, process):
        api.wait_for_snapshot(process=process)
        seconds["until the snapshot"].append(time.perf_counter() - begun)
        if promoted:
            serve(bench.moto, app.bucket, promoted)
        begun = time.perf_counter()
        api.restore()
        answer(bench, api, process)
        seconds["restored, another release" if promoted else "restored"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        answer(bench, api, process)
        seconds["warm"].append(time.perf_counter() - begun)


def publish(moto: Moto, bucket: str) -> list[str]:
    """Put the released weights into a new bucket as two releases; return their versions."""
    moto.make_bucket(bucket)
    manifest = released_manifest()
    other = dataclasses.replace(manifest, version="20990101-000000-0a1b2c3d")
    for one in (manifest, other):
        store(moto, bucket, RELEASED_WEIGHTS.parent, one)
    return [manifest.version, other.version]


def table(seconds: Seconds) -> str:
    """Return medians, ranges, and ratios to a cold start."""
    whole = statistics.median(seconds["cold start"])
    lines = ["| | ms, median | least to most | of a cold start |", "|---|---|---|---|"]
    for name, values in seconds.items():
        least, median, most = (1000 * value for value in (min(values), statistics.median(values), max(values)))
        lines.append(f"| {name} | {median:.0f} | {least:.0f} to {most:.0f} | {median / whole / 1000:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("xray", type=Path, help="a full-size JPEG")
    parser.add_argument("--engine", choices=PACKAGES, default="torch", help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_moto(Path(folder)) as moto:
        bench = Bench(args.xray, moto, Path(folder), args.rounds)
        app = App("app", "weights", engine=args.engine)
        first, second = publish(moto, app.bucket)
        seconds: Seconds = {}
        for turn in range(args.rounds + 1):
            if turn < 2:  # after the first round, which fills the file cache
                seconds = {name: [] for name in MEASURES}
            serve(moto, app.bucket, first)
            cold(bench, app, seconds)
            restored(bench, app, seconds)
            restored(bench, app, seconds, promoted=second)
    print(table(seconds))


if __name__ == "__main__":
    main()
