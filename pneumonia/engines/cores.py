"""The number of threads that run the network."""

import os

MEGABYTES_OF_A_CORE = 1769  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html


def paid_cores() -> int | None:
    """Return how many cores the memory size of a Lambda function pays for, at least 1; None outside Lambda.

    A function sees two cores, however small its share of them is. If it runs more threads than its share, they wait for
    each other to be scheduled, and an answer takes twice as long or more (docs/performance.md).
    """
    memory = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    return max(1, round(int(memory) / MEGABYTES_OF_A_CORE)) if memory else None


def threads() -> int:
    """Return how many threads ONNX Runtime should run the network with, at least 1, by the rule that torch follows.

    On Lambda these are as many as `paid_cores`; elsewhere OMP_NUM_THREADS, or the cores that this process may use.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return paid_cores() or (int(wanted) if wanted.isdecimal() else 0) or allowed or 1
