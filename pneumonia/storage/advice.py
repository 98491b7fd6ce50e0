"""What to do about a refusal of S3 or of another service of AWS.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
"""

import re

from pneumonia.storage.answers import S3Error

LATER = "try again later"
NETWORK = "check the network, and try again later"
CERTIFICATE = "check the server's certificate, and name the authority that signed it by AWS_CA_BUNDLE"
BUNDLE = "correct AWS_CA_BUNDLE, or ca_bundle in AWS's configuration, to name a file of certificates that can be read"
LOG_IN = "log in to AWS again, or renew the access keys"
CLOCK = "set this machine's clock"
SIGN_UP = "sign this account up for the service"
SUPPORT = "ask AWS Support about this account or bucket"
KEY = "check in KMS that the object's key exists and is enabled, and that you may use it"
REGION = "set AWS_REGION and AWS_DEFAULT_REGION to the bucket's region"
RESTORE = "restore the object from its archive first (aws s3api restore-object)"
QUOTA = "request a higher quota under Service Quotas, or ask for less"
OTHER_WRITER = "another program has changed the object meanwhile: look at it, and start this again"
PAYER = "copy the objects to a bucket of your own, because Requester Pays buckets are not supported"
CODES = {
    LOG_IN: "AuthFailure AuthorizationHeaderMalformed ExpiredToken ExpiredTokenException IncompleteSignature "
    "InvalidAccessKeyId InvalidClientTokenId InvalidIdentityToken InvalidSecurity InvalidSignature "
    "InvalidSignatureException InvalidToken MissingAuthenticationToken MissingAuthenticationTokenException "
    "SignatureDoesNotMatch TokenRefreshRequired UnauthorizedException UnrecognizedClientException",
    CLOCK: "RequestExpired RequestInTheFuture RequestTimeTooSkewed",
    SIGN_UP: "NotSignedUp OptInRequired SubscriptionRequiredException",
    SUPPORT: "AccountProblem AllAccessDisabled",
    REGION: "IllegalLocationConstraintException IncorrectEndpoint PermanentRedirect Redirect TemporaryRedirect 301 307",
    RESTORE: "InvalidObjectState ObjectNotInActiveTierError",
    QUOTA: "InstanceLimitExceeded LimitExceeded LimitExceededException QuotaExceeded ResourceLimitExceeded "
    "ServiceQuotaExceededException TooManyBuckets",
    OTHER_WRITER: "PreconditionFailed 409 412",
    "store a smaller object": "EntityTooLarge",
    "correct the bucket's name": "InvalidBucketName",
    "name another version if this one is a delete marker": "MethodNotAllowed",
    "create the bucket, or name another": "NoSuchBucket",
    "check the key": "NoSuchKey",
    "check the version": "NoSuchVersion",
}
BY_CODE = {code: advice for advice, codes in CODES.items() for code in codes.split()}
# Refusals of the caller, whatever the object: they end with other credentials, a right clock, or a paid account.
CALLERS = {LOG_IN, CLOCK, SIGN_UP, SUPPORT}
READ = (
    "grant s3:GetObject and s3:ListBucket, without which S3 says the same of a missing object, and kms:Decrypt if KMS "
    "encrypts the object"
)
LIST = "grant s3:ListBucket"
RIGHTS = {  # of the operation that is denied
    "GetObject": READ,
    "HeadObject": READ,
    "HeadBucket": LIST,
    "ListObjectsV2": LIST,
    "PutObject": "grant s3:PutObject, and kms:GenerateDataKey if KMS encrypts the bucket",
    "CopyObject": "grant s3:GetObject, s3:ListBucket and s3:PutObject",
    "CreateJob": "grant s3:CreateJob, and iam:PassRole for the job's role",
}
DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "ForbiddenException", "UnauthorizedOperation"}
ACTION = re.compile(r"not authorized to perform:? ([\w-]+:[\w*]+)")
POLICY = re.compile(r"because no ((?!identity-|resource-)[\w -]+) allows")  # one that bounds the caller's own
# Requests that boto3 makes before the first one, to STS or IAM Identity Center, for credentials.
FOR_CREDENTIALS = {"AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity", "CreateToken", "GetRoleCredentials"}


def on(error: S3Error) -> str | None:
    """Return what to do about a refusal, or None if its own message has to say it."""
    message = error.message or ""
    if error.is_temporary:
        return LATER
    if _is_denial(error):
        return _on_denial(message, error.operation)
    if re.search("Signature expired|Signature not yet current", message):
        return CLOCK
    if error.region and (BY_CODE.get(error.code) == REGION or error.code == "AuthorizationHeaderMalformed"):
        return f"set AWS_REGION and AWS_DEFAULT_REGION to {error.region}, where the bucket is"
    if error.code == "404" and error.operation == "HeadObject":  # its answer has no body, and so no code
        return BY_CODE["NoSuchKey"]
    return KEY if error.code.startswith("KMS.") else BY_CODE.get(error.code)


def may_pass(error: S3Error) -> bool:
    """Return whether the same request may succeed later: the refusal is temporary, or about this caller alone."""
    return error.is_temporary or on(error) in CALLERS or error.operation in FOR_CREDENTIALS


def _is_denial(error: S3Error) -> bool:
    # Only the answer to a HEAD request has no body, and so no code; any other 403 without one is a proxy's.
    return error.code in DENIED or (error.code == "403" and error.operation.startswith("Head"))


def _on_denial(message: str, operation: str) -> str:
    """Return what to do about missing rights; the message may name the right, and the policy that denies it."""
    if re.search("requester.pays|request-payer", message, re.IGNORECASE):
        return PAYER
    named = ACTION.search(message)
    action = named[1] if named else None
    if action and "explicit deny" in message:
        return f"have the policy that denies {action} changed"
    if action and (policy := POLICY.search(message)):
        return f"have {action} allowed by the {policy[1]} too"
    if re.search(r"\bkms\b|customer master key", message, re.IGNORECASE):
        return f"grant {action or 'kms:Decrypt'}, in your own policy and in the key's"
    if action in {None, "s3:GetObject", "s3:ListBucket"} and operation in RIGHTS:
        return RIGHTS[operation]
    return f"grant {action}" if action else f"grant the right to {operation}"
