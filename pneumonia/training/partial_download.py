"""Download a large zip file, in as many tries as it takes; what has arrived is kept. Does not import torch."""

import contextlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from pneumonia.command import progress, say
from pneumonia.errors import DataError, first_line, in_one_line
from pneumonia.files import check_space, naming, read_plain, write_json

CHUNK = 1024 * 1024
SILENT_SECONDS = 60  # without a byte; then the connection counts as dead
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try, as long as none brings anything
# Mendeley is reported to answer other clients with 403.
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
MAX_NOTES = 64 * 1024  # bytes
ZIP = b"PK\x03\x04"


class BrokenOffError(Exception):
    """A try ended early; another one may bring the rest."""


@dataclass(frozen=True)
class Origin:
    """The file that a part belongs to.

    Attributes:
        url: its address.
        version: what the server calls this version of it, an ETag or a date; None if it does not say.
        size: in bytes, None if the server does not say.
    """

    url: str
    version: str | None
    size: int | None


class Part:
    """The beginning of a file on this disk, and beside it, in `….origin`, which file that is."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        self._notes = path.with_name(f"{path.name}.origin")

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self) -> Origin | None:
        """Return what the part belongs to; None if there is no part of the file at this address."""
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            origin = Origin(**json.loads(read_plain(self._notes, MAX_NOTES)))
            is_sound = isinstance(origin.version, str | None) and type(origin.size) in {int, type(None)}
            return origin if is_sound and self.size and origin.url == self.url else None
        return None

    def begin(self, origin: Origin) -> None:
        """Note what the bytes that follow belong to."""
        write_json(self._notes, asdict(origin))

    def remove(self) -> None:
        """Remove the part."""
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)


def download(part: Part, pauses: Sequence[float] = PAUSES) -> None:
    """Download a zip file, or the rest of it.

    Args:
        part: where it goes; what is there of the same version stays.
        pauses: seconds before each further try, as long as none brings anything.

    Raises:
        DataError: the server refuses, or sends another kind of file; or all tries broke off, and the part is kept.
        OSError: the file cannot be written.
    """
    waiting = list(pauses)
    while True:
        before = part.size
        try:
            add_rest(part)
        except BrokenOffError as error:
            if part.size > before:
                waiting = list(pauses)
            if not waiting:
                raise DataError(interrupted(part, error)) from error
            time.sleep(waiting.pop(0))
        else:
            return


def interrupted(part: Part, error: BrokenOffError) -> str:
    """Return the sentence about a download whose tries all broke off."""
    origin, reason = part.origin(), str(error).rstrip(".")
    if not origin:
        return f"{part.url} cannot be downloaded: {reason}."
    total = f" of {origin.size:,}" if origin.size else ""
    return f"The download broke off after {part.size:,}{total} bytes ({reason}): the same command goes on from there."


def add_rest(part: Part) -> None:
    """Ask for what is missing of a file, once, and write it.

    Raises:
        BrokenOffError: the connection ended early, or the part was of another version and is gone.
        DataError: the server refuses, or sends another kind of file.
        OSError: the file cannot be written.
    """
    known = part.origin()
    if known and known.size == part.size:
        return
    try:
        response = urllib.request.urlopen(request_for(part, known), timeout=SILENT_SECONDS)  # noqa: S310  # http(s) only
    except urllib.error.HTTPError as error:
        with error:
            check_refusal(part, error)
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOffError(first_line(getattr(error, "reason", None) or error)) from error
    except ValueError as error:  # the address, or one that the server names instead, is none
        raise DataError(f"{part.url} cannot be downloaded: {first_line(error)}.") from error
    else:
        with response:
            write_rest(part, known, response)


def request_for(part: Part, known: Origin | None) -> urllib.request.Request:
    """Return the request for what is missing: of the same version, or else for all of the other one."""
    request = urllib.request.Request(part.url, headers={"User-Agent": AGENT})  # noqa: S310  # http(s) only
    if known:
        request.add_header("Range", f"bytes={part.size}-")
        if known.version:
            request.add_header("If-Range", known.version)
    return request


def check_refusal(part: Part, error: urllib.error.HTTPError) -> None:
    """Find out what to do about an answer that is no success.

    Raises:
        BrokenOffError: the same request may succeed later, or the next one for the whole file.
        DataError: the server refuses.
    """
    if error.code == 416:  # there are no bytes after ours
        if error.headers.get("Content-Range") == f"bytes */{part.size}":
            return
        part.remove()
        raise BrokenOffError("the file has changed on the server")
    reason = f"the server answers {error.code} {in_one_line(str(error.reason))}"
    if error.code == 429 or error.code >= 500:
        raise BrokenOffError(reason)
    raise DataError(f"{part.url} cannot be downloaded: {reason}.")


def write_rest(part: Part, known: Origin | None, response: http.client.HTTPResponse) -> None:
    """Write the body of an answer to the end of a part; or to a new one, if the answer is the whole file.

    Raises:
        BrokenOffError, DataError, OSError: as `add_rest`.
    """
    start, size = range_of(response)
    version = version_of(response)
    if start and not (known and start == part.size and known.size in {None, size} and version in {None, known.version}):
        part.remove()
        raise BrokenOffError("the file has changed on the server")
    if size is not None:
        check_space(part.path, 2 * size - start)  # unpacked, images take as much again
    chunks = chunks_of(response)
    if not start:
        chunks = checked(chunks, part.url)
        part.begin(Origin(part.url, version, size))
    say(f"{part.url}: {f'{size:,}' if size else 'unknown'} bytes" + f", going on after {start:,}" * bool(start))
    with naming(part.path), part.path.open("ab" if start else "wb") as file:
        for chunk in progress(chunks, -(-((size or 0) - start) // CHUNK), "downloading, in MiB"):
            file.write(chunk)
    if size and part.size < size:
        raise BrokenOffError("the connection ended early")


def version_of(response: http.client.HTTPResponse) -> str | None:
    """Return what tells one version of a file from another, to the byte; None if the server does not."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag


def range_of(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Return the first byte that an answer brings, and the size of the whole file, None if that is not told."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status == 206 and found:
        return int(found[1]), int(found[2]) if found[2] != "*" else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def chunks_of(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield a body, a CHUNK at a time, and whatever has arrived before it broke off.

    Raises:
        BrokenOffError: the connection ended early.
    """
    while True:
        chunk, reason = bytearray(), None
        try:
            while len(chunk) < CHUNK and (piece := response.read1(CHUNK - len(chunk))):
                chunk += piece
        except (OSError, http.client.HTTPException) as error:
            reason = error
        if chunk:
            yield bytes(chunk)
        if reason:
            raise BrokenOffError(first_line(reason)) from reason
        if len(chunk) < CHUNK:
            return


def checked(chunks: Iterator[bytes], url: str) -> Iterator[bytes]:
    """Return a body's chunks, after a look at the first.

    Raises:
        BrokenOffError: there is none.
        DataError: it is not the beginning of a zip file.
    """
    first = next(chunks, b"")
    if not first:
        raise BrokenOffError("the connection ended early")
    if not first.startswith(ZIP):
        begins = ascii(first[:40].decode("latin-1"))
        raise DataError(f"{url} sends something other than a zip file: it begins with {begins}.")
    return chain([first], chunks)
