"""Let pages of other origins call the API of a server. On Lambda, the Function URL or the gateway does that."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI

from pneumonia.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.middleware.cors import CORSMiddleware

ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
OWN_PORTS = {"http": ":80", "https": ":443"}


def origins_from_environment() -> list[str]:
    """Return the origins in CORS_ORIGINS, which are separated by commas; none on Lambda.

    A Function URL adds its own header to every answer, and browsers refuse an answer with two.

    Raises:
        ConfigurationError: one of them is no origin.
    """
    origins = [as_sent(origin) for origin in os.environ.get("CORS_ORIGINS", "").split(",") if origin.strip()]
    return [] if "AWS_LAMBDA_RUNTIME_API" in os.environ else origins


def as_sent(origin: str) -> str:
    """Return an origin as browsers send it, or `*`: in lower case, without a slash at its end or the scheme's own port.

    Raises:
        ConfigurationError: no browser sends it.
    """
    text = origin.strip().lower().rstrip("/")
    found = ORIGIN.fullmatch(text)
    if not found and text != "*":
        raise ConfigurationError(
            f"CORS_ORIGINS names {origin.strip()!r}: write origins as https://me.org, or * for any."
        )
    return text.removesuffix(OWN_PORTS[found[1]]) if found else text


def with_cors(app: FastAPI, origins: Sequence[str]) -> "FastAPI | CORSMiddleware":
    """Return an app whose answers, errors of any kind included, pages of these origins may read.

    Without origins it is the app itself.
    """
    if not origins:
        return app
    from starlette.middleware.cors import CORSMiddleware  # noqa: PLC0415  # no cold start needs it

    return CORSMiddleware(app, origins, allow_methods=["GET", "HEAD", "POST"], allow_headers=["*"], max_age=3600)
