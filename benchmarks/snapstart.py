"""What an instance still does after it was restored from a snapshot, against a cold start.

`python benchmarks/snapstart.py XRAY.jpeg` prints a Markdown table of medians. All run under the real runtime client,
with moto's server as S3, and take turns within a round; the first round only fills the file cache.

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
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from serving import PROJECT, SILENT, Bench

sys.path.insert(0, str(PROJECT))
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.releases.release_files import ReleaseFiles
from tools.stand_ins.moto import running_moto
from tools.stand_ins.runtime_api import RuntimeApi

MEASURES = ("cold start", "until the snapshot", "restored", "restored, another release", "warm")
Seconds = dict[str, list[float]]


@contextlib.contextmanager
def started(bench: Bench, initialization: str) -> Iterator[tuple[RuntimeApi, "subprocess.Popen[bytes]"]]:
    """Start the app under the runtime client, as Lambda would for this type of initialisation."""
    with RuntimeApi() as api:
        variables = {"AWS_LAMBDA_RUNTIME_API": api.address, "AWS_LAMBDA_INITIALIZATION_TYPE": initialization}
        process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", "app.handler"],
            cwd=PROJECT,
            env=bench.environment("ours") | variables,
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


def cold(bench: Bench, seconds: Seconds) -> None:
    """Time a cold start."""
    begun = time.perf_counter()
    with started(bench, "on-demand") as (api, process):
        answer(bench, api, process)
        seconds["cold start"].append(time.perf_counter() - begun)


def restored(bench: Bench, seconds: Seconds, promoted: str | None = None) -> None:
    """Time a restored process.

    Args:
        bench: with the bucket.
        seconds: gets the times.
        promoted: release that is served while the process waits.
    """
    begun = time.perf_counter()
    with started(bench, "snap-start") as (api, process):
        api.wait_for_snapshot(process=process)
        seconds["until the snapshot"].append(time.perf_counter() - begun)
        if promoted:
            serve(bench, promoted)
        begun = time.perf_counter()
        api.restore()
        answer(bench, api, process)
        seconds["restored, another release" if promoted else "restored"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        answer(bench, api, process)
        seconds["warm"].append(time.perf_counter() - begun)


def publish(bench: Bench) -> list[str]:
    """Put the released weights into the bucket as two releases; return their versions."""
    files = ReleaseFiles.in_folder(RELEASED_WEIGHTS.parent)
    os.environ.update(bench.moto.environment)
    versions = [files.manifest.version, "20990101-000000-0a1b2c3d"]
    for version in versions:
        manifest = dataclasses.replace(files.manifest, version=version)
        WeightsBucket(bench.bucket).add(dataclasses.replace(files, manifest=manifest))
    return versions


def serve(bench: Bench, version: str) -> None:
    """Make a release the served one."""
    releases = WeightsBucket(bench.bucket)
    releases.serve(version, *releases.pointer())


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
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_moto(Path(folder)) as moto:
        bench = Bench(args.xray, moto, Path(folder), args.rounds)
        first, second = publish(bench)
        seconds: Seconds = {}
        for turn in range(args.rounds + 1):
            if turn < 2:  # after the first round, which fills the file cache
                seconds = {name: [] for name in MEASURES}
            serve(bench, first)
            cold(bench, seconds)
            restored(bench, seconds)
            restored(bench, seconds, promoted=second)
    print(table(seconds))


if __name__ == "__main__":
    main()
