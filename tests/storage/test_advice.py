"""Each refusal of S3 is told whole, with what to do about it, whoever reads: our own requests or boto3's."""

import re
from html import escape

import pytest
from botocore.exceptions import ClientError

from pneumonia.deadline import Deadline
from pneumonia.errors import StorageError
from pneumonia.storage import advice
from pneumonia.storage.answers import MAX_STRANGE, S3Error, error_in
from pneumonia.storage.reading import BucketReader
from pneumonia.storage.refusals import refusals_as
from tools.stand_ins.faulty_s3 import Answer, refusal, refusal_of, standing_for_s3, whole

ROLE = "User: arn:aws:sts::123456789012:assumed-role/serving/fn is not authorized to perform: "
KEY_ARN = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab"
# Code, status, S3's message, and what has to be in the advice.
REFUSALS = [
    ("ExpiredToken", 400, "The provided token has expired.", "log in to AWS again"),
    (
        "InvalidAccessKeyId",
        403,
        "The AWS Access Key Id you provided does not exist in our records.",
        "log in to AWS again",
    ),
    ("InvalidToken", 400, "The provided token is malformed or otherwise invalid.", "log in to AWS again"),
    ("TokenRefreshRequired", 400, "The provided token must be refreshed.", "log in to AWS again"),
    ("SignatureDoesNotMatch", 403, "The request signature we calculated does not match.", "renew the access keys"),
    ("AuthorizationHeaderMalformed", 400, "A non-empty Access Key (AKID) must be provided.", "renew the access keys"),
    (
        "RequestTimeTooSkewed",
        403,
        "The difference between the request time and the current time is too large.",
        "clock",
    ),
    ("RequestExpired", 400, "Request has expired.", "clock"),
    ("AccessDenied", 403, "Access Denied", "grant s3:GetObject and s3:ListBucket, without which S3 says the same"),
    (
        "AccessDenied",
        403,
        f'{ROLE}s3:ListBucket on resource: "arn:aws:s3:::models" because no identity-based policy allows it',
        "grant s3:GetObject and s3:ListBucket",
    ),
    (
        "AccessDenied",
        403,
        f'{ROLE}s3:GetObject on resource: "arn:aws:s3:::models/key" with an explicit deny in a service control policy',
        "have the policy that denies s3:GetObject changed",
    ),
    (
        "AccessDenied",
        403,
        f"{ROLE}kms:Decrypt on resource: {KEY_ARN} because no identity-based policy allows the kms:Decrypt action",
        "grant kms:Decrypt, in your own policy and in the key's",
    ),
    (
        "AccessDenied",
        403,
        "The ciphertext refers to a customer master key that does not exist, or you are not allowed to access.",
        "grant kms:Decrypt",
    ),
    ("AccessDenied", 403, "Access to KMS is not allowed", "grant kms:Decrypt"),
    (
        "AccessDenied",
        403,
        f"{ROLE}s3:GetObject on resource: x because no VPC endpoint policy allows the s3:GetObject action",
        "have s3:GetObject allowed by the VPC endpoint policy too",
    ),
    (
        "AccessDenied",
        403,
        f"{ROLE}kms:Decrypt on resource: x because no permissions boundary allows the kms:Decrypt action",
        "have kms:Decrypt allowed by the permissions boundary too",
    ),
    ("AccessDenied", 403, f"{ROLE}s3:GetObjectVersion on resource: x", "grant s3:GetObjectVersion"),
    ("AccessDenied", 403, "Bucket is requester pays; add x-amz-request-payer.", "copy the objects to a bucket of your"),
    ("KMS.DisabledException", 400, f"{KEY_ARN} is disabled.", "check in KMS"),
    ("KMS.KMSInvalidStateException", 400, f"{KEY_ARN} is pending deletion.", "check in KMS"),
    ("KMS.NotFoundException", 400, f"Key '{KEY_ARN}' does not exist", "check in KMS"),
    ("InvalidObjectState", 403, "The operation is not valid for the object's storage class", "restore the object"),
    ("PermanentRedirect", 301, "The bucket must be addressed using the specified endpoint.", "AWS_REGION"),
    ("IncorrectEndpoint", 400, "The specified bucket exists in another Region.", "AWS_REGION"),
    ("NoSuchBucket", 404, "The specified bucket does not exist", "create the bucket"),
    ("NoSuchKey", 404, "The specified key does not exist.", "check the key"),
    ("NoSuchVersion", 404, "The specified version does not exist.", "check the version"),
    ("InvalidBucketName", 400, "The specified bucket is not valid.", "correct the bucket's name"),
    ("MethodNotAllowed", 405, "The specified method is not allowed against this resource.", "delete marker"),
    ("AllAccessDisabled", 403, "All access to this object has been disabled", "AWS Support"),
    ("AccountProblem", 403, "There is a problem with your AWS account.", "AWS Support"),
    ("NotSignedUp", 403, "Your account is not signed up for the S3 service.", "sign this account up"),
    ("PreconditionFailed", 412, "At least one of the pre-conditions you specified did not hold", "another program"),
    ("EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed size", "store a smaller object"),
]
TEMPORARY = [
    ("SlowDown", 503, "Please reduce your request rate."),
    ("ServiceUnavailable", 503, "Service is unable to handle request."),
    ("InternalError", 500, "We encountered an internal error. Please try again."),
    ("RequestTimeout", 400, "Your socket connection to the server was not read from or written to in time."),
    ("TooManyRequests", 429, "Please reduce your request rate."),
    ("KMS.ThrottlingException", 400, "You have exceeded the rate at which you may call KMS."),
]


def told(patch: pytest.MonkeyPatch, answer: Answer, seconds: float = 60) -> str:
    """Return the sentence about an object that gets this answer for so many seconds."""
    with standing_for_s3(patch, {"/models/key": [answer]}):
        reader = BucketReader("models", Deadline.after(seconds), StorageError)
        with pytest.raises(StorageError) as caught, refusals_as(StorageError, "It fails"):
            reader.read("key", 100)
        reader.close()
    return str(caught.value)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("code", "status", "message", "to_do"), REFUSALS, ids=[f"{n} {row[0]}" for n, row in enumerate(REFUSALS)]
)
def test_refusal_is_told_whole_with_what_to_do(
    either_way: pytest.MonkeyPatch, code: str, status: int, message: str, to_do: str
) -> None:
    sentence = told(either_way, refusal(status, code, message=escape(message)))
    assert sentence.startswith(f"It fails, S3 answers {code} ({message}): ")
    assert to_do in sentence
    assert "try again" not in sentence


@pytest.mark.processes
@pytest.mark.parametrize(("code", "status", "message"), TEMPORARY)
def test_only_what_passes_is_to_be_tried_again(
    either_way: pytest.MonkeyPatch, code: str, status: int, message: str
) -> None:
    sentence = told(either_way, refusal(status, code, message=message), seconds=2)
    tried = re.escape(f"It fails, S3 answers {code} ({message}) after ") + r"\d+ tries in \d s: try again later\."
    assert re.fullmatch(tried, sentence)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("answer", "to_do"),
    [
        (refusal(301, "PermanentRedirect", {"x-amz-bucket-region": "us-east-2"}), "to us-east-2, where the bucket is"),
        (
            refusal(307, "TemporaryRedirect", more="<Endpoint>models.s3.us-gov-west-1.amazonaws.com</Endpoint>"),
            "to us-gov-west-1, where the bucket is",
        ),
        (
            refusal(400, "AuthorizationHeaderMalformed", more="<Region>us-east-2</Region>", message="wrong"),
            "to us-east-2, where the bucket is",
        ),
        (
            refusal(
                400,
                "IllegalLocationConstraintException",
                message="The me-south-1 location constraint is incompatible for the region specific endpoint this "
                "request was sent to.",
            ),
            "to me-south-1, where the bucket is",
        ),
    ],
)
def test_the_buckets_region_is_named(either_way: pytest.MonkeyPatch, answer: Answer, to_do: str) -> None:
    assert to_do in told(either_way, answer)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            refusal_of(403, b"<!DOCTYPE html><html><style>p {}</style><p>Blocked by M&uuml;ller &amp; Co</p></html>"),
            "It fails: S3 answers 403 (Blocked by Müller & Co).",
        ),
        (refusal_of(407, b"log in to\n the proxy"), "It fails: S3 answers 407 (log in to the proxy)."),
        (refusal_of(403, b'{"message":"Forbidden"}'), 'It fails: S3 answers 403 ({"message":"Forbidden"}).'),
        (refusal_of(403, b""), "It fails: S3 answers 403 (Forbidden)."),
        (
            whole(b"<html>Log in</html>", {"Content-Type": "text/html; charset=utf-8"}),
            "It fails (the server sends a page of HTML, as S3 does not): check AWS_ENDPOINT_URL, and any proxy.",
        ),
        (refusal_of(404, b"<html>Not here</html>"), "It fails: S3 answers 404 (Not here)."),
    ],
)
def test_page_that_is_not_s3s_is_told_by_its_status_and_words(
    either_way: pytest.MonkeyPatch, answer: Answer, sentence: str
) -> None:
    assert told(either_way, answer) == sentence


@pytest.mark.processes
@pytest.mark.parametrize(
    "page",
    [
        b'<Error xmlns="http://s3.amazonaws.com/"><Code>NoSuchKey</Code><Message>a &lt; b</Message></Error>',
        b"<Error><Code><![CDATA[NoSuchKey]]></Code><Message><![CDATA[a < b]]></Message></Error>",
        b"<Error >\n<!-- <Code>Odd</Code> --><Code >\nNoSuchKey </Code >\n<Message>a &#60; b\n</Message></Error>",
        b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>a &lt; b</Message></Error>",
    ],
    ids=["namespace", "CDATA", "comment and spaces", "byte-order mark"],
)
def test_code_is_found_however_the_xml_is_written(either_way: pytest.MonkeyPatch, page: bytes) -> None:
    assert told(either_way, refusal_of(404, page)) == "It fails, S3 answers NoSuchKey (a < b): check the key."


@pytest.mark.processes
def test_message_can_do_nothing_to_a_terminal_or_a_log(either_way: pytest.MonkeyPatch) -> None:
    answer = refusal(403, "AccessDenied", message="one\n two\t three\x9b2J \u202efour")
    assert "AccessDenied (one two three\\x9b2J \\u202efour): " in told(either_way, answer)


def test_strange_page_is_bounded_and_needs_no_encoding() -> None:
    error = error_in(b"\xff\xfe\x1b[31m<p>" + b"word " * 1000, 502)
    assert error.message
    assert error.message.startswith("\ufffd\ufffd\\x1b[31m word word")
    assert len(error.message) == MAX_STRANGE + 1


@pytest.mark.parametrize(
    ("code", "status", "operation", "message", "to_do"),
    [
        (
            "AccessDeniedException",
            400,
            "CreateTrainingJob",
            f"{ROLE}sagemaker:CreateTrainingJob on resource: x because no identity-based policy allows it",
            "grant sagemaker:CreateTrainingJob",
        ),
        ("AccessDeniedException", 400, "DescribeTrainingJob", "no", "grant the right to DescribeTrainingJob"),
        ("AccessDenied", 403, "PutObject", "Access Denied", advice.RIGHTS["PutObject"]),
        ("AccessDenied", 403, "ListObjectsV2", "Access Denied", "grant s3:ListBucket"),
        ("AccessDenied", 403, "AssumeRole", f"{ROLE}sts:AssumeRole on resource: x", "grant sts:AssumeRole"),
        # Of a copy that fails after S3 has begun to answer 200: boto3 makes the status a 500.
        ("AccessDenied", 500, "CopyObject", "Access Denied", advice.RIGHTS["CopyObject"]),
        ("KMS.DisabledException", 500, "CopyObject", "It is disabled", advice.KEY),
        ("AccessDenied", 403, "CreateJob", "Access Denied", advice.RIGHTS["CreateJob"]),
        ("403", 403, "HeadObject", "Forbidden", advice.READ),
        ("404", 404, "HeadObject", "Not Found", "check the key"),
        ("404", 404, "HeadBucket", "Not Found", None),
        ("ExpiredTokenException", 400, "CreateTrainingJob", "The security token is expired", advice.LOG_IN),
        ("UnrecognizedClientException", 400, "CreateTrainingJob", "The token is invalid.", advice.LOG_IN),
        ("InvalidSignatureException", 403, "GetLogEvents", "Signature expired: 20260101T000000Z", advice.CLOCK),
        ("ThrottlingException", 400, "GetLogEvents", "Rate exceeded", advice.LATER),
        ("ResourceLimitExceeded", 400, "CreateTrainingJob", "The limit 'ml.g5.xlarge' is 0", advice.QUOTA),
        ("ValidationException", 400, "CreateTrainingJob", "Could not assume role", None),
    ],
)
def test_each_service_and_operation_gets_its_own_advice(
    code: str, status: int, operation: str, message: str, to_do: str | None
) -> None:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(StorageError) as caught, refusals_as(StorageError, "It fails", service="AWS"):
        raise ClientError(response, operation)  # type: ignore[arg-type]  # the rest of a response is not looked at
    answer = f"AWS answers {code} ({message})"
    assert str(caught.value) == (f"It fails, {answer}: {to_do}." if to_do else f"It fails: {answer}.")


def test_only_the_missing_key_counts_as_missing() -> None:
    assert S3Error("NoSuchKey", 404).is_missing
    for code, status in (("NoSuchBucket", 404), ("AccessDenied", 403), ("404", 404), ("NoSuchVersion", 404)):
        assert not S3Error(code, status).is_missing
