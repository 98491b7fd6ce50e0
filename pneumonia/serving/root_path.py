"""What a client's address has before the path of a route: a gateway's stage or mapping, or what a proxy adds."""

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from pneumonia.errors import ConfigurationError


def root_path_from_environment() -> str | None:
    """Return ROOT_PATH as "/a/b", percent-decoded as a request's path is, "" for a single slash, None if it is not set.

    Raises:
        ConfigurationError: it is an address, or no browser asks for such a path.
    """
    text = unquote(os.environ.get("ROOT_PATH", "").strip())
    if "://" in text or re.search(r'[?#"<>\\]', text) or {".", ".."} & set(text.split("/")):
        raise ConfigurationError(
            f"ROOT_PATH is {text!r}: set it to the path alone, such as /xray for https://me.org/xray/docs."
        )
    return tidied(text).rstrip("/") if text else None


class RootPath:
    """Keep what comes before a route's path apart: routes are found, and links lead back to the client's address.

    Extra slashes, as in `//predict` or `/predict/`, are dropped. A redirect could lose the body, or lead to the host
    behind a proxy.

    Args:
        app: what to call.
        configured: ROOT_PATH; the gateway or proxy may keep it in the paths that it passes on, or take it away. None to
            infer it from API Gateway's events, or to take the server's `--root-path`.
    """

    def __init__(self, app: ASGIApp, configured: str | None) -> None:
        self._app = app
        self._configured = configured

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with `root_path`, and with a path that begins with it, as ASGI has it."""
        if scope["type"] == "http":
            path, found = (in_event if "aws.event" in scope else at_server)(scope)
            root = found if self._configured is None else self._configured
            below = without(root, path)
            if below == path:  # the gateway or proxy has taken it away, or put its own before it
                below = without(root, without(found, path))
            scope = {**scope, "path": root + below, "root_path": root}
        await self._app(scope, receive, send)


def at_server(scope: Scope) -> tuple[str, str]:
    """Return the path that a server got, and its `--root-path`, which it has put before that path."""
    root = tidied(scope.get("root_path", "")).rstrip("/")
    return without(root, tidied(scope["path"])), root


def in_event(scope: Scope) -> tuple[str, str]:
    """Return the path that the client of a gateway requested, and what in it is before the route's path.

    A REST API takes its stage off `path` alone, and keeps the base path of a custom domain in it.
    """
    event: dict[str, Any] = scope["aws.event"]
    context = event.get("requestContext") or {}
    path, requested = tidied(scope["path"]), tidied(unquote(context.get("path") or ""))
    if requested.endswith(path) or path == "/":
        path = requested
    resource = context.get("resourcePath") or (event.get("routeKey") or "").partition(" ")[2]  # of "GET /{proxy+}"
    matched = resource_path(resource, event.get("pathParameters") or {})
    if resource == "/" or (matched and path.endswith(matched)):
        return path, path.removesuffix(matched).rstrip("/")
    stage = f"/{context.get('stage') or '$default'}"  # the default stage never appears in an address
    return path, stage if without(stage, path) != path else ""


def resource_path(resource: str, parameters: Mapping[str, str]) -> str:
    """Return the path that a gateway's resource has matched: of `/{proxy+}`, with `predict` as `proxy`, `/predict`.

    It is empty for the root, and for `$default`, which says nothing.
    """
    path = re.sub(r"\{(\w+)\+?\}", lambda match: unquote(parameters.get(match[1]) or ""), resource)
    return tidied(path).rstrip("/") if path.startswith("/") else ""


def without(root: str, path: str) -> str:
    """Return a path without `root` at its beginning, unchanged if it begins otherwise."""
    return (path[len(root) :] or "/") if f"{path}/".startswith(f"{root}/") else path


def tidied(path: str) -> str:
    """Return a path that begins with a slash, ends with none, and has none twice."""
    return "/" + "/".join(part for part in path.split("/") if part)
