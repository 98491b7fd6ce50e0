"""Clients that ask a server for predictions all the time, and judge each answer, for benchmarks/load.py."""

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from known_releases import KnownReleases

from tools.stand_ins.events import multipart

GIVE_UP = 90.0  # seconds that a client waits for an answer
PAUSE = 0.1  # seconds that a client waits after a failure


@dataclass(frozen=True)
class Outcome:
    """What came of one request.

    Attributes:
        asked: when it began, by time.monotonic.
        seconds: until it was answered, or failed.
        fault: what was wrong with S3 when it began.
        failure: the status and the sentence of an answer that is no prediction, or the error of the connection.
        wrong: the prediction, if it is not what its release gives.
        age: seconds for which a right answer's release had been replaced when it was asked for.
    """

    asked: float
    seconds: float
    fault: str
    failure: str | None = None
    wrong: str | None = None
    age: float | None = None


class Clients:
    """Clients that ask until the block ends.

    Args:
        port: the server's.
        releases: judge the answers.
        xrays: what they send, in turn.
        number: of clients.
        fault: returns what is wrong with S3 now.
    """

    def __init__(
        self, port: int, releases: KnownReleases, xrays: Sequence[bytes], number: int, fault: Callable[[], str]
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._port = port
        self._releases = releases
        self._forms = itertools.cycle([(xray, *multipart("file", "xray.jpeg", xray, "image/jpeg")) for xray in xrays])
        self._fault = fault
        self._number = number
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(number)

    def __enter__(self) -> "Clients":
        self._asking = [self._pool.submit(self._ask_on) for _ in range(self._number)]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for client in self._asking:
            client.result()

    def wait_for_current(self, since: float, seconds: float) -> None:
        """Wait until the served release has answered a request that was made since a moment.

        Raises:
            RuntimeError: it has not within so many seconds.
        """
        ends = time.monotonic() + seconds
        while self.seconds_to_current(since) is None:
            if time.monotonic() > ends:
                raise RuntimeError(f"the served release has not answered for {seconds:.0f} s: {self.outcomes[-3:]}")
            time.sleep(0.05)

    def seconds_to_current(self, since: float) -> float | None:
        """Return how long after a moment the served release first answered; None if it has not yet."""
        ends = [one.asked + one.seconds for one in list(self.outcomes) if one.asked >= since and one.age == 0]
        return min(ends) - since if ends else None

    def _ask_on(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=GIVE_UP)
        while not self._over.is_set():
            outcome = self._ask(connection)
            self.outcomes.append(outcome)
            if outcome.failure:
                connection.close()
                self._over.wait(PAUSE)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> Outcome:
        xray, body, content_type = next(self._forms)
        fault, asked = self._fault(), time.monotonic()
        try:
            connection.request("POST", "/predict", body, {"Content-Type": content_type})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Outcome(asked, time.monotonic() - asked, fault, failure=f"{type(error).__name__}: {error}")
        seconds = time.monotonic() - asked
        if response.status != 200:
            return Outcome(asked, seconds, fault, failure=f"{response.status} {answer.get('detail')}")
        age = self._releases.age(answer, xray, asked)
        return Outcome(asked, seconds, fault, wrong=json.dumps(answer) if age is None else None, age=age)


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what came of requests, in numbers; seconds are those of right answers."""
    milliseconds = sorted(one.seconds * 1000 for one in outcomes if one.age is not None)
    reasons = Counter(one.failure for one in outcomes if one.failure)
    return {
        "answers": len(milliseconds),
        "wrong": sum(one.wrong is not None for one in outcomes),
        "failed": reasons.total(),
        "p50_ms": quantile(milliseconds, 0.5),
        "p99_ms": quantile(milliseconds, 0.99),
        "longest_ms": quantile(milliseconds, 1),
        "oldest_seconds": max((one.age for one in outcomes if one.age is not None), default=0.0),
        "reasons": dict(reasons.most_common()),
        "wrong_answers": [one.wrong for one in outcomes if one.wrong],
    }


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which a share of sorted values lies, None for no values."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else None
