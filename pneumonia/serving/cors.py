"""Let pages of other origins call the API of a server. On Lambda, the Function URL or the gateway does that."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI

from pneumonia.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.middleware.cors import CORSMiddleware

ORIGIN = re.compile(r"https?://[^/\s?#,]+")


def origins_from_environment() -> list[str]:
    """Return the origins in CORS_ORIGINS, which are separated by commas; none on Lambda.

    A Function URL adds its own header to every answer, and browsers refuse an answer with two.

    Raises:
        ConfigurationError: one of them is no origin.
    """
    origins = [origin.strip().rstrip("/") for origin in os.environ.get("CORS_ORIGINS", "").split(",") if origin.strip()]
    for origin in origins:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ConfigurationError(f"CORS_ORIGINS names {origin!r}: write origins as https://me.org, or * for any.")
    return [] if "AWS_LAMBDA_RUNTIME_API" in os.environ else origins


def with_cors(app: FastAPI, origins: Sequence[str]) -> "FastAPI | CORSMiddleware":
    """Return an app whose answers, errors of any kind included, pages of these origins may read.

    Without origins it is the app itself.
    """
    if not origins:
        return app
    from starlette.middleware.cors import CORSMiddleware  # noqa: PLC0415  # no cold start needs it

    return CORSMiddleware(app, origins, allow_methods=["GET", "HEAD", "POST"], allow_headers=["*"], max_age=3600)
