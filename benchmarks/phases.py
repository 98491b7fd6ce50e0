"""Time the phases of a cold start and of a warm answer, for each app of benchmarks/serving.py.

`python benchmarks/phases.py XRAY` prints Markdown tables of medians, in milliseconds, where the function pays for one
core. Each app runs in processes of its own, which take turns.

The time of imports by package is measured by Python (`-X importtime`), which slows them down a little; a package counts
where it is imported first. `whole answer` is decoding, preprocessing, network, input check and calibration, as the app
runs them. An invocation also takes time for the form, the JSON and the runtime client. No answer can take less than
decoding and the network.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from serving_apps import APPS, PROJECT, App, Bench
from serving_bucket import fill_buckets
from serving_tables import headed

sys.path.insert(0, str(PROJECT))
from tools.stand_ins.moto import running_moto

COLD = ("imports", "download", "load", "decode", "preprocess", "network")
WARM = ("decode", "preprocess", "network", "heatmap", "whole answer")
SHOWN = 20  # milliseconds: packages whose import takes less in all apps are shown together
OWN = {"app", "benchmarks", "pneumonia"}
Milliseconds = dict[str, float]


def steps(bench: Bench, name: str) -> dict[str, list[float]]:
    """Return the milliseconds of each phase of an app, in a new process."""
    command = [sys.executable, "benchmarks/phase_steps.py", name, str(bench.path.resolve()), str(bench.rounds)]
    environment = bench.environment(APPS[name], cores=1)
    done = subprocess.run(command, cwd=PROJECT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    taken: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return taken


def imports(bench: Bench, app: App) -> Counter[str]:
    """Return the milliseconds that importing an app as on Lambda spends in each package, in a new process."""
    variables = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"} | ({"MODEL_BUCKET": ""} if app.engine else {})
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {app.module}"],
        cwd=PROJECT,
        env=bench.environment(app, cores=1) | variables,
        check=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    spent: Counter[str] = Counter()
    for microseconds, module in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", done.stderr, re.MULTILINE):
        spent[package_of(module)] += int(microseconds) / 1000  # type: ignore[assignment]  # milliseconds, not a count
    return spent


def package_of(module: str) -> str:
    """Return the package that a module belongs to."""
    first = module.partition(".")[0]
    if first in OWN:
        return "the app itself"
    return "standard library" if first in sys.stdlib_module_names or first == "sitecustomize" else first


def medians(rounds: list[Counter[str]]) -> Milliseconds:
    """Return the medians by package."""
    return {package: statistics.median(one[package] for one in rounds) for package in set().union(*rounds)}


def imports_table(by_app: dict[str, Milliseconds]) -> str:
    """Return the packages that take longest, one app a column."""
    packages = set().union(*by_app.values())
    most = {package: max(one.get(package, 0) for one in by_app.values()) for package in packages}
    shown = sorted((package for package in packages if most[package] >= SHOWN), key=lambda one: -most[one])
    lines = headed("import, ms", *by_app)
    lines += [row(package, [one.get(package, 0) for one in by_app.values()]) for package in shown]
    rest = [sum(spent for package, spent in one.items() if package not in shown) for one in by_app.values()]
    return "\n".join([*lines, row("others", rest), row("all", [sum(one.values()) for one in by_app.values()])])


def phases_table(title: str, phases: tuple[str, ...], by_app: dict[str, Milliseconds]) -> str:
    """Return the phases, one app a column."""
    lines = headed(title, *by_app)
    lines += [row(phase, [one.get(phase) for one in by_app.values()]) for phase in phases]
    return "\n".join(lines)


def row(name: str, values: Iterable[float | None]) -> str:
    """Return a line of a table; the cell of a missing value is empty."""
    return f"| {name} | {' | '.join('' if value is None else f'{value:.1f}' for value in values)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("xray", type=Path, metavar="XRAY", help="full-size JPEG, about 2 megapixels")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="(%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, running_moto(Path(temporary)) as moto:
        bench = Bench(args.xray, moto, Path(temporary), args.rounds)
        fill_buckets(bench)
        # The first round only fills the file cache.
        taken = [{name: steps(bench, name) for name in APPS} for _ in range(args.rounds + 1)][1:]
        spent = [{name: imports(bench, app) for name, app in APPS.items()} for _ in range(args.rounds + 1)][1:]
    first = {name: {phase: statistics.median(one[name][phase][0] for one in taken) for phase in COLD} for name in APPS}
    warm = {
        name: {
            phase: statistics.median(value for one in taken for value in one[name][phase][1:])
            for phase in WARM
            if phase in taken[0][name]
        }
        for name in APPS
    }
    print(imports_table({name: medians([one[name] for one in spent]) for name in APPS}), end="\n\n")
    print(phases_table("first answer, ms", COLD, first), end="\n\n")
    print(phases_table("warm answer, ms", WARM, warm))


if __name__ == "__main__":
    main()
