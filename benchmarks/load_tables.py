"""The Markdown tables of benchmarks/load.py."""

from collections.abc import Sequence
from typing import Any

Results = dict[str, Any]
FIGURES = {
    "answers": "answers",
    "wrong": "wrong answers",
    "failed": "failed requests",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "oldest_seconds": "the oldest answer's release was replaced before, s",
}


def load_tables(load: Results) -> str:
    """Return the tables of the part `load`."""
    without, faulty = load["without"], load["with"]
    rows = [(shown, without[name], faulty[name], ratio(faulty[name], without[name])) for name, shown in FIGURES.items()]
    rows += [("log, bytes", None, faulty["log_bytes"], ""), ("tracebacks in it", None, faulty["tracebacks"], "")]
    by_fault = [
        (fault, one["answers"], one["failed"], one["p50_ms"], one["p99_ms"], one["current_after_seconds"])
        for fault, one in faulty["by_fault"].items()
    ]
    rude = [(name, one["connections"], one["longest_seconds"]) for name, one in load["rude"].items()]
    return "\n".join(
        [
            table(["under load", "without faults", "with faults", "ratio"], rows),
            table(["failed requests", "reason"], [(count, reason) for reason, count in faulty["reasons"].items()]),
            table(["S3", "answers", "failed", "p50, ms", "p99, ms", "served release after, s"], by_fault),
            table(["rude clients", "connections", "longest, s"], rude),
            table(["memory", "MB"], list(load["megabytes"].items())),
        ]
    )


def cold_table(cold: Results) -> str:
    """Return the table of the part `cold`."""
    rows = [
        (fault, one["first_seconds"], one["failed"], "; ".join(f"{why} ({n})" for why, n in one["reasons"].items()))
        for fault, one in cold.items()
    ]
    return table(["new server, S3 at first", "first answer after, s", "failed requests", "reasons"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    cells = [list(head), ["---"] * len(head), *([shown(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def shown(value: object) -> str:
    """Return a cell's text: nothing for None, and one decimal place for numbers that are not whole."""
    if value is None:
        return ""
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def ratio(value: float, of: float) -> str:
    """Return a ratio's text, empty if there is none."""
    return f"{value / of:.2f}" if of else ""
