"""Classify millions of X-rays in S3: the function that S3 Batch Operations invokes.

AWS invokes it once for each object, tries again if that may help, and writes the report. `batch.s3_job` creates the
jobs. https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-invoke-lambda.html
"""

import dataclasses
import functools
import json
import logging
from typing import Any, TypeGuard

from pneumonia import logs
from pneumonia.batch.s3_job import SCHEMA
from pneumonia.deadline import Deadline
from pneumonia.engines.choice import engine_module
from pneumonia.errors import (
    ConfigurationError,
    ImageError,
    ObjectError,
    StorageError,
    WeightsError,
    WeightsUnavailableError,
)
from pneumonia.releases.fetch import Weights
from pneumonia.serving.predictor import Predictor
from pneumonia.storage import objects
from pneumonia.storage.client import new_client
from pneumonia.storage.objects import S3Object
from pneumonia.triggers import name_of

ANSWER_SECONDS = 5.0  # of an invocation's time, kept for everything but loading the model
RESULT_CHARACTERS = 1024  # of each result, which fit into the report
logger = logging.getLogger(__name__)
predictor = Predictor.from_environment(Weights.from_environment())
s3 = functools.cache(functools.partial(new_client, attempts=1))  # made when it is first needed


def handler(event: object, context: Any) -> dict[str, Any]:  # noqa: ANN401  # the runtime client has no type for it
    """Answer an invocation of S3 Batch Operations with a result for each task.

    Args:
        event: of invocation schema 2.0; user arguments are ignored.
        context: Lambda's.

    Raises:
        ConfigurationError: an event of another kind.
    """
    if not is_invocation(event):
        raise ConfigurationError(
            f"This function got {name_of(event)}, but answers only S3 Batch Operations, with invocation schema "
            f"{SCHEMA}: for requests, deploy the image with app.handler."
        )
    results = [result_of(task, context) for task in event["tasks"]]
    predictor.finish_refresh(Deadline.of_invocation(context, kept=ANSWER_SECONDS))
    return {
        "invocationSchemaVersion": SCHEMA,
        "treatMissingKeysAs": "TemporaryFailure",  # there are none
        "invocationId": event["invocationId"],
        "results": results,
    }


def is_invocation(event: object) -> TypeGuard[dict[str, Any]]:
    """Return whether an event has all that S3 Batch Operations sends, each part of its kind."""
    if not isinstance(event, dict) or event.get("invocationSchemaVersion") != SCHEMA:
        return False
    tasks = event.get("tasks")
    return isinstance(event.get("invocationId"), str) and isinstance(tasks, list) and all(map(is_task, tasks))


def is_task(task: object) -> bool:
    """Return whether a task of an event has an ID, and names an object and perhaps a version of it."""
    if not isinstance(task, dict) or not isinstance(task.get("s3VersionId"), str | None):
        return False
    return all(isinstance(task.get(name), str) for name in ("taskId", "s3Bucket", "s3Key"))


def result_of(task: dict[str, Any], context: Any) -> dict[str, str]:  # noqa: ANN401  # as above
    """Return a task's result: the answer as JSON, or a failure, permanent if the same object would fail again."""
    try:
        code, text = "Succeeded", answer(task, context)
    except (ImageError, ObjectError) as error:
        code, text = "PermanentFailure", str(error)
    except StorageError as error:
        # The sentence may name the object, and that a patient: it goes into the report only.
        logger.warning("Task %s: %s.", task["taskId"], error.public)
        code, text = "TemporaryFailure", str(error)
    except (WeightsError, WeightsUnavailableError) as error:
        logger.warning("Task %s: %s", task["taskId"], error)
        code, text = "TemporaryFailure", str(error)
    except Exception:
        logger.exception("Task %s failed.", task["taskId"])
        code, text = "TemporaryFailure", "The function failed at this object; its log has the details."
    return {"taskId": task["taskId"], "resultCode": code, "resultString": text[:RESULT_CHARACTERS]}


def answer(task: dict[str, Any], context: Any) -> str:  # noqa: ANN401  # as above
    """Read a task's object and return the answer as one line of JSON.

    Raises:
        PneumoniaError: the object or the weights cannot be read or used.
    """
    deadline = Deadline.of_invocation(context, kept=ANSWER_SECONDS)
    prediction = predictor.predict(objects.read(s3(), object_of(task), deadline), deadline)
    return json.dumps(dataclasses.asdict(prediction), separators=(",", ":"))


def object_of(task: dict[str, Any]) -> S3Object:
    """Return the object of a task.

    Raises:
        ObjectError: the key is not valid.
    """
    try:
        return S3Object(task["s3Bucket"], objects.decoded_key(task["s3Key"]), task.get("s3VersionId") or None)
    except UnicodeDecodeError as error:
        raise ObjectError("The object's key is not URL-encoded UTF-8, as a manifest's keys must be.") from error


logs.set_up()
engine_module()  # imported here, because torch takes seconds, and Lambda gives the most time before the first request
