"""The API for uvicorn as `app`, and for AWS Lambda as `handler`.

The order of the imports keeps a cold start short: docs/performance.md says what each part saves.
"""

import contextlib
import logging
import os
import threading
from typing import Any

from pneumonia import logs
from pneumonia.deadline import Deadline
from pneumonia.releases.fetch import Weights
from pneumonia.serving.coldstart import lean_imports

logs.set_up()  # before the download below, which writes to the log
weights = Weights.from_environment()
on_lambda = "AWS_LAMBDA_RUNTIME_API" in os.environ
for_snapshot = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"
if on_lambda and not for_snapshot:  # there, a process starts because a request waits for it
    # If S3 has troubles, the request tries on itself, until its own time is up, and says why.
    weights.fetch_in_background(Deadline.after(10))

with lean_imports() if on_lambda else contextlib.nullcontext():
    from mangum import Mangum

    from pneumonia.engines.choice import engine_module
    from pneumonia.serving.api import ANSWER_SECONDS, app_from_environment
    from pneumonia.serving.events import Events
    from pneumonia.serving.predictor import Predictor

    engine_module()
    predictor = Predictor.from_environment(weights)
    app = app_from_environment(predictor)

logger = logging.getLogger("pneumonia.app")


def handler(event: Any, context: Any) -> dict[str, Any]:  # noqa: ANN401  # the runtime client has no type for them
    """Answer an event: a request of a Function URL, an API Gateway or a load balancer, or a warm-up.

    When time is up, Lambda kills the process and logs little more than that. So this logs a line that names the request
    shortly before.
    """
    seconds = Deadline.of_invocation(context, kept=ANSWER_SECONDS / 2).seconds_left
    alarm = threading.Timer(seconds, logger.error, ["Request %s is about to time out.", context.aws_request_id])
    alarm.daemon = True
    alarm.start()
    try:
        response = answer(event, context)
        predictor.finish_refresh(Deadline.of_invocation(context, kept=ANSWER_SECONDS))
    finally:
        alarm.cancel()
    if (status := response.get("statusCode", 200)) >= 500:
        logger.error("Request %s was answered with %s.", context.aws_request_id, status)
    return response


answer = Events(Mangum(app, lifespan="off"), predictor)
if for_snapshot:
    from pneumonia.serving import snapstart  # imports what other cold starts do without

    snapstart.prepare(handler, predictor)
