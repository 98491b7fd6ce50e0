"""What benchmarks/serving.py measured, as Markdown: `python benchmarks/serving_tables.py SERVING.json`."""

import json
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PEERS = ("straightforward", "plain onnx")  # in each table, the ratios to these
Results = dict[str, Any]


def tables(report: Results) -> str:
    """Return all that was measured."""
    packages = ", ".join(f"{name} {number}" for name, number in report["packages"].items())
    parts = [TABLES[part](report[part]) for part in TABLES if part in report]
    return "\n\n".join([f"{report['machine']}; {packages}.", *parts])


def ratios(value: float, of: Mapping[str, float]) -> str:
    """Return the cells of a value against both peers."""
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
