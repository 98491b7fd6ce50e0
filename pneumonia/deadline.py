"""A moment after which nothing is waited for.

One request hands it on from step to step. Seconds would have to be counted down by each of them.
"""

import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Deadline:
    """A moment; the earlier of two is the smaller.

    Attributes:
        moment: in seconds, on `time.monotonic`'s clock.
    """

    moment: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the moment that is so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def of_invocation(cls, context: Any, kept: float) -> "Deadline":  # noqa: ANN401  # the runtime client has no type
        """Return the moment at which a Lambda invocation has only so many seconds left.

        Args:
            context: the invocation's.
            kept: seconds for what comes after whatever has this deadline.
        """
        return cls.after(context.get_remaining_time_in_millis() / 1000 - kept)

    @property
    def seconds_left(self) -> float:
        """Seconds until then, 0 once it has come."""
        return max(0.0, self.moment - time.monotonic())
