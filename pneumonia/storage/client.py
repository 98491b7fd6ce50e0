"""boto3's clients, all configured alike. Importing boto3 is slow, so only modules that need it import this one."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, overload

import boto3
from botocore.client import BaseClient
from botocore.config import Config

from pneumonia.errors import PneumoniaError, StorageError, first_line
from pneumonia.storage.answers import OtherServerError, UnsentError, error_in, is_page
from pneumonia.storage.refusals import refusals_as
from pneumonia.storage.signed import CONNECT_SECONDS, SILENT_SECONDS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3control import S3ControlClient

HTML = re.compile(rb"\s*<(!doctype\s+)?html", re.IGNORECASE)
ATTEMPTS = 4  # by boto3, which spreads them over some seconds
REDIRECTS = {HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.TEMPORARY_REDIRECT}


@overload
def new_client(
    service: Literal["s3"] = ...,
    error: type[PneumoniaError] = ...,
    *,
    connections: int = ...,
    region: str | None = ...,
    attempts: int = ...,
    patience: float = ...,
) -> "S3Client": ...


@overload
def new_client(
    service: Literal["s3control"],
    error: type[PneumoniaError] = ...,
    *,
    connections: int = ...,
    region: str | None = ...,
    attempts: int = ...,
    patience: float = ...,
) -> "S3ControlClient": ...


def new_client(
    service: Literal["s3", "s3control"] = "s3",
    error: type[PneumoniaError] = StorageError,
    *,
    connections: int = 1,
    region: str | None = None,
    attempts: int = ATTEMPTS,
    patience: float = SILENT_SECONDS,
) -> BaseClient:
    """Return a client that many threads may use.

    Args:
        service: S3 itself, or the service that creates the jobs of S3 Batch Operations.
        error: the class of the error below.
        connections: the number of threads that will use it at once.
        region: None for the environment's.
        attempts: at each request; 1 for callers that try again themselves, by `retries`.
        patience: seconds to wait for the next bytes of an answer.

    Raises:
        PneumoniaError: boto3 cannot create one: the endpoint is not a URL, or there is no such profile.
    """
    config = Config(
        connect_timeout=min(CONNECT_SECONDS, patience),
        read_timeout=patience,
        max_pool_connections=connections,
        retries={"total_max_attempts": attempts, "mode": "standard"},
    )
    with refusals_as(error, "S3 cannot be used"):
        try:
            client = boto3.client(service, region_name=region, config=config)
        except ValueError as problem:  # the endpoint is not a URL
            raise UnsentError(first_line(problem)) from problem
    client.meta.events.register("response-received", _keep_page)
    client.meta.events.register("response-received", _refuse_other_server)
    return client


def _keep_page(response_dict: Mapping[str, Any] | None, parsed_response: Mapping[str, Any] | None, **_: object) -> None:
    """Keep what boto3 would drop: a code in a namespace, and the words of a page that is not S3's but a proxy's."""
    told = (parsed_response or {}).get("Error")
    if told and response_dict and told.get("Code") in {"", str(response_dict["status_code"])}:
        error = error_in(response_dict["body"], response_dict["status_code"])
        told.update(Code=error.code, Message=error.message)


def _refuse_other_server(event_name: str, response_dict: Mapping[str, Any] | None, **_: object) -> None:
    """Raise an error if a server answers that is not S3: boto3 would find nothing in a page, and recurse on a redirect.

    Raises:
        OtherServerError: it sends a page, or redirects without naming the bucket's region.
    """
    if not response_dict:
        return
    status, headers, body = (response_dict[name] for name in ("status_code", "headers", "body"))
    if status == HTTPStatus.OK and (HTML.match(body) if isinstance(body, bytes) else is_page(headers)):
        if not isinstance(body, bytes):
            body.close()  # or its connection would stay open
        raise OtherServerError("sends a page of HTML")
    if event_name.endswith("HeadBucket") and status in REDIRECTS and "x-amz-bucket-region" not in headers:
        raise OtherServerError(f"redirects to {headers.get('location', 'nowhere')}")
