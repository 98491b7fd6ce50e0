"""A training job's log in CloudWatch, printed while it grows."""

import sys
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pneumonia.command import say
from pneumonia.errors import TrainingError
from pneumonia.storage.refusals import translated

GROUP = "/aws/sagemaker/TrainingJobs"


class Log:
    """Prints what is new in a job's log; if that cannot be read, says so once.

    Args:
        job: the job's name.
    """

    def __init__(self, job: str) -> None:
        self._job = job
        self._next: dict[str, str] = {}  # stream, one for each instance, to the token of what comes after the last read
        self._told: set[str] = set()

    def print_news(self, logs: Any) -> None:  # noqa: ANN401  # boto3's clients have no types of their own
        """Print the lines since the last time, each after its instance's name if there are several.

        Args:
            logs: a client of CloudWatch Logs.
        """
        try:
            streams = self._streams(logs)
            for stream in streams:
                instance = f"{stream.removeprefix(f'{self._job}/').rpartition('-')[0]}: " if len(streams) > 1 else ""
                for line in self._news(logs, stream):
                    say(instance + line.rstrip().expandtabs())
        except (ClientError, BotoCoreError) as error:
            if not _is_missing(error):
                self._tell(error)

    def _streams(self, logs: Any) -> list[str]:  # noqa: ANN401
        pages = logs.get_paginator("describe_log_streams").paginate(
            logGroupName=GROUP, logStreamNamePrefix=f"{self._job}/"
        )
        return [stream["logStreamName"] for page in pages for stream in page.get("logStreams", [])]

    def _news(self, logs: Any, stream: str) -> Iterator[str]:  # noqa: ANN401
        """Yield the lines that follow; a page may be empty although another comes, so only the token shows the end."""
        while True:
            before = self._next.get(stream)
            token = {"nextToken": before} if before else {}
            page = logs.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True, **token)
            yield from (event["message"] for event in page.get("events", []))
            after = page.get("nextForwardToken", before)
            if after == before:
                return
            self._next[stream] = after

    def _tell(self, error: Exception) -> None:
        sentence = str(translated(error, TrainingError, f"The log of {self._job} cannot be read", service="AWS"))
        if sentence not in self._told:
            say(f"{sentence} Its status is watched without it; the log stays in {GROUP}.", file=sys.stderr)
            self._told.add(sentence)


def _is_missing(error: Exception) -> bool:
    """Return whether there is no log yet, as before an account's first job."""
    return isinstance(error, ClientError) and error.response["Error"].get("Code") == "ResourceNotFoundException"
