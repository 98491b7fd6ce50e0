"""Watch a job to its end: its status, with the log of a training job or the progress of a tuning.

The SDK's own `wait` ends at the first call that AWS refuses, and reads the log in the environment's region.
"""

import sys
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from pneumonia.command import say
from pneumonia.errors import ConfigurationError, TrainingError, first_line
from pneumonia.launching.launched import TRAINING, TUNING, Launched
from pneumonia.launching.log import Log
from pneumonia.storage.refusals import translated

Description = dict[str, Any]  # what SageMaker says of a job

POLL = 5  # seconds between two looks at a job
PAUSES = (1, 2, 4, 8, 16, 32)  # seconds before a question is asked again
ENDED = {"Completed", "Failed", "Stopped", "DeleteFailed"}
NO_SUCH_JOB = {"ValidationException", "ResourceNotFound"}  # DescribeTrainingJob has no other word for it than the first
CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=10, read_timeout=30)


class NotNowError(TrainingError):
    """AWS gives no answer now, and may give one later."""


class Watcher:
    """Looks at the jobs in a region.

    If AWS may answer otherwise later, it asks again after growing pauses, with credentials read anew.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        self._connect()

    def find(self, name: str) -> Launched:
        """Return the training or tuning job of that name.

        Raises:
            ConfigurationError: there is none.
            ClientError, BotoCoreError: AWS refuses to tell.
        """
        reasons = []
        for kind in (TRAINING, TUNING):
            job = Launched(kind, name, self._region)
            try:
                self.describe(job, exists=False)
            except ClientError as error:
                if not _is_missing(error):
                    raise
                reasons.append(error.response["Error"].get("Message", "").rstrip("."))
            else:
                return job
        raise ConfigurationError(
            f"There is no training job and no tuning job {name} in {self._region} ({'; '.join(reasons)}): check the "
            "name and --region."
        )

    def watch(self, job: Launched) -> Description:
        """Print a job's news until it has ended.

        Returns:
            Its description.

        Raises:
            ClientError, BotoCoreError: AWS refuses to tell its status.
        """
        log, progress = Log(job.name), ""
        while True:
            description = self.describe(job)
            if job.kind == TRAINING:
                log.print_news(self._logs)
            elif (now := progress_of(description)) != progress:
                progress = now
                say(progress)
            if description[f"{job.kind}Status"] in ENDED:
                return description
            time.sleep(POLL)

    def describe(self, job: Launched, *, exists: bool = True) -> Description:
        """Return what SageMaker says of a job.

        Args:
            job: the job.
            exists: it was created, so an answer that there is no such job is temporary.

        Raises:
            ClientError, BotoCoreError: AWS refuses to tell.
        """
        for pause in PAUSES:
            try:
                return self._describe(job)
            except (ClientError, BotoCoreError) as error:
                if not (_may_pass(error) or (exists and _is_missing(error))):
                    raise
                say(f"{first_line(error)}: asking again in {pause} s.", file=sys.stderr)
                time.sleep(pause)
                self._connect()
        return self._describe(job)

    def _connect(self) -> None:
        session = boto3.Session(region_name=self._region)
        if session.get_credentials() is None:
            raise NoCredentialsError
        self._sagemaker: Any = session.client("sagemaker", config=CONFIG)
        self._logs: Any = session.client("logs", config=CONFIG)

    def _describe(self, job: Launched) -> Description:
        if job.kind == TRAINING:
            return dict(self._sagemaker.describe_training_job(TrainingJobName=job.name))
        return dict(self._sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=job.name))


def progress_of(tuning: Description) -> str:
    """Return how many jobs of a tuning are at which stage, and which is the best so far."""
    counters = tuning.get("TrainingJobStatusCounters", {})
    counts = {
        "completed": counters.get("Completed", 0),
        "running": counters.get("InProgress", 0),
        "stopped early": counters.get("Stopped", 0),
        "failed": counters.get("NonRetryableError", 0) + counters.get("RetryableError", 0),
    }
    best = best_figure(tuning)
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    return f"Jobs: {told}" + (f"; best so far: {best}" if best else "")


def best_figure(tuning: Description) -> str | None:
    """Return the name of a tuning's best job with its figure, such as `…-007, validation:auroc 0.9871`, or None."""
    best = tuning.get("BestTrainingJob")
    if not best:
        return None
    name: str = best["TrainingJobName"]
    metric = best.get("FinalHyperParameterTuningJobObjectiveMetric")
    return f"{name}, {metric['MetricName']} {metric['Value']:.4f}" if metric else name


def _may_pass(error: Exception) -> bool:
    return isinstance(translated(error, NotNowError, "", permanent=TrainingError, service="AWS"), NotNowError)


def _is_missing(error: Exception) -> bool:
    return isinstance(error, ClientError) and error.response["Error"].get("Code") in NO_SUCH_JOB
