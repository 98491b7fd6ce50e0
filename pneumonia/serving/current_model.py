"""The model in use: loaded when it is first needed, replaced when the bucket serves another release."""

import logging
import math
import threading
import time
from concurrent.futures import Future, wait

from pneumonia.deadline import Deadline
from pneumonia.errors import PneumoniaError, WeightsUnavailableError, first_line
from pneumonia.memory import sparing_memory
from pneumonia.network.classifier import Classifier
from pneumonia.network.outputs import check_outputs
from pneumonia.releases.fetch import ASK_SECONDS, Weights
from pneumonia.releases.loading import classifier_of, load_found
from pneumonia.serving import telemetry
from pneumonia.serving.telemetry import Record

GRACE = 0.2  # seconds after the deadline, in which a load that gives up says why
REFRESH_SECONDS = 10.0  # for checking the bucket for a new release, fetching it included
logger = logging.getLogger(__name__)


class CurrentModel:
    """Holds one model at a time; safe to use from many threads.

    Args:
        weights: where the model's weights are.
        refresh_seconds: time between two checks of the bucket for another release; infinite for none.
    """

    def __init__(self, weights: Weights, refresh_seconds: float) -> None:
        self._weights = weights
        self._refresh_seconds = refresh_seconds
        self._refreshing = threading.Thread()  # never started: nothing to wait for
        self._starting = threading.Lock()
        self._loading: Future[Classifier] | None = None
        self._model: Classifier | None = None

    @property
    def model(self) -> Classifier | None:
        """The loaded model, None before it is first needed. A refresh may replace it at any time."""
        return self._model

    @property
    def version(self) -> str | None:
        """The loaded model's release, None before it is first needed."""
        return self._model.version if self._model else None

    def load(self, deadline: Deadline, record: Record) -> Classifier:
        """Return the model, and load it if need be.

        Args:
            deadline: for fetching and loading it.
            record: gets the time that this took.

        Raises:
            WeightsError: the weights are invalid.
            WeightsUnavailableError: there are no weights, or S3 does not give them in time.
        """
        if self._model:
            return self._model
        record.is_cold = True
        record.has_no_model = True  # unless this comes to an end
        model = self._load_once(deadline, record)
        record.has_no_model = False
        return model

    def _load_once(self, deadline: Deadline, record: Record) -> Classifier:
        """Wait for the load that goes on, or begin one, but no longer than until the deadline.

        Requests that wait while a load fails share its error, or each would make an attempt of its own, one after the
        other. Later requests try again.
        """
        seconds = deadline.seconds_left
        with self._starting:
            loading = self._loading or self._begin_loading(deadline, record)
        if wait([loading], seconds + GRACE).not_done:
            raise WeightsUnavailableError(
                f"The model is still being loaded after {seconds:.0f} s: try again.",
                public="it is still being loaded: try again",
            )
        return loading.result()

    def _begin_loading(self, deadline: Deadline, record: Record) -> Future[Classifier]:
        """Load the model in a thread, which a disk that does not answer may hold for ever, and the request not."""
        loading: Future[Classifier] = Future()

        def load() -> None:
            try:
                self._model = self._load(deadline, record)
            except BaseException as error:
                self._loading = None  # before the requests that wait can try again
                loading.set_exception(error)
            else:
                loading.set_result(self._model)

        self._loading = loading
        threading.Thread(target=load, name="load", daemon=True).start()
        return loading

    def _load(self, deadline: Deadline, record: Record) -> Classifier:
        try:
            with sparing_memory():
                return load_found(self._weights, deadline, lambda: record.timed("Load"))
        finally:
            if self._weights.download_seconds is not None:
                record.add("Download", self._weights.download_seconds)

    def finish_refresh(self, deadline: Deadline) -> None:
        """Wait for a refresh that a prediction has begun: Lambda freezes a process once it has answered.

        Args:
            deadline: a refresh that is not done by then continues with the next request, or gives up.
        """
        if self._refreshing.ident:
            self._refreshing.join(deadline.seconds_left)

    def refresh_if_due(self, deadline: Deadline) -> None:
        """Begin to check the bucket for another release, in a thread, if the last check was long ago."""
        with self._starting:
            seconds = time.monotonic() - self._weights.asked  # infinite before the first check
            if math.isfinite(self._refresh_seconds) and seconds >= self._refresh_seconds:
                self._begin_refresh(deadline)

    def refresh(self, deadline: Deadline) -> None:
        """Check the bucket for another release, whenever the last check was, and wait for it until the deadline."""
        with self._starting:
            self._begin_refresh(deadline)
        self.finish_refresh(deadline)

    def _begin_refresh(self, deadline: Deadline) -> None:
        if not self._weights.bucket or self._refreshing.is_alive():
            return
        self._weights.asked = time.monotonic()
        deadline = min(deadline, Deadline.after(REFRESH_SECONDS))
        self._refreshing = threading.Thread(target=self._refresh, args=[deadline], name="refresh", daemon=True)
        self._refreshing.start()

    def _refresh(self, deadline: Deadline) -> None:
        """Switch to the release that the bucket serves, if it is another; if anything fails, keep the old one."""
        started = time.monotonic()
        try:
            version = self._weights.served_version(min(deadline, Deadline.after(ASK_SECONDS)))
            if version is None or version == self.version:
                return
            with sparing_memory():
                model = classifier_of(self._weights.served(deadline))
                check_outputs(model.engine, f"release {model.version}")
                self._model = model
            outcome, reason = "Refreshes", None
        except Exception as error:
            logger.log(
                logging.ERROR,
                "Model %s serves on, as the bucket's release cannot be taken over: %s",
                self.version,
                error,
                exc_info=not isinstance(error, PneumoniaError),
            )
            outcome, reason = "RefreshFailures", first_line(error)
        milliseconds = round((time.monotonic() - started) * 1000, 1)
        telemetry.emit(
            {outcome: [1], "RefreshMilliseconds": [milliseconds]},
            {"model_version": self.version, "reason": reason},
        )
