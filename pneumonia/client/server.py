"""Send requests to a server of the API, signed if a Lambda function has to know who asks."""

import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import BotoCoreError, ConnectionClosedError, ProxyConnectionError
from botocore.httpsession import URLLib3Session
from botocore.session import get_session
from botocore.utils import get_environ_proxies

from pneumonia.client.address import Address, quoted
from pneumonia.client.answers import refusal
from pneumonia.errors import ImageTooLargeError, ServerError, first_line
from pneumonia.storage.answers import seconds_in
from pneumonia.storage.refusals import refusals_as

CONNECT_SECONDS = 10
SILENT_SECONDS = 90  # without a byte: longer than the function may take, by default
CONNECTIONS = 8  # that stay open: more than a browser opens to one host
PAUSES = (1.0, 2.0, 4.0)  # seconds before a request is sent again, or half of them
LONGEST_PAUSE = 30.0  # seconds: a server that asks for more is not waited for
LAMBDA_BYTES = 6 * 1024 * 1024 * 3 // 4  # of a body: an event has 6 MB at most, and the body in base64
TOO_LARGE = (
    f"The upload is larger than the {LAMBDA_BYTES:,} bytes that Lambda takes: save the X-ray as a JPEG, or smaller."
)


class Server:
    """A server of the API, asked over connections that stay open; several threads may ask at once.

    Args:
        address: where it is, and whether it takes a signature.
        pauses: seconds before each further try of a request that may succeed later.

    Raises:
        ServerError: the AWS configuration cannot be used.

    Attributes:
        base: the server's address, without a slash at the end.
    """

    def __init__(self, address: Address, pauses: Sequence[float] = PAUSES) -> None:
        self.base = address.base
        self._address = address
        self._pauses = pauses
        self._fails = f"{address.base} cannot be asked"
        with refusals_as(ServerError, self._fails):
            session = get_session()
            self._credentials = session.get_credentials() if address.region else None
            self._http = URLLib3Session(
                verify=session.get_config_variable("ca_bundle") or True,
                proxies=get_environ_proxies(address.base),
                timeout=(CONNECT_SECONDS, SILENT_SECONDS),  # type: ignore[arg-type]  # the stubs know no pair
                max_pool_connections=CONNECTIONS,
            )

    def ask(self, method: str, target: str, headers: Mapping[str, str] = {}, body: bytes = b"") -> AWSResponse:
        """Send a request, again after a pause if that may help, and return the answer, whatever its status.

        Args:
            method: GET, POST…
            target: path below the address and, after a question mark, query string.
            headers: besides those that every request has.
            body: its bytes.

        Raises:
            ImageTooLargeError: Lambda takes no body of this size.
            ServerError: the server cannot be reached or breaks off, or the AWS credentials cannot be used.
        """
        if self._address.region and len(body) > LAMBDA_BYTES:
            raise ImageTooLargeError(TOO_LARGE)
        with refusals_as(ServerError, self._fails):
            for pause in self._pauses:
                asked = 0.0
                with contextlib.suppress(ConnectionResetError):
                    response = self._send(method, target, headers, body)
                    asked = seconds_in(response.headers.get("Retry-After", "")) or 0.0
                    if not may_pass(response) or asked > LONGEST_PAUSE:
                        return response
                time.sleep(max(asked, random.uniform(pause / 2, pause)))  # or all who were refused come back at once
            return self._send(method, target, headers, body)

    def refusal(self, response: AWSResponse) -> ServerError:
        """Return the error about an answer that is no success: the API's own sentence, or AWS's with what to do."""
        return refusal(self._address, response, has_credentials=self._credentials is not None)

    def _send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> AWSResponse:
        # The slash is ours: with "@elsewhere.org" after the host, that would be another host.
        url = f"{self._address.base}/{quoted(target.removeprefix('/'))}"
        request = AWSRequest(method, url, headers, body)
        if self._credentials and (region := self._address.region):
            # Temporary credentials are renewed here when they are about to expire.
            SigV4Auth(self._credentials.get_frozen_credentials(), "lambda", region).add_auth(request)
        with plain_reasons():
            response = self._http.send(request.prepare())
            check_whole(method, response)
        return response


def may_pass(response: AWSResponse) -> bool:
    """Return whether the same request may have another answer in a moment: too many at once, or the server failed."""
    return response.status_code == 429 or response.status_code >= 500


def check_whole(method: str, response: AWSResponse) -> None:
    """Read an answer's body, and check that it has the declared length, which botocore does not.

    Raises:
        ConnectionResetError: it is shorter.
    """
    got, declared = len(response.content), response.headers.get("Content-Length", "")
    if method != "HEAD" and response.status_code == 200 and declared.isdecimal() and got < int(declared):
        raise ConnectionResetError(f"the connection broke off after {got} of {declared} bytes")


@contextlib.contextmanager
def plain_reasons() -> Iterator[None]:
    """Turn botocore's errors of a connection, which name the address, into the system's reason behind them.

    Raises:
        ConnectionResetError: the connection ended early: another one may last.
        ConnectionError: there is none.
    """
    try:
        yield
    except BotoCoreError as error:
        reason: BaseException = error.kwargs.get("error", error)
        while cause := reason.__cause__ or reason.__context__:
            reason = cause
        kind = ConnectionResetError if isinstance(error, ConnectionClosedError) else ConnectionError
        through = f"{first_line(error)}: " if isinstance(error, ProxyConnectionError) else ""
        raise kind(through + (getattr(reason, "strerror", None) or first_line(reason))) from error
