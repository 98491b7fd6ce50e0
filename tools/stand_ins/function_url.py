"""A stand-in for a Lambda Function URL with AWS_IAM: checks signatures with botocore's own code, and invokes a handler.

https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
"""

import base64
import contextlib
import datetime
import http.server
import json
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tools.stand_ins.events import function_url_event
from tools.stand_ins.local_server import running

REGION: Final = "eu-central-1"
KEY_ID: Final = "ASIAEXAMPLE"
SECRET: Final = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN: Final = "AQoDYXdzEPT//example+token=="
ENVIRONMENT: Final = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
MAX_EVENT = 6 * 1024 * 1024  # bytes, of a synchronous invocation
MINUTES = 5  # that a signature is good for
SIGNATURE = re.compile(r"AWS4-HMAC-SHA256 Credential=(\S+), ?SignedHeaders=(\S+), ?Signature=(\w+)")
Invoke = Callable[[dict[str, Any]], dict[str, Any]]


class RefusedError(Exception):
    """AWS's answer to a request that never reaches the function."""

    def __init__(self, status: int, kind: str, content: Mapping[str, str | None]) -> None:
        super().__init__(kind)
        self.status = status
        self.kind = kind
        self.content = content


FORBIDDEN = RefusedError(403, "AccessDeniedException", {"Message": "Forbidden"})


class FunctionUrl(http.server.ThreadingHTTPServer):
    """Lets requests with a valid signature reach the function.

    Attributes:
        address: http://127.0.0.1:PORT.
        requests: what arrived, as `METHOD path`, oldest first.
        events: what the function was asked, oldest first.
        connections: how many were opened.
        answers: refusals to give before the function is asked again, next first.
    """

    daemon_threads = True

    def __init__(self, invoke: Invoke) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.invoke = invoke
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.connections = 0
        self.answers: list[RefusedError] = []

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that is gone."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FunctionUrl

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(f"{self.command} {self.path}")
        try:
            if self.server.answers:
                raise self.server.answers.pop(0)
            check_signature(self.command, self.path, headers, body)
            event = function_url_event(self.command, self.path, body, headers)
            if len(json.dumps(event)) > MAX_EVENT:
                message = f"Request must be smaller than {MAX_EVENT} bytes for the InvokeFunction operation"
                raise RefusedError(413, "RequestEntityTooLargeException", {"Message": message})
            self._answer(**self._response(event))
        except RefusedError as refused:
            kind = {"Content-Type": "application/json", "x-amzn-ErrorType": refused.kind}
            self._answer(refused.status, kind, json.dumps(refused.content).encode())

    def _response(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the HTTP response that Lambda makes of what the handler returns, or of its failure."""
        self.server.events.append(event)
        try:
            answer = self.server.invoke(event)
        except Exception:
            traceback.print_exc()
            return {"status": 502, "headers": {"Content-Type": "text/plain"}, "body": b"Internal Server Error"}
        text = answer.get("body", "")
        body = base64.b64decode(text) if answer.get("isBase64Encoded") else text.encode()
        return {"status": answer["statusCode"], "headers": answer.get("headers", {}), "body": body}

    do_GET = do_HEAD = do_POST = do_PUT = do_OPTIONS = pass_on  # noqa: N815  # http.server's names

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def check_signature(method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
    """Check that a request is signed for this function, over all that arrived, by whoever has SECRET.

    Raises:
        RefusedError: it is not.
    """
    if not (found := SIGNATURE.fullmatch(headers.get("authorization", ""))):
        raise FORBIDDEN
    credential, names, signature = found.groups()
    key_id, day, region, service, _ = credential.split("/")
    if (region, service) != (REGION, "lambda"):
        what = f"region, not '{region}'" if region != REGION else f"service: 'lambda', not '{service}'"
        raise _invalid(f"Credential should be scoped to a valid {what}.")
    if key_id != KEY_ID or headers.get("x-amz-security-token") != TOKEN:
        message = "The security token included in the request is invalid."
        raise RefusedError(403, "UnrecognizedClientException", {"message": message})
    signed = names.split(";")
    if missing := {"host", "x-amz-date", "x-amz-security-token"} - set(signed):
        raise _invalid(f"'{missing.pop()}' must be a signed header.")
    moment = headers["x-amz-date"]
    _check_date(moment, day)
    if signature != _signature(method, target, {name: headers.get(name, "") for name in signed}, body, moment):
        raise _invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details."
        )


def _check_date(moment: str, day: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    signed = datetime.datetime.strptime(f"{moment}+0000", "%Y%m%dT%H%M%SZ%z")
    if not moment.startswith(day) or abs(now - signed) > datetime.timedelta(minutes=MINUTES):
        raise _invalid(f"Signature expired: {moment} is now earlier than {now:%Y%m%dT%H%M%SZ} ({MINUTES} min.)")


def _signature(method: str, target: str, headers: Mapping[str, str], body: bytes, moment: str) -> str:
    """Return the signature that botocore would put on a request with these headers."""
    request = AWSRequest(method, f"https://{headers['host']}{target}", headers, body)
    request.context["timestamp"] = moment
    auth = SigV4Auth(Credentials(KEY_ID, SECRET, TOKEN), "lambda", REGION)
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))


def _invalid(message: str) -> RefusedError:
    return RefusedError(403, "InvalidSignatureException", {"message": message})


@contextlib.contextmanager
def function_url(invoke: Invoke) -> Iterator[FunctionUrl]:
    """Serve a function until the block ends.

    Args:
        invoke: hands an event to the handler and returns its answer.
    """
    server = FunctionUrl(invoke)
    with running(server):
        yield server
