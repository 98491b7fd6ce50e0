"""What every process does about logging: each record in one printable line, and no line about a name in a request."""

import logging
import traceback
from typing import Any

from pneumonia.errors import printable

# Log the path and the query of each request, which may name a patient; `serving.telemetry` has a line without names.
WITH_NAMES = ("uvicorn.access", "mangum.http")


class PrintableRecord(logging.LogRecord):
    """A record whose message is one printable line, and whose traceback is indented, so that none looks like a record.

    A file name, an object's key or AWS's own message in it may hold a line feed, or what a terminal obeys.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # logging's own
        super().__init__(*args, **kwargs)
        if self.exc_info:
            lines = "".join(traceback.format_exception(*self.exc_info)).splitlines()
            self.exc_text = "\n".join(f"  {printable(line)}" for line in lines)

    def getMessage(self) -> str:  # noqa: N802  # logging's name
        """Return the message; one that uvicorn colours for a terminal stays as it is, and has no names."""
        message = super().getMessage()
        return message if hasattr(self, "color_message") else printable(message)


def make_printable() -> None:
    """Make each record that this process logs from now on one printable line."""
    logging.setLogRecordFactory(PrintableRecord)


def set_up() -> None:
    """Set up the log of a server or a function: printable lines from INFO on, without the addresses of requests."""
    make_printable()
    logging.basicConfig()  # Lambda has a handler; under uvicorn our loggers have none
    logging.getLogger("pneumonia").setLevel(logging.INFO)
    for name in WITH_NAMES:
        logging.getLogger(name).disabled = True
