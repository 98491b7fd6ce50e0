"""Addresses with something before the path: stages, mappings of custom domains, prefixes of proxies."""

import base64
import functools
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from awslambdaric.lambda_context import LambdaContext
from fastapi.testclient import TestClient
from mangum import Mangum

from pneumonia.errors import ConfigurationError
from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.page import STATIC
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.root_path import root_path_from_environment
from tests.builders.images import XRAY
from tools.stand_ins.events import (
    function_url_event,
    http_api_1_event,
    http_api_event,
    load_balancer_event,
    multipart,
    rest_api_event,
)
from tools.stand_ins.runtime_api import ARN

MakeEvent = Callable[..., dict[str, Any]]
LINKS = re.compile(r"<(?:link|script)[^>]* (?:href|src)=\"([^\"]+)\"|url: '([^']+)'")
BASE = re.compile(r'<base href="([^"]+)">')


@dataclass(frozen=True)
class Front:
    """What stands before the function.

    Attributes:
        event: makes the event of a path below the prefix.
        prefix: what clients' addresses have before the path.
        root_path: the setting, None where it is inferred.
    """

    event: MakeEvent
    prefix: str
    root_path: str | None = None


def below(prefix: str, event: MakeEvent) -> MakeEvent:
    """Return what makes the events of a front that passes on paths with a prefix."""
    return lambda method, path, *rest: event(method, prefix + path, *rest)


at_xray = functools.partial(http_api_event, mapping="/xray")


def routed(method: str, path: str, *rest: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the event of an HTTP API that has the routes `ANY /` and `ANY /{proxy+}` instead of a default."""
    event = at_xray(method, path, *rest)
    if proxy := path.partition("?")[0].strip("/"):
        return event | {"routeKey": "ANY /{proxy+}", "pathParameters": {"proxy": proxy}}
    return event | {"routeKey": "ANY /"}


FRONTS = {
    "REST API": Front(rest_api_event, "/prod"),
    "REST API, its domain": Front(functools.partial(rest_api_event, mapping=""), ""),
    "REST API, mapping": Front(functools.partial(rest_api_event, mapping="/xray"), "/xray"),
    "REST API, mapping of two parts": Front(functools.partial(rest_api_event, mapping="/a/v1"), "/a/v1"),
    "REST API, mapping called as its stage": Front(functools.partial(rest_api_event, mapping="/prod"), "/prod"),
    "REST API, mapping called as a route": Front(functools.partial(rest_api_event, mapping="/docs"), "/docs"),
    "REST API, stage and a prefix of CloudFront": Front(below("/xray", rest_api_event), "/xray", "/xray"),
    "REST API, stage that CloudFront adds": Front(rest_api_event, "", ""),
    "REST API, stage and a prefix of its own": Front(below("/api", rest_api_event), "/prod/api", "/prod/api"),
    "HTTP API, stage": Front(functools.partial(http_api_event, stage="prod"), "/prod"),
    "HTTP API, its domain": Front(functools.partial(http_api_event, stage="prod", mapping=""), ""),
    "HTTP API, mapping and routes": Front(routed, "/xray"),
    "HTTP API, mapping": Front(at_xray, "/xray", "/xray"),
    "HTTP API, mapping that is not in the event": Front(http_api_event, "/xray", "/xray"),
    "HTTP API, payload 1.0": Front(below("/xray", http_api_1_event), "/xray", "/xray"),
    "load balancer": Front(below("/xray", load_balancer_event), "/xray", "/xray"),
    "load balancer, multi-value": Front(
        below("/xray", functools.partial(load_balancer_event, multi_value=True)), "/xray", "/xray"
    ),
    "load balancer that takes the prefix away": Front(load_balancer_event, "/xray", "/xray"),
    "CloudFront": Front(below("/xray", function_url_event), "/xray", "/xray"),
    "CloudFront that takes the prefix away": Front(function_url_event, "/xray", "/xray"),
    "Function URL": Front(function_url_event, ""),
}


class Deployment:
    """The function behind a front, for clients.

    Args:
        front: what stands before it.
        predictor: answers.
    """

    def __init__(self, front: Front, predictor: Predictor) -> None:
        self._front = front
        self._mangum = Mangum(create_app(predictor, front.root_path), lifespan="off")
        self.root = f"{front.prefix}/"

    def ask(self, method: str, address: str, *rest: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the response to a request for an address, which begins with the prefix."""
        assert address.startswith(self._front.prefix)  # else the front would not lead it here
        event = self._front.event(method, address.removeprefix(self._front.prefix), *rest)
        context = LambdaContext("1", None, None, int(time.time() * 1000) + 60_000, ARN)
        response: dict[str, Any] = self._mangum(event, context)
        return response

    def get(self, address: str) -> str:
        """Return what is at an address."""
        response = self.ask("GET", address)
        assert response["statusCode"] == 200, response
        body: str = response["body"]
        return base64.b64decode(body).decode(errors="replace") if response["isBase64Encoded"] else body


@pytest.fixture(scope="module")
def predictor(weights: Path) -> Predictor:
    return Predictor(Weights(weights))


@pytest.fixture(params=list(FRONTS.values()), ids=list(FRONTS))
def deployment(request: pytest.FixtureRequest, predictor: Predictor) -> Deployment:
    return Deployment(request.param, predictor)


@pytest.mark.parametrize("path", ["predict", "predict/", "/predict", "//predict//"])
def test_an_upload_is_answered_whatever_the_slashes(deployment: Deployment, path: str) -> None:
    body, content_type = multipart("file", "xray", XRAY, "image/jpeg")
    response = deployment.ask("POST", deployment.root + path, body, {"Content-Type": content_type})
    assert response["statusCode"] == 200
    assert json.loads(response["body"])["prediction"] in {"NORMAL", "PNEUMONIA"}


def linked(page: str, address: str) -> list[str]:
    """Return the addresses of what a page at an address has a browser fetch."""
    base = urljoin(address, found[1] if (found := BASE.search(page)) else "")
    links = [one or other for one, other in LINKS.findall(page)]
    return [urljoin(base, link) for link in links if not link.startswith("data:")]


def test_the_page_finds_its_files_and_the_api(deployment: Deployment) -> None:
    for address in {deployment.root, deployment.root.rstrip("/") or "/"}:
        page = deployment.get(address)
        assert linked(page, address) == [f"{deployment.root}static/page.css", f"{deployment.root}static/page.js"]
        for link in linked(page, address):
            assert deployment.get(link) == (STATIC / Path(link).name).read_text()
    assert json.loads(deployment.get(f"{deployment.root}ready?load=1"))["ready"] is True
    assert "Model card" in deployment.get(f"{deployment.root}guide/model-card.md")


def test_the_docs_find_their_files_and_ask_the_right_address(deployment: Deployment) -> None:
    docs = f"{deployment.root}docs"
    contents = {Path(link).name: deployment.get(link) for link in linked(deployment.get(docs), docs)}
    assert contents.keys() == {"favicon.png", "openapi.json", "swagger-ui-bundle.js", "swagger-ui.css"}
    servers = json.loads(contents["openapi.json"]).get("servers", [{"url": ""}])
    assert servers == [{"url": deployment.root.rstrip("/")}]


@pytest.mark.parametrize("path", ["nothing", "other/predict", "predict/more", "static", "guide/"])
def test_what_is_nowhere_stays_nowhere(deployment: Deployment, path: str) -> None:
    response = deployment.ask("GET", deployment.root + path)
    assert response["statusCode"] == 404
    assert json.loads(response["body"])["detail"].startswith("There is nothing at this address")


@pytest.mark.parametrize("root_path", [None, "/xray"])
@pytest.mark.parametrize("path", ["/predict/", "http://me.org//predict"])
def test_a_server_takes_the_same_slashes(predictor: Predictor, root_path: str | None, path: str) -> None:
    client = TestClient(create_app(predictor, root_path), follow_redirects=False)
    assert client.post(path, files={"file": XRAY}).status_code == 200


@pytest.mark.parametrize("before", ["", "/xray"], ids=["proxy that takes the prefix away", "proxy that keeps it"])
@pytest.mark.parametrize(
    ("configured", "option"), [("/xray", ""), (None, "/xray"), ("/xray", "/xray")], ids=["setting", "option", "both"]
)
def test_a_server_behind_a_proxy(predictor: Predictor, before: str, configured: str | None, option: str) -> None:
    # uvicorn puts its --root-path before the path that it got.
    client = TestClient(create_app(predictor, configured), root_path=option)
    assert client.get(f"{option}{before}/openapi.json").json()["servers"] == [{"url": "/xray"}]
    assert '<base href="/xray/">' in client.get(f"{option}{before}/").text
    assert client.get(f"{option}{before}/static/page.css").status_code == 200
    assert client.post(f"{option}{before}/predict", files={"file": XRAY}).status_code == 200


# What a client asks for, with a host where a path should be, as text or encoded, before a route or after it.
ELSEWHERE = (
    "//evil.example",
    "//evil.example/",
    "//evil.example/docs",
    "/\\evil.example/docs",
    "/%5Cevil.example/docs",
    "/%2F%2Fevil.example/docs",
    "/%252F%252Fevil.example/docs",
    "/..//evil.example/openapi.json",
    "/.//evil.example/",
    "/docs//evil.example",
    "/static//evil.example/",
    "/static",
    "/static/..//evil.example",
    "/guide/model-card",
    "/@evil.example/docs",
    "/https://evil.example/docs",
    "/evil.example%0d%0aLocation:%20https://evil.example/",
)
CLAIMS = {
    "Host": "evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "//evil.example",
    "X-Forwarded-Proto": "javascript",
    "Forwarded": "host=evil.example;proto=javascript",
    "X-Original-URL": "//evil.example/",
    "X-Rewrite-URL": "//evil.example/",
}


@pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS)
def test_no_path_and_no_header_leads_to_another_host(predictor: Predictor, front: Front) -> None:
    deployment = Deployment(front, predictor)
    for path in ELSEWHERE:
        response = deployment.ask("GET", front.prefix + path, b"", CLAIMS)
        assert "location" not in {name.lower() for name in response.get("headers") or {}}, path
        assert "evil.example" not in json.dumps(response), path
    for path in ("/", "/docs", "/openapi.json"):
        response = deployment.ask("GET", front.prefix + path, b"", CLAIMS)
        assert response["statusCode"] == 200
        assert "evil.example" not in json.dumps(response), path
        assert "javascript:" not in json.dumps(response), path


def test_without_a_setting_links_stay_relative(predictor: Predictor) -> None:
    assert "<base" not in TestClient(create_app(predictor)).get("/").text


def test_a_path_is_text_on_the_page(predictor: Predictor) -> None:
    page = TestClient(create_app(predictor, '/"><script>')).get("/").text
    assert '<base href="/%22%3E%3Cscript%3E/">' in page


@pytest.mark.parametrize(
    ("text", "root_path"),
    [
        ("", None),
        ("  ", None),
        ("/", ""),
        ("xray", "/xray"),
        ("/xray/", "/xray"),
        (" //a//b ", "/a/b"),
        ("/r%C3%B6ntgen", "/röntgen"),
    ],
)
def test_the_setting_is_read_however_it_is_written(
    monkeypatch: pytest.MonkeyPatch, text: str, root_path: str | None
) -> None:
    monkeypatch.setenv("ROOT_PATH", text)
    assert root_path_from_environment() == root_path


@pytest.mark.parametrize(
    "text", ["https://me.org/xray", "/xray?a=b", "/a/../xray", "./xray", '"/xray"', "/<xray>", r"C:\xray"]
)
def test_what_is_no_path_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ROOT_PATH", text)
    with pytest.raises(ConfigurationError, match=rf"^ROOT_PATH is {re.escape(repr(text))}: set it to the path alone"):
        root_path_from_environment()
