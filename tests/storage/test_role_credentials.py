"""The endpoint of a function's role: what it gives, and what may go wrong with it."""

import json
import traceback

import pytest

from pneumonia.storage.answers import UnsentError
from pneumonia.storage.role_credentials import role_credentials
from pneumonia.storage.signed import Access
from tools.stand_ins.faulty_s3 import Answer, Server, hang_up, refusal_of, serving, silence, whole

pytestmark = pytest.mark.processes

PATH = "/2021-04-23/credentials"
GIVEN = {
    "AccessKeyId": "AKIDROLE",
    "SecretAccessKey": "hush",
    "Token": "a/token+=",
    "Expiration": "2030-01-02T03:04:05Z",
}
SNAP_START = ("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")


def point_to(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what Lambda does under SnapStart, and the access key that a process has elsewhere."""
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.endpoint + PATH)
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of the role")
    for name, value in {"ACCESS_KEY_ID": "AKIDOTHER", "SECRET_ACCESS_KEY": "other", "REGION": "eu-west-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


def test_the_endpoint_is_asked_each_time_with_lambdas_token(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [whole(json.dumps(GIVEN | {"AccessKeyId": key}).encode()) for key in ("AKIDROLE", "AKIDNEXT")]
    path = f"{PATH}?version=1"
    with serving({path: answers}) as server:
        point_to(server, monkeypatch)
        assert role_credentials(server.endpoint + path) == ("AKIDROLE", "hush", "a/token+=")
        assert role_credentials(server.endpoint + path).key_id == "AKIDNEXT"
    assert [request.headers["Authorization"] for request in server.seen] == ["of the role"] * 2


def test_under_snapstart_it_comes_before_the_environments_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({PATH: [whole(json.dumps(GIVEN).encode())]}) as server:
        point_to(server, monkeypatch)
        monkeypatch.setenv(*SNAP_START)
        access = Access.from_environment()
    assert access
    assert (access.key_id, access.secret, access.token) == ("AKIDROLE", "hush", "a/token+=")


def test_elsewhere_the_environments_key_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as server:
        point_to(server, monkeypatch)
        access = Access.from_environment()
        assert access
        assert access.key_id == "AKIDOTHER"
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        assert Access.from_environment() is None  # boto3 knows more such endpoints
    assert server.seen == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refusal_of(404, b"cannot get credentials\n"), r"Lambda's endpoint answers 404 \(cannot get credentials\)"),
        (refusal_of(500, b""), r"Lambda's endpoint answers 500 \(\)"),
        (whole(b"nonsense"), "Lambda's endpoint gives none"),
        (whole(b"[]"), "Lambda's endpoint gives none"),
        (whole(b'{"AccessKeyId": "AKIDROLE"}'), "Lambda's endpoint gives none"),
        (hang_up, r"Lambda's endpoint gives none \(Remote end closed connection without response\)"),
        (silence, r"Lambda's endpoint gives none \(timed out\)"),
    ],
    ids=["404", "500", "no JSON", "no object", "half of it", "hung up", "silent"],
)
def test_what_is_wrong_with_it_is_told(answer: Answer, reason: str) -> None:
    with serving({PATH: [answer]}) as server, pytest.raises(UnsentError, match=reason):
        role_credentials(server.endpoint + PATH)


def test_an_endpoint_that_is_gone_is_told() -> None:
    with serving({}) as server:
        endpoint = server.endpoint + PATH
    with pytest.raises(UnsentError, match=r"Lambda's endpoint gives none \(Connection refused\)"):
        role_credentials(endpoint)


@pytest.mark.parametrize("endpoint", ["http://[::1/credentials", "http://127.0.0.1:9/credentials"])
def test_a_token_of_two_lines_is_told_without_it(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hush\nhush")
    with pytest.raises(UnsentError) as caught:
        role_credentials(endpoint)
    assert str(caught.value) == "Lambda's endpoint cannot be asked: its address or token cannot be sent"
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_line_breaks_around_token_and_address_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({PATH: [whole(json.dumps(GIVEN).encode())]}) as server:
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of the role\n")
        assert role_credentials(f"{server.endpoint}{PATH}\n").key_id == "AKIDROLE"
    assert server.seen[0].headers["Authorization"] == "of the role"
