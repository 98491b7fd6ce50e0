"""Read objects by boto3: their bytes within a deadline, or into a file however long that takes."""

import contextlib
import threading
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import boto3
from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from pneumonia.deadline import Deadline
from pneumonia.errors import PneumoniaError
from pneumonia.storage import retries
from pneumonia.storage.client import new_client
from pneumonia.storage.refusals import boto3_as_signed
from pneumonia.storage.signed import CHUNK, SILENT_SECONDS

SHORTEST_PATIENCE = 0.1  # seconds

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client


class Boto3Bucket:
    """One bucket, read by boto3: with a profile, through a proxy, or however the machine is configured.

    Args:
        name: the bucket's.
        error: the class of the error if boto3 cannot be used.
        deadline: when to give up.
        is_renewed: whether to read the credentials anew, which boto3 keeps.
    """

    def __init__(self, name: str, error: type[PneumoniaError], deadline: Deadline, *, is_renewed: bool = False) -> None:
        self._name = name
        self._error = error
        self._deadline = deadline
        if is_renewed:
            boto3.setup_default_session()
        self._s3 = self._new_client()

    def get(self, key: str) -> Generator[bytes, None, None]:
        """Yield an object's bytes.

        Raises:
            S3Error: S3 refuses.
            ConnectionError: S3 cannot be reached, falls silent, or breaks off.
            TimeoutError: the deadline has passed.
        """
        with boto3_as_signed():
            answer = self._client().get_object(Bucket=self._name, Key=key)
            yield from chunks(answer["Body"], self._deadline)

    def close(self) -> None:
        """Close the connections."""
        self._s3.close()

    def _client(self) -> "S3Client":
        """Return a client that no silence holds beyond the deadline: another one, if little time is left."""
        if not (left := self._deadline.seconds_left):
            raise TimeoutError("the time is up")
        if left < self._patience:
            self._s3.close()
            self._s3 = self._new_client()
        return self._s3

    def _new_client(self) -> "S3Client":
        # Half of the time, to leave another try some.
        self._patience = max(SHORTEST_PATIENCE, min(SILENT_SECONDS, self._deadline.seconds_left / 2))
        return new_client("s3", self._error, attempts=1, patience=self._patience)


def chunks(body: "StreamingBody", deadline: Deadline) -> Iterator[bytes]:
    """Yield the bytes of a body.

    Raises:
        TimeoutError: the deadline has passed.
        Exception: boto3's; the body breaks off.
    """
    try:
        with body as raw, _shut_at(deadline, raw):
            yield from body.iter_chunks(CHUNK)
    except (BotoCoreError, HTTPError):
        if not deadline.seconds_left:
            raise TimeoutError("the time is up") from None
        raise


@contextlib.contextmanager
def _shut_at(deadline: Deadline, body: Any) -> Iterator[None]:  # noqa: ANN401  # urllib3's, says botocore; not its stubs
    """End a body at the deadline: with every byte of a slow server, boto3 would begin to wait anew."""

    def shut() -> None:
        with contextlib.suppress(ValueError, RuntimeError, OSError):  # it has ended already
            body.shutdown()

    timer = threading.Timer(deadline.seconds_left, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def download(bucket: str, key: str, file: BinaryIO, error: type[PneumoniaError]) -> None:
    """Write an object to a file; begin again whenever it breaks off, for some minutes.

    However slow, a body may take its time as long as it comes.

    Args:
        bucket: the bucket's name.
        key: the object's.
        file: open for writing.
        error: the class of the error if boto3 cannot be used.

    Raises:
        S3Error: S3 refuses.
        OSError: S3 cannot be reached, or the file cannot be written.
    """
    s3 = new_client("s3", error, attempts=1)

    def attempt() -> None:
        file.seek(0)
        file.truncate()
        with contextlib.closing(s3.get_object(Bucket=bucket, Key=key)["Body"]) as body:
            file.writelines(body.iter_chunks(CHUNK))

    with contextlib.closing(s3):
        retries.until(Deadline.after(retries.COMMAND_SECONDS), attempt)
