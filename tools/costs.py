"""Calculate what a thousand predictions, a training and a month of the stack cost.

Every price and amount is an argument, as prices differ by region and change. The defaults are examples: US
dollars in us-east-1, without free tiers, savings plans and taxes. Look the prices up before you rely on the sum.

With --measured, a second table has the cost of a thousand predictions for each app and both processors, from the times
in the JSON of benchmarks/serving.py, with the memory size that costs least. A function gets one processor for each
1,769 MB. With less, an invocation takes its processor time divided by the share of a processor, and never less than was
measured. arm64 is assumed to be as fast as x86-64. Real times are on your dashboard, under *Lambda: duration*.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.engines.cores import MEGABYTES_OF_A_CORE

# Name, example, unit, AWS's page, and the date of the example.
PRICES = (
    ("request", "0.20", "a million invocations", "lambda", "March 2026"),
    ("gb-second", "0.0000166667", "a GB-second of an x86 function", "lambda", "March 2026"),
    ("gb-second-arm64", "0.0000133334", "a GB-second of an arm64 function", "lambda", "May 2026"),
    ("s3-get", "0.0004", "a thousand GET requests", "s3", "2025"),
    ("log-gb", "0.50", "a GB of logs taken in", "cloudwatch", "February 2026"),
    ("training-hour", "0.736", "an hour of a training instance, here ml.g4dn.xlarge", "sagemaker/ai", "2025"),
    ("volume-gb-month", "0.14", "a GB-month of a training instance's volume", "sagemaker/ai", "2025"),
    ("metric-month", "0.30", "a custom metric that is written in every hour of a month", "cloudwatch", "February 2026"),
    ("alarm-month", "0.10", "a month of a metric that an alarm watches", "cloudwatch", "February 2026"),
    ("dashboard-month", "3.00", "a month of a dashboard", "cloudwatch", "February 2026"),
    ("s3-gb-month", "0.023", "a GB-month in a bucket", "s3", "2025"),
    ("image-gb-month", "0.10", "a GB-month of container images", "ecr", "2025"),
)
USAGE = (  # name, example, what it is
    ("memory", "2048", "MB of the function"),
    ("warm-milliseconds", "150", "billed for a request to a warm instance"),
    ("cold-milliseconds", "5000", "billed for a request to a new instance, its start included"),
    ("cold-share", "0.05", "share of the requests that go to a new instance"),
    ("cold-gets", "3", "GET requests to S3 of a new instance"),
    ("log-bytes", "2000", "of logs that a request leaves"),
    ("image-memory", "400", "MB that the largest image needs on top of the memory measured"),
    ("slower", "1", "factor by which Lambda is slower than measured"),
    ("training-minutes", "30", "billed for a training job"),
    ("instances", "1", "that train together"),
    ("volume-gb", "30", "of each instance's volume"),
    ("metrics", "20", "custom metrics"),
    ("alarm-metrics", "14", "metrics that alarms watch"),
    ("data-gb", "1.2", "in the data bucket"),
    ("weights-gb", "0.1", "in the weights bucket"),
    ("image-gb", "1", "in the image repository"),
)


MOST_MEMORY = 2 * MEGABYTES_OF_A_CORE  # MB; more than two processors have not been measured


class Line(NamedTuple):
    """One row of the bill, in dollars."""

    what: str
    dollars: float


class Timing(NamedTuple):
    """The milliseconds of an invocation with whole processors, and its milliseconds of processor time."""

    clock: float
    processor: float

    def with_cores(self, cores: float) -> float:
        """Return the milliseconds with a number of processors, which may be less than one."""
        return max(self.clock, self.processor / cores)


class Measured(NamedTuple):
    """An app as benchmarks/serving.py measured it: a cold start, warm invocations by processors, and memory in MB."""

    cold: Timing
    warm: dict[int, Timing]
    megabytes: float


def measured_in(report: dict[str, Any], app: str) -> Measured:
    """Return an app's figures in the JSON of benchmarks/serving.py."""
    cold, warm = report["cold"], report["warm"]
    return Measured(
        Timing(*(1000 * median(cold[measure][app]) for measure in ("seconds", "processor_seconds"))),
        {
            int(cores): Timing(median(one["milliseconds"][app]), one["processor_milliseconds"][app])
            for cores, one in warm.items()
        },
        report["memory"][app],
    )


def with_memory(args: argparse.Namespace, app: Measured, memory: int) -> argparse.Namespace:
    """Return the amounts for a function that runs an app with `memory` MB."""
    cores = memory / MEGABYTES_OF_A_CORE
    warm = app.warm[max(1, round(cores))].with_cores(cores)  # as many threads as pneumonia/engines/cores.py has it run
    times = {"warm_milliseconds": warm * args.slower, "cold_milliseconds": app.cold.with_cores(cores) * args.slower}
    return argparse.Namespace(**vars(args) | times | {"memory": memory})


def cheapest(args: argparse.Namespace, app: Measured) -> argparse.Namespace:
    """Return the amounts with the memory size that costs least; if several cost the same to six digits, the fastest."""
    enough = math.ceil(app.megabytes + args.image_memory)
    choices = [with_memory(args, app, memory) for memory in range(enough, MOST_MEMORY + 1)]
    return min(choices, key=lambda one: (round(total(thousand_predictions(one)), 6), -one.memory))


def thousand_predictions(args: argparse.Namespace) -> list[Line]:
    """Return what a thousand requests cost; CloudWatch reads the metrics out of the logs at no extra charge."""
    cold = 1000 * args.cold_share
    seconds = (cold * args.cold_milliseconds + (1000 - cold) * args.warm_milliseconds) / 1000
    return [
        Line("Lambda, requests", args.price_request / 1000),
        Line("Lambda, time", seconds * args.memory / 1024 * args.price_gb_second),
        Line("S3, weights for new instances", cold * args.cold_gets / 1000 * args.price_s3_get),
        Line("CloudWatch, logs", 1000 * args.log_bytes / 1e9 * args.price_log_gb),
    ]


def total(lines: list[Line]) -> float:
    """Return the sum of a bill in dollars."""
    return sum(line.dollars for line in lines)


def training(args: argparse.Namespace) -> list[Line]:
    """Return what a training job costs."""
    hours = args.training_minutes / 60 * args.instances
    return [
        Line("SageMaker, instances", hours * args.price_training_hour),
        Line("SageMaker, volumes", hours / 730 * args.volume_gb * args.price_volume_gb_month),  # hours of a month
    ]


def month(args: argparse.Namespace) -> list[Line]:
    """Return what a month costs without any requests; metrics are billed by the hour, at most this."""
    return [
        Line("CloudWatch, metrics", args.metrics * args.price_metric_month),
        Line("CloudWatch, alarms", args.alarm_metrics * args.price_alarm_month),
        Line("CloudWatch, dashboard", args.price_dashboard_month),
        Line("S3, both buckets", (args.data_gb + args.weights_gb) * args.price_s3_gb_month),
        Line("ECR, images", args.image_gb * args.price_image_gb_month),
    ]


def table(args: argparse.Namespace) -> str:
    """Return the three bills as one Markdown table."""
    rows = ["| what | US dollars |", "|---|---|"]
    for title, lines in (
        ("A thousand predictions", thousand_predictions(args)),
        ("A training", training(args)),
        ("A month of the stack", month(args)),
    ):
        rows.append(f"| **{title}** | **{total(lines):.4f}** |")
        rows += [f"| {line.what} | {line.dollars:.4f} |" for line in lines]
    return "\n".join(rows)


def comparison(args: argparse.Namespace, report: dict[str, Any]) -> str:
    """Return what a thousand predictions of each measured app cost, as a Markdown table."""
    titles = ("memory, MB", "warm, ms", "cold, ms", "x86_64, $", "arm64, $", f"x86_64 with {args.memory:,.0f} MB, $")
    rows = [f"| a thousand predictions | {' | '.join(titles)} |", "|---" * 7 + "|"]
    for name in report["memory"]:
        app = measured_in(report, name)
        best, given = cheapest(args, app), with_memory(args, app, int(args.memory))
        arm = argparse.Namespace(**vars(best) | {"price_gb_second": args.price_gb_second_arm64})
        dollars = " | ".join(f"{total(thousand_predictions(one)):.4f}" for one in (best, arm, given))
        rows.append(
            f"| {name} | {best.memory:,} | {best.warm_milliseconds:.0f} | {best.cold_milliseconds:,.0f} | {dollars} |"
        )
    return "\n".join(rows)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="costs.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    prices = parser.add_argument_group("prices in dollars; each is published at https://aws.amazon.com/PAGE/pricing/")
    for name, example, unit, page, date in PRICES:
        about = f"{unit} (PAGE {page}; {example} in {date})"
        prices.add_argument(f"--price-{name}", type=float, default=example, metavar="$", help=about)
    usage = parser.add_argument_group("amounts")
    for name, example, what in USAGE:
        usage.add_argument(f"--{name}", type=float, default=example, metavar="N", help=f"{what} ({example})")
    usage.add_argument("--measured", type=Path, metavar="FILE", help="serving.json of benchmarks/serving.py")
    return parser.parse_args(argv)


def main() -> None:
    """Print the tables."""
    args = parse_arguments(None)
    print(table(args))
    if args.measured:
        print(f"\n{comparison(args, json.loads(args.measured.read_text()))}")


if __name__ == "__main__":
    main()
