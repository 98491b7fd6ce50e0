"""The API: FastAPI as `app` for uvicorn, wrapped by Mangum as `handler` for AWS Lambda.

The order of imports is what makes a cold start short: docs/performance.md has what each part saves.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import unquote

from pneumonia.releases.fetch import Weights
from pneumonia.serving.coldstart import lean_imports

# Downloading is told in the log, and begins here. Lambda has set up a handler of its own; uvicorn has none for us.
logging.basicConfig()
logging.getLogger("pneumonia").setLevel(logging.INFO)
weights = Weights.from_environment()
on_lambda = "AWS_LAMBDA_RUNTIME_API" in os.environ
if on_lambda:  # there is a process because a request waits for it
    weights.fetch_in_background(seconds=60)

with lean_imports() if on_lambda else contextlib.nullcontext():
    from fastapi import Depends, FastAPI, File, Query, Request, UploadFile
    from fastapi.exceptions import HTTPException, RequestValidationError
    from fastapi.responses import JSONResponse
    from fastapi_offline import FastAPIOffline
    from mangum import Mangum
    from pydantic import BaseModel, Field
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.exceptions import HTTPException as StarletteHTTPException
    from starlette.formparsers import MultiPartParser
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pneumonia.errors import (
        ImageError,
        ImageTooLargeError,
        UnsupportedImageError,
        WeightsError,
        WeightsUnavailableError,
    )
    from pneumonia.imaging.limits import MAX_BYTES
    from pneumonia.network.prediction import Explanation, Prediction
    from pneumonia.serving.page import add_page
    from pneumonia.serving.predictor import LOAD_SECONDS, Predictor, use_paid_cores
    from pneumonia.serving.telemetry import Record, emit

FORM_BYTES = 64 * 1024  # what a form may have around the image
UPLOADS_BYTES = 10 * (MAX_BYTES + FORM_BYTES)  # of all the bodies in memory at once; on Lambda there is one
MAX_FILES = 64  # in one batch: six seconds or so of one core; a metric takes less than 100 values at once
ANSWER_SECONDS = 1.0  # what an invocation keeps of its time for everything but loading the model

DESCRIPTION = """Tells PNEUMONIA from NORMAL on a frontal chest X-ray of a child.

**Not medical advice.** A demonstration of training and serving, not a medical device: do not diagnose with it."""

ANSWERING_TAG, STATUS_TAG = "Classification", "Status"
TAGS = [
    {"name": ANSWERING_TAG, "description": "What a chest X-ray shows"},
    {"name": STATUS_TAG, "description": "Whether the server is there, and with which model"},
]

STATUS: dict[type[Exception], int] = {
    ImageError: 400,
    ImageTooLargeError: 413,
    UnsupportedImageError: 415,
    WeightsError: 503,
    WeightsUnavailableError: 503,
}
EXAMPLE = {
    "prediction": "PNEUMONIA",
    "confidence": 0.973,
    "probabilities": {"NORMAL": 0.027, "PNEUMONIA": 0.973},
    "model_version": "20261124-101500-1a2b3c4d",
    "warnings": [],
}
NO_FORM = "There is no file in the form: send multipart/form-data with the X-ray as field 'file'."
# What FastAPI and Starlette find wrong before a route is asked, in our words.
SENTENCES = {
    404: "There is nothing at this address: /docs lists what there is.",
    405: "This address does not take that method: /docs lists what it takes.",
    400: "The body is not a form that can be read: send multipart/form-data with the X-ray as field 'file'.",
    503: "The server holds as many uploads as it has memory for: try again in a moment.",
    413: f"The upload has more than the {MAX_BYTES:,} bytes that are read: send a smaller or a compressed image.",
}
FAULT_SENTENCE = "The server failed at this request, and its log has the details: try again."


class Problem(BaseModel):
    """What is wrong, and what to do, in one sentence."""

    detail: str = Field(description="The sentence.")


class Health(BaseModel):
    """The process answers."""

    status: str = Field(description="Always `ok`.")
    model_version: str | None = Field(description="The loaded release, null until something has needed the model.")


class Readiness(BaseModel):
    """Whether the model is loaded, which release that is, and from which P(PNEUMONIA) on it answers PNEUMONIA."""

    ready: bool = Field(description="Whether the model is loaded.")
    model_version: str | None = Field(description="The loaded release, null where there is none.")
    operating_point: float | None = Field(
        description="The answer is PNEUMONIA from this P(PNEUMONIA) on; null where no model is loaded."
    )


class Failure(BaseModel):
    """Why an image of a batch has no answer: the status and the sentence that /predict would answer it with."""

    status: int = Field(description="The status, 400 to 499.")
    detail: str = Field(description="What is wrong, and what to do.")


class Batch(BaseModel):
    """One result for each image, in the order sent."""

    results: list[Prediction | Failure] = Field(description="An answer, or why there is none, in the order sent.")


# What Swagger UI shows of each answer, and when it comes. tests/serving/test_openapi.py has the app say each sentence.
Answers = dict[int | str, dict[str, Any]]


def success(description: str, **examples: object) -> dict[str, Any]:
    """Return the documentation of a 200, each example under its name."""
    named = {name: {"value": example} for name, example in examples.items()}
    return {"description": description, "content": {"application/json": {"examples": named}}}


def refusal(description: str, **sentences: str) -> dict[str, Any]:
    """Return the documentation of an error, each sentence under its cause."""
    return {"model": Problem, **success(description, **{cause: {"detail": one} for cause, one in sentences.items()})}


BROKEN = "The image is broken: it begins well but cannot be decoded to its end. Send it again, or export it anew."
FAULT = refusal("A fault of the server; its log has the details", fault=FAULT_SENTENCE)
NO_WEIGHTS = (
    "There are no weights: /tmp/model.pth does not exist and MODEL_BUCKET is not set. Set MODEL_BUCKET to the bucket "
    "that promote_model.py published to, or put a weights file at MODEL_PATH."
)
UNAVAILABLE = refusal(
    "The model's weights are unavailable, or there are more uploads at once than there is memory for",
    weights=NO_WEIGHTS,
    uploads=SENTENCES[503],
)
UNCERTAIN = EXAMPLE | {
    "confidence": 0.756,
    "probabilities": {"NORMAL": 0.244, "PNEUMONIA": 0.756},
    "warnings": ["uncertain"],
}
ANSWERS: Answers = {
    200: success(
        "The class that the operating point gives, calibrated probabilities, and reasons to doubt: with the warning "
        "`uncertain` have an expert look, with `not_a_chest_xray` do not trust it",
        clear=EXAMPLE,
        uncertain=UNCERTAIN,
        explained=EXAMPLE | {"heatmap": "iVBORw0KGgoAAAANSUhEUgAA…"},
    ),
    400: refusal(
        "Not an image, a broken one, or a form that cannot be read",
        text="The file is not an image: send a chest X-ray as JPEG, PNG, BMP, TIFF, WebP or DICOM.",
        broken=BROKEN,
        form=SENTENCES[400],
    ),
    413: refusal(
        "Too many bytes or pixels",
        bytes=SENTENCES[413],
        pixels="The image has 9000 x 9000 pixels and at most 25,000,000 are read: send a smaller one.",
    ),
    415: refusal(
        "A kind of file that is not read",
        gif="GIF files are not read: send the X-ray as JPEG, PNG, BMP, TIFF, WebP or DICOM.",
    ),
    422: refusal(
        "Not exactly one field `file` in the form, or an invalid option",
        none=NO_FORM,
        several="There are 2 fields 'file' in the form: send one X-ray a request.",
        option="'explain' must be true or false, or 1 or 0: see /docs.",
    ),
    500: FAULT,
    503: UNAVAILABLE,
}
BATCH_ANSWERS: Answers = {
    200: success(
        "One result for each image, in the order sent: what /predict answers, or why there is no answer",
        one_broken={"results": [EXAMPLE, {"status": 400, "detail": BROKEN}]},
    ),
    400: refusal("Not a form that can be read", form=SENTENCES[400]),
    413: refusal("Too many bytes, of all images together", bytes=SENTENCES[413]),
    422: refusal(
        f"No field `file` in the form, or more than {MAX_FILES}",
        none=NO_FORM,
        too_many="There are 65 fields 'file' in the form: send at most 64 a request.",
    ),
    500: FAULT,
    503: UNAVAILABLE,
}
HEALTH_ANSWERS: Answers = {
    200: success("The process answers", loaded={"status": "ok", "model_version": EXAMPLE["model_version"]})
}
READY_ANSWERS: Answers = {
    200: success(
        "Whether the model is loaded",
        loaded={"ready": True, "model_version": EXAMPLE["model_version"], "operating_point": 0.911},
    ),
    422: refusal("An invalid value of `load`", option="'load' must be true or false, or 1 or 0: see /docs."),
    500: FAULT,
    503: refusal("The model's weights are unavailable", weights=NO_WEIGHTS),
}
logger = logging.getLogger("pneumonia.app")


def create_app(predictor: Predictor) -> FastAPI:
    """Return the API that answers with this predictor."""
    # FastAPIOffline serves Swagger UI's files itself: FastAPI alone has every visitor fetch them from a third party.
    app = FastAPIOffline(
        title="Chest X-ray classification",
        description=DESCRIPTION,
        version="0.1.0",
        redoc_url=None,
        openapi_tags=TAGS,
    )
    app.add_middleware(BodyLimit)
    app.add_middleware(NoStore)
    app.add_middleware(Telemetry)  # added last, it is the outermost

    @app.post(
        "/predict",
        operation_id="predict",
        responses=ANSWERS,
        tags=[ANSWERING_TAG],
        response_model_exclude_none=True,  # what was not asked for is not in the answer
        summary="Classify a chest X-ray",
        dependencies=[Depends(check_form)],
    )
    def predict(  # not async: it runs on a thread of its own
        request: Request,
        file: UploadFile,
        explain: Annotated[bool, Query(description="Add a heatmap of what speaks for the answer")] = False,  # noqa: FBT002
        preview: Annotated[bool, Query(description="Add the image as it was understood")] = False,  # noqa: FBT002
    ) -> Prediction | Explanation:
        """Send a JPEG, PNG, BMP, TIFF, WebP or DICOM file as the multipart field `file`."""
        given = file.file.read(MAX_BYTES + 1), seconds_to_load(request), request.state.record
        if explain or preview:
            return predictor.explain(*given, heatmap=explain, preview=preview)
        return predictor.predict(*given)

    @app.post(
        "/predict/batch",
        operation_id="predict_batch",
        responses=BATCH_ANSWERS,
        tags=[ANSWERING_TAG],
        summary="Classify several chest X-rays",
        dependencies=[Depends(check_batch)],
    )
    def predict_batch(
        request: Request,
        file: Annotated[
            list[UploadFile], File(min_length=1, max_length=MAX_FILES, description="Each in a field of its own")
        ],
    ) -> Batch:
        """Send image files as multipart fields that are all called `file`. One broken image spoils its own row only."""
        files = [one.file.read(MAX_BYTES + 1) for one in file]
        results = predictor.predict_many(files, seconds_to_load(request), request.state.record)
        return Batch(results=[failure(one) if isinstance(one, ImageError) else one for one in results])

    @app.get(
        "/health",
        operation_id="health",
        responses=HEALTH_ANSWERS,
        tags=[STATUS_TAG],
        summary="Tell whether the process answers, without loading the model",
    )
    async def health() -> Health:  # async: answers even while every thread waits for a load
        return Health(status="ok", model_version=predictor.model_version)

    @app.get(
        "/ready",
        operation_id="ready",
        responses=READY_ANSWERS,
        tags=[STATUS_TAG],
        summary="Tell whether the model is loaded, or load it",
    )
    async def ready(  # async: answers even while every thread waits
        request: Request,
        load: Annotated[bool, Query(description="Load the model first, if need be")] = False,  # noqa: FBT002
    ) -> Readiness:
        """Ask with `?load=1` to warm an instance up, or as a readiness probe; without, nothing is loaded."""
        if load:
            await run_in_threadpool(predictor.load, seconds_to_load(request))
        if (model := predictor.model) is None:
            return Readiness(ready=False, model_version=None, operating_point=None)
        return Readiness(ready=True, model_version=model.version, operating_point=model.calibration.threshold)

    add_page(app, lambda: predictor.model_version)
    for error in STATUS:
        app.add_exception_handler(error, answer_problem)
    app.add_exception_handler(RequestValidationError, answer_invalid)  # type: ignore[arg-type]  # it gets no other
    app.add_exception_handler(StarletteHTTPException, answer_refused)  # type: ignore[arg-type]  # nor this one
    app.add_exception_handler(Exception, answer_fault)
    return app


async def check_form(request: Request) -> None:
    """See that the form has one file named `file`: of several, FastAPI would take one without a word.

    Raises:
        HTTPException: it has several.
    """
    if (count := len((await request.form()).getlist("file"))) > 1:
        raise HTTPException(422, f"There are {count} fields 'file' in the form: send one X-ray a request.")


async def check_batch(request: Request) -> None:
    """See that the form has no more files than one request may bring.

    Raises:
        HTTPException: it has.
    """
    if (count := len((await request.form()).getlist("file"))) > MAX_FILES:
        raise HTTPException(422, f"There are {count} fields 'file' in the form: send at most {MAX_FILES} a request.")


def failure(error: ImageError) -> Failure:
    """Return the row of an image that cannot be used."""
    return Failure(status=STATUS[type(error)], detail=str(error))


def seconds_to_load(request: Request) -> float:
    """Return how long this request may wait for the model: on Lambda, until shortly before the function's time-out."""
    if context := request.scope.get("aws.context"):
        return float(context.get_remaining_time_in_millis()) / 1000 - ANSWER_SECONDS
    return LOAD_SECONDS


def answer_problem(_: Request, error: Exception) -> JSONResponse:
    """Answer an error of ours with its sentence; the log gets those that the client cannot help."""
    status = STATUS[type(error)]
    if status >= 500:
        logger.error("%s", error)
    return JSONResponse({"detail": str(error)}, status)


def answer_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Answer a request without an upload, with another value than an option takes, or for a guide that is not there."""
    place = error.errors()[0]["loc"]
    if place[0] == "path":
        return JSONResponse({"detail": SENTENCES[404]}, 404)
    detail = NO_FORM if place[0] == "body" else f"'{place[-1]}' must be true or false, or 1 or 0: see /docs."
    return JSONResponse({"detail": detail}, 422)


def answer_refused(_: Request, error: StarletteHTTPException) -> JSONResponse:
    """Answer what FastAPI and Starlette refuse: unknown paths and methods, forms and bodies that cannot be read."""
    detail = SENTENCES.get(error.status_code, error.detail)
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


def answer_fault(_: Request, _error: Exception) -> JSONResponse:
    """Answer a fault of ours; the log gets its traceback, and the client none."""
    return JSONResponse({"detail": FAULT_SENTENCE}, 500, {"Cache-Control": "no-store"})  # it is made outside of NoStore


class BodyLimit:
    """Reads no more of a body than a form with the largest image has, and of all bodies at once no more than ten such.

    FastAPI's own limit answers in plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._held = 0  # bytes of the bodies whose requests have no answer yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is not declared to be larger, and fail where it becomes larger nevertheless."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        # A form that can hold no file is not worth the seconds that parsing its parameters takes.
        has_file = not headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        limit = MAX_BYTES + FORM_BYTES if has_file else FORM_BYTES
        refusal = (413, SENTENCES[413]) if has_file else (422, NO_FORM)
        held = 0

        async def receive_some() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held += size
            self._held += size
            if held > limit:
                raise HTTPException(*refusal)
            if self._held > UPLOADS_BYTES:
                raise HTTPException(503, headers={"Retry-After": "1"})
            return message

        declared = headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):  # Python reads no endless number
            await JSONResponse({"detail": refusal[1]}, refusal[0])(scope, receive, send)
            return
        try:
            await self._app(scope, receive_some, send)
        finally:
            self._held -= held


class NoStore:
    """Has nobody keep answers: they are about a person."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with Cache-Control added to the response."""

        async def send_uncached(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # Files of ours alone have an ETag. They say nothing of anybody, and may be kept where it still holds.
                headers["Cache-Control"] = "no-cache" if "etag" in headers else "no-store"
            await send(message)

        await self._app(scope, receive, send_uncached)


class Telemetry:
    """Writes a line about each request, with metrics of those that ask for a prediction."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with a record for whoever does a part of the work."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        record = Record()
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
            self._emit(scope, record, status)

    def _emit(self, scope: Scope, record: Record, status: int) -> None:
        context = scope.get("aws.context")
        properties: dict[str, Any] = {
            "request_id": context.aws_request_id if context else None,
            "method": scope["method"],
            "path": scope["path"][:100],
            "status": status,
            "milliseconds": round(record.milliseconds["Total"], 1),
        }
        metrics: dict[str, Sequence[float]] = {}
        if scope["path"].endswith(("/predict", "/predict/batch")):
            metrics = {"Requests": [1], "ClientErrors": [400 <= status < 500], "ServerErrors": [status >= 500]}
            metrics |= record.metrics()
            properties["predictions"] = [answer.prediction for answer in record.predictions]
            properties["model_version"] = next((answer.model_version for answer in record.predictions), None)
        emit(metrics, properties)


class Stage:
    """Tells the app what an API Gateway's stage adds to its address, as in /prod/predict: Mangum does not look."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with the stage as the root that paths lie below, where the client has it in its address."""
        context = scope["aws.event"].get("requestContext") or {}
        # The path that the client asked for. A REST API takes the stage off another one, an HTTP API leaves it on.
        path = unquote(context.get("path") or "") or scope["path"]
        stage = context.get("stage") or "$default"  # which is in nobody's address
        root = f"/{stage}"
        if stage != "$default" and f"{path}/".startswith(f"{root}/"):
            scope = {**scope, "path": path, "root_path": root}
        await self._app(scope, receive, send)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  # the runtime client has no type for it
    """Answer a Lambda event: of a Function URL, an API Gateway, or a load balancer.

    Should time run out, Lambda ends the process in the middle and logs little more than that. So the log is told
    shortly before; it names the request.
    """
    seconds = context.get_remaining_time_in_millis() / 1000 - ANSWER_SECONDS / 2
    alarm = threading.Timer(seconds, logger.error, ["Request %s is about to time out.", context.aws_request_id])
    alarm.daemon = True
    alarm.start()
    try:
        response: dict[str, Any] = adapter(event, context)
        predictor.finish_refresh(context.get_remaining_time_in_millis() / 1000 - ANSWER_SECONDS)
    finally:
        alarm.cancel()
    if response["statusCode"] >= 500:
        logger.error("Request %s was answered with %s.", context.aws_request_id, response["statusCode"])
    return response


use_paid_cores()
MultiPartParser.spool_max_size = MAX_BYTES + FORM_BYTES  # uploads stay in memory: no image is ever written to disk
predictor = Predictor.from_environment(weights)
app = create_app(predictor)
adapter = Mangum(Stage(app), lifespan="off")
