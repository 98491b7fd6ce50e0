"""The address of a server of the API, as people write it."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from pneumonia.errors import ConfigurationError

# https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
FUNCTION_URL = re.compile(r"[a-z0-9]+\.lambda-url\.([a-z0-9-]+)\.on\.aws")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
REGION = re.compile(r"[a-z]+(-[a-z]+)+-\d+")
HOST = re.compile(r"[\w.:-]+", re.ASCII)
ROUTE = re.compile(r"(/+predict(/+batch)?)?/*$", re.IGNORECASE)  # what people copy along with the address
KEPT = "/?%:@!$&'()*+,=~"  # characters that need no quoting, and what is quoted already
EXAMPLES = "name it as https://HOST or http://127.0.0.1:8000"


@dataclass(frozen=True)
class Address:
    """A server of the API.

    Attributes:
        base: scheme, host, and the path before the API's own, without a slash at the end.
        region: that of the Lambda function for which requests are signed; None for a server that needs no signature.
    """

    base: str
    region: str | None = None

    @classmethod
    def of(cls, url: str, region: str | None = None) -> "Address":
        """Return the server that a URL names, with or without scheme, slash at the end, or `/predict`.

        Args:
            url: as somebody wrote it.
            region: to sign for; None for that of a Function URL, and for no signature at other URLs.

        Raises:
            ConfigurationError: the text names no server of the API, or one to which signatures must not be sent.
        """
        if region is not None and not REGION.fullmatch(region):
            raise ConfigurationError(f"{region!r} is not an AWS region: name one such as eu-central-1.")
        host, parts = _parts_of(url)
        function = FUNCTION_URL.fullmatch(host)
        scheme = "https" if function else parts.scheme  # a Function URL takes nothing else
        if region and scheme == "http" and host not in LOOPBACK:
            raise ConfigurationError(f"{url} is not encrypted, and signatures are secrets: use https with --sign.")
        netloc = (f"[{host}]" if ":" in host else host) + (f":{parts.port}" if parts.port is not None else "")
        path = quoted(ROUTE.sub("", parts.path))
        return cls(f"{scheme}://{netloc}{path}", region or (function[1] if function else None))


def quoted(target: str) -> str:
    """Return a path, with or without a query, in the spelling that botocore and urllib3 send unchanged.

    What they change after it was signed, the server finds changed.
    """
    return re.sub(
        "%[0-9a-f]{2}",
        lambda escape: escape[0].upper(),
        quote(target, safe=KEPT, errors="surrogateescape"),
        flags=re.IGNORECASE,
    )


def _parts_of(url: str) -> tuple[str, SplitResult]:
    """Return a URL's host in ASCII and lower case, and its parts.

    Raises:
        ConfigurationError: the text is not the URL of a server.
    """
    text = url.strip()
    try:
        parts = urlsplit(text if "://" in text else f"https://{text.removeprefix('//')}")
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is not the address of a server ({error}): {EXAMPLES}.") from error
    if parts.scheme not in {"http", "https"} or not HOST.fullmatch(host) or port == 0:
        raise ConfigurationError(f"{url!r} is not the address of a server: {EXAMPLES}.")
    if parts.query or parts.fragment or parts.username is not None:
        raise ConfigurationError(f"{url!r} has more than a host and a path: {EXAMPLES}.")
    if "://" not in text and host in LOOPBACK:
        parts = parts._replace(scheme="http")
    return host, parts
