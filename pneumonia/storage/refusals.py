"""Turn what S3 and other services of AWS refuse into one sentence: what failed, their own reason, and what to do.

All errors of the signed reader, boto3, the network and the disk are translated here. This module does not import boto3,
because serving does without it: whoever raises one of boto3's errors has imported the module that defines it.
"""

import contextlib
import re
import ssl
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from pneumonia.errors import PneumoniaError, in_one_line
from pneumonia.storage import advice as advices
from pneumonia.storage.answers import AddressError, MissingCredentialsError, S3Error, UnsentError, region_in

LATER = f": {advices.LATER}"
CODE = re.compile(r"[A-Za-z0-9.]+")  # what a client may read of an answer, which need not be S3's
# What keeps boto3 from sending a request, by the name of its error's class.
BOTO3_ADVICE = {
    "ConfigNotFound": "correct AWS_CONFIG_FILE",
    "ConfigParseError": "correct this file",
    "CredentialRetrievalError": "mend what gives the credentials, or log in to AWS again",
    "LoginRefreshRequired": advices.LOG_IN,
    "LoginTokenLoadError": advices.LOG_IN,
    "NoAuthTokenError": advices.LOG_IN,
    "NoRegionError": "set AWS_REGION and AWS_DEFAULT_REGION",
    "PartialCredentialsError": "set both the key's ID and its secret, or neither",
    "ProfileNotFound": "set AWS_PROFILE to a profile that 'aws configure list-profiles' shows",
    "RefreshWithMFAUnsupportedError": advices.LOG_IN,
    "SSOTokenLoadError": advices.LOG_IN,
    "TokenRetrievalError": advices.LOG_IN,
    "UnauthorizedSSOTokenError": advices.LOG_IN,
}


@contextlib.contextmanager
def refusals_as(
    error: type[PneumoniaError],
    what: str,
    *,
    permanent: type[PneumoniaError] | None = None,
    advice: Mapping[str, str] = {},
    service: str = "S3",
) -> Iterator[None]:
    """Turn errors of S3, boto3, the network and the disk into one sentence; other errors pass.

    Args:
        error: the class to raise.
        what: the beginning of the sentence, such as "The object cannot be read".
        permanent: the class to raise instead if the same request would be refused again.
        advice: what to do, by S3's code, if the caller knows better than `storage.advice`.
        service: the service that answers: "S3", or "AWS" if it may be another one.

    Raises:
        PneumoniaError: an error of one of the two classes.
    """
    try:
        yield
    except Exception as raised:
        if refusal := translated(raised, error, what, permanent=permanent, advice=advice, service=service):
            raise refusal from raised
        raise


def translated(
    raised: Exception,
    error: type[PneumoniaError],
    what: str,
    *,
    permanent: type[PneumoniaError] | None = None,
    advice: Mapping[str, str] = {},
    service: str = "S3",
) -> PneumoniaError | None:
    """Return what `refusals_as`, with the same arguments, raises instead of an error; None if it lets that pass."""
    refused = of_boto3(raised)
    if not isinstance(refused, S3Error | OSError):
        return None
    if isinstance(refused, S3Error) and refused.operation in advices.FOR_CREDENTIALS:
        service = "AWS"
    kind = permanent if permanent and _will_stay(refused) else error
    return kind(what + reason(refused, advice, service), public=_public(refused, service))


@contextlib.contextmanager
def boto3_as_signed() -> Iterator[None]:
    """Turn what boto3 raises into what the signed reader raises: S3Error or ConnectionError."""
    try:
        yield
    except Exception as raised:
        if (refused := of_boto3(raised)) is raised:
            raise
        raise refused from raised


def of_boto3(error: BaseException) -> BaseException:
    """Return the signed reader's equivalent of an error of boto3; return any other error unchanged."""
    botocore, boto3 = map(sys.modules.get, ("botocore.exceptions", "boto3.exceptions"))
    if botocore and boto3 and isinstance(error, boto3.Boto3Error):
        cause = error.__context__  # of a transfer in parts: what S3 answered to one of them
        is_told = isinstance(cause, botocore.ClientError | botocore.BotoCoreError)
        return of_boto3(cause) if cause and is_told else UnsentError(in_one_line(str(error)))
    if botocore and isinstance(error, botocore.ClientError):
        return _refusal_in(error.response, error.operation_name)
    if botocore and isinstance(error, botocore.BotoCoreError):
        return _without_answer(error, botocore)
    if (urllib3 := sys.modules.get("urllib3")) and isinstance(error, urllib3.exceptions.HTTPError):
        return ConnectionError(in_one_line(str(error)))  # of a body, which boto3 passes on in part
    if isinstance(error, UnicodeEncodeError):  # of bytes in an argument, or half a character in an event
        return AddressError("the name is not text that can be sent")
    return error


def _refusal_in(response: Mapping[str, Any], operation: str) -> S3Error:
    told, of_http = response.get("Error", {}), response.get("ResponseMetadata", {})
    status = of_http.get("HTTPStatusCode", 0)
    region = told.get("Region") or of_http.get("HTTPHeaders", {}).get("x-amz-bucket-region")
    region = region or region_in(told.get("Endpoint", ""))
    return S3Error(
        told.get("Code") or str(status),
        status,
        region,
        told.get("Message"),
        operation=operation,
        retry_after=of_http.get("HTTPHeaders", {}).get("retry-after"),
    )


def _without_answer(error: Exception, botocore: ModuleType) -> ConnectionError:
    reason = in_one_line(str(error))
    if isinstance(error, botocore.NoCredentialsError):
        return MissingCredentialsError(reason, "run 'aws configure' or 'aws sso login', or set AWS_PROFILE")
    if isinstance(error, botocore.ParamValidationError):
        return AddressError(reason)
    if isinstance(error, botocore.SSLError) and _lacks_a_bundle(error):
        return UnsentError(reason, advices.BUNDLE)
    broken = (botocore.ConnectionError, botocore.HTTPClientError, botocore.IncompleteReadError)
    if isinstance(error, (*broken, botocore.FlexibleChecksumError)):
        return ConnectionError(reason)
    return UnsentError(reason, BOTO3_ADVICE.get(type(error).__name__))


def _lacks_a_bundle(error: Exception) -> bool:
    """Return whether boto3's error about TLS comes of a file of certificates that cannot be read."""
    of_urllib3 = getattr(error, "kwargs", {}).get("error")
    cause = next(iter(getattr(of_urllib3, "args", ())), None)
    if isinstance(cause, ssl.SSLError):
        return cause.library in {"ASN1", "PEM", "X509"}
    return isinstance(cause, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError)


def is_lasting(raised: Exception) -> bool:
    """Return whether S3 has refused a request, and would refuse the same one again."""
    refused = of_boto3(raised)
    return isinstance(refused, S3Error | OSError) and _will_stay(refused)


def _will_stay(error: S3Error | OSError) -> bool:
    return not advices.may_pass(error) if isinstance(error, S3Error) else isinstance(error, AddressError)


def reason(error: S3Error | OSError, advice: Mapping[str, str], service: str) -> str:
    """Return the end of the sentence about a refusal: the reason, whole, and what to do."""
    tried = "".join(f" {note}" for note in getattr(error, "__notes__", ()))  # how often, by `retries`
    if isinstance(error, S3Error):
        words = f" ({error.message})" if error.message else ""
        answer = f"{service} answers {error.code}{words}{tried}"
        to_do = advice.get(error.code) or advices.on(error)
        return f", {answer}: {to_do}." if to_do else f": {answer}."
    if isinstance(error, MissingCredentialsError):
        return f" without AWS credentials: {error.advice}."
    text = error.strerror or in_one_line(str(error)) or type(error).__name__
    if isinstance(error, ConnectionError | TimeoutError):
        to_do = _advice_on_no_answer(error)
        return f" ({text}){tried}: {to_do}." if to_do else f": {text.rstrip('.')}{tried}."
    where = f" ({error.filename})" if error.filename else ""
    return f": {text.rstrip('.:')}{where}."


def _advice_on_no_answer(error: ConnectionError | TimeoutError) -> str | None:
    if isinstance(error, UnsentError):
        return error.advice
    if "certificate verify failed" in str(error):
        return advices.CERTIFICATE
    return advices.NETWORK if isinstance(error, ConnectionError) else advices.LATER


def _public(error: S3Error | OSError, service: str) -> str | None:
    """Return what clients of the API may know: no bucket, no file, no account, no host."""
    if isinstance(error, S3Error):
        answer = f"answers {error.code}" if CODE.fullmatch(error.code) else "refuses"
        return f"{service} {answer}{LATER if error.is_temporary else ''}"
    if isinstance(error, ConnectionError | TimeoutError):
        if isinstance(error, UnsentError):
            return f"{service} cannot be asked"
        is_certificate = _advice_on_no_answer(error) == advices.CERTIFICATE
        return f"{service} cannot be reached{'' if is_certificate else LATER}"
    return None
