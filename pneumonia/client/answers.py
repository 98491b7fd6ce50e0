"""What a server of the API answers: a prediction, or why there is none."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from http.client import responses
from typing import Any

from botocore.awsrequest import AWSResponse

from pneumonia.client.address import Address
from pneumonia.errors import ServerError, in_one_line
from pneumonia.network.contract import CLASSES
from pneumonia.network.prediction import Prediction
from pneumonia.storage.advice import LOG_IN
from pneumonia.storage.answers import S3Error
from pneumonia.storage.refusals import reason

SHOWN = 500  # characters of what a server says that is not AWS
GRANT = "grant your user or role lambda:InvokeFunctionUrl and lambda:InvokeFunction on the function's alias"
NOTHING_TO_SIGN_WITH = (
    "no AWS credentials were found to sign with: run 'aws configure' or 'aws sso login', or set AWS_PROFILE"
)
SIGN = "if a Lambda function that takes signed requests is behind this address, name its region with --sign"
# What to do about a refusal, by AWS's words for it; the first that fits.
ADVICE = {
    "signature|credential should be scoped": "check the region, this machine's clock and your AWS credentials",
    "token|credential": LOG_IN,
    'forbidden|denied|not authorized|"message": *null': GRANT,
}


def prediction_of(address: Address, response: AWSResponse) -> Prediction:
    """Return the prediction that an answer holds.

    Raises:
        ServerError: it holds none.
    """
    content = json_of(response)
    if is_prediction(content):
        return Prediction(**{one.name: content[one.name] for one in fields(Prediction)})
    kind = response.headers.get("Content-Type", "no type")
    raise ServerError(f"{address.base} answers, but not with a prediction ({in_one_line(kind)}): check the address.")


def is_prediction(content: Mapping[str, Any]) -> bool:
    """Return whether an answer has all that a prediction has, each of its kind."""
    shares, warnings = content.get("probabilities"), content.get("warnings")
    return (
        content.get("prediction") in CLASSES
        and isinstance(shares, dict)
        and shares.keys() == {*CLASSES}
        and all(isinstance(share, float) and 0 <= share <= 1 for share in (content.get("confidence"), *shares.values()))
        and isinstance(content.get("model_version"), str)
        and isinstance(warnings, list)
        and all(isinstance(warning, str) for warning in warnings)
    )


def detail_of(response: AWSResponse) -> str | None:
    """Return the sentence of the API's own errors, None if the answer is none of these."""
    detail = json_of(response).get("detail")
    return in_one_line(detail) if isinstance(detail, str) and response.status_code >= 400 else None


def refusal(address: Address, response: AWSResponse, *, has_credentials: bool) -> ServerError:
    """Return the error about an answer that is no success: the API's own sentence, or AWS's with what to do.

    Args:
        address: of the server.
        response: its answer.
        has_credentials: whether there was something to sign with.
    """
    if detail := detail_of(response):
        return ServerError(detail)
    status = response.status_code
    kind = response.headers.get("x-amzn-errortype", "").partition(":")[0]
    code = kind or f"{status} {responses.get(status, '')}".strip()
    advice = advice_about(address, response, kind, has_credentials=has_credentials)
    refused = S3Error(code, status, message=words_of(response), operation="InvokeFunctionUrl")
    return ServerError(f"{address.base} refuses" + reason(refused, {code: advice}, "the server"))


def advice_about(address: Address, response: AWSResponse, kind: str, *, has_credentials: bool) -> str:
    """Return what to do about an answer that is not the API's, an empty string if that is not known.

    Args:
        address: of the server.
        response: its answer.
        kind: AWS's name of the reason.
        has_credentials: whether there was something to sign with.
    """
    if location := response.headers.get("Location"):
        return f"name {in_one_line(location)} instead"
    if response.status_code not in {401, 403}:
        return ""
    if not address.region:
        return SIGN
    if not has_credentials:
        return NOTHING_TO_SIGN_WITH
    text = f"{kind} {response.text}".lower()
    return next((advice for words, advice in ADVICE.items() if re.search(words, text)), "")


def words_of(response: AWSResponse) -> str:
    """Return what the server says itself; pages of HTML say nothing that is short."""
    content = json_of(response)
    said = " ".join(str(content[name]) for name in ("message", "Message", "Reason") if content.get(name))
    text = response.content.decode(errors="replace").strip()
    return said or ("" if text.startswith(("<", "{")) else text[:SHOWN])


def json_of(response: AWSResponse) -> dict[str, Any]:
    """Return the JSON object in an answer's body, an empty one if there is none."""
    try:
        content = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
