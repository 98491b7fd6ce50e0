"""Create a job or a tuning through the SDK, once, and know its name even if the SDK fails afterwards.

The SDK describes what it has created before it returns. If that fails, its error looks as if nothing had been created.
So botocore's events, which surround every call, end the SDK's work at the call that matters.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import boto3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from pneumonia.command import say
from pneumonia.launching.launched import TRAINING, TUNING, Launched

if TYPE_CHECKING:
    from botocore.model import OperationModel

Request = dict[str, Any]
Declare = Callable[[boto3.Session], None]  # has the SDK create a job or a tuning


class _Done(Exception):  # noqa: N818  # not an error: it carries control out of the SDK
    """Ends the SDK's work at the call that matters."""


def create(session: boto3.Session, declare: Declare) -> tuple[Launched, Request]:
    """Create a job or a tuning.

    Args:
        session: the AWS session.
        declare: has the SDK create it.

    Returns:
        What was created, and the request that SageMaker accepted.

    Raises:
        TrainingError: the answer was lost, so that it may have been created; the sentence names it.
        Exception: whatever else AWS and the SDK raise; nothing was created then.
    """
    sent: Request = {}

    def before(params: dict[str, Any], **_: object) -> None:
        sent.update(json.loads(params["body"]))

    def after(http_response: AWSResponse, **_: object) -> None:
        if http_response.status_code < 300:
            raise _Done

    for kind in (TRAINING, TUNING):
        session.events.register(f"before-call.sagemaker.Create{kind}", before)
        session.events.register(f"after-call.sagemaker.Create{kind}", after)
    with _lost_answers_named(session, sent), contextlib.suppress(_Done):
        declare(session)
    return _launched(session, sent), sent


def dry_run(region: str, bucket: str, declare: Declare) -> None:
    """Print the request as JSON; nothing is sent or uploaded, and no credentials are needed.

    Args:
        region: the AWS region.
        bucket: gets what the SDK believes it uploads.
        declare: has the SDK create a job or a tuning.
    """
    request: Request = {}

    def answer(model: "OperationModel", params: dict[str, Any], **_: object) -> Any:  # noqa: ANN401
        if model.name in {f"Create{TRAINING}", f"Create{TUNING}"}:
            request.update(json.loads(params["body"]))
            raise _Done
        return AWSResponse("", 200, HTTPHeaders(), None), {"Buckets": [{"Name": bucket, "CreationDate": 0}]}

    # botocore's event ends every call before it is sent: the SDK believes that its uploads were made.
    session = boto3.Session("none", "none", region_name=region)
    session.events.register("before-call", answer)
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(_Done):
        declare(session)
    say(*json.dumps(request, indent=2).split("\n"))


@contextlib.contextmanager
def _lost_answers_named(session: boto3.Session, sent: Request) -> Iterator[None]:
    """Name the job in the sentence if it was requested and it is not known whether SageMaker created it."""
    what, go_on = "may have been created although AWS did not confirm it", "Before another launch, look with"
    try:
        yield
    except Exception as error:
        if not sent or not _may_have_been_created(error):
            raise
        with _launched(session, sent).named_in_failures(what, go_on):
            raise
    except KeyboardInterrupt:
        if not sent:
            raise
        job = _launched(session, sent)
        raise KeyboardInterrupt(f"{job} {what}. {go_on} `{job.command}`.") from None


def _may_have_been_created(error: Exception) -> bool:
    """Return whether a failure leaves open what became of the request: it was sent, and SageMaker did not refuse it."""
    if not isinstance(error, ClientError):  # another one of botocore's than of HTTP comes before the sending
        return isinstance(error, HTTPClientError) or not isinstance(error, BotoCoreError)
    about = error.response.get("ResponseMetadata", {})
    repeated = error.response["Error"].get("Code") == "ResourceInUse" and about.get("RetryAttempts", 0) > 0
    return repeated or about.get("HTTPStatusCode", 0) >= 500


def _launched(session: boto3.Session, sent: Request) -> Launched:
    kind = next(kind for kind in (TRAINING, TUNING) if f"{kind}Name" in sent)
    return Launched(kind, sent[f"{kind}Name"], session.region_name)
