"""Turn S3's refusals into one sentence: what failed, with which code, and what to do.

All errors of the signed reader, boto3, the network and the disk are translated here. This module does not import boto3,
because serving does without it: whoever raises one of boto3's errors has imported the module that defines it.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping

from pneumonia.errors import PneumoniaError, first_line

# Codes of S3 and other AWS services about the caller's credentials.
UNACCEPTED_CREDENTIALS = (
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
)
# Codes that say nothing about the requested object, although their status is 400 to 499.
PASSING = {*UNACCEPTED_CREDENTIALS, "RequestTimeout", "RequestTimeTooSkewed", "TooManyRequests"}
FORBIDDEN = "grant the role s3:GetObject, s3:PutObject and s3:ListBucket as it needs them"
ADVICE = {
    "NoSuchBucket": "create the bucket, or name another",
    "NoSuchKey": "check the key",
    "404": "check the key",  # the answer to a HEAD request has no body, so boto3 uses the status as the code
    "AccessDenied": FORBIDDEN,
    "403": FORBIDDEN,
    "RequestTimeTooSkewed": "set this machine's clock",
    **dict.fromkeys(UNACCEPTED_CREDENTIALS, "renew your AWS credentials"),
}
LATER = "try again later"


class S3Error(Exception):
    """S3 refused a request.

    Attributes:
        code: S3's name of the reason, such as NoSuchKey.
        status: of the HTTP response.
        region: the bucket's region, if S3 names it, else None.
        message: the reason in S3's words, if they are known, else None.
    """

    def __init__(self, code: str, status: int, region: str | None = None, message: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.status = status
        self.region = region
        self.message = message

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later: the refusal is temporary, or concerns only this caller."""
        return not 400 <= self.status < 500 or self.status == 429 or self.code in PASSING

    def advice(self) -> str | None:
        """Return what to do, or None if that is not known."""
        return ADVICE.get(self.code) or (LATER if self.may_pass else None)


class MissingCredentialsError(ConnectionError):
    """There are no credentials to sign a request with."""


class AddressError(ConnectionError):
    """No bucket can have this name, or no object can have this key."""


@contextlib.contextmanager
def refusals_as(
    error: type[PneumoniaError],
    what: str,
    *,
    permanent: type[PneumoniaError] | None = None,
    advice: Mapping[str, str] = {},
    private: bool = False,
    service: str = "S3",
) -> Iterator[None]:
    """Turn errors of S3, boto3, the network and the disk into one sentence; other errors pass.

    Args:
        error: the class to raise.
        what: the beginning of the sentence, such as "The object cannot be read".
        permanent: the class to raise instead if the same request would be refused again.
        advice: what to do, by S3's code, if that differs from ADVICE.
        private: leave out S3's and boto3's own words, which name the object, the account and the role.
        service: the service that answers.

    Raises:
        PneumoniaError: an error of one of the two classes.
    """
    try:
        yield
    except Exception as raised:
        refused = of_boto3(raised)
        if isinstance(refused, S3Error):
            reason = _reason_of_s3(refused, advice.get(refused.code) or refused.advice(), service, private=private)
        elif private and refused is not raised and type(refused) is ConnectionError:
            reason = f" ({type(raised).__name__}): {LATER}."
        elif isinstance(refused, OSError):
            reason = _reason_of_system(refused)
        else:
            raise
        will_stay = isinstance(refused, AddressError) or (isinstance(refused, S3Error) and not refused.may_pass)
        raise (permanent if permanent and will_stay else error)(what + reason) from raised


@contextlib.contextmanager
def boto3_as_signed() -> Iterator[None]:
    """Turn what boto3 raises into what the signed reader raises: S3Error or ConnectionError."""
    try:
        yield
    except Exception as raised:
        if (refused := of_boto3(raised)) is raised:
            raise
        raise refused from raised


def of_boto3(error: Exception) -> Exception:
    """Return the signed reader's equivalent of an error of boto3; return any other error unchanged."""
    botocore, boto3 = map(sys.modules.get, ("botocore.exceptions", "boto3.exceptions"))
    if botocore and isinstance(error, botocore.ClientError):
        told, response = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        region = response.get("HTTPHeaders", {}).get("x-amz-bucket-region")
        return S3Error(told.get("Code", "Unknown"), response.get("HTTPStatusCode", 0), region, told.get("Message"))
    if botocore and isinstance(error, botocore.NoCredentialsError):
        return MissingCredentialsError()
    if botocore and isinstance(error, botocore.ParamValidationError):
        return AddressError()
    if (botocore and isinstance(error, botocore.BotoCoreError)) or (boto3 and isinstance(error, boto3.Boto3Error)):
        return ConnectionError(first_line(error))
    return error


def _reason_of_s3(error: S3Error, advice: str | None, service: str, *, private: bool) -> str:
    words = "" if private or not error.message else f" ({error.message.strip().rstrip('.')})"
    answer = f"{service} answers {error.code}{words}"
    return f", {answer}: {advice}." if advice else f": {answer}."


def _reason_of_system(error: OSError) -> str:
    """Return what is wrong with the network or the disk."""
    if isinstance(error, MissingCredentialsError):
        return " without AWS credentials: run 'aws configure' or 'aws sso login', or set AWS_PROFILE."
    if isinstance(error, AddressError):
        return ": there can be no such address."
    where = f" ({error.filename})" if error.filename else ""
    return f": {(error.strerror or first_line(error)).rstrip('.:')}{where}."
