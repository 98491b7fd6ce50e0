"""Credentials of a function's role, from the endpoint that Lambda has for them under SnapStart.

There, the environment has no access key: it could expire before the function is restored. The endpoint is on the same
machine and gives a valid one at any time, so none is kept here.
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-activate.html#snapstart-credentials
"""

import contextlib
import http.client
import json
import os
from typing import NamedTuple
from urllib.parse import urlsplit

from pneumonia.errors import in_one_line
from pneumonia.storage.answers import UnsentError

SECONDS = 2.0  # to wait for a machine's own endpoint


class RoleCredentials(NamedTuple):
    """A temporary access key."""

    key_id: str
    secret: str
    token: str


def role_credentials(endpoint: str) -> RoleCredentials:
    """Return what the endpoint gives for AWS_CONTAINER_AUTHORIZATION_TOKEN.

    Args:
        endpoint: its URL, as in AWS_CONTAINER_CREDENTIALS_FULL_URI.

    Raises:
        UnsentError: it cannot be reached, refuses, or gives no credentials.
    """
    headers = {"Authorization": os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "").strip()}
    try:
        address = urlsplit(endpoint.strip())
        with contextlib.closing(http.client.HTTPConnection(address.netloc, timeout=SECONDS)) as connection:
            connection.request("GET", address._replace(scheme="", netloc="").geturl(), headers=headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or in_one_line(str(error))
        raise UnsentError(f"Lambda's endpoint gives none ({reason})") from error
    except ValueError:  # whose text may hold the token
        raise UnsentError("Lambda's endpoint cannot be asked: its address or token cannot be sent") from None
    if response.status != http.HTTPStatus.OK:
        raise UnsentError(f"Lambda's endpoint answers {response.status} ({in_one_line(text)})")
    try:
        answer = json.loads(text)
        return RoleCredentials(answer["AccessKeyId"], answer["SecretAccessKey"], answer["Token"])
    except (ValueError, TypeError, KeyError) as error:
        raise UnsentError("Lambda's endpoint gives none") from error
