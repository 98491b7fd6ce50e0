"""Settings of the tests that try many cases."""

from hypothesis import HealthCheck, settings


def fuzzed(max_examples: int) -> settings:
    """Return Hypothesis's settings: the same cases in every run, however long one takes, and no file left."""
    return settings(
        max_examples=max_examples,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )
