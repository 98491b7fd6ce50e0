"""Read from S3 with only the standard library.

A cold start needs three objects. Importing boto3 would take longer than fetching them (docs/performance.md), so the one
kind of request that serving makes is signed here:
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import contextlib
import datetime
import functools
import hashlib
import hmac
import http.client
import io
import os
import re
import socket
import ssl
import urllib.request
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from pneumonia.deadline import Deadline
from pneumonia.errors import first_line, in_one_line
from pneumonia.storage import advice
from pneumonia.storage.answers import AddressError, OtherServerError, UnsentError, error_in, is_page

CHUNK = 1024 * 1024  # bytes yielded at a time
CONNECT_SECONDS = 3.0
SILENT_SECONDS = 10.0  # without a byte; then the connection counts as dead
NOTHING = hashlib.sha256(b"").hexdigest()  # of a GET's empty body
# Settings that only boto3 can follow.
BOTO3_SETTINGS = (
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
)


@dataclass(frozen=True)
class Access:
    """What a request to S3 is signed with, and where it goes.

    Attributes:
        key_id: the access key's public part.
        secret: its secret part.
        token: session token of temporary credentials.
        region: the bucket's.
        endpoint: URL of a server that stands in for S3, None for AWS.
    """

    key_id: str
    secret: str = field(repr=False)
    token: str | None = field(repr=False)
    region: str
    endpoint: str | None

    @classmethod
    def from_environment(cls) -> "Access | None":
        """Return what the environment says, as Lambda's always does; None if only boto3 can find it.

        Raises:
            UnsentError: under SnapStart, the role's credentials cannot be read.
        """
        given = os.environ
        region = (given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or "").strip()
        if not region or any(map(given.get, BOTO3_SETTINGS)):
            return None
        key_id, secret, token = _credentials()
        if not (key_id and secret):
            return None
        endpoint = given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL") or None
        if endpoint and not _is_url(endpoint):
            return None  # boto3 says what is wrong with it
        access = cls(key_id, secret, token or None, region, endpoint)
        scheme, host, _ = access.address("bucket", "")
        is_proxied = scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
        return None if is_proxied or re.search("iso|eusc", region) else access  # partitions with their own host names

    def address(self, bucket: str, key: str) -> tuple[str, str, str]:
        """Return the scheme, the host with its port, and the path of an object."""
        path = quote(f"/{key}", safe="/-_.~")
        if self.endpoint:
            parts = urlsplit(self.endpoint)
            return parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{bucket}{path}"
        host = f"s3.{self.region}.amazonaws.com" + (".cn" if self.region.startswith("cn-") else "")
        # AWS's certificate covers one label before the host.
        return ("https", host, f"/{bucket}{path}") if "." in bucket else ("https", f"{bucket}.{host}", path)

    def headers(self, host: str, path: str, now: datetime.datetime) -> dict[str, str]:
        """Return the signed headers of a GET.

        Args:
            host: as in the Host header.
            path: of the request, percent-encoded, without a query.
            now: UTC; S3 accepts a difference of 15 minutes.
        """
        moment, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
        headers = {"host": host, "x-amz-content-sha256": NOTHING, "x-amz-date": moment}
        if self.token:
            headers["x-amz-security-token"] = self.token
        names = ";".join(headers)  # in alphabetical order, which the signature requires
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"GET\n{path}\n\n{lines}\n{names}\n{NOTHING}"
        scope = f"{day}/{self.region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        credential = f"AWS4-HMAC-SHA256 Credential={self.key_id}/{scope}"
        return headers | {"authorization": f"{credential}, SignedHeaders={names}, Signature={key.hex()}"}


class SignedBucket:
    """One bucket, read over one connection; not safe to use from several threads at once.

    Args:
        name: the bucket's.
        access: what requests are signed with.
        deadline: when to give up.
    """

    def __init__(self, name: str, access: Access, deadline: Deadline) -> None:
        self._name = name
        self._access = access
        self._deadline = deadline
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def get(self, key: str) -> Generator[bytes, None, None]:
        """Yield an object's bytes.

        Raises:
            S3Error: S3 refuses.
            ConnectionError: S3 cannot be reached, falls silent, or breaks off.
            TimeoutError: the deadline has passed.
        """
        try:
            with contextlib.closing(self._request(key)) as response:
                expected, got = response.length, 0
                while chunk := response.read(CHUNK):
                    got += len(chunk)
                    yield chunk
            if expected is not None and got < expected:
                raise ConnectionError(f"the connection broke off after {got} of {expected} bytes")
        except (http.client.InvalidURL, UnicodeError) as error:  # of the endpoint, or of a host named after the bucket
            self.close()
            raise AddressError(in_one_line(str(error))) from error
        except (OtherServerError, UnsentError):
            raise
        except (OSError, http.client.HTTPException) as error:
            self.close()
            self._patience()
            raise ConnectionError(getattr(error, "strerror", None) or first_line(error)) from error
        except ValueError:  # of a header; its text holds the access key or the token
            self.close()
            raise UnsentError(
                "the access key, its token or the region has a line break in it", "set it again, in one line"
            ) from None
        except GeneratorExit:  # or the next request would read the rest of this object
            self.close()
            raise

    def _request(self, key: str) -> http.client.HTTPResponse:
        scheme, host, path = self._access.address(self._name, key)
        if not self._connection or not self._connection.sock:
            self._connection = _connection(scheme, host, min(CONNECT_SECONDS, self._patience()))
            self._connection.response_class = functools.partial(_Response, self._patience)  # type: ignore[assignment]
            self._connection.connect()
        self._connection.sock.settimeout(self._patience())
        signed = self._access.headers(host, path, datetime.datetime.now(datetime.UTC))
        self._connection.request("GET", path, headers=signed)
        response = self._connection.getresponse()
        is_other = is_page({name.lower(): value for name, value in response.headers.items()})
        if response.status == http.HTTPStatus.OK and not is_other:
            return response
        with contextlib.closing(response):
            page = response.read(CHUNK)
        self.close()
        if response.status == http.HTTPStatus.OK:
            raise OtherServerError("sends a page of HTML")
        headers = response.headers
        raise error_in(page, response.status, headers.get("x-amz-bucket-region"), headers.get("retry-after"))

    def _patience(self) -> float:
        """Return how many seconds to wait for the next bytes: no more than half of the time, to leave another try some.

        Raises:
            TimeoutError: there is no time.
        """
        if not (left := self._deadline.seconds_left):
            raise TimeoutError("the time is up")
        return min(SILENT_SECONDS, left / 2)


class _Response(http.client.HTTPResponse):
    """A response that asks before each read how long it may wait.

    With one timeout, a server that sends a byte now and then would be waited for without end.
    """

    def __init__(self, patience: Callable[[], float], sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # http.client's
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Received(sock, patience))


class _Received(io.RawIOBase):
    """What comes over a socket."""

    def __init__(self, sock: socket.socket, patience: Callable[[], float]) -> None:
        self._socket = sock
        self._patience = patience
        self._bytes = sock.makefile("rb", buffering=0)  # keeps the socket open until this is closed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  # as typeshed has it
        self._socket.settimeout(self._patience())
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()


def _credentials() -> tuple[str, str, str]:
    """Return the access key's public part, its secret part, and the session token; empty if there is none."""
    endpoint = os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if endpoint and os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        from pneumonia.storage.role_credentials import role_credentials  # noqa: PLC0415  # for SnapStart only

        return role_credentials(endpoint)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    # Stripped, because a line break at the end, as in files of secrets, would break the request's headers.
    key_id, secret, token = (os.environ.get(name, "").strip() for name in names)
    return key_id, secret, token


def _connection(scheme: str, host: str, timeout: float) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, timeout=timeout)
    bundle = os.environ.get("AWS_CA_BUNDLE") or None
    try:
        context = ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise UnsentError(f"{bundle}: {error.strerror or error}", advice.BUNDLE) from error
    return http.client.HTTPSConnection(host, timeout=timeout, context=context)


def _is_url(text: str) -> bool:
    with contextlib.suppress(ValueError):  # of half an IPv6 address
        return urlsplit(text).scheme in {"http", "https"}
    return False
