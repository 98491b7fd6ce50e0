import subprocess
import sys

import pytest

from tests.builders.checkout import PROJECT
from tests.builders.template import METRICS, alarms, source
from tools.costs import month, parse_arguments, table, thousand_predictions, training


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
