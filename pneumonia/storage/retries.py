"""Send a request to S3 again if it may succeed a moment later: after growing pauses, until a deadline.

Each pause is drawn from zero to a limit that doubles, so that many who were refused at once do not come back at once:
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

import logging
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pneumonia.deadline import Deadline
from pneumonia.storage.answers import S3Error, UnsentError
from pneumonia.storage.refusals import of_boto3

FIRST_PAUSE = 0.2  # seconds: the first pause's limit, and the least time that is worth a further try
LONGEST_PAUSE = 5.0  # seconds: every pause's limit, unless S3 names a longer one
COMMAND_SECONDS = 240.0  # until a command that a person runs gives up
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


def until(
    deadline: Deadline,
    attempt: Callable[[], Result],
    wait: Callable[[float], bool | None] = time.sleep,
    *,
    needed: float = 0.0,
) -> Result:
    """Return what an attempt returns; repeat it while its error may pass, and there is time.

    Args:
        deadline: when to give up; the first attempt is always made.
        attempt: sends a request, and reads its whole answer.
        wait: waits for so many seconds; returns True to give up at once.
        needed: seconds that a further attempt may take, if it does not know the deadline.

    Raises:
        S3Error, ConnectionError: S3's last refusal, or why there was no answer, with a note of how often it was tried.
        Exception: what else the attempt raises, unchanged.
    """
    started, tries, limit = time.monotonic(), 0, FIRST_PAUSE
    reason: BaseException | None = None  # S3's last refusal, or why there was no answer yet
    while True:
        tries += 1
        try:
            return attempt()
        except TimeoutError:  # the deadline ended this attempt: what S3 said before tells more
            if not reason:
                raise
            break
        except Exception as raised:
            error = _passing(raised)
        reason = reason if isinstance(reason, S3Error) and not isinstance(error, S3Error) else error
        pause = _pause(error, limit, deadline.seconds_left - needed)
        if limit < LONGEST_PAUSE <= 2 * limit:  # once: it takes long
            _warn(reason, tries, deadline.seconds_left)
        if pause is None or wait(pause):
            break
        limit = min(2 * limit, LONGEST_PAUSE)
    if tries > 1:
        reason.add_note(f"after {tries} tries in {time.monotonic() - started:.0f} s")
    raise reason


def _pause(error: BaseException, limit: float, left: float) -> float | None:
    """Return seconds to wait, None if no time would be left for another try.

    Half of what is left is kept for it: S3 may be well again just before the deadline.
    """
    named = (error.retry_after if isinstance(error, S3Error) else None) or 0.0
    if left < FIRST_PAUSE or named >= left:
        return None
    return max(named, min(random.uniform(0, limit), left / 2))


def _warn(reason: BaseException, tries: int, left: float) -> None:
    # The whole reason may name an object, and that a patient.
    what = f"S3 answers {reason.code}" if isinstance(reason, S3Error) else "S3 cannot be reached, or breaks off"
    logger.warning("%s, %d times so far: trying again for up to %.0f s.", what, tries, left)


def _passing(raised: Exception) -> BaseException:
    """Return an error that may pass as the signed reader has it; raise any other."""
    error = of_boto3(raised)
    if isinstance(error, S3Error):
        may_pass = error.is_temporary
    else:
        is_answer_missing = isinstance(error, ConnectionError) and not isinstance(error, UnsentError)
        may_pass = is_answer_missing and not any(map(_will_stay, _causes(raised)))
    if not may_pass:
        raise raised
    return error


def _will_stay(cause: BaseException) -> bool:
    """Return whether the reason is a certificate that does not verify, or a host that nobody knows."""
    is_unknown = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
    return is_unknown or isinstance(cause, ssl.SSLCertVerificationError)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those behind it."""
    while error:
        yield error
        error = error.__cause__ or error.__context__
