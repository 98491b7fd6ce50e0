from typing import Any

import pytest

from pneumonia.errors import ConfigurationError
from pneumonia.releases.training_event import TrainingJob, completed_job

KIND = "SageMaker Training Job State Change"
MODEL = "s3://bucket/job-1/output/model.tar.gz"
DETAIL: dict[str, Any] = {
    "TrainingJobName": "job-1",
    "TrainingJobStatus": "Completed",
    "ModelArtifacts": {"S3ModelArtifacts": MODEL},
}
EVENT: dict[str, Any] = {"source": "aws.sagemaker", "detail-type": KIND, "detail": DETAIL}
S3_NOTIFICATION = {"Records": [{"eventSource": "aws:s3", "s3": {"bucket": {"name": "xrays"}, "object": {"key": "1"}}}]}
SNS_NOTIFICATION = {"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": {"Message": "{}"}}]}
SQS_MESSAGE = {"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": "{}"}]}
TUNING = {
    "source": "aws.sagemaker",
    "detail-type": "SageMaker HyperParameter Tuning Job State Change",
    "detail": {"HyperParameterTuningJobName": "tuning-1", "HyperParameterTuningJobStatus": "Completed"},
}
WARM_UP = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}


def test_a_completed_job_has_a_name_and_a_model() -> None:
    assert completed_job(EVENT) == TrainingJob("job-1", MODEL)


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ({}, "an empty event"),
        ([], r"JSON that is no object \(list\)"),
        (None, r"JSON that is no object \(NoneType\)"),
        ("Completed", r"JSON that is no object \(str\)"),
        (DETAIL, "an event with the fields 'ModelArtifacts', 'TrainingJobName', 'TrainingJobStatus'"),
        (S3_NOTIFICATION, "an event of Amazon S3"),
        (SNS_NOTIFICATION, "an event of Amazon SNS"),
        (SQS_MESSAGE, "an event of Amazon SQS"),
        (SQS_MESSAGE["Records"], "an event of Amazon SQS"),  # from a pipe
        (TUNING, r"an event of EventBridge \('SageMaker HyperParameter Tuning Job State Change'\)"),
        (WARM_UP, r"an event of EventBridge \('Scheduled Event'\)"),
        (EVENT | {"source": "mine"}, f"'{KIND}' of the source 'mine'"),
        ({"source": None, "detail-type": [], "detail": 1}, r"an event of EventBridge \(list\)"),
        (EVENT | {"detail": None}, rf"'{KIND}' whose detail is no object \(NoneType\)"),
        (EVENT | {"detail": []}, rf"'{KIND}' whose detail is no object \(list\)"),
        (EVENT | {"detail": "Completed"}, rf"'{KIND}' whose detail is no object \(str\)"),
        (EVENT | {"detail": {}}, f"'{KIND}' with the status None"),
        (EVENT | {"detail": DETAIL | {"TrainingJobStatus": "Stopped"}}, f"'{KIND}' with the status 'Stopped'"),
        (
            EVENT | {"detail": DETAIL | {"TrainingJobStatus": ["Completed"]}},
            f"'{KIND}' with the status list",
        ),
        (EVENT | {"detail": DETAIL | {"TrainingJobName": None}}, f"'{KIND}' without a TrainingJobName"),
    ],
)
def test_other_events_are_told(event: object, what: str) -> None:
    sentence = rf"^The event is not a completed training job but {what}: correct the rule, or whatever else sends it\.$"
    with pytest.raises(ConfigurationError, match=sentence):
        completed_job(event)


@pytest.mark.parametrize(
    "artifacts",
    [None, {}, [], "s3://bucket/key", {"S3ModelArtifacts": None}, {"S3ModelArtifacts": "https://bucket/key"}],
    ids=["none", "empty", "list", "text", "nothing in it", "other address"],
)
def test_a_job_without_a_model_is_told(artifacts: object) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^The training job job-1 is completed, but the event names no model: "
    ):
        completed_job(EVENT | {"detail": DETAIL | {"ModelArtifacts": artifacts}})


def test_a_long_event_makes_no_long_sentence() -> None:
    for event in ("x" * 10_000, {"x" * 10_000: 1}, {"Records": [{"eventSource": "x" * 10_000}]}):
        with pytest.raises(ConfigurationError) as raised:
            completed_job(event)
        assert len(str(raised.value)) < 400
