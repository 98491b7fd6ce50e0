"""Requests to a Function URL that checks signatures with botocore's code, and to servers that fail."""

import contextlib
import datetime
import http.server
import ipaddress
import itertools
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pneumonia.client.address import Address
from pneumonia.client.server import LAMBDA_BYTES, Server, plain_reasons
from pneumonia.errors import ImageTooLargeError, ServerError
from tools.stand_ins.function_url import (
    KEY_ID,
    REGION,
    SECRET,
    TOKEN,
    FunctionUrl,
    RefusedError,
    check_signature,
    function_url,
)
from tools.stand_ins.local_server import running

pytestmark = pytest.mark.processes

NETWORK = ": check the network, and try again later."
AT_ONCE = (0, 0, 0)  # seconds before another try
GRANT = "grant your user or role lambda:InvokeFunctionUrl and lambda:InvokeFunction on the function's alias."
LOG_IN = "no AWS credentials were found to sign with: run 'aws configure' or 'aws sso login', or set AWS_PROFILE."
FORBIDDEN = {
    "Message": "Forbidden. For troubleshooting Function URL authorization issues, see: https://docs.aws.amazon.com"
}
DENIED = {
    "Message": "User: arn:aws:iam::123456789012:user/mara is not authorized to perform: lambda:InvokeFunctionUrl on "
    "resource: arn:aws:lambda:eu-central-1:123456789012:function:pneumonia-inference:live because no identity-based "
    "policy allows the lambda:InvokeFunctionUrl action"
}
EXPIRED = {"message": "The security token included in the request is expired"}


def signed(address: str) -> Server:
    return Server(Address.of(address, REGION), AT_ONCE)


def echo(event: dict[str, object]) -> dict[str, object]:
    """A function that answers with what it was asked."""
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(event)}


@pytest.fixture
def echoing() -> Iterator[FunctionUrl]:
    with function_url(echo) as url:
        yield url


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Hand each connection to a function, after its first bytes have arrived; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/ready?load=1",
        "/predict?explain=1&preview=1",
        "/predict?preview=1&explain=1",  # a signature is over the sorted ones
        "/ready?load",
        "/guide/model-card.md",
        "/a%20b/%c3%a4~_-.",
        "/%7Etilde/a+b,c;d=e@f:g",
        "/a//b",
        '/a"<b>|c^d`e',
        "/a/../b",
        "/?q=%2F%20+&empty=&q=1",
        "@elsewhere.example.org/",  # not another host
    ],
)
def test_a_signature_holds_for_any_path_and_query(echoing: FunctionUrl, method: str, target: str) -> None:
    answer = signed(echoing.address).ask(method, target, {"Accept": "text/html,  */*;q=0.8"})
    assert answer.status_code == 200, answer.text
    arrived = echoing.requests[-1].partition(" ")[2]
    assert unquote(arrived) == unquote(f"/{target.removeprefix('/')}")


@pytest.mark.parametrize("size", [0, 1, 4 * 1024 * 1024])
def test_a_signature_is_over_the_body(echoing: FunctionUrl, size: int) -> None:
    answer = signed(echoing.address).ask("POST", "/predict", {"Content-Type": "image/png"}, os.urandom(size))
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.content)["headers"]["content-length"] == str(size)


def test_requests_share_a_connection(echoing: FunctionUrl) -> None:
    server = signed(echoing.address)
    for _ in range(3):
        server.ask("POST", "/predict", {}, b"body")
    assert echoing.connections == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, None),
        ({"authorization": ""}, "AccessDeniedException"),
        ({"x-amz-security-token": ""}, "UnrecognizedClientException"),
        ({"x-amz-date": "20200101T000000Z"}, "InvalidSignatureException"),
        ({"host": "elsewhere.example.org"}, "InvalidSignatureException"),
        ({"body": "another"}, "InvalidSignatureException"),
        ({"method": "GET"}, "InvalidSignatureException"),
        ({"target": "/predict?explain=1"}, "InvalidSignatureException"),
    ],
)
def test_the_stand_in_refuses_what_was_changed_on_the_way(
    echoing: FunctionUrl, change: dict[str, str], kind: str | None
) -> None:
    event = json.loads(signed(echoing.address).ask("POST", "/predict", {}, b"body").content)
    arrived = {"method": "POST", "target": "/predict", "body": "body"} | event["headers"] | change
    method, target, body = (arrived.pop(name) for name in ("method", "target", "body"))
    with pytest.raises(RefusedError) if kind else contextlib.nullcontext() as caught:
        check_signature(method, target, arrived, body.encode())
    assert not kind or (caught and caught.value.kind == kind)


@pytest.mark.parametrize(
    ("environment", "region", "reason"),
    [
        (
            {},
            "eu-west-1",
            (
                "InvalidSignatureException (Credential should be scoped to a valid region, not 'eu-west-1'.): check "
                "the region, this machine's clock and your AWS credentials."
            ),
        ),
        (
            {"AWS_SECRET_ACCESS_KEY": "another"},
            REGION,
            (
                "InvalidSignatureException (The request signature we calculated does not match the signature you "
                "provided. Check your AWS Secret Access Key and signing method. Consult the service documentation "
                "for details.): check the region, this machine's clock and your AWS credentials."
            ),
        ),
        (
            {"AWS_ACCESS_KEY_ID": "AKIAANOTHER"},
            REGION,
            (
                "UnrecognizedClientException (The security token included in the request is invalid.): log in to AWS "
                "again, or renew the access keys."
            ),
        ),
        ({"AWS_ACCESS_KEY_ID": ""}, REGION, f"AccessDeniedException (Forbidden): {LOG_IN}"),
        (
            {},
            None,
            (
                "AccessDeniedException (Forbidden): if a Lambda function that takes signed requests is behind this "
                "address, name its region with --sign."
            ),
        ),
    ],
)
def test_a_refused_signature_is_told_in_the_words_of_aws(
    echoing: FunctionUrl, environment: dict[str, str], region: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    server = Server(Address.of(echoing.address, region), AT_ONCE)
    refusal = server.refusal(server.ask("GET", "/"))
    assert str(refusal) == f"{echoing.address} refuses, the server answers {reason}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            RefusedError(403, "AccessDeniedException", FORBIDDEN),
            f"AccessDeniedException ({FORBIDDEN['Message']}): {GRANT}",
        ),
        (RefusedError(403, "AccessDeniedException", DENIED), f"AccessDeniedException ({DENIED['Message']}): {GRANT}"),
        (RefusedError(403, "", {"Message": "Forbidden"}), f"403 Forbidden (Forbidden): {GRANT}"),
        (RefusedError(403, "", {"Message": None}), f"403 Forbidden: {GRANT}"),
        (
            RefusedError(403, "ExpiredTokenException:http://internal.amazon.com/coral/", EXPIRED),
            f"ExpiredTokenException ({EXPIRED['message']}): log in to AWS again, or renew the access keys.",
        ),
        (
            RefusedError(403, "", EXPIRED),
            f"403 Forbidden ({EXPIRED['message']}): log in to AWS again, or renew the access keys.",
        ),
        (
            RefusedError(429, "TooManyRequestsException", {"message": "Rate Exceeded.", "Reason": "CallerRateLimit"}),
            "TooManyRequestsException (Rate Exceeded. CallerRateLimit): try again later.",
        ),
        (
            RefusedError(504, "", {"message": "Endpoint timed out"}),
            "504 Gateway Timeout (Endpoint timed out): try again later.",
        ),
        (RefusedError(418, "", {}), "418 I'm a Teapot."),
        (RefusedError(400, "\x1b[31mOdd", {"Message": "a\nb\x1b[0m"}), "\\x1b[31mOdd (a b\\x1b[0m)."),
    ],
)
def test_what_aws_says_is_passed_on_whole(echoing: FunctionUrl, answer: RefusedError, reason: str) -> None:
    echoing.answers = [answer] * 4
    server = signed(echoing.address)
    told = str(server.refusal(server.ask("POST", "/predict", {}, b"body")))
    assert told.removeprefix(f"{echoing.address} refuses").lstrip(":, ") == f"the server answers {reason}"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(echoing: FunctionUrl, status: int) -> None:
    echoing.answers = [RefusedError(status, "", {})] * 3
    assert signed(echoing.address).ask("POST", "/predict", {}, b"body").status_code == 200
    assert echoing.requests == ["POST /predict"] * 4


def test_a_server_is_left_alone_for_as_long_as_it_asks() -> None:
    busy = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"
    answers = iter([busy, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
    with listening(lambda one: one.sendall(next(answers))) as address:
        started = time.monotonic()
        assert Server(Address(address), AT_ONCE).ask("GET", "/").status_code == 200
        assert time.monotonic() - started >= 2


def test_a_server_that_asks_for_an_hour_is_not_waited_for() -> None:
    busy = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n"
    with listening(lambda one: one.sendall(busy)) as address:
        assert Server(Address(address), AT_ONCE).ask("GET", "/").status_code == 503


@pytest.mark.parametrize("status", [400, 403, 404, 413])
def test_what_will_stay_is_not(echoing: FunctionUrl, status: int) -> None:
    echoing.answers = [RefusedError(status, "", {})]
    assert signed(echoing.address).ask("POST", "/predict", {}, b"body").status_code == status


def test_at_last_the_answer_is_told(echoing: FunctionUrl) -> None:
    echoing.answers = [RefusedError(503, "", {"message": "busy"})] * 9
    assert signed(echoing.address).ask("GET", "/").status_code == 503
    assert len(echoing.requests) == 4


def test_a_connection_that_ends_early_is_tried_again_and_told() -> None:
    with listening(lambda _: None) as address, pytest.raises(ServerError) as caught:
        Server(Address(address), AT_ONCE).ask("GET", "/")
    assert str(caught.value) == f"{address} cannot be asked (Remote end closed connection without response){NETWORK}"


def test_half_an_answer_is_none() -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"
    with listening(lambda one: one.sendall(half)) as address, pytest.raises(ServerError) as caught:
        Server(Address(address), AT_ONCE).ask("GET", "/")
    assert str(caught.value) == f"{address} cannot be asked (the connection broke off after 1 of 50 bytes){NETWORK}"


def test_where_nothing_listens_the_reason_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        ServerError, match=rf"^http://127.0.0.1:{port} cannot be asked \(Connection refused\){NETWORK}$"
    ):
        Server(Address(f"http://127.0.0.1:{port}"), AT_ONCE).ask("GET", "/")


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    reason = 'Failed to connect to proxy URL: "http://127.0.0.1:1": Connection refused'
    with pytest.raises(ServerError, match=rf"^https://xrays.example.org cannot be asked \({reason}\){NETWORK}$"):
        Server(Address("https://xrays.example.org"), AT_ONCE).ask("GET", "/")


@pytest.mark.parametrize("kind", [ConnectTimeoutError, ReadTimeoutError])
def test_a_server_that_is_silent_is_told(kind: type[ConnectTimeoutError | ReadTimeoutError]) -> None:
    with pytest.raises(ConnectionError, match=r"^timed out$"), plain_reasons():
        raise kind(endpoint_url="https://xrays.example.org", error=TimeoutError("timed out"))


def test_a_certificate_of_nobody_is_told_and_a_named_one_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        address = Address(f"https://127.0.0.1:{server.server_port}")
        with running(server):
            with pytest.raises(ServerError, match=r"\(.*CERTIFICATE_VERIFY_FAILED.* self-signed certificate"):
                Server(address, AT_ONCE).ask("GET", "/")
            monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
            assert Server(address, AT_ONCE).ask("GET", "/").status_code == 501


def make_certificate(folder: Path) -> Path:
    """Write a key and its certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def test_what_lambda_never_takes_is_not_sent(echoing: FunctionUrl) -> None:
    with pytest.raises(ImageTooLargeError, match=r"^The upload is larger than the 4,718,592 bytes that Lambda takes: "):
        signed(echoing.address).ask("POST", "/predict", {}, bytes(LAMBDA_BYTES + 1))
    assert echoing.requests == []


def test_a_profile_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "work")
    with pytest.raises(ServerError) as caught:
        signed("https://xrays.example.org")
    assert str(caught.value) == (
        "https://xrays.example.org cannot be asked (The config profile (work) could not be found): set AWS_PROFILE to "
        "a profile that 'aws configure list-profiles' shows."
    )


def test_temporary_credentials_are_renewed_while_it_runs(echoing: FunctionUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after hours of `pneumonia open`: each request is signed with credentials that are valid now."""
    given = itertools.chain(["old"], itertools.repeat(TOKEN))

    class Provider(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
            document = {
                "AccessKeyId": KEY_ID,
                "SecretAccessKey": SECRET,
                "Token": next(given),
                "Expiration": f"{soon:%Y-%m-%dT%H:%M:%SZ}",
            }
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with http.server.HTTPServer(("127.0.0.1", 0), Provider) as provider, running(provider):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{provider.server_port}/")
        server = signed(echoing.address)
        assert [server.ask("GET", "/").status_code for _ in range(2)] == [200, 200]
