"""A moment after which nothing is waited for.

One request hands it on from step to step. Seconds would have to be counted down by each of them.
"""

import time
from dataclasses import dataclass


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

    @property
    def seconds_left(self) -> float:
        """Seconds until then, 0 once it has come."""
        return max(0.0, self.moment - time.monotonic())
