"""Read the files of a form, multipart/form-data, and name what is wrong with any other request.

Starlette's parser does not do: it decodes a part without a file name as text, and has one sentence for all errors.
"""

import base64
import re
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "file"
MAX_FIELDS = 1000
MAX_BOUNDARY = 256  # characters, as python-multipart takes them; RFC 2046 allows 70
SHOWN = 40  # characters of what a client sent, in a sentence
SEND = "send multipart/form-data with the X-ray as field 'file'."
SEND_FIELD = "send the X-ray as field 'file'."
EMPTY_BODY = f"The request has no body: {SEND}"
NO_BOUNDARY = (
    "The Content-Type names no boundary: let the HTTP client write this header, which knows the form's boundary."
)
OTHER_BOUNDARY = f"The body does not begin with the boundary that the Content-Type names: {SEND}"
LONG_BOUNDARY = f"The boundary in the Content-Type has more than {MAX_BOUNDARY} characters: choose a shorter one."
ENCODED_BODY = "The body is a form in base64: decode it, and send its bytes as they are."
LINE_FEEDS = "The lines of the form end with LF instead of CRLF: end them with CRLF, and send the image unchanged."
NO_END = f"The form ends without its last boundary, so it may be cut off: {SEND}"
NO_NAME = f"A part of the form has no Content-Disposition with a name: {SEND}"
TOO_MANY_FIELDS = f"The form's boundary occurs more than {MAX_FIELDS:,} times in the body: {SEND}"
NO_FORM = f"The body is not a valid form: {SEND}"
CUT_OFF = "The connection ended before the whole body was there: send it again."


async def files_of(request: Request) -> list[bytes]:
    """Return the content of each field `file` of a request's form, in their order.

    Bytes stay as they are, whatever the part's type, charset, encoding or file name, and whether or not it has one.

    Raises:
        HTTPException: 422 if the body is no form or the form has no such field, 400 if the form cannot be read.
    """
    try:
        # Even if it is no form: many clients read no answer before all is sent. request.body() would keep it in memory.
        body = b"".join([chunk async for chunk in request.stream()])
    except ClientDisconnect as error:
        raise HTTPException(400, CUT_OFF) from error
    if not body:
        raise HTTPException(422, EMPTY_BODY)
    parts = parsed(body, boundary_of(request.headers))
    if not parts.files:
        raise HTTPException(422, without_file(parts.names))
    return parts.files


def boundary_of(headers: Headers) -> bytes:
    """Return the boundary that the Content-Type names.

    Raises:
        HTTPException: 422 for another type, 400 if the boundary is missing or too long.
    """
    types = set(headers.getlist("content-type"))
    if len(types) > 1:
        raise HTTPException(400, f"The request has {len(types)} different headers Content-Type: send one.")
    kind, options = parse_options_header(types.pop() if types else "")
    if kind != b"multipart/form-data":
        raise HTTPException(422, another_type(kind.decode("latin-1")))
    if not (boundary := options.get(b"boundary", b"").rstrip()):
        raise HTTPException(400, NO_BOUNDARY)
    if len(boundary) > MAX_BOUNDARY:
        raise HTTPException(400, LONG_BOUNDARY)
    return boundary


def another_type(kind: str) -> str:
    """Return the sentence about a body that is not multipart/form-data."""
    if not kind:
        return f"The request has no Content-Type: {SEND}"
    return f"The Content-Type is {shown(kind)}, not multipart/form-data: send a form with the X-ray as field 'file'."


class Parts:
    """The fields of a form, which python-multipart's parser hands over.

    Attributes:
        names: of all fields, in their order.
        files: the contents of those named `file`.
        is_whole: whether the last boundary was there.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.files: list[bytes] = []
        self.is_whole = False
        self._header = b""
        self._disposition: dict[bytes, bytes] = {}
        self._content: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._take_header,
            "on_header_value": self._take_value,
            "on_headers_finished": self._take_name,
            "on_part_data": self._take_content,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._disposition, self._content = {}, []

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header = data[start:end].lower()

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        if self._header == b"content-disposition":
            self._disposition = parse_options_header(data[start:end])[1]

    def _take_name(self) -> None:
        if (name := self._disposition.get(b"name")) is None:
            raise HTTPException(400, NO_NAME)
        self.names.append(name.decode(errors="replace"))

    def _take_content(self, data: bytes, start: int, end: int) -> None:
        if self.names[-1] == FIELD:
            self._content.append(data[start:end])

    def _end(self) -> None:
        if self.names[-1] == FIELD:
            self.files.append(b"".join(self._content))
            if b"filename" not in self._disposition:
                check_not_a_name(self.files[-1])

    def _finish(self) -> None:
        self.is_whole = True


def parsed(body: bytes, boundary: bytes) -> Parts:
    """Return the fields of a form.

    Raises:
        HTTPException: 400, the body is not a whole form with this boundary.
    """
    if body.count(b"\r\n--" + boundary) > MAX_FIELDS:  # the parser would take seconds, even where no field begins
        raise HTTPException(400, TOO_MANY_FIELDS)
    parts = Parts()
    try:
        MultipartParser(boundary, parts.callbacks()).write(body)
    except FormParserError as error:
        raise HTTPException(400, why_unreadable(body, boundary)) from error
    if not parts.is_whole:
        raise HTTPException(400, NO_END)
    return parts


def why_unreadable(body: bytes, boundary: bytes) -> str:
    """Return the sentence about a body that is not a form with this boundary."""
    start = body.lstrip(b"\r\n")[: len(boundary) + 3]
    if start == b"--" + boundary + b"\n":
        return LINE_FEEDS
    if start.startswith(b"--" + boundary):
        return NO_FORM
    return ENCODED_BODY if base64.b64encode(b"--" + boundary)[:4] == body[:4] else OTHER_BOUNDARY


def without_file(names: list[str]) -> str:
    """Return the sentence about a form with these fields, none of which is named `file`."""
    if not names:
        return f"The form has no fields: {SEND_FIELD}"
    others = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return f"The form has the field {shown(names[0])}{others}, but no 'file': {SEND_FIELD}"


def check_not_a_name(content: bytes) -> None:
    """Check that a field without a file name does not hold the name of an image, as from `curl -F file=xray.jpg`.

    Raises:
        HTTPException: 422, it is a short text.
    """
    if re.fullmatch(rb"[\x20-\x7e]{1,255}", content):
        text = shown(content.decode())
        raise HTTPException(
            422, f"The field 'file' holds the text {text}, and no image: send the file itself, as curl -F file=@NAME."
        )


def shown(text: str) -> str:
    """Return what a client sent, in quotes and printable characters, shortened to SHOWN characters."""
    text = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return f"'{text}'" if len(text) <= SHOWN else f"'{text[:SHOWN]}…'"
