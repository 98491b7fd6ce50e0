"""Events as AWS sends them to a function: of a Function URL, of both kinds of API Gateway, of a load balancer.

https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
"""

import base64
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl

ACCOUNT = "123456789012"
AGENT = "curl/8.14.1"
CLIENT = "203.0.113.7"
DOMAIN_PREFIX = "qz3x7yk2mhd5b6t4uncwav8e9f0pgjsr"
DOMAIN = f"{DOMAIN_PREFIX}.lambda-url.eu-central-1.on.aws"
API_ID = "a1b2c3d4e5"
API_DOMAIN = f"{API_ID}.execute-api.eu-central-1.amazonaws.com"
CUSTOM_DOMAIN = "api.example.org"
BALANCER = "xrays-1234567890.eu-central-1.elb.amazonaws.com"
TARGET_GROUP = f"arn:aws:elasticloadbalancing:eu-central-1:{ACCOUNT}:targetgroup/xrays/6d0ecf831eec9f09"
DEFAULT_STAGE = "$default"  # of HTTP APIs: the one that addresses do not name
TEXT = ("text/", "application/json", "application/javascript", "application/xml")  # kinds that come as they are


def function_url_event(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the event of one HTTPS request by an anonymous client to a Function URL (payload format 2.0).

    Args:
        method: GET, POST…
        path: path and, after a question mark, query string.
        body: as the client sent it; AWS passes binary kinds on in base64.
        headers: the client's; their names arrive in lower case.
    """
    return _payload_2(method, path, body, headers, DOMAIN, DEFAULT_STAGE)


def http_api_event(
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    stage: str = DEFAULT_STAGE,
    mapping: str | None = None,
) -> dict[str, Any]:
    """Return the event of one request to an HTTP API (API Gateway v2, payload format 2.0).

    Args:
        method: GET, POST…
        path: path below the stage and, after a question mark, query string.
        body: as the client sent it.
        headers: the client's; their names arrive in lower case.
        stage: what the client's address has before the path, unless it is the default; both paths in the event have it.
        mapping: base path of the custom domain that the client asks, with a slash before it; it stands for the stage.
    """
    before = mapping if mapping is not None else "" if stage == DEFAULT_STAGE else f"/{stage}"
    return _payload_2(method, before + path, body, headers, API_DOMAIN if mapping is None else CUSTOM_DOMAIN, stage)


def http_api_1_event(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, stage: str = DEFAULT_STAGE
) -> dict[str, Any]:
    """Return the event of one request to an HTTP API that is set to payload format 1.0; arguments as above."""
    event = rest_api_event(method, path, body, headers, stage)
    path = event["path"] if stage == DEFAULT_STAGE else f"/{stage}{event['path']}"
    event["requestContext"] |= {"path": path}
    return event | {"version": "1.0", "path": path}


def rest_api_event(
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    stage: str = "prod",
    mapping: str | None = None,
) -> dict[str, Any]:
    """Return the event of one request to a REST API (API Gateway v1, payload format 1.0) with a proxy resource.

    Its binary media types are set to those that are not text.

    Args:
        method: GET, POST…
        path: path below the stage and, after a question mark, query string.
        body: as the client sent it.
        headers: the client's; their names arrive as the client wrote them.
        stage: what the client's address has before the path; one path in the event has it, and one has not.
        mapping: base path of the custom domain that the client asks, with a slash before it; it stands for the stage,
            and both paths have it.
    """
    path, _, query = path.partition("?")
    proxy = path.strip("/")
    resource = "/{proxy+}" if proxy else "/"
    path, requested = (path, f"/{stage}{path}") if mapping is None else (mapping + path, mapping + path)
    now = time.time()
    domain = API_DOMAIN if mapping is None else CUSTOM_DOMAIN
    sent = {name.title(): value for name, value in _headers(domain, body, headers).items()}
    many = parse_qs(query, keep_blank_values=True)
    text, is_base64 = _body(body, headers)
    return {
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": sent,
        "multiValueHeaders": {name: [value] for name, value in sent.items()},
        # What a request does not have is null.
        "queryStringParameters": {name: values[-1] for name, values in many.items()} or None,
        "multiValueQueryStringParameters": many or None,
        "pathParameters": {"proxy": proxy} if proxy else None,
        "stageVariables": None,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": API_ID,
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "extendedRequestId": "JJbxmplHYosFVYQ=",
            "httpMethod": method,
            "identity": {"accessKey": None, "accountId": None, "sourceIp": CLIENT, "user": None, "userAgent": AGENT},
            "path": requested,
            "protocol": "HTTP/1.1",
            "requestId": str(uuid.uuid4()),
            "requestTime": _clock(now),
            "requestTimeEpoch": int(now * 1000),
            "resourceId": "123abc",
            "resourcePath": resource,
            "stage": stage,
        },
        "body": text,
        "isBase64Encoded": is_base64,
    }


def load_balancer_event(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, multi_value: bool = False
) -> dict[str, Any]:
    """Return the event of one request to an Application Load Balancer.

    Args:
        method: GET, POST…
        path: path and, after a question mark, query string, which the balancer takes apart and does not decode.
        body: as the client sent it.
        headers: the client's; their names arrive in lower case.
        multi_value: whether the target group is set to multi-value headers.
    """
    path, _, query = path.partition("?")
    sent = _headers(BALANCER, body, headers)
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    text, is_base64 = _body(body, headers)
    event: dict[str, Any] = {
        "requestContext": {"elb": {"targetGroupArn": TARGET_GROUP}},
        "httpMethod": method,
        "path": path,
        "body": text or "",
        "isBase64Encoded": is_base64,
    }
    if multi_value:
        return event | {
            "multiValueQueryStringParameters": {name: [v for n, v in pairs if n == name] for name, _ in pairs},
            "multiValueHeaders": {name: [value] for name, value in sent.items()},
        }
    return event | {"queryStringParameters": dict(pairs), "headers": sent}


def multipart(field: str, filename: str, content: bytes, content_type: str) -> tuple[bytes, str]:
    """Return the body of a form with one file, and its Content-Type header."""
    boundary = f"------------------------{uuid.uuid4().hex[:22]}"
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{field}"; filename="{filename}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _payload_2(
    method: str, path: str, body: bytes, headers: Mapping[str, str] | None, domain: str, stage: str
) -> dict[str, Any]:
    path, _, query = path.partition("?")
    now = time.time()
    api = domain.partition(".")[0]
    text, is_base64 = _body(body, headers)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": _headers(domain, body, headers),
        "requestContext": {
            "accountId": "anonymous" if domain == DOMAIN else ACCOUNT,
            "apiId": api,
            "domainName": domain,
            "domainPrefix": api,
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": CLIENT,
                "userAgent": AGENT,
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": stage,
            "time": _clock(now),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": is_base64,
    }
    # What a request does not have, AWS leaves out.
    if query:
        event["queryStringParameters"] = dict(parse_qsl(query, keep_blank_values=True))
    if text is not None:
        event["body"] = text
    return event


def _headers(host: str, body: bytes, headers: Mapping[str, str] | None) -> dict[str, str]:
    return {
        "accept": "*/*",
        "content-length": str(len(body)),
        "host": host,
        "user-agent": AGENT,
        "x-amzn-tls-cipher-suite": "TLS_AES_128_GCM_SHA256",
        "x-amzn-tls-version": "TLSv1.3",
        "x-amzn-trace-id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]}",
        "x-forwarded-for": CLIENT,
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    } | {name.lower(): value for name, value in (headers or {}).items()}


def _body(body: bytes, headers: Mapping[str, str] | None) -> tuple[str | None, bool]:
    """Return a body as an event has it, and whether that is in base64."""
    if not body:
        return None, False
    kinds = [value for name, value in (headers or {}).items() if name.lower() == "content-type"]
    if kinds and kinds[0].startswith(TEXT):
        return body.decode(), False
    return base64.b64encode(body).decode(), True


def _clock(now: float) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now))
