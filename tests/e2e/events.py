"""Events as AWS sends them to a function behind a Function URL (payload format 2.0)."""

import base64
import time
import uuid
from typing import Any
from urllib.parse import parse_qsl

DOMAIN_PREFIX = "qz3x7yk2mhd5b6t4uncwav8e9f0pgjsr"
DOMAIN = f"{DOMAIN_PREFIX}.lambda-url.eu-central-1.on.aws"


def function_url_event(
    method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the event of one HTTPS request by an anonymous client.

    Args:
        method: GET, POST…
        path: path and, after a question mark, query string.
        body: as the client sent it; AWS passes binary kinds on in base64.
        headers: the client's; their names arrive in lower case.
    """
    path, _, query = path.partition("?")
    now = time.time()
    agent = "curl/8.14.1"
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {
            "accept": "*/*",
            "content-length": str(len(body)),
            "host": DOMAIN,
            "user-agent": agent,
            "x-amzn-tls-cipher-suite": "TLS_AES_128_GCM_SHA256",
            "x-amzn-tls-version": "TLSv1.3",
            "x-amzn-trace-id": f"Root=1-{int(now):08x}-{uuid.uuid4().hex[:24]}",
            "x-forwarded-for": "203.0.113.7",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        }
        | {name.lower(): value for name, value in (headers or {}).items()},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": DOMAIN_PREFIX,
            "domainName": DOMAIN,
            "domainPrefix": DOMAIN_PREFIX,
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": agent,
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": bool(body),
    }
    # What a request does not have, AWS leaves out.
    if query:
        event["queryStringParameters"] = dict(parse_qsl(query, keep_blank_values=True))
    if body:
        event["body"] = base64.b64encode(body).decode()
    return event


def multipart(field: str, filename: str, content: bytes, content_type: str) -> tuple[bytes, str]:
    """Return the body of a form with one file, and its Content-Type header."""
    boundary = f"------------------------{uuid.uuid4().hex[:22]}"
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{field}"; filename="{filename}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
