import subprocess
import sys

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ProfileNotFound,
)

from pneumonia.errors import ObjectError, PneumoniaError, StorageError, WeightsError, WeightsUnavailableError
from pneumonia.storage.refusals import S3Error, boto3_as_signed, refusals_as
from tests.builders.checkout import PROJECT

NO_CREDENTIALS = "It fails without AWS credentials: run 'aws configure' or 'aws sso login', or set AWS_PROFILE."
URL = "https://models.s3.amazonaws.com/patient.jpg"


def client_error(code: str, status: int, message: str = "") -> ClientError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")  # type: ignore[arg-type]  # the rest of a response is not looked at


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (S3Error("NoSuchBucket", 404), "It fails, S3 answers NoSuchBucket: create the bucket, or name another."),
        (S3Error("SlowDown", 503), "It fails, S3 answers SlowDown: try again later."),
        (S3Error("InvalidObjectState", 403), "It fails: S3 answers InvalidObjectState."),
        (ConnectionError("it broke off.\nMuch later"), "It fails: it broke off."),
        (OSError(28, "No space left on device"), "It fails: No space left on device."),
        (OSError(28, "No space left on device", "/tmp/m"), "It fails: No space left on device (/tmp/m)."),
        (TimeoutError(), "It fails: TimeoutError."),
        (
            client_error("RequestTimeTooSkewed", 403, "The difference is too large."),
            "It fails, S3 answers RequestTimeTooSkewed (The difference is too large): set this machine's clock.",
        ),
        (client_error("Odd", 400, "Something is odd."), "It fails: S3 answers Odd (Something is odd)."),
        (NoCredentialsError(), NO_CREDENTIALS),
        (ProfileNotFound(profile="work"), "It fails: The config profile (work) could not be found."),
        (S3UploadFailedError("Failed to upload a: why"), "It fails: Failed to upload a: why."),
        (
            EndpointConnectionError(endpoint_url=URL),
            f'It fails: Could not connect to the endpoint URL: "{URL}".',
        ),
    ],
)
def test_what_fails_becomes_a_sentence(error: Exception, sentence: str) -> None:
    with pytest.raises(WeightsUnavailableError) as caught, refusals_as(WeightsUnavailableError, "It fails"):
        raise error
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (client_error("NoSuchKey", 404, URL), ObjectError, ", S3 answers NoSuchKey: check the key."),
        (client_error("Odd", 400, URL), ObjectError, ": S3 answers Odd."),
        (ParamValidationError(report=URL), ObjectError, ": there can be no such address."),
        (client_error("SlowDown", 503, URL), StorageError, ", S3 answers SlowDown: try again later."),
        (client_error("TooManyRequests", 429, URL), StorageError, ", S3 answers TooManyRequests: try again later."),
        (client_error("Moved", 301, URL), StorageError, ", S3 answers Moved: try again later."),
        (
            client_error("ExpiredToken", 400, URL),
            StorageError,
            ", S3 answers ExpiredToken: renew your AWS credentials.",
        ),
        (EndpointConnectionError(endpoint_url=URL), StorageError, " (EndpointConnectionError): try again later."),
        (NoCredentialsError(), StorageError, NO_CREDENTIALS.removeprefix("It fails")),
    ],
)
def test_what_stays_is_told_from_what_may_pass_and_no_object_is_named(
    error: Exception, kind: type[PneumoniaError], sentence: str
) -> None:
    with (
        pytest.raises(PneumoniaError) as caught,
        refusals_as(StorageError, "It fails", permanent=ObjectError, private=True),
    ):
        raise error
    assert (type(caught.value), str(caught.value)) == (kind, f"It fails{sentence}")


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
