"""What is answered to events that are no requests, or only half of one."""

import functools
import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from awslambdaric.lambda_context import LambdaContext
from mangum import Mangum

from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.events import Events
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.problems import NO_REASON
from tests.builders.events import mutations, nested
from tools.stand_ins.events import (
    function_url_event,
    http_api_1_event,
    http_api_event,
    load_balancer_event,
    multipart,
    rest_api_event,
)
from tools.stand_ins.runtime_api import ARN
from tools.stand_ins.triggers import ID, NAME, SERVICES, WARM_UPS

Invoke = Callable[[Any], dict[str, Any]]
SENTENCE = re.compile(r"The function got .+, but answers only requests of .+ and warm-ups: remove what sends it\.")


def function_with(weights: Path) -> Invoke:
    predictor = Predictor(Weights(weights))
    events = Events(Mangum(create_app(predictor), lifespan="off"), predictor)

    def invoke(event: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
        return events(event, LambdaContext("1", None, None, int(time.time() * 1000) + 60_000, ARN))

    return invoke


@pytest.fixture(scope="module")
def invoke(weights: Path) -> Invoke:
    return function_with(weights)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


@pytest.mark.parametrize("event", WARM_UPS.values(), ids=WARM_UPS)
def test_a_warm_up_loads_the_model_and_says_so(
    weights: Path, event: object, capsys: pytest.CaptureFixture[str]
) -> None:
    invoke = function_with(weights)
    answer = invoke(event)
    assert answer == {"warm": True, "model_version": answer["model_version"]}
    assert answer["model_version"].startswith("sha256-")
    line = last_line(capsys)
    assert (line["event"], line["warm"], line["model_version"]) == ("warm-up", True, answer["model_version"])
    assert "_aws" not in line  # a metric would cost money, and not be one of requests
    assert json.loads(invoke(function_url_event("GET", "/ready"))["body"])["ready"] is True


def test_a_warm_up_without_a_model_says_why_and_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = function_with(tmp_path)(WARM_UPS["schedule of a rule"])
    assert answer == {"warm": False, "detail": NO_REASON}
    line = last_line(capsys)
    assert (line["detail"], str(tmp_path) in line["reason"]) == (NO_REASON, True)
    assert line["LoadFailures"] == [1]


@pytest.mark.parametrize(("service", "event"), SERVICES.items(), ids=SERVICES)
def test_another_service_gets_one_sentence_that_names_it(
    invoke: Invoke, service: str, event: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    answer = invoke(event)
    assert SENTENCE.fullmatch(answer["detail"])
    assert answer["detail"].startswith(f"The function got an event of {service}")
    (logged,) = caplog.records
    assert (logged.levelno, logged.getMessage()) == (logging.ERROR, answer["detail"])
    assert not logged.exc_info
    assert NAME not in answer["detail"]


def test_messages_of_a_queue_stay_in_it(invoke: Invoke) -> None:
    assert invoke(SERVICES["Amazon SQS"])["batchItemFailures"] == [{"itemIdentifier": ID}]
    assert invoke(SERVICES["Amazon S3"]).keys() == {"detail"}


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ({"version": "2.0"}, "an event with the fields 'version'"),
        ({"file": "x" * 9000, "name": NAME}, "an event with the fields 'file', 'name'"),
        ({"Records": []}, "an event with the fields 'Records'"),
        ({"Records": 5}, "an event with the fields 'Records'"),
        ({"Records": [NAME]}, "an event with the fields 'Records'"),
        ({"Records": [{"eventSource": "aws:new"}]}, "an event with the fields 'Records'"),
        ({"\x1b[2J" + "x" * 90: 1}, r"an event with the fields '\x1b[2J" + "x" * 26 + "'"),
        (SERVICES["Amazon SQS"]["Records"], "an event of Amazon SQS"),
        ([1, 2], "JSON that is no object (list)"),
        ("text", "JSON that is no object (str)"),
        (7, "JSON that is no object (int)"),
    ],
    ids=[
        "version",
        "fields",
        "no records",
        "a number of records",
        "odd records",
        "new service",
        "unprintable",
        "pipe",
        "list",
        "text",
        "number",
    ],
)
def test_anything_else_gets_the_same_sentence(invoke: Invoke, event: object, name: str) -> None:
    detail = invoke(event)["detail"]
    assert SENTENCE.fullmatch(detail)
    assert detail.startswith(f"The function got {name}, but")


def half(event: dict[str, Any], *lacking: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in lacking}


GET = function_url_event("GET", "/health")
HALVES = {
    "no context": half(GET, "requestContext"),
    "an empty context": GET | {"requestContext": {}},
    "a context of text": GET | {"requestContext": "none"},
    "no method": GET | {"requestContext": half(GET["requestContext"], "http")},
    "wrong base64": GET | {"body": "not base64", "isBase64Encoded": True},
    "base64 with a stray character": GET | {"body": "aGVs!bG8=", "isBase64Encoded": True},
    "a body of bytes that are no text": GET | {"body": "\ud800" * 90_000},
    "headers of null": GET | {"headers": None},
    "REST, no context": half(rest_api_event("GET", "/health"), "requestContext"),
    "REST, no path": half(rest_api_event("GET", "/health"), "path"),
    "load balancer, no headers": half(load_balancer_event("GET", "/health"), "headers"),
    "a web socket": {"requestContext": {"routeKey": "$connect", "connectionId": "x"}, "isBase64Encoded": False},
    "method and path": {"httpMethod": "GET", "path": "/health"},
}


@pytest.mark.parametrize("event", HALVES.values(), ids=HALVES)
def test_half_a_request_is_answered_with_400(
    invoke: Invoke, event: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    response = invoke(event)
    assert response["statusCode"] == 400
    detail = json.loads(response["body"])["detail"]
    assert detail.startswith(
        "The event is not one of the requests of a Function URL, an API Gateway or a load balancer"
    )
    (logged,) = caplog.records
    assert logged.getMessage().startswith("The event of request 1 cannot be read: ")
    assert not logged.exc_info
    assert len(logged.getMessage()) < 200


SHAPES: dict[str, Callable[..., dict[str, Any]]] = {
    "Function URL": function_url_event,
    "HTTP API": http_api_event,
    "HTTP API, 1.0": http_api_1_event,
    "REST API": rest_api_event,
    "load balancer": load_balancer_event,
    "load balancer, many values": functools.partial(load_balancer_event, multi_value=True),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "sent",
    [
        {"host": "[2001:db8::1]:443"},
        {"host": "me.org:name"},
        {"host": "me:and:you"},
        {"host": "me.org", "x-forwarded-port": "443,80"},
        {"HOST": "me.org:", "X-Forwarded-Port": "https"},
    ],
    ids=str,
)
def test_whatever_server_and_port_a_client_names_it_is_answered(
    invoke: Invoke,
    shape: Callable[..., dict[str, Any]],
    sent: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    event = with_headers(shape("GET", "/health"), sent)
    before = json.dumps(event)
    response = invoke(event)
    assert (response["statusCode"], json.loads(response["body"])["status"]) == (200, "ok")
    assert json.dumps(event) == before
    assert not any(name in one.getMessage() for one in caplog.records for name in sent.values())


def with_headers(event: dict[str, Any], sent: dict[str, str]) -> dict[str, Any]:
    """Return an event with these headers, their names in these letters, in place of those of the same name."""
    lower = {name.lower() for name in sent}

    def replaced(headers: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in headers.items() if name.lower() not in lower} | added

    changed = {}
    if "headers" in event:
        changed["headers"] = replaced(event["headers"], sent)
    if "multiValueHeaders" in event:
        many = {name: [value] for name, value in sent.items()}
        changed["multiValueHeaders"] = replaced(event["multiValueHeaders"], many)
    return event | changed


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_file_that_has_not_changed_is_of_no_kind(invoke: Invoke, shape: Callable[..., dict[str, Any]]) -> None:
    file = headers_of(invoke(shape("GET", "/static/page.css")))
    assert file["content-type"].startswith("text/css")
    again = invoke(shape("GET", "/static/page.css", headers={"If-None-Match": file["etag"]}))
    assert (again["statusCode"], again["body"]) == (304, "")
    assert headers_of(again)["etag"] == file["etag"]
    assert "content-type" not in headers_of(again)


def headers_of(response: dict[str, Any]) -> dict[str, str]:
    many = response.get("multiValueHeaders") or {}
    return {name: values[0] for name, values in many.items()} | (response.get("headers") or {})


FORM, KIND = multipart("file", "xray.jpg", b"text", "image/jpeg")
UPLOAD = ("POST", "/predict?explain=1", FORM, {"Content-Type": KIND})
REQUESTS = {
    "Function URL": function_url_event(*UPLOAD),
    "HTTP API": http_api_event("GET", "/health", stage="prod"),
    "HTTP API, 1.0": http_api_1_event("GET", "/health"),
    "REST API": rest_api_event("GET", "/ready?load=0"),
    "load balancer": load_balancer_event(*UPLOAD),
    "load balancer, many values": load_balancer_event("GET", "/health", multi_value=True),
}


@pytest.mark.parametrize("event", [*REQUESTS.values(), *SERVICES.values()], ids=[*REQUESTS, *SERVICES])
def test_whatever_a_part_is_the_answer_is_a_sentence_and_a_line(
    invoke: Invoke, event: dict[str, Any], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, changed in mutations(event):
        caplog.clear()
        answer = invoke(changed)
        json.dumps(answer).encode()
        if "statusCode" in answer:
            assert answer["statusCode"] in {200, 400, 404, 405, 422}, place
            assert answer["statusCode"] == 200 or json.loads(answer["body"]).keys() == {"detail"}, place
        else:
            assert "warm" in answer or SENTENCE.fullmatch(answer["detail"]), place
        told = [one for one in caplog.records if one.levelno >= logging.WARNING]
        assert len(told) <= 1, place
        assert not any(one.exc_info for one in told), place
        assert capsys.readouterr().out.count("\n") <= 1, place


@pytest.mark.parametrize("field", ["source", "detail-type", "Records", "requestContext", "warm", "eventSource"])
def test_an_event_nested_too_deeply_to_be_written_is_answered(invoke: Invoke, field: str) -> None:
    assert invoke({field: nested(100_000)}).keys() & {"detail", "warm", "statusCode"}
