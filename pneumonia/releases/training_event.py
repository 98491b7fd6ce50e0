"""EventBridge's event of a completed training job, and sentences about events that are none.

https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
"""

from dataclasses import dataclass

from pneumonia.errors import ConfigurationError
from pneumonia.triggers import SHOWN, name_of, shown

SOURCE, KIND = "aws.sagemaker", "SageMaker Training Job State Change"


@dataclass(frozen=True)
class TrainingJob:
    """A completed training job.

    Attributes:
        name: SageMaker's.
        model: the address of model.tar.gz or, without compression, of the model folder.
    """

    name: str
    model: str


def completed_job(event: object) -> TrainingJob:
    """Return the training job that an event is about.

    Raises:
        ConfigurationError: the event is not that of a completed training job with a model.
    """
    if not isinstance(event, dict) or event.get("detail-type") != KIND:
        raise _other_event(name_of(event))
    if event.get("source") != SOURCE:
        raise _other_event(f"{KIND!r} of the source {shown(event.get('source'))}")
    detail = event.get("detail")
    if not isinstance(detail, dict):
        raise _other_event(f"{KIND!r} whose detail is no object ({type(detail).__name__})")
    if detail.get("TrainingJobStatus") != "Completed":
        raise _other_event(f"{KIND!r} with the status {shown(detail.get('TrainingJobStatus'))}")
    name = detail.get("TrainingJobName")
    if not isinstance(name, str) or not name:
        raise _other_event(f"{KIND!r} without a TrainingJobName")
    artifacts = detail.get("ModelArtifacts")
    model = artifacts.get("S3ModelArtifacts") if isinstance(artifacts, dict) else None
    if not isinstance(model, str) or not model.startswith("s3://"):
        raise ConfigurationError(
            f"The training job {name[:SHOWN]} is completed, but the event names no model: its S3ModelArtifacts are "
            f"{shown(model)}. If the job has left one, promote it by hand: promote_model.py s3://…/output/model.tar.gz."
        )
    return TrainingJob(name, model)


def _other_event(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"The event is not a completed training job but {what}: correct the rule, or whatever else sends it."
    )
