"""What invokes the function: requests, warm-ups, and services that it has no answer for.

None of them ends in an error of the invocation: Lambda would send the same event again, in vain.
"""

import binascii
import json
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from pneumonia.deadline import Deadline
from pneumonia.errors import PneumoniaError
from pneumonia.serving.api import ANSWER_SECONDS
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.problems import unavailable
from pneumonia.serving.telemetry import Record, emit
from pneumonia.triggers import name_of, records_of, service_of, text_of

Answer = dict[str, Any]

SCHEDULES = {"aws.events", "aws.scheduler"}  # rules, and EventBridge Scheduler
CONSOLES_TEST = {"key1", "key2", "key3"}
OF_REQUESTS = {"requestContext", "httpMethod", "rawPath", "routeKey"}  # few other events have one of these
WARM = re.compile(r"(keep[ _-]?)?warm(er|ing)?([ _-]?up)?", re.IGNORECASE)
ANSWERED = "requests of a Function URL, an API Gateway or a load balancer"
SHOWN = 100  # characters of what is wrong with an event, in the log
OF_THE_SERVER = {"host", "x-forwarded-port"}  # headers
NO_REQUEST = f"The event is not one of the {ANSWERED}: a part of it is missing or is not as they send it."
logger = logging.getLogger(__name__)


class Events:
    """Answers whatever the function is invoked with.

    Args:
        respond: answers the event of a request, and raises an error only for an event that it cannot read.
        predictor: has the model that a warm-up loads.
    """

    def __init__(self, respond: Callable[[dict[str, Any], Any], Answer], predictor: Predictor) -> None:
        self._respond = respond
        self._predictor = predictor

    def __call__(self, event: Any, context: Any) -> Answer:  # noqa: ANN401  # JSON; the runtime client has no type for it
        """Return the answer to an event: to a request a response, to anything else an object for whoever reads it."""
        if isinstance(event, dict) and event.keys() & OF_REQUESTS and not service_of(event):
            return self._answer_request(event, context)
        if is_warm_up(event):
            return self._answer_warm_up(context)
        return refuse(event)

    def _answer_request(self, event: dict[str, Any], context: Any) -> Answer:  # noqa: ANN401
        try:
            check_texts(event)
            return without_stray_type(self._respond(without_server(with_bytes(event)), context))
        except Exception as error:  # a part may be missing, or be anything but what it should be
            reason = f"{type(error).__name__}, {str(error)[:SHOWN]}"  # not its repr, which may hold the whole body
            logger.error("The event of request %s cannot be read: %s.", context.aws_request_id, reason)  # noqa: TRY400
        headers = {"content-type": "application/json", "cache-control": "no-store"}
        body = json.dumps({"detail": NO_REQUEST})
        return {"statusCode": 400, "headers": headers, "body": body, "isBase64Encoded": False}

    def _answer_warm_up(self, context: Any) -> Answer:  # noqa: ANN401
        record, logged = Record(), {"request_id": context.aws_request_id, "event": "warm-up"}
        try:
            model = self._predictor.load(Deadline.of_invocation(context, kept=ANSWER_SECONDS), record)
            answer = {"warm": True, "model_version": model.version}
        except PneumoniaError as error:
            answer = {"warm": False, "detail": unavailable(error.public)}  # a gateway may hand it to anyone
            logged |= {"reason": str(error)}
        emit(record.load_failures(), logged | answer)
        return answer


def check_texts(event: dict[str, Any]) -> None:
    """Check that all that routes are found by is text, null or not there; nobody else checks it before it is used.

    Raises:
        AttributeError, KeyError, TypeError: it is not.
    """
    context = event["requestContext"]
    texts = [event.get(name) for name in ("httpMethod", "path", "routeKey", "rawQueryString")]
    texts += [context.get(name) for name in ("path", "resourcePath", "stage")]
    texts += [(context.get("http") or {}).get("method"), *(event.get("pathParameters") or {}).values()]
    if wrong := [text for text in texts if not isinstance(text, str | None)]:
        raise TypeError(f"where a text should be, there is {type(wrong[0]).__name__}")


def with_bytes(event: dict[str, Any]) -> dict[str, Any]:
    """Return a request's event with its body decoded, if that is in base64.

    Mangum's own decoding skips whatever is not base64.

    Raises:
        ValueError, TypeError: the body is not in base64, or no text.
    """
    if not event.get("isBase64Encoded"):
        return event
    body = binascii.a2b_base64(event.get("body") or "", strict_mode=True)
    return event | {"body": body, "isBase64Encoded": False}


def without_server(event: dict[str, Any]) -> dict[str, Any]:
    """Return a request's event without the headers that name the server and its port; no answer depends on them.

    Mangum fails where it finds no port in them, as in an IPv6 address or in `443,80` of two proxies.
    """
    given = {name: event[name] for name in ("headers", "multiValueHeaders") if isinstance(event.get(name), dict)}
    return event | {
        name: {key: value for key, value in headers.items() if key.lower() not in OF_THE_SERVER}
        for name, headers in given.items()
    }


def without_stray_type(answer: Answer) -> Answer:
    """Return an answer without the JSON that Mangum takes a 304 for, of whatever kind the client's copy is."""
    if answer["statusCode"] == HTTPStatus.NOT_MODIFIED:
        answer.get("headers", {}).pop("content-type", None)
    return answer


def is_warm_up(event: Any) -> bool:  # noqa: ANN401  # JSON
    """Return whether an event has no other purpose than to start the function.

    It is empty, the Lambda console's test, of a schedule, or says "warm", as the plugins of Serverless and Zappa do.
    """
    if not event:
        return True
    if not isinstance(event, dict):
        return isinstance(event, str) and "warm" in event.lower()
    source, texts = text_of(event.get("source")), [one for one in event.values() if isinstance(one, str)]
    is_scheduled = source in SCHEDULES or any(":scheduler:" in one for one in texts)
    says_warm = any("warm" in word.lower() for word in (*event, source)) or any(map(WARM.fullmatch, texts))
    return event.keys() <= CONSOLES_TEST or is_scheduled or says_warm


def refuse(event: Any) -> Answer:  # noqa: ANN401  # JSON
    """Return, and log, one sentence for an event that is neither a request nor a warm-up.

    The messages of a queue stay in it, if its trigger reports failures by message.
    """
    detail = f"The function got {name_of(event)}, but answers only {ANSWERED}, and warm-ups: remove what sends it."
    logger.error("%s", detail)
    messages = [{"itemIdentifier": record["messageId"]} for record in records_of(event) if "messageId" in record]
    return {"detail": detail, "batchItemFailures": messages} if messages else {"detail": detail}
