"""The moment at which a request stops waiting.

Each step of a request passes it to the next. With a number of seconds, each step would have to count down.
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
        """Return the moment that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def of_invocation(cls, context: Any, kept: float) -> "Deadline":  # noqa: ANN401  # the runtime client has no type
        """Return the moment at which a Lambda invocation has only `kept` seconds left.

        Args:
            context: the invocation's.
            kept: seconds for the work after this deadline.
        """
        return cls.after(context.get_remaining_time_in_millis() / 1000 - kept)

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline, 0 after it."""
        return max(0.0, self.moment - time.monotonic())
