"""Events that the function of S3 Batch Operations gets from nobody, or only half of."""

import time
from typing import Any

import pytest
from awslambdaric.lambda_context import LambdaContext

from pneumonia.batch import s3_operations
from pneumonia.errors import ConfigurationError
from tests.builders.events import mutations, nested
from tools.stand_ins.runtime_api import ARN
from tools.stand_ins.triggers import SERVICES, WARM_UPS

SENTENCE = r"^This function got .+, but answers only S3 Batch Operations, with invocation schema 2\.0: for requests, "


REFUSED: dict[str, Any] = {"refused": True}


def context() -> LambdaContext:
    return LambdaContext("1", None, None, int(time.time() * 1000) + 60_000, ARN)


@pytest.mark.parametrize("event", [*SERVICES.values(), *WARM_UPS.values(), 7, "text", [{}], nested(5000)])
def test_another_event_is_refused_in_a_sentence(event: object) -> None:
    with pytest.raises(ConfigurationError, match=SENTENCE):
        s3_operations.handler(event, context())


def answered_or_refused(event: object) -> dict[str, Any]:
    try:
        return s3_operations.handler(event, context())
    except ConfigurationError:
        return REFUSED


def test_whatever_a_part_is_there_is_a_result_or_a_sentence(bucket: str) -> None:
    s3_operations.s3.cache_clear()  # the next client asks the server that this test has set
    task = {"taskId": "1", "s3Key": "gone.jpg", "s3VersionId": None, "s3Bucket": bucket}
    event = {"invocationSchemaVersion": "2.0", "invocationId": "x", "job": {"id": "1"}, "tasks": [task]}
    for place, changed in mutations(event):
        answer = answered_or_refused(changed)
        assert answer == REFUSED or all(one["resultCode"] == "PermanentFailure" for one in answer["results"]), place
    s3_operations.s3.cache_clear()
