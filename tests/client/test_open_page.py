"""`pneumonia open`: the page of a Function URL on this machine, for browsers on this machine alone."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient

from pneumonia.client.address import Address
from pneumonia.client.open_page import create_app
from pneumonia.client.server import Server
from tests.builders.checkout import PROJECT
from tests.builders.dicom_files import dicom
from tests.builders.images import XRAY
from tools.stand_ins.function_url import REGION, FunctionUrl, RefusedError

pytestmark = pytest.mark.processes

HERE = "http://127.0.0.1:8001"


@pytest.fixture
def browser(url: FunctionUrl) -> Iterator[TestClient]:
    """What a browser on this machine reaches."""
    with TestClient(create_app(Server(Address.of(url.address, REGION), (0, 0, 0))), HERE) as client:
        yield client


@pytest.mark.parametrize(
    "path",
    ["/", "/static/page.js", "/docs", "/openapi.json", "/ready?load=1", "/no%20such/p%C3%A4th"],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_server_has_is_here(browser: TestClient, url: FunctionUrl, method: str, path: str) -> None:
    answer = browser.request(method, path)
    assert url.requests == [f"{method} {path}"]
    assert answer.status_code == (404 if "such" in path else 200)
    assert bool(answer.content) is (method == "GET")
    assert "content-security-policy" in answer.headers or path != "/"


@pytest.mark.parametrize("content", [XRAY, dicom(np.zeros((2048, 2048), np.uint8))], ids=["JPEG", "4 MB"])
def test_an_x_ray_gets_its_answer(browser: TestClient, url: FunctionUrl, content: bytes) -> None:
    answer = browser.post("/predict?explain=1&preview=1", files={"file": content}, headers={"Origin": HERE})
    assert answer.status_code == 200, answer.text
    assert {"prediction", "heatmap", "preview"} < answer.json().keys()
    assert url.requests == ["POST /predict?explain=1&preview=1"]


def test_several_x_rays_do_too(browser: TestClient) -> None:
    answer = browser.post("/predict/batch", files=[("file", XRAY), ("file", b"no image")])
    assert [one.get("status") for one in answer.json()["results"]] == [None, 400]


def test_a_browser_may_keep_what_has_not_changed(browser: TestClient) -> None:
    tag = browser.get("/static/page.js").headers["etag"]
    assert browser.get("/static/page.js", headers={"If-None-Match": tag}).status_code == 304


def test_only_what_the_api_needs_is_passed_on(browser: TestClient, url: FunctionUrl) -> None:
    """Not the cookies of other servers on this machine."""
    browser.get("/health", headers={"Cookie": "session=1", "X-Forwarded-Host": "evil.example.org", "Referer": HERE})
    assert not {"cookie", "x-forwarded-host", "referer"} & url.events[0]["headers"].keys()


@pytest.mark.parametrize("content", [b"", b"no form", bytes(5 * 1024 * 1024)], ids=["empty", "text", "too large"])
def test_errors_have_the_form_of_the_api(browser: TestClient, content: bytes) -> None:
    answer = browser.post("/predict", content=content)
    assert answer.status_code in {413, 422}
    assert answer.json().keys() == {"detail"}


@pytest.mark.parametrize("status", [403, 429, 502])
def test_what_aws_refuses_has_it_too(browser: TestClient, url: FunctionUrl, status: int) -> None:
    url.answers = [RefusedError(status, "SomeException", {"Message": "Its reason"})] * 4
    answer = browser.get("/ready")
    assert answer.status_code == status
    assert "the server answers SomeException (Its reason)" in answer.json()["detail"]


def test_a_server_that_is_gone_is_told_in_that_form() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    answer = TestClient(create_app(Server(Address(address))), HERE).get("/")
    assert answer.status_code == 502
    assert answer.json() == {
        "detail": f"{address} cannot be asked (Connection refused): check the network, and try again later."
    }


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_the_pages_of_other_sites_get_nothing_but_their_links_lead_here(
    browser: TestClient, url: FunctionUrl, site: str
) -> None:
    """An image or a script of theirs comes without an origin, and would be asked for at the user's cost."""
    image = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
    assert browser.get("/ready?load=1", headers=image).status_code == 403
    assert url.requests == []
    assert browser.get("/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert browser.get("/docs", headers={"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}).status_code == 200


def test_redirects_lead_here(browser: TestClient, url: FunctionUrl) -> None:
    url.invoke = lambda _: {"statusCode": 307, "headers": {"Location": f"{url.address}/docs?a=1"}, "body": ""}
    answer = browser.get("/docs/", follow_redirects=False)
    assert answer.status_code == 307
    assert answer.headers["location"] == "/docs?a=1"


@pytest.mark.parametrize("host", ["127.0.0.1:8001", "localhost:8001", "localhost", "127.0.0.1:9000"])
def test_this_machine_may_ask(browser: TestClient, host: str) -> None:
    assert browser.get("/health", headers={"Host": host}).status_code == 200
    assert browser.get("/health", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example.org", "evil.example.org:8001", "127.0.0.1.example.org", "localhost.example.org", "192.168.0.7", ""],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_name_that_was_led_here_may_not(browser: TestClient, url: FunctionUrl, method: str, host: str) -> None:
    answer = browser.request(method, "/predict", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["detail"].startswith("This address is for browsers on this machine: ")
    assert url.requests == []


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.org",
        "null",
        "http://127.0.0.1:9000",
        "https://127.0.0.1:8001",
        "http://localhost:8001",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_site_may_not(browser: TestClient, url: FunctionUrl, method: str, origin: str) -> None:
    answer = browser.request(method, "/predict", headers={"Origin": origin}, files={"file": XRAY})
    assert answer.status_code == 403
    assert answer.json() == {"detail": "Another site sent this request: only the page at this address may."}
    assert "access-control-allow-origin" not in answer.headers
    assert url.requests == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_not_passed_on(browser: TestClient, url: FunctionUrl, method: str) -> None:
    answer = browser.request(method, "/predict")
    assert answer.status_code == 405
    assert answer.json().keys() == {"detail"}
    assert url.requests == []


def command(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pneumonia", "open", *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_the_command_says_what_to_open_and_ends_with_ctrl_c(url: FunctionUrl) -> None:
    process = command(url.address, "--sign", REGION)
    try:
        assert process.stdout
        page = process.stdout.readline().split()
        with urllib.request.urlopen(page[1], timeout=60) as answer:
            assert b"Chest X-ray" in answer.read()
    finally:
        os.killpg(process.pid, signal.SIGINT)
        _, log = process.communicate(timeout=60)
    assert page[0] == "Page:"
    assert process.returncode == 0
    assert "Traceback" not in log


def test_a_server_that_refuses_is_told_at_once(url: FunctionUrl) -> None:
    url.answers = [RefusedError(403, "AccessDeniedException", {"Message": "Forbidden"})]
    process = command(url.address, "--sign", REGION)
    out, told = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert told.startswith(f"{url.address} refuses, the server answers AccessDeniedException (Forbidden): grant ")


def test_a_port_in_use_is_told(url: FunctionUrl) -> None:
    port = url.address.rpartition(":")[2]
    process = command(url.address, "--sign", REGION, "--port", port)
    _, told = process.communicate(timeout=60)
    assert told == f"Port {port} cannot be listened on (Address already in use): choose another with --port.\n"
