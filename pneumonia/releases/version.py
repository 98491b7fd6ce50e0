"""The version of a release: when its training finished, and the beginning of its weights' SHA-256."""

import re
from datetime import UTC, datetime, timedelta
from typing import TypeGuard

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # part of keys, paths, log lines and header fields
TIME = "%Y%m%d-%H%M%S"
TIME_LENGTH = len("20260102-030405")
CLOCK_TOLERANCE = timedelta(minutes=15)  # S3 refuses the requests of a clock that is further off


def is_version(value: object) -> TypeGuard[str]:
    """Return whether a value can be a version, which needs no quoting wherever it is written."""
    return isinstance(value, str) and bool(NAME.fullmatch(value))


def version_at(time: datetime, digest: str) -> str:
    """Return the version of weights with this digest that were trained by this time; versions sort by time."""
    year_of_four_digits = f"{time.year:04}"  # which %Y has on some systems only
    return f"{year_of_four_digits}{time:%m%d-%H%M%S}-{digest[:8]}"


def time_of(version: str) -> datetime | None:
    """Return the time in a version, None if it has none."""
    try:
        return datetime.strptime(version[:TIME_LENGTH], TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def is_ahead(version: str, now: datetime) -> bool:
    """Return whether a release says that its training finished after `now`, so that some clock was wrong."""
    time = time_of(version)
    return time is not None and time - now > CLOCK_TOLERANCE


def is_older(version: str, other: str) -> bool:
    """Return whether a release's training finished before another's; False if one of the versions has no time."""
    time, other_time = time_of(version), time_of(other)
    return time is not None and other_time is not None and time < other_time
