"""What Swagger UI shows: the models of the answers, one table for the API, and one for each route.

A route's table says what each status means, with examples. tests/serving/test_openapi.py compares each example of an
error with the app's answer.
"""

from typing import Any

from pydantic import BaseModel, Field

from pneumonia import __version__
from pneumonia.imaging.kinds import BROKEN, NO_IMAGE, READABLE
from pneumonia.network.prediction import Prediction
from pneumonia.serving.forms import NO_BOUNDARY, OTHER_BOUNDARY, without_file
from pneumonia.serving.problems import NO_REASON, SENTENCES

MAX_FILES = 64  # in one batch: they take one core about six seconds; a metric takes fewer than 100 values at once


class Problem(BaseModel):
    """What is wrong, and what to do, in one sentence."""

    detail: str = Field(description="The sentence.")


class Health(BaseModel):
    """The process answers."""

    status: str = Field(description="Always `ok`.")
    model_version: str | None = Field(description="The loaded release, null until something has needed the model.")


class Readiness(BaseModel):
    """Whether the model is loaded, and its release."""

    ready: bool = Field(description="Whether the model is loaded.")
    model_version: str | None = Field(description="The loaded release, null if none is loaded.")


class Failure(BaseModel):
    """Why an image of a batch has no answer: the status and the sentence with which /predict would refuse it."""

    status: int = Field(description="The status, 400 to 499.")
    detail: str = Field(description="What is wrong, and what to do.")


class Batch(BaseModel):
    """One result for each image, in the order sent."""

    results: list[Prediction | Failure] = Field(description="An answer, or why there is none, in the order sent.")


def success(description: str, **examples: object) -> dict[str, Any]:
    """Return the documentation of a 200, each example under its name."""
    named = {name: {"value": example} for name, example in examples.items()}
    return {"description": description, "content": {"application/json": {"examples": named}}}


def refusal(description: str, **sentences: str) -> dict[str, Any]:
    """Return the documentation of an error, each sentence under its cause."""
    return {"model": Problem, **success(description, **{cause: {"detail": one} for cause, one in sentences.items()})}


def form_of(file: dict[str, Any]) -> dict[str, Any]:
    """Return the documentation of a body: a form with the field `file`."""
    schema = {"type": "object", "properties": {"file": file}, "required": ["file"]}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}, "required": True}}


FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
FILES = {"type": "array", "items": FILE, "minItems": 1, "maxItems": MAX_FILES}
EXAMPLE = {
    "prediction": "PNEUMONIA",
    "confidence": 0.973,
    "probabilities": {"NORMAL": 0.027, "PNEUMONIA": 0.973},
    "model_version": "20261124-101500-1a2b3c4d",
    "warnings": [],
}
UNCERTAIN = EXAMPLE | {
    "confidence": 0.756,
    "probabilities": {"NORMAL": 0.244, "PNEUMONIA": 0.756},
    "warnings": ["uncertain"],
}
FAULT = refusal("The server failed; its log has the details", fault=SENTENCES[500])
UNAVAILABLE = refusal(
    "The model's weights are unavailable, or there is no room for more uploads at once",
    weights=NO_REASON,
    uploads=SENTENCES[503],
)
CLASSIFICATION_TAG, STATUS_TAG = "Classification", "Status"

# The arguments of FastAPI, and of the decorators that make its routes.
API: dict[str, Any] = {
    "title": "Chest X-ray classification",
    "description": """Classifies frontal chest X-rays of children as PNEUMONIA or NORMAL.

**Not medical advice.** A demonstration of training and serving, not a medical device: do not diagnose with it.""",
    "version": __version__,
    "openapi_tags": [
        {"name": CLASSIFICATION_TAG, "description": "What a chest X-ray shows"},
        {"name": STATUS_TAG, "description": "Whether the server runs, and with which model"},
    ],
}

PREDICT: dict[str, Any] = {
    "operation_id": "predict",
    "summary": "Classify a chest X-ray",
    "tags": [CLASSIFICATION_TAG],
    "openapi_extra": form_of(FILE | {"description": "The X-ray"}),
    "responses": {
        200: success(
            "The class, calibrated probabilities, and warnings. If the answer is `uncertain`, ask an expert; with any "
            "other warning except `inverted`, do not trust the answer",
            clear=EXAMPLE,
            uncertain=UNCERTAIN,
            explained=EXAMPLE | {"heatmap": "iVBORw0KGgoAAAANSUhEUgAA…"},
        ),
        400: refusal(
            "Not an image, a broken one, or a form that cannot be read",
            text=NO_IMAGE,
            broken=BROKEN,
            form=OTHER_BOUNDARY,
            boundary=NO_BOUNDARY,
        ),
        413: refusal(
            "Too many bytes or pixels",
            bytes=SENTENCES[413],
            pixels="The image has 9000 x 9000 pixels, more than the limit of 25,000,000: send a smaller one.",
        ),
        415: refusal(
            "An unsupported kind of file",
            gif=f"GIF files are not read: send the X-ray as {READABLE}.",
        ),
        422: refusal(
            "Not a form, or one without exactly one field `file`, or an option is invalid",
            none=without_file(["image"]),
            several="There are 2 fields 'file' in the form: send one X-ray per request.",
            option="'explain' must be true or false, or 1 or 0: see /docs.",
        ),
        500: FAULT,
        503: UNAVAILABLE,
    },
}

PREDICT_BATCH: dict[str, Any] = {
    "operation_id": "predict_batch",
    "summary": "Classify several chest X-rays",
    "tags": [CLASSIFICATION_TAG],
    "openapi_extra": form_of(FILES | {"description": "Each in a field of its own"}),
    "responses": {
        200: success(
            "One result for each image, in the order sent: what /predict answers, or why there is no answer",
            one_broken={"results": [EXAMPLE, {"status": 400, "detail": BROKEN}]},
        ),
        400: refusal("Not a form that can be read", form=OTHER_BOUNDARY),
        413: refusal("Too many bytes in all images together", bytes=SENTENCES[413]),
        422: refusal(
            f"Not a form, or one without a field `file`, or with more than {MAX_FILES}",
            none=without_file(["image"]),
            too_many="There are 65 fields 'file' in the form: send at most 64 per request.",
        ),
        500: FAULT,
        503: UNAVAILABLE,
    },
}

HEALTH: dict[str, Any] = {
    "operation_id": "health",
    "summary": "Check that the process answers, without loading the model",
    "tags": [STATUS_TAG],
    "responses": {
        200: success("The process answers", loaded={"status": "ok", "model_version": EXAMPLE["model_version"]}),
    },
}

READY: dict[str, Any] = {
    "operation_id": "ready",
    "summary": "Check whether the model is loaded, or load it",
    "tags": [STATUS_TAG],
    "responses": {
        200: success(
            "Whether the model is loaded",
            loaded={"ready": True, "model_version": EXAMPLE["model_version"]},
        ),
        422: refusal("An invalid value of `load`", option="'load' must be true or false, or 1 or 0: see /docs."),
        500: FAULT,
        503: refusal("The model's weights are unavailable", weights=NO_REASON),
    },
}
