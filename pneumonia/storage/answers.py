"""What may come instead of an object: a refusal, with S3's own code and message, or no answer at all."""

import contextlib
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from pneumonia.errors import in_one_line

MAX_CODE = 100  # characters
MAX_PAGE = 8 * 1024  # bytes read of an error page; S3's have one or two thousand. More could take long to be searched.
MAX_STRANGE = 200  # characters quoted from an error page that is not S3's
TEMPORARY = re.compile(
    "Throttl|SlowDown|TooManyRequests|RequestLimitExceeded|BandwidthLimitExceeded|ProvisionedThroughputExceeded"
    "|InternalError|InternalFailure|InternalException|InternalServerException|Timeout|Unavailable"
    "|PriorRequestNotComplete|ConditionalRequestConflict|OperationAborted"
)
TEMPORARY_STATUSES = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
# Of a 5xx too: CopyObject can fail after it has begun to answer 200, and boto3 makes a 500 of any such refusal.
LASTING = re.compile(r"AccessDenied|Expired|Invalid|KMS\.|NoSuch|NotImplemented|PreconditionFailed")
# How a message, or the endpoint that a redirect names, tells the bucket's region.
REGION_TOLD = re.compile(
    r"expecting '([a-z0-9-]+)'|The ([a-z0-9-]+) location constraint is incompatible"
    r"|s3[.-]([a-z]+(?:-[a-z]+)+-\d+)\.amazonaws\.com"
)


class S3Error(Exception):
    """S3, or another service of AWS, refused a request.

    Attributes:
        code: its name of the reason, such as NoSuchKey; the status if it gives no name.
        status: of the HTTP response.
        region: the bucket's region, if S3 names it, else None.
        message: the reason in its own words, whole, in one line; None if it gives none.
        operation: what was asked for, such as GetObject.
        retry_after: seconds that a refused client should wait, None if no header says so.
    """

    def __init__(
        self,
        code: str,
        status: int,
        region: str | None = None,
        message: str | None = None,
        *,
        operation: str = "GetObject",
        retry_after: str | None = None,
    ) -> None:
        super().__init__(code)
        self.code = in_one_line(code)[:MAX_CODE]
        self.status = status
        self.message = in_one_line(message or "") or None
        self.region = region or region_in(self.message or "")
        self.operation = operation
        self.retry_after = seconds_in(retry_after) if retry_after else None

    @property
    def is_missing(self) -> bool:
        """Whether S3 says that there is no such object; a missing bucket, or a proxy's 404, does not say so."""
        return self.code == "NoSuchKey"

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed a moment later."""
        if self.status in TEMPORARY_STATUSES or TEMPORARY.search(self.code):
            return True
        return self.status >= 500 and self.status != HTTPStatus.NOT_IMPLEMENTED and not LASTING.match(self.code)


class UnsentError(ConnectionError):
    """The request cannot be sent as this machine is set up.

    Args:
        reason: why not.
        advice: what to do, None if the reason says it.
    """

    def __init__(self, reason: str, advice: str | None = None) -> None:
        super().__init__(reason)
        self.advice = advice


class MissingCredentialsError(UnsentError):
    """There are no credentials to sign a request with."""


class AddressError(UnsentError):
    """No bucket can have this name, or no object can have this key."""


class OtherServerError(UnsentError):
    """A server answers that is not S3.

    Args:
        what: what it does.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"the server {what}, as S3 does not", "check AWS_ENDPOINT_URL, and any proxy")


def error_in(page: bytes, status: int, region: str | None = None, retry_after: str | None = None) -> S3Error:
    """Return the refusal in an error page: S3's, or that of a proxy or another server.

    Args:
        page: the response's body, or its beginning.
        status: of the response.
        region: the bucket's, if a header of the response names it.
        retry_after: the header of this name, if the response has it.
    """
    text = _plain(page[:MAX_PAGE].decode(errors="replace"))
    code = _element("Code", text) if re.search(r"<Error[\s>]", text) else None
    if code:
        region = region or _element("Region", text) or region_in(_element("Endpoint", text) or "")
        return S3Error(code, status, region, _element("Message", text), retry_after=retry_after)
    return S3Error(str(status), status, region, _words_of(text) or _phrase(status), retry_after=retry_after)


def seconds_in(retry_after: str) -> float | None:
    """Return the seconds from now that a Retry-After header names, as a number or a date; None if it names none."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    return None


def region_in(message: str) -> str | None:
    """Return the region that a message or an endpoint names, None if it names none."""
    found = REGION_TOLD.search(message)
    return next(filter(None, found.groups())) if found else None


def is_page(headers: Mapping[str, str]) -> bool:
    """Return whether the headers of an answer, in lower case, are of a page for a browser and not of an object."""
    return headers.get("content-type", "").startswith("text/html") and "etag" not in headers


def _plain(xml: str) -> str:
    """Return XML without comments, and with the characters of CDATA sections escaped instead."""
    xml = re.sub(r"<!--.*?-->", "", xml, flags=re.DOTALL)
    return re.sub(r"<!\[CDATA\[(.*?)\]\]>", lambda section: _escaped(section[1]), xml, flags=re.DOTALL)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _element(tag: str, text: str) -> str | None:
    found = re.search(rf"<{tag}\s*>(.*?)</{tag}\s*>", text, re.DOTALL)
    return _unescaped(found[1]).strip() if found else None


def _words_of(page: str) -> str:
    """Return the first words of a page of HTML or text, without its styles and scripts."""
    bare = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL | re.IGNORECASE)
    words = in_one_line(_unescaped(bare))
    return words if len(words) <= MAX_STRANGE else f"{words[:MAX_STRANGE]}…"


def _unescaped(text: str) -> str:
    import html  # noqa: PLC0415  # a cold start that meets no error does without it

    return html.unescape(text)


def _phrase(status: int) -> str | None:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else None
