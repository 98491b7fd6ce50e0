import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.builders.checkout import PROJECT
from tests.builders.template import METRICS, alarms, source
from tools.costs import (
    Measured,
    Timing,
    cheapest,
    comparison,
    measured_in,
    month,
    parse_arguments,
    table,
    thousand_predictions,
    training,
    with_memory,
)

# As benchmarks/serving.py writes it.
REPORT: dict[str, Any] = {
    "cold": {"seconds": {"a": [3, 1, 2], "import torch": [1]}, "processor_seconds": {"a": [4, 5, 6]}},
    "warm": {
        "1": {"milliseconds": {"a": [30, 20, 40], "bare": [1]}, "processor_milliseconds": {"a": 25}},
        "2": {"milliseconds": {"a": [20, 20, 20], "bare": [1]}, "processor_milliseconds": {"a": 30}},
    },
    "memory": {"a": 350.5},
}


@pytest.mark.processes
def test_operations_has_what_the_script_prints() -> None:
    done = subprocess.run([sys.executable, "tools/costs.py"], cwd=PROJECT, check=True, capture_output=True, text=True)
    assert done.stdout == table(parse_arguments([])) + "\n"
    assert f"\n{done.stdout}\n" in (PROJECT / "docs/operations.md").read_text()


def test_amounts_are_the_templates() -> None:
    args = parse_arguments([])
    template = source()
    assert args.memory == template["Parameters"]["MemorySize"]["Default"]
    assert args.metrics == sum(map(len, METRICS.values()))
    # An alarm on an expression is billed by the metrics in it.
    watched = [
        sum("MetricStat" in metric for metric in alarm.get("Metrics", [])) or 1 for alarm in alarms(template).values()
    ]
    assert args.alarm_metrics == sum(watched)


def test_predictions_by_hand() -> None:
    args = parse_arguments(
        [
            *("--memory", "1024", "--warm-milliseconds", "100", "--cold-milliseconds", "1000", "--cold-share", "0.1"),
            *("--price-gb-second", "1", "--price-request", "5", "--price-s3-get", "10", "--cold-gets", "2"),
            *("--log-bytes", "1000000", "--price-log-gb", "0.5"),
        ]
    )
    # 900 warm requests take 90 s and 100 cold ones 100 s, of 1 GB; 200 GETs; 1 GB of logs
    assert [line.dollars for line in thousand_predictions(args)] == pytest.approx([0.005, 190, 2, 0.5])


def test_training_by_hand() -> None:
    usage = ["--training-minutes", "90", "--instances", "2", "--volume-gb", "730"]
    args = parse_arguments([*usage, "--price-training-hour", "4", "--price-volume-gb-month", "0.1"])
    assert [line.dollars for line in training(args)] == pytest.approx([12, 0.3])


def test_month_by_hand() -> None:
    usage = ["--metrics", "10", "--alarm-metrics", "5", "--data-gb", "3", "--weights-gb", "1", "--image-gb", "2"]
    prices = ["--price-metric-month", "0.3", "--price-alarm-month", "0.1", "--price-dashboard-month", "3"]
    args = parse_arguments([*usage, *prices, "--price-s3-gb-month", "0.5", "--price-image-gb-month", "0.25"])
    assert [line.dollars for line in month(args)] == pytest.approx([3, 0.5, 3, 2, 0.5])


def test_measurements_are_the_medians() -> None:
    warm = {1: Timing(30, 25), 2: Timing(20, 30)}
    assert measured_in(REPORT, "a") == Measured(Timing(2000, 5000), warm, 350.5)


@pytest.mark.parametrize(
    ("memory", "warm", "cold"),
    [
        (3538, 20, 2500),  # two processors, two threads
        (2653, 30, 5000 / (2653 / 1769)),  # one and a half, less a little: one thread
        (1769, 30, 5000),
        (1474, 30, 5000 / (1474 / 1769)),  # five sixths: the processor time just fits into the clock's
        (442.25, 100, 20_000),
    ],
)
def test_invocation_takes_as_long_as_its_processor_time_in_its_share_of_a_processor(
    memory: float, warm: float, cold: float
) -> None:
    amounts = with_memory(parse_arguments([]), measured_in(REPORT, "a"), memory)  # type: ignore[arg-type]
    assert (amounts.warm_milliseconds, amounts.cold_milliseconds) == pytest.approx((warm, cold), abs=0.05)


def only_time(*arguments: str) -> argparse.Namespace:
    """Return arguments with which nothing but warm seconds costs anything: a dollar for each GB of them."""
    nothing = ("--price-request", "0", "--price-s3-get", "0", "--price-log-gb", "0", "--cold-share", "0")
    return parse_arguments([*nothing, "--price-gb-second", "1", *arguments])


def test_least_memory_is_where_the_processor_time_fits_in_what_is_waited_anyway() -> None:
    waits_half = Measured(Timing(1, 1), {1: Timing(20, 10), 2: Timing(20, 10)}, 100)
    best = cheapest(only_time("--image-memory", "0"), waits_half)
    assert best.memory == pytest.approx(1769 / 2, abs=1)
    assert best.warm_milliseconds == pytest.approx(20, abs=0.1)


def test_least_memory_holds_what_was_measured_and_the_largest_image() -> None:
    waits = Measured(Timing(1, 1), {1: Timing(1000, 1), 2: Timing(1000, 1)}, 350.5)
    assert cheapest(only_time("--image-memory", "400"), waits).memory == 751


def test_of_memories_that_cost_the_same_the_fastest_is_taken() -> None:
    computes = Measured(Timing(1, 1), {1: Timing(20, 20), 2: Timing(20, 20)}, 100)
    assert cheapest(parse_arguments([]), computes).memory == pytest.approx(1769, abs=2)


def test_table_of_what_was_measured_by_hand(tmp_path: Path) -> None:
    report = tmp_path / "serving.json"
    report.write_text(json.dumps(REPORT))
    arguments = ["--measured", str(report), "--price-gb-second-arm64", "0.5", "--memory", "1769", "--slower", "3"]
    args = only_time(*arguments)
    cells = comparison(args, json.loads(args.measured.read_text())).splitlines()[2].strip("| ").split(" | ")
    # 25 ms of a processor fit into 30 by the clock with 1,474 MB; three times as long, a thousand take 90 s.
    best, warm, dollars, arm, given = (float(cells[index].replace(",", "")) for index in (1, 2, 4, 5, 6))
    assert best == pytest.approx(1474, abs=1)
    assert warm == 90
    assert dollars == pytest.approx(90 * 1474 / 1024, rel=0.001)
    assert (arm, given) == pytest.approx((dollars / 2, 90 * 1769 / 1024), rel=0.001)
