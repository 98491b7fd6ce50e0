"""The API: its routes, and the app that is made of them."""

import os
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from pneumonia.deadline import Deadline
from pneumonia.errors import ImageError
from pneumonia.network.prediction import Explanation, Prediction
from pneumonia.releases.fetch import Weights
from pneumonia.serving import openapi
from pneumonia.serving.cors import origins_from_environment, with_cors
from pneumonia.serving.forms import files_of
from pneumonia.serving.middleware import BodyLimit, Head, NoStore, Telemetry
from pneumonia.serving.openapi import MAX_FILES, Batch, Failure, Health, Readiness
from pneumonia.serving.page import add_page
from pneumonia.serving.predictor import LOAD_SECONDS, Predictor
from pneumonia.serving.problems import STATUS, add_problem_handlers
from pneumonia.serving.root_path import RootPath, root_path_from_environment

if TYPE_CHECKING:
    from starlette.middleware.cors import CORSMiddleware

ANSWER_SECONDS = 1.0  # of an invocation's time, kept for everything but loading the model


def create_app(predictor: Predictor, root_path: str | None = None) -> FastAPI:
    """Return the API that answers with this predictor.

    Args:
        predictor: classifies the images.
        root_path: what the clients' addresses have before the paths; None to infer it, as far as it can be.
    """
    # FastAPIOffline serves Swagger UI's files itself; with FastAPI, every browser would fetch them from a third party.
    app = FastAPIOffline(**openapi.API, redoc_url=None, redirect_slashes=False)
    if "AWS_LAMBDA_RUNTIME_API" not in os.environ:
        from pneumonia.serving.uploads import Uploads  # noqa: PLC0415  # no cold start needs it

        app.add_middleware(Uploads)
    app.add_middleware(BodyLimit)
    app.add_middleware(Head)
    app.add_middleware(NoStore)
    app.add_middleware(Telemetry)
    app.add_middleware(RootPath, root_path)  # added last, it is the outermost
    add_classification(app, predictor)
    add_status(app, predictor)
    add_page(app, lambda: predictor.model_version)
    add_problem_handlers(app)
    return app


def app_from_environment(predictor: Predictor | None = None) -> "FastAPI | CORSMiddleware":
    """Return the API with the settings of the environment, for Lambda and for `uvicorn --factory`.

    Args:
        predictor: None for one of the environment, too.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    predictor = predictor or Predictor.from_environment(Weights.from_environment())
    return with_cors(create_app(predictor, root_path_from_environment()), origins_from_environment())


def add_classification(app: FastAPI, predictor: Predictor) -> None:
    """Add the routes that classify images."""

    @app.post(
        "/predict",
        **openapi.PREDICT,
        response_model_exclude_none=True,  # leave out what was not asked for
    )
    def predict(  # not async: it runs on a thread of its own
        request: Request,
        file: Annotated[bytes, Depends(one_file)],
        explain: Annotated[bool, Query(description="Add a heatmap of what speaks for the answer")] = False,  # noqa: FBT002
        preview: Annotated[bool, Query(description="Add the image as it was decoded")] = False,  # noqa: FBT002
    ) -> Prediction | Explanation:
        """Send a JPEG, PNG, BMP, TIFF, WebP or DICOM file as the multipart field `file`."""
        given = file, deadline_of(request), request.state.record
        if explain or preview:
            return predictor.explain(*given, heatmap=explain, preview=preview)
        return predictor.predict(*given)

    @app.post("/predict/batch", **openapi.PREDICT_BATCH)
    def predict_batch(request: Request, files: Annotated[list[bytes], Depends(some_files)]) -> Batch:
        """Send each image file as a multipart field `file`. A broken image affects only its own result."""
        results = predictor.predict_many(files, deadline_of(request), request.state.record)
        return Batch(results=[failure(one) if isinstance(one, ImageError) else one for one in results])


def add_status(app: FastAPI, predictor: Predictor) -> None:
    """Add the routes that say whether the server runs and its model is loaded."""

    @app.get("/health", **openapi.HEALTH)
    async def health() -> Health:  # async: answers even while every thread waits for a load
        return Health(status="ok", model_version=predictor.model_version)

    @app.get("/ready", **openapi.READY)
    async def ready(  # async: answers even while every thread waits
        request: Request,
        load: Annotated[bool, Query(description="Load the model first, if need be")] = False,  # noqa: FBT002
    ) -> Readiness:
        """Add `?load=1` to warm up an instance, or for a readiness probe; without it, nothing is loaded."""
        if load:
            await run_in_threadpool(predictor.load, deadline_of(request), request.state.record)
        if (model := predictor.model) is None:
            return Readiness(ready=False, model_version=None)
        return Readiness(ready=True, model_version=model.version)


async def one_file(request: Request) -> bytes:
    """Return the content of the one field `file` of a request's form.

    Raises:
        HTTPException: there is none, or more than one, or no form.
    """
    files = await files_of(request)
    if len(files) > 1:
        raise HTTPException(422, f"There are {len(files)} fields 'file' in the form: send one X-ray per request.")
    return files[0]


async def some_files(request: Request) -> list[bytes]:
    """Return the contents of the fields `file` of a request's form, in their order.

    Raises:
        HTTPException: there are none, or more than MAX_FILES, or no form.
    """
    files = await files_of(request)
    if len(files) > MAX_FILES:
        detail = f"There are {len(files)} fields 'file' in the form: send at most {MAX_FILES} per request."
        raise HTTPException(422, detail)
    return files


def failure(error: ImageError) -> Failure:
    """Return the result of an image that cannot be used."""
    return Failure(status=STATUS[type(error)], detail=str(error))


def deadline_of(request: Request) -> Deadline:
    """Return until when this request may wait for the model: on Lambda, until shortly before the time-out."""
    if context := request.scope.get("aws.context"):
        return Deadline.of_invocation(context, kept=ANSWER_SECONDS)
    return Deadline.after(LOAD_SECONDS)
