"""Show a server's page on this machine, and sign what the browser sends to it.

Whoever opens the address asks with your AWS credentials: it is for browsers on this machine alone. Ctrl-C stops it.
"""

import argparse
import contextlib
import re
from collections.abc import Mapping

from botocore.awsrequest import AWSResponse
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from pneumonia.client.address import Address
from pneumonia.client.answers import detail_of
from pneumonia.client.server import Server
from pneumonia.command import SIGN_HELP
from pneumonia.errors import ServerError
from pneumonia.serving.middleware import BodyLimit
from pneumonia.serving.problems import add_problem_handlers
from pneumonia.serving.server import LocalServer, listen
from pneumonia.serving.uploads import Uploads

EPILOG = "example: pneumonia open https://abc123.lambda-url.eu-central-1.on.aws"
# A browser on this machine may have cookies of other servers on 127.0.0.1: nothing else is passed on.
PASSED_ON = ("accept", "accept-language", "content-type", "if-modified-since", "if-none-match", "range", "user-agent")
# Of the connection to the server, or written anew for the browser's.
LEFT_OUT = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}
OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")
OTHER_HOST = "This address is for browsers on this machine: open it as http://127.0.0.1 or http://localhost."
OTHER_ORIGIN = "Another site sent this request: only the page at this address may."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("url", metavar="URL", help="a Lambda Function URL, or another server of the API")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="where to listen (any free port)")
    parser.add_argument("--sign", metavar="REGION", help=SIGN_HELP)


def run(args: argparse.Namespace) -> None:
    """Show the page until Ctrl-C.

    Raises:
        ConfigurationError: the URL is no server's, or the port cannot be used.
        ServerError: the server cannot be asked, or refuses.
    """
    server = Server(Address.of(args.url, args.sign))
    with contextlib.suppress(KeyboardInterrupt), listen(args.port) as listener:
        if (health := server.ask("GET", "/health")).status_code != 200:
            raise server.refusal(health)
        LocalServer(create_app(server), listener, log_level="warning").run(sockets=[listener])


def create_app(server: Server) -> FastAPI:
    """Return the app that passes on to a server what a browser on this machine asks."""
    app = FastAPI(openapi_url=None)  # no documentation but the server's
    app.add_middleware(Uploads)
    app.add_middleware(BodyLimit)
    add_problem_handlers(app)
    app.add_exception_handler(ServerError, answer_unreachable)

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST"])
    async def pass_on(request: Request) -> Response:
        check_comes_from_here(request.headers)
        return await run_in_threadpool(answer_of, server, request, await request.body())

    return app


def check_comes_from_here(headers: Mapping[str, str]) -> None:
    """Check that a page at this address, or a program on this machine, sent a request.

    Any site may send requests to 127.0.0.1, and may even let its own name resolve to that.

    Raises:
        HTTPException: another site did.
    """
    host = headers.get("host", "")
    if not OWN_HOST.fullmatch(host):
        raise HTTPException(403, OTHER_HOST)
    # Of the requests without an Origin, browsers tell those for another site's page; a link there may lead here.
    for_other_page = headers.get("sec-fetch-site") in {"cross-site", "same-site"}
    is_link = headers.get("sec-fetch-mode") == "navigate"
    if headers.get("origin", f"http://{host}") != f"http://{host}" or (for_other_page and not is_link):
        raise HTTPException(403, OTHER_ORIGIN)


def answer_of(server: Server, request: Request, body: bytes) -> Response:
    """Pass a request on, and return the server's answer; what refuses instead of the API gets the API's own form.

    Raises:
        ImageTooLargeError: Lambda takes no body of this size.
        ServerError: the server cannot be reached.
    """
    query = request.scope["query_string"].decode("latin-1")
    target = request.scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
    headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
    answer = server.ask(request.method, target, headers, body)
    if answer.status_code >= 400 and request.method != "HEAD" and not detail_of(answer):
        return JSONResponse({"detail": str(server.refusal(answer))}, answer.status_code)
    return Response(answer.content, answer.status_code, headers_for_the_browser(server, request.method, answer))


def headers_for_the_browser(server: Server, method: str, answer: AWSResponse) -> dict[str, str]:
    """Return the headers of a server's answer, without those of its connection, and with redirects that lead here."""
    left_out = LEFT_OUT - {"content-length"} if method == "HEAD" else LEFT_OUT  # of what a GET would have
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in left_out}
    if "location" in headers:
        headers["location"] = headers["location"].removeprefix(server.base)
    return headers


def answer_unreachable(_: Request, error: Exception) -> JSONResponse:
    """Answer that the server cannot be asked."""
    return JSONResponse({"detail": str(error)}, 502)
