"""How many threads a network may run on."""

import os

MEGABYTES_OF_A_CORE = 1769  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html


def paid_cores() -> int | None:
    """Return how many cores the memory of a Lambda function pays for, at least one; None elsewhere.

    A function sees two cores, however small its share of them is. If it runs more threads than its share, they wait for
    each other to be scheduled, and an answer takes twice as long or more (docs/performance.md).
    """
    memory = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    return max(1, round(int(memory) / MEGABYTES_OF_A_CORE)) if memory else None
