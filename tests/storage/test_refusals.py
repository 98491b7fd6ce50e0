import subprocess
import sys
from pathlib import Path

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    InvalidRegionError,
    LoginRefreshRequired,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from pneumonia.errors import ObjectError, PneumoniaError, StorageError, WeightsError, WeightsUnavailableError
from pneumonia.storage.answers import S3Error
from pneumonia.storage.refusals import boto3_as_signed, refusals_as
from tests.builders.checkout import PROJECT
from tools.stand_ins.moto import Moto

NO_CREDENTIALS = "It fails without AWS credentials: run 'aws configure' or 'aws sso login', or set AWS_PROFILE."
URL = "https://models.s3.amazonaws.com/patient.jpg"


def client_error(code: str, status: int, message: str = "", operation: str = "GetObject") -> ClientError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)  # type: ignore[arg-type]  # the rest of a response is not looked at


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (S3Error("NoSuchBucket", 404), "It fails, S3 answers NoSuchBucket: create the bucket, or name another."),
        (S3Error("SlowDown", 503), "It fails, S3 answers SlowDown: try again later."),
        (ConnectionError("it broke off"), "It fails (it broke off): check the network, and try again later."),
        (OSError(28, "No space left on device"), "It fails: No space left on device."),
        (OSError(28, "No space left on device", "/tmp/m"), "It fails: No space left on device (/tmp/m)."),
        (TimeoutError(), "It fails (TimeoutError): try again later."),
        (
            client_error("RequestTimeTooSkewed", 403, "The difference is too large."),
            "It fails, S3 answers RequestTimeTooSkewed (The difference is too large.): set this machine's clock.",
        ),
        (client_error("Odd", 400, "Something is odd."), "It fails: S3 answers Odd (Something is odd.)."),
        (NoCredentialsError(), NO_CREDENTIALS),
        (S3UploadFailedError("Failed to upload a: why"), "It fails: Failed to upload a: why."),
        (
            EndpointConnectionError(endpoint_url=URL),
            f'It fails (Could not connect to the endpoint URL: "{URL}"): check the network, and try again later.',
        ),
    ],
)
def test_what_fails_becomes_a_sentence(error: Exception, sentence: str) -> None:
    with pytest.raises(WeightsUnavailableError) as caught, refusals_as(WeightsUnavailableError, "It fails"):
        raise error
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("error", "kind", "public"),
    [
        (client_error("NoSuchKey", 404, URL), ObjectError, "S3 answers NoSuchKey"),
        (client_error("Odd", 400, URL), ObjectError, "S3 answers Odd"),
        (client_error("AccessDenied", 403, URL), ObjectError, "S3 answers AccessDenied"),
        (client_error("KMS.DisabledException", 400, URL), ObjectError, "S3 answers KMS.DisabledException"),
        (client_error("InvalidObjectState", 403, URL), ObjectError, "S3 answers InvalidObjectState"),
        (client_error("PermanentRedirect", 301, URL), ObjectError, "S3 answers PermanentRedirect"),
        (client_error("NotImplemented", 501, URL), ObjectError, "S3 answers NotImplemented"),
        (ParamValidationError(report=URL), ObjectError, "S3 cannot be asked"),
        (client_error(f"no {URL}", 403), ObjectError, "S3 refuses"),
        (client_error("AccessDenied", 500, URL, "CopyObject"), ObjectError, "S3 answers AccessDenied"),
        (client_error("AccessDenied", 403, URL, "AssumeRole"), StorageError, "AWS answers AccessDenied"),
        (client_error("SlowDown", 503, URL), StorageError, "S3 answers SlowDown: try again later"),
        (client_error("TooManyRequests", 429, URL), StorageError, "S3 answers TooManyRequests: try again later"),
        (client_error("RequestTimeout", 400, URL), StorageError, "S3 answers RequestTimeout: try again later"),
        (client_error("ExpiredToken", 400, URL), StorageError, "S3 answers ExpiredToken"),
        (client_error("RequestTimeTooSkewed", 403, URL), StorageError, "S3 answers RequestTimeTooSkewed"),
        (client_error("AccountProblem", 403, URL), StorageError, "S3 answers AccountProblem"),
        (EndpointConnectionError(endpoint_url=URL), StorageError, "S3 cannot be reached: try again later"),
        (NoCredentialsError(), StorageError, "S3 cannot be asked"),
        (
            SSLError(endpoint_url=URL, error=OSError("certificate verify failed: self-signed")),
            StorageError,
            "S3 cannot be reached",
        ),
        (OSError(28, "No space left on device", "/tmp/m"), StorageError, None),
    ],
)
def test_what_stays_is_told_from_what_may_pass_and_clients_learn_no_address(
    error: Exception, kind: type[PneumoniaError], public: str | None
) -> None:
    with pytest.raises(PneumoniaError) as caught, refusals_as(StorageError, "It fails", permanent=ObjectError):
        raise error
    assert (type(caught.value), caught.value.public) == (kind, public)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (UnauthorizedSSOTokenError(), "log in to AWS again"),
        (SSOTokenLoadError(error_msg="Token for work does not exist"), "log in to AWS again"),
        (TokenRetrievalError(provider="sso", error_msg="Token has expired and refresh failed"), "log in to AWS again"),
        (LoginRefreshRequired(), "log in to AWS again"),
        (CredentialRetrievalError(provider="custom-process", error_msg="exit status 1"), "mend what gives"),
        (PartialCredentialsError(provider="env", cred_var="aws_secret_access_key"), "set both the key's ID and its"),
        (ProfileNotFound(profile="work"), "set AWS_PROFILE to a profile that 'aws configure list-profiles' shows"),
        (ConfigParseError(path="/home/me/.aws/config"), "correct this file"),
        (NoRegionError(), "set AWS_REGION and AWS_DEFAULT_REGION"),
        (ConnectTimeoutError(endpoint_url=URL), "check the network, and try again later"),
        (ReadTimeoutError(endpoint_url=URL), "check the network, and try again later"),
        (ConnectionClosedError(endpoint_url=URL), "check the network, and try again later"),
        (ResponseStreamingError(error="IncompleteRead(4 bytes read)"), "check the network, and try again later"),
        (ProxyConnectionError(proxy_url="http://proxy:3128"), "check the network, and try again later"),
        (
            SSLError(endpoint_url=URL, error=OSError("certificate verify failed: self-signed")),
            "check the server's certificate",
        ),
        (InvalidRegionError(region_name="eu west"), None),
        (ParamValidationError(report='Invalid bucket name "no bucket"'), None),
    ],
)
def test_what_keeps_boto3_from_asking_is_told_whole_with_what_to_do(error: BotoCoreError, advice: str | None) -> None:
    with pytest.raises(StorageError) as caught, refusals_as(StorageError, "It fails"):
        raise error
    reason = " ".join(str(error).split())
    assert str(caught.value).startswith(f"It fails ({reason}): {advice}" if advice else f"It fails: {reason}")
    assert ("try again" in str(caught.value)) == (advice is not None and "try again" in advice)


def test_failed_transfer_is_told_by_its_cause(moto: Moto, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.touch()
    with pytest.raises(StorageError) as caught, refusals_as(StorageError, "It fails", service="AWS"):
        moto.s3().upload_file(str(path), "no-such-bucket-at-all", "rows.csv")
    assert str(caught.value) == (
        "It fails, AWS answers NoSuchBucket (The specified bucket does not exist): create the bucket, or name another."
    )


def test_caller_may_know_better_what_to_do_and_who_answers() -> None:
    advice = {"NoSuchKey": "promote a model"}
    with pytest.raises(StorageError) as caught, refusals_as(StorageError, "It fails", advice=advice, service="AWS"):
        raise client_error("NoSuchKey", 404)
    assert str(caught.value) == "It fails, AWS answers NoSuchKey: promote a model."


@pytest.mark.parametrize("error", [WeightsError("They are broken."), KeyError("a fault of ours")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, refusals_as(StorageError, "It fails"):
        raise error
    assert caught.value is error
    with pytest.raises(type(error)) as caught, boto3_as_signed():
        raise error
    assert caught.value is error


def test_boto3s_refusal_is_the_signed_readers() -> None:
    with pytest.raises(S3Error) as caught, boto3_as_signed():
        raise client_error("NoSuchKey", 404, "There is none.")
    assert (caught.value.code, caught.value.status, caught.value.message) == ("NoSuchKey", 404, "There is none.")


@pytest.mark.processes
@pytest.mark.parametrize("module", ["storage.refusals", "storage.signed", "releases.fetch"])
def test_reading_imports_neither_boto3_nor_torch(module: str) -> None:
    program = f"import sys, pneumonia.{module}; print(*{{'boto3', 'botocore', 'torch'}} & sys.modules.keys())"
    printed = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert printed.stdout == "\n"
