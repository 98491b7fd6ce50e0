"""The API's answers to errors: a status, and one sentence that says what is wrong and what to do.

Our own errors bring their sentence; those of FastAPI and Starlette get one here.
"""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pneumonia.errors import (
    BusyError,
    ImageError,
    ImageTooLargeError,
    PneumoniaError,
    UnsupportedImageError,
    WeightsError,
    WeightsUnavailableError,
)
from pneumonia.imaging.limits import too_many_bytes

STATUS: dict[type[Exception], int] = {
    ImageError: 400,
    ImageTooLargeError: 413,
    UnsupportedImageError: 415,
    WeightsError: 503,
    WeightsUnavailableError: 503,
    BusyError: 503,
}
SENTENCES = {
    404: "There is nothing at this address: /docs lists what there is.",
    405: "This address does not take that method: /docs lists what it takes.",
    408: "The request came too slowly, or not to its end: send it again, over a faster connection if need be.",
    413: too_many_bytes("upload"),
    500: "The server failed to answer this request, and its log has the details: try again.",
    503: "The server has no room for more uploads at once: try again in a moment.",
}
NO_REASON = "The model is unavailable: the server's log says why."
logger = logging.getLogger(__name__)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of an app with `{"detail": sentence}`.

    The handlers are async: others would wait for a thread while all are taken by requests that wait themselves.
    """
    for error in STATUS:
        app.add_exception_handler(error, answer_problem)  # type: ignore[arg-type]  # it gets no other
    app.add_exception_handler(RequestValidationError, answer_invalid)  # type: ignore[arg-type]  # nor this one
    app.add_exception_handler(HTTPException, answer_refused)  # type: ignore[arg-type]  # nor this one
    app.add_exception_handler(Exception, answer_fault)


async def answer_problem(_: Request, error: PneumoniaError) -> JSONResponse:
    """Answer one of our own errors; log it if the client cannot fix it, and answer without the server's names."""
    status = STATUS[type(error)]
    if status < 500:
        return JSONResponse({"detail": str(error)}, status)
    if isinstance(error, BusyError):
        return JSONResponse({"detail": str(error)}, status, {"Retry-After": "1"})
    logger.error("%s", error)
    return JSONResponse({"detail": unavailable(error.public)}, status)


def unavailable(reason: str | None) -> str:
    """Return the sentence for clients if there is no model to answer with.

    Args:
        reason: the error's `public`; its own sentence may name buckets, files, accounts and hosts of the server.
    """
    return f"The model is unavailable, as {reason}. The server's log says more." if reason else NO_REASON


async def answer_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Answer a request with an invalid option, or for a guide that does not exist."""
    place = error.errors()[0]["loc"]
    if place[0] == "path":
        return JSONResponse({"detail": SENTENCES[404]}, 404)
    return JSONResponse({"detail": f"'{place[-1]}' must be true or false, or 1 or 0: see /docs."}, 422)


async def answer_refused(_: Request, error: HTTPException) -> JSONResponse:
    """Answer what FastAPI, Starlette and our routes refuse: unknown paths and methods, bodies that are no form."""
    detail = SENTENCES.get(error.status_code, error.detail)
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"  # the middleware `Head` makes it so
    return JSONResponse({"detail": detail}, error.status_code, headers)


async def answer_fault(_: Request, _error: Exception) -> JSONResponse:
    """Answer any other error. Its traceback goes to the log and not to the client."""
    # The middleware that adds this header to all other answers does not see this one.
    return JSONResponse({"detail": SENTENCES[500]}, 500, {"Cache-Control": "no-store"})
