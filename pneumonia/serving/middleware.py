"""Middleware for every request: a limit on its body, HEAD, a header, and a line in the log."""

import time
from http import HTTPMethod
from typing import Any

from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.serving.problems import SENTENCES
from pneumonia.serving.telemetry import Record, emit

FORM_BYTES = 64 * 1024  # of a form, besides the image
BODY_BYTES = MAX_BYTES + FORM_BYTES

METHODS = frozenset(HTTPMethod)
PREDICTING = ("/predict", "/predict/batch")
OTHER = "other"  # in the log, for what is not ours: it may be anything, and a path may name a patient


class BodyLimit:
    """Refuse a body larger than BODY_BYTES.

    FastAPI's own limit would answer in plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a body that declares too many bytes before reading it, and any other once it has too many."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        held = 0

        async def receive_some() -> Message:
            nonlocal held
            message = await receive()
            held += len(message.get("body", b""))
            if held > BODY_BYTES:
                raise HTTPException(413)
            return message

        declared = headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > BODY_BYTES):  # int() refuses long numbers
            await JSONResponse({"detail": SENTENCES[413]}, 413)(scope, receive, send)
            return
        await self._app(scope, receive_some, send)


class Head:
    """Answer HEAD at every address as GET, without the body: checks of links and of uptime ask so.

    FastAPI's routes take only the methods that they name, and not all servers leave the body out.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a HEAD on as a GET, and its answer without the body."""
        if scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_head)


class NoStore:
    """Add Cache-Control: no-store to every answer, because answers are about a person."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the header to the answer."""

        async def send_uncached(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # Only our static files have an ETag. They are about nobody: a browser may keep and revalidate them.
                headers["Cache-Control"] = "no-cache" if "etag" in headers else "no-store"
            await send(message)

        await self._app(scope, receive, send_uncached)


class Telemetry:
    """Write a line about each request, with metrics if it asks for predictions."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a record, and write the line after the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        record, route = Record(), route_of(scope)  # a route changes the scope
        scope.setdefault("state", {})["record"] = record
        status = 500  # unless an answer begins

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            record.add("Total", time.perf_counter() - started)
            self._emit(scope, route, record, status)

    def _emit(self, scope: Scope, route: str, record: Record, status: int) -> None:
        context = scope.get("aws.context")
        properties: dict[str, Any] = {
            "request_id": context.aws_request_id if context else None,
            "method": scope["method"] if scope["method"] in METHODS else OTHER,
            "path": route,
            "status": status,
            "milliseconds": round(record.milliseconds["Total"], 1),
        }
        metrics = record.load_failures()
        if route in PREDICTING:
            metrics |= {"Requests": [1], "ClientErrors": [400 <= status < 500], "ServerErrors": [status >= 500]}
            metrics |= record.metrics()
            properties["predictions"] = [answer.prediction for answer in record.predictions]
            properties["model_version"] = next((answer.model_version for answer in record.predictions), None)
        emit(metrics, properties)


def route_of(scope: Scope) -> str:
    """Return the path of the route that a request finds, or of the folder for a file of ours; OTHER for none."""
    routes = scope["app"].routes
    return next((route.path for route in routes if route.matches(scope)[0] is not Match.NONE), OTHER)
