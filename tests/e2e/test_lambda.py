"""The function as Lambda runs it: every kind of event, and what may go wrong around it."""

import base64
import contextlib
import functools
import io
import json
import re
import resource
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urljoin

import pytest
from PIL import ExifTags, Image

from tests.builders.checkout import NOT_IN_THE_IMAGE, PROJECT
from tests.builders.function import BUCKET, Function, Response
from tests.builders.images import XRAY, encoded
from tests.builders.releases import bucket_with
from tools.stand_ins.events import (
    function_url_event,
    http_api_1_event,
    http_api_event,
    load_balancer_event,
    multipart,
    rest_api_event,
)
from tools.stand_ins.moto import Moto
from tools.stand_ins.runtime_api import InvocationError
from tools.stand_ins.triggers import SERVICES, WARM_UPS

OLD, VERSION = "20250102-030405-0a1b2c3d", "20260102-030405-0a1b2c3d"
MAX_EVENT = 6 * 1024 * 1024  # bytes, of a synchronous invocation
WRITTEN = {"torch": ["manifest.json", "model.pth"], "onnx": ["manifest.json", "model.onnx"]}  # by engine
SPARE = [megabytes * 1024 * 1024 for megabytes in (48, 96, 192, 288)]  # a large image takes 200 and more

pytestmark = pytest.mark.usefixtures("engine")


@dataclass(frozen=True)
class Gateway:
    """What stands before the function.

    Attributes:
        event: makes the event of a request.
        prefix: what the addresses that clients use have before the path.
    """

    event: Callable[..., dict[str, Any]]
    prefix: str = ""


GATEWAYS = {
    "function url": Gateway(function_url_event),
    "http api": Gateway(http_api_event),
    "http api, stage": Gateway(functools.partial(http_api_event, stage="prod"), "/prod"),
    "http api, payload 1.0": Gateway(http_api_1_event),
    "http api, payload 1.0, stage": Gateway(functools.partial(http_api_1_event, stage="prod"), "/prod"),
    "rest api": Gateway(rest_api_event, "/prod"),
    # The stage is called as a path is.
    "rest api, stage health": Gateway(functools.partial(rest_api_event, stage="health"), "/health"),
    "rest api, base path of a domain": Gateway(functools.partial(rest_api_event, mapping="/xray"), "/xray"),
    "load balancer": Gateway(load_balancer_event),
    "load balancer, multi-value": Gateway(functools.partial(load_balancer_event, multi_value=True)),
}


def upload(data: bytes, gateway: Gateway = GATEWAYS["function url"]) -> dict[str, Any]:
    """Return the event of a client that sends an image in a form."""
    body, content_type = multipart("file", "xray", data, "application/octet-stream")
    event = gateway.event("POST", "/predict", body, {"Content-Type": content_type})
    assert event["isBase64Encoded"]
    return event


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Store(ThreadingHTTPServer):
    """Stands for S3 where S3 fails: refuses connections until `server_activate`, and says nothing while `silent`.

    Args:
        weights: of the release OLD, which it serves.
    """

    daemon_threads = False  # server_close waits for them: none is left with an open socket

    def __init__(self, weights: Path) -> None:
        super().__init__(("127.0.0.1", 0), _StoreHandler, bind_and_activate=False)
        self.server_bind()
        self.objects: dict[str, bytes] = {}
        self.promote(weights, OLD)
        self.silent = False
        self.asked = threading.Event()
        self.closing = threading.Event()
        self.environment = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.server_port}"}

    def promote(self, weights: Path, version: str) -> None:
        """Make a release the served one."""
        self.objects |= {f"/{BUCKET}/{key}": data for key, data in bucket_with(weights, version).items()}

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Listen and answer."""
        self.server_activate()
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            self.closing.set()
            self.shutdown()
            thread.join()


class _StoreHandler(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:  # http.server's name
        self.server.asked.set()
        if self.server.silent:
            self.server.closing.wait()
            return
        missing = b"<Error><Code>NoSuchKey</Code></Error>"
        data = self.server.objects.get(self.path, missing)
        with contextlib.suppress(ConnectionError):  # whose time is up goes away
            self.send_response(404 if data is missing else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Say nothing: a failed request shows in the function's answer."""


@pytest.fixture
def store(weights: Path) -> Iterator[Store]:
    with Store(weights) as store:
        yield store


@pytest.fixture(scope="module")
def aws(moto: Moto, weights: Path) -> dict[str, str]:
    """The variables of a function in an S3 that serves the release VERSION."""
    moto.make_bucket(BUCKET)
    for key, data in bucket_with(weights, VERSION).items():
        moto.s3().put_object(Bucket=BUCKET, Key=key, Body=data)
    return {"AWS_ENDPOINT_URL": moto.endpoint}


@pytest.fixture(scope="module")
def function(aws: dict[str, str], engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """An instance whose S3 works, for many invocations."""
    with Function(tmp_path_factory.mktemp("function"), aws | {"ENGINE": engine}) as function:
        yield function


@pytest.fixture(params=list(GATEWAYS.values()), ids=list(GATEWAYS))
def gateway(request: pytest.FixtureRequest) -> Gateway:
    gateway: Gateway = request.param
    return gateway


def answer_of(response: Response) -> Any:  # noqa: ANN401  # JSON
    """Return the JSON in a response."""
    assert header(response, "content-type") == "application/json"
    assert header(response, "cache-control") == "no-store"
    return json.loads(content_of(response))


def content_of(response: Response) -> bytes:
    """Return a response's body as AWS sends it to the client."""
    body: str = response["body"]
    return base64.b64decode(body, validate=True) if response["isBase64Encoded"] else body.encode()


def header(response: Response, name: str) -> str:
    """Return a header that a response has once, where AWS takes it from."""
    values = response.get("multiValueHeaders", {}).get(name) or [response["headers"][name]]
    assert len(values) == 1
    return str(values[0])


def detail_of(response: Response) -> str:
    """Return the one sentence of an answer that says what is wrong."""
    answer = answer_of(response)
    assert list(answer) == ["detail"]
    detail: str = answer["detail"]
    return detail


def test_upload_is_answered(function: Function, gateway: Gateway) -> None:
    response = function.invoke(upload(XRAY, gateway))
    assert response["statusCode"] == 200
    answer = answer_of(response)
    assert answer["prediction"] in {"NORMAL", "PNEUMONIA"}
    assert answer["model_version"] == VERSION


def test_batch_is_answered_with_a_result_for_each_upload(function: Function, gateway: Gateway) -> None:
    (first, content_type), (second, _) = (multipart("file", "xray", data, "image/jpeg") for data in (XRAY, b"text"))
    boundary = content_type.partition("boundary=")[2]
    body = first.removesuffix(f"--{boundary}--\r\n".encode()) + re.sub(
        rb"-+[0-9a-f]{22}", f"--{boundary}".encode(), second
    )
    response = function.invoke(gateway.event("POST", "/predict/batch", body, {"Content-Type": content_type}))
    assert response["statusCode"] == 200
    answer, failure = answer_of(response)["results"]
    assert answer == answer_of(function.invoke(upload(XRAY, gateway)))
    assert (failure["status"], failure["detail"].partition(":")[0]) == (400, "The file is not an image")


def test_health_and_readiness_are_answered(function: Function, gateway: Gateway) -> None:
    loaded = function.invoke(gateway.event("GET", "/ready?load=1"))
    assert (loaded["statusCode"], answer_of(loaded)) == (200, {"ready": True, "model_version": VERSION})
    ready = function.invoke(gateway.event("GET", "/ready"))
    assert (ready["statusCode"], answer_of(ready)) == (200, {"ready": True, "model_version": VERSION})
    health = function.invoke(gateway.event("GET", "/health"))
    assert (health["statusCode"], answer_of(health)) == (200, {"status": "ok", "model_version": VERSION})


@pytest.mark.parametrize("path", ["/health", "/ready", "/"])
def test_head_is_answered_without_a_body(function: Function, gateway: Gateway, path: str) -> None:
    response = function.invoke(gateway.event("HEAD", path))
    assert (response["statusCode"], response["body"]) == (200, "")


def test_image_that_a_gateway_turned_into_text_is_named(function: Function, gateway: Gateway) -> None:
    event = upload(XRAY, gateway)
    event["body"] = base64.b64decode(event["body"]).decode(errors="replace")
    event["isBase64Encoded"] = False
    response = function.invoke(event)
    assert response["statusCode"] == 400
    assert detail_of(response).startswith("The image was turned into text on its way, its bytes replaced by EF BF BD")


def test_text_is_answered_with_what_to_send(function: Function, gateway: Gateway) -> None:
    event = gateway.event("POST", "/predict", "Röntgenbild".encode(), {"Content-Type": "text/plain; charset=utf-8"})
    assert (event["body"], event["isBase64Encoded"]) == ("Röntgenbild", False)
    response = function.invoke(event)
    assert response["statusCode"] == 422
    assert detail_of(response).startswith("The Content-Type is 'text/plain', not multipart/form-data: send a form")


def test_query_that_cannot_be_read_is_told(function: Function, gateway: Gateway) -> None:
    response = function.invoke(gateway.event("GET", "/ready?load=nonsense"))
    assert response["statusCode"] == 422
    assert detail_of(response) == "'load' must be true or false, or 1 or 0: see /docs."


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/nothing", 404, "There is nothing at this address: /docs lists what there is."),
        ("GET", "/predict", 405, "This address does not take that method: /docs lists what it takes."),
    ],
    ids=["path", "method"],
)
def test_unknown_paths_and_methods_are_refused(
    function: Function, gateway: Gateway, method: str, path: str, status: int, detail: str
) -> None:
    response = function.invoke(gateway.event(method, path))
    assert (response["statusCode"], detail_of(response)) == (status, detail)


class _Links(HTMLParser):
    """Collects what a page has a browser fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = re.findall(r"url: '([^']+)'", page)
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if value and (tag, name) in {("link", "href"), ("script", "src")}]


def test_page_and_docs_find_all_that_they_need(function: Function, gateway: Gateway) -> None:
    def get(address: str) -> Response:
        assert address.startswith(f"{gateway.prefix}/")  # else AWS does not lead it here
        response = function.invoke(gateway.event("GET", address.removeprefix(gateway.prefix)))
        assert response["statusCode"] == 200
        return response

    root = f"{gateway.prefix}/"
    links = [link for link in _Links(content_of(get(root)).decode()).found if not link.startswith("data:")]
    assert links == ["static/page.css", "static/page.js"]
    for link in links:
        assert content_of(get(urljoin(root, link))) == (PROJECT / "pneumonia" / "serving" / link).read_bytes()
    docs = urljoin(root, "docs")
    page = get(docs)
    assert header(page, "content-type").startswith("text/html")
    links = [urljoin(docs, link) for link in _Links(content_of(page).decode()).found]
    assert sorted(Path(link).name for link in links) == [
        "favicon.png",
        "openapi.json",
        "swagger-ui-bundle.js",
        "swagger-ui.css",
    ]
    contents = {Path(link).name: get(link) for link in links}
    schema = answer_of(contents["openapi.json"])
    assert schema.get("servers", [{"url": ""}]) == [{"url": gateway.prefix}]
    assert contents["favicon.png"]["isBase64Encoded"]
    Image.open(io.BytesIO(content_of(contents["favicon.png"]))).verify()
    assert b"SwaggerUIBundle" in content_of(contents["swagger-ui-bundle.js"])


@pytest.mark.parametrize("event", WARM_UPS.values(), ids=WARM_UPS)
def test_warm_up_is_answered(function: Function, event: object) -> None:
    assert function.invoke(event) == {"warm": True, "model_version": VERSION}
    function.wait_for_log(function.api.request_ids[-1], '"event": "warm-up"')


@pytest.mark.parametrize("event", SERVICES.values(), ids=SERVICES)
def test_other_services_get_one_sentence(function: Function, event: dict[str, Any]) -> None:
    assert function.invoke(event)["detail"].startswith("The function got an event of ")
    assert "Traceback" not in function.log()


@pytest.mark.parametrize("lacking", ["requestContext", "version"])
def test_half_an_event_is_no_fault(function: Function, lacking: str) -> None:
    event = {name: value for name, value in function_url_event("GET", "/health").items() if name != lacking}
    assert function.invoke(event)["statusCode"] == 400
    assert "Traceback" not in function.log()


@pytest.mark.slow
def test_first_invocation_may_be_a_warm_up(store: Store, tmp_path: Path) -> None:
    with Function(tmp_path, store.environment) as function:
        failed = function.invoke(WARM_UPS["schedule of a rule"], timeout=15)
        detail = "The model is unavailable, as S3 cannot be reached: try again later. The server's log says more."
        assert failed == {"warm": False, "detail": detail}
        function.wait_for_log(function.api.request_ids[-1], "Connection refused")
        with store.serving():
            assert function.invoke(WARM_UPS["schedule of a rule"])["warm"] is True
        assert function.invoke(upload(XRAY))["statusCode"] == 200  # needs no S3 any more


def test_prefix_of_a_load_balancer_is_a_setting(store: Store, tmp_path: Path) -> None:
    with store.serving(), Function(tmp_path, store.environment | {"ROOT_PATH": "/xray"}) as function:
        body, content_type = multipart("file", "xray", XRAY, "image/jpeg")
        event = load_balancer_event("POST", "/xray//predict/", body, {"Content-Type": content_type})
        assert function.invoke(event)["statusCode"] == 200
        schema = answer_of(function.invoke(load_balancer_event("GET", "/xray/openapi.json")))
        assert schema["servers"] == [{"url": "/xray"}]


def test_largest_event_is_answered(function: Function) -> None:
    image = Image.frombytes("L", (2172, 2168), Random(0).randbytes(2172 * 2168))
    event = upload(encoded(image, "BMP"))  # a byte a pixel
    assert 0 < MAX_EVENT - len(json.dumps(event)) < 32 * 1024
    response = function.invoke(event)
    assert (response["statusCode"], answer_of(response)["model_version"]) == (200, VERSION)


def test_nothing_is_written_but_the_weights_and_their_manifest(function: Function, engine: str) -> None:
    image = encoded(Image.effect_noise((2000, 2000), 60), "BMP")
    for _ in range(3):
        assert function.invoke(upload(image))["statusCode"] == 200
    assert files_in(function.tmp) == WRITTEN[engine]
    package, left_out = PROJECT / "pneumonia", {*NOT_IN_THE_IMAGE, "__pycache__"}
    sources = [name for name in files_in(package) if not left_out & set(Path(name).parts)]
    assert files_in(function.task_root) == sorted(["app.py", "pneumonia", *(f"pneumonia/{name}" for name in sources)])

    with function.limited(resource.RLIMIT_FSIZE, 0):  # from here on no file can be written, wherever it may be
        assert function.invoke(upload(image))["statusCode"] == 200


@pytest.mark.slow
def test_full_memory_is_a_fault_that_the_next_request_does_not_see(aws: dict[str, str], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turning it takes memory of its own
    large = upload(encoded(Image.linear_gradient("L").resize((4990, 4990)).convert("RGB"), "PNG", exif=exif))
    # A new one, which holds no memory yet that a large image was in.
    with Function(tmp_path, aws) as new:
        small = answer_of(new.invoke(upload(XRAY)))
        responses = []
        for spare in SPARE:  # the more there is, the later it is full
            with new.limited(resource.RLIMIT_AS, new.address_space() + spare):
                responses.append(new.invoke(large))
                assert answer_of(new.invoke(upload(XRAY))) == small
            if responses[-1]["statusCode"] == 500:
                new.wait_for_log(new.api.request_ids[-2], "was answered with 500.")
        right = answer_of(new.invoke(large))
    assert responses[0]["statusCode"] == 500
    for response in responses:
        if response["statusCode"] == 500:
            assert detail_of(response).startswith("The server failed to answer this request")
        else:
            assert (response["statusCode"], answer_of(response)) == (200, right)


def test_log_names_the_request_that_runs_out_of_time(function: Function) -> None:
    # Of all that is accepted, this is what takes longest to decode.
    image = Image.effect_noise((7000, 1), 60).resize((4990, 4990)).convert("CMYK")
    event = upload(encoded(image, "JPEG", quality=1, progressive=True))
    assert function.invoke(upload(XRAY))["statusCode"] == 200  # the model is loaded
    with contextlib.suppress(InvocationError):  # a fast machine may have an answer between the warning and the end
        function.invoke(event, timeout=0.6)
    request_id = function.api.request_ids[-1]
    # Lambda would have ended the process; here it comes to the end of what it does.
    assert function.invoke(function_url_event("GET", "/health"))["statusCode"] == 200
    function.wait_for_log(request_id, f"Request {request_id} is about to time out.")


# The first while the download that began before is under way, the second once its time is up: on a slow machine, it is
# when the request comes.
WITHOUT_S3 = (
    "The model is unavailable, as it is still being downloaded: try again.",
    "The model is unavailable, as S3 cannot be reached: try again later.",
)


def test_silent_s3_is_told_before_the_time_is_up_and_forgotten(store: Store, tmp_path: Path) -> None:
    store.silent = True
    with store.serving(), Function(tmp_path, store.environment) as function:
        assert function.invoke(function_url_event("GET", "/health"))["statusCode"] == 200
        assert store.asked.is_set()  # fetching begins before anyone asks for a prediction
        response = function.invoke(upload(XRAY), timeout=4)  # fails when there is no answer by then
        assert response["statusCode"] == 503
        assert detail_of(response).startswith(WITHOUT_S3)
        function.wait_for_log(function.api.request_ids[-1], "was answered with 503.")
        assert "about to time out" not in function.log_of(function.api.request_ids[-1])

        store.silent = False  # the connection that got no answer stays as it is
        response = function.invoke(upload(XRAY))
        assert response["statusCode"] == 200
        assert answer_of(response)["model_version"] == OLD


@pytest.mark.slow
def test_s3_may_come_up_after_the_function(store: Store, tmp_path: Path, engine: str) -> None:
    with Function(tmp_path, store.environment) as function:
        health = function.invoke(function_url_event("GET", "/health"))
        assert (health["statusCode"], answer_of(health)) == (200, {"status": "ok", "model_version": None})
        response = function.invoke(upload(XRAY), timeout=15)  # of which the download that began before takes 10
        assert response["statusCode"] == 503
        assert detail_of(response).startswith("The model is unavailable, as S3 cannot be reached: try again later.")
        assert files_in(function.tmp) == []

        with store.serving():
            assert function.invoke(upload(XRAY))["statusCode"] == 200
        assert files_in(function.tmp) == WRITTEN[engine]
        assert function.invoke(upload(XRAY))["statusCode"] == 200  # needs no S3 any more


def test_warm_instance_takes_over_another_release(store: Store, weights: Path, tmp_path: Path) -> None:
    with store.serving(), Function(tmp_path, store.environment | {"MODEL_REFRESH_MINUTES": "0"}) as function:
        assert answer_of(function.invoke(upload(XRAY)))["model_version"] == OLD
        store.promote(weights, VERSION)
        answers = [answer_of(function.invoke(upload(XRAY)))["model_version"] for _ in range(2)]
        assert answers[1] == VERSION
