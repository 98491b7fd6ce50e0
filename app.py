"""The API: FastAPI as `app` for uvicorn, wrapped by Mangum as `handler` for AWS Lambda.

Neither this module nor what it imports may import torchvision: benchmarks/imports.py shows what that would cost.
"""

import logging
from typing import Any

from fastapi import FastAPI, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi_offline import FastAPIOffline
from mangum import Mangum
from pydantic import BaseModel

from pneumonia.errors import (
    ImageError,
    ImageTooLargeError,
    UnsupportedImageError,
    WeightsError,
    WeightsUnavailableError,
)
from pneumonia.image import MAX_BYTES
from pneumonia.predictor import Prediction, Predictor, Settings

DESCRIPTION = """Tells PNEUMONIA from NORMAL on a frontal chest X-ray of a child.

**Not medical advice.** A demonstration of training and serving, no medical device: do not diagnose with it."""

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


class Problem(BaseModel):
    """What is wrong, and what to do, in one sentence."""

    detail: str


class Health(BaseModel):
    """The process answers; `model_version` is null until a prediction has loaded the model."""

    status: str
    model_version: str | None


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The class that the operating point gives, calibrated probabilities, and reasons to doubt: with "
        "the warning `uncertain`, have someone look who can tell",
        "content": {"application/json": {"example": EXAMPLE}},
    },
    400: {"model": Problem, "description": "Not an image, or a broken one"},
    413: {"model": Problem, "description": "Too many bytes or pixels"},
    415: {"model": Problem, "description": "A kind of file that is not read"},
    422: {"model": Problem, "description": "No field `file` in the form"},
    503: {"model": Problem, "description": "The model's weights are not to be had"},
}


def create_app(predictor: Predictor) -> FastAPI:
    """Return the API that answers with this predictor."""
    # FastAPIOffline serves Swagger UI's files itself: FastAPI alone has every visitor fetch them from a third party.
    app = FastAPIOffline(title="Chest X-ray classification", description=DESCRIPTION, version="0.1.0", redoc_url=None)

    @app.post("/predict", operation_id="predict", responses=ANSWERS, summary="Classify a chest X-ray")
    def predict(file: UploadFile) -> Prediction:  # not async: FastAPI runs it on a thread and stays responsive
        """Send a JPEG, PNG, BMP, TIFF or WebP file as the multipart field `file`."""
        return predictor.predict(file.file.read(MAX_BYTES + 1))

    @app.get("/health", operation_id="health", summary="Tell whether the process answers, without loading the model")
    async def health() -> Health:  # async: answers even while every thread waits for a load
        return Health(status="ok", model_version=predictor.model_version)

    @app.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("docs")

    for error in STATUS:
        app.add_exception_handler(error, answer_problem)
    app.add_exception_handler(RequestValidationError, answer_missing_file)
    return app


def answer_problem(_: Request, error: Exception) -> JSONResponse:
    """Answer an error of ours with its sentence."""
    return JSONResponse({"detail": str(error)}, STATUS[type(error)])


def answer_missing_file(_request: Request, _error: Exception) -> JSONResponse:
    """Answer a request without an upload: the field is all that FastAPI validates here."""
    detail = "There is no file in the form: send multipart/form-data with the X-ray as field 'file'."
    return JSONResponse({"detail": detail}, 422)


# Loading and downloading are told in the log. Lambda has set up a handler of its own by now; uvicorn has none for us.
logging.basicConfig()
logging.getLogger("pneumonia").setLevel(logging.INFO)

app = create_app(Predictor(Settings.from_environment()))
handler = Mangum(app, lifespan="off")
