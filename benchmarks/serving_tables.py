"""Print what benchmarks/serving.py measured, as Markdown: `python benchmarks/serving_tables.py SERVING.json`."""

import json
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

PEERS = ("straightforward", "plain onnx")  # each table has the ratios to these
Results = dict[str, Any]


class Goal(NamedTuple):
    """A figure that this project should reach.

    Attributes:
        figure: what it is called in the table.
        part: the part of the benchmark that measures it.
        of: returns an app's figure, given the part's results and the app's name.
        peer: the app by whose figure it is divided; None for a figure that is not divided.
        aims: by app, the largest figure that reaches the goal; for requests per second, the smallest.
    """

    figure: str
    part: str
    of: Callable[[Results, str], float]
    peer: str | None
    aims: dict[str, float]


def tables(report: Results) -> str:
    """Return all tables of what was measured."""
    packages = ", ".join(f"{name} {number}" for name, number in report["packages"].items())
    parts = [TABLES[part](report[part]) for part in TABLES if part in report]
    return "\n\n".join([f"{report['machine']}; {packages}.", *parts, goals_table(report)])


def ratios(value: float, of: Mapping[str, float]) -> str:
    """Return the cells with the ratios of a value to both peers'."""
    return " | ".join(f"{value / of[peer]:.2f}" for peer in PEERS)


def headed(*cells: str) -> list[str]:
    """Return the first two lines of a table."""
    return [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|"]


def cold_table(result: Results) -> str:
    """Return medians and ratios of cold starts."""
    medians = {name: statistics.median(values) for name, values in result["seconds"].items()}
    against = [f"of {peer}" for peer in PEERS]
    lines = headed("cold start", "s, median", "least to most", *against, "of `import torch`", "CPU s", "MB fetched")
    for name, median in medians.items():
        values = result["seconds"][name]
        processor, fetched = "", ""
        if name in result["bytes"]:
            processor = f"{statistics.median(result['processor_seconds'][name]):.2f}"
            fetched = f"{result['bytes'][name] / 1e6:.2f}"
        lines.append(
            f"| {name} | {median:.2f} | {min(values):.2f} to {max(values):.2f} | {ratios(median, medians)} | "
            f"{median / medians['import torch']:.2f} | {processor} | {fetched} |"
        )
    return "\n".join(lines)


def warm_table(result: Results) -> str:
    """Return medians and ratios of warm invocations."""
    lines = headed("warm invocation", "cores", "ms, median", *[f"of {peer}" for peer in PEERS], "of bare")
    for cores, one in result.items():
        medians = {name: statistics.median(values) for name, values in one["milliseconds"].items()}
        for name, median in medians.items():
            floor = f"{median / medians[name.replace('ours', 'bare')]:.2f}" if name.startswith("ours") else ""
            lines.append(f"| {name} | {cores} | {median:.1f} | {ratios(median, medians)} | {floor} |")
    return "\n".join(lines)


def memory_table(result: Results) -> str:
    """Return largest resident memory."""
    lines = headed("memory after 100 requests", "MB", *[f"of {peer}" for peer in PEERS])
    lines += [f"| {name} | {mb:.0f} | {ratios(mb, result)} |" for name, mb in result.items()]
    return "\n".join(lines)


def uvicorn_table(result: Results) -> str:
    """Return throughput, /health and threads by clients: the medians, and the most threads."""
    lines = headed(
        "uvicorn",
        "clients",
        "requests/s",
        *[f"of {peer}" for peer in PEERS],
        "of one client",
        "/health, p99, ms",
        "threads",
    )
    rates = {
        name: {clients: middle(turns, "requests_per_second") for clients, turns in by_clients.items()}
        for name, by_clients in result.items()
    }
    for name, by_clients in result.items():
        for clients, turns in by_clients.items():
            rate = rates[name][clients]
            against = ratios(rate, {peer: rates[peer][clients] for peer in PEERS})
            lines.append(
                f"| {name} | {clients} | {rate:.1f} | {against} | {rate / rates[name]['1']:.2f} | "
                f"{middle(turns, 'health_p99_ms'):.0f} | {max(turn['threads'] for turn in turns)} |"
            )
    return "\n".join(lines)


def middle(turns: list[dict[str, float]], name: str) -> float:
    """Return the median of one measure over the turns."""
    return statistics.median(turn[name] for turn in turns)


def soak_table(result: Results) -> str:
    """Return resident memory by thousands of requests."""
    lines = headed("10,000 requests", "MB resident after each thousand", "files left")
    for name, one in result.items():
        numbers = ", ".join(f"{mb:.0f}" for mb in one["resident_mb"])
        lines.append(f"| {name} | {numbers} | {', '.join(one['left'])} |")
    return "\n".join(lines)


def goals_table(report: Results) -> str:
    """Return the figures of the measured parts that have a goal, with the goal in brackets."""
    apps = list(dict.fromkeys(name for goal in GOALS for name in goal.aims))
    lines = headed("reached (goal)", *apps)
    for goal in GOALS:
        if result := report.get(goal.part):
            whole = goal.of(result, goal.peer) if goal.peer else 1
            cells = [
                f"{goal.of(result, name) / whole:.2f} ({goal.aims[name]:g})" if name in goal.aims else ""
                for name in apps
            ]
            lines.append(f"| {goal.figure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cold(result: Results, app: str) -> float:
    return float(statistics.median(result["seconds"][app]))


def _megabytes(result: Results, app: str) -> float:
    return float(result["bytes"][app]) / 1e6


def _warm(cores: int) -> Callable[[Results, str], float]:
    return lambda result, app: float(statistics.median(result[str(cores)]["milliseconds"][app]))


def _memory(result: Results, app: str) -> float:
    return float(result[app])


def _rate(result: Results, app: str) -> float:
    return middle(result[app]["16"], "requests_per_second")


TORCH, ONNX, HALF = "ours, torch", "ours, onnx", "ours, onnx half"
GOALS = (
    Goal("cold start, of straightforward", "cold", _cold, "straightforward", {TORCH: 0.36, ONNX: 0.14}),
    Goal("cold start, of plain onnx", "cold", _cold, "plain onnx", {ONNX: 0.7}),
    Goal("MB fetched on a cold start", "cold", _megabytes, None, {TORCH: 22.6, ONNX: 11.4}),
    Goal(
        "warm, one core, of straightforward", "warm", _warm(1), "straightforward", {TORCH: 0.6, ONNX: 0.4, HALF: 0.58}
    ),
    Goal("warm, two cores, of straightforward", "warm", _warm(2), "straightforward", {TORCH: 0.65, ONNX: 0.45}),
    Goal("memory, of straightforward", "memory", _memory, "straightforward", {TORCH: 0.72, ONNX: 0.2}),
    Goal("requests/s with 16 clients, of straightforward", "uvicorn", _rate, "straightforward", {TORCH: 2.5, ONNX: 3}),
)
TABLES: dict[str, Callable[[Results], str]] = {
    "cold": cold_table,
    "warm": warm_table,
    "memory": memory_table,
    "uvicorn": uvicorn_table,
    "soak": soak_table,
}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("One file is expected: python benchmarks/serving_tables.py SERVING.json")
    print(tables(json.loads(Path(sys.argv[1]).read_text())))
