"""What is told of jobs that were created, by a launch and by `--attach`, whatever AWS refuses then."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

import train_sagemaker
from pneumonia.command import this_python
from tests.builders.checkout import PROJECT
from tools.stand_ins.moto import REGION, Moto
from tools.stand_ins.sagemaker_api import Answer, Api, answering, as_moto_does, changed, hang_up, refused

ROLE = "arn:aws:iam::123456789012:role/training"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
THROTTLED = refused("ThrottlingException", "Rate exceeded")
EXPIRED = refused("ExpiredTokenException", "The security token included in the request is expired")
DENIED = refused("AccessDeniedException", "User: x is not authorized to perform: sagemaker:Describe*")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the SDK's own


@dataclass(frozen=True)
class Told:
    """What a command returned and printed, and the job that it named."""

    status: int
    out: str
    error: str
    api: Api

    @property
    def job(self) -> str:
        named = re.search(r"^(?:Training|Tuning) job (\S+)", self.out + self.error, re.MULTILINE)
        assert named
        return named[1]


Command = Callable[..., Told]


@pytest.fixture
def command(moto: Moto, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs the command in this process, before a SageMaker with the given answers."""
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith("TRAIN_")]:
        monkeypatch.delenv(name)
    with ExitStack() as running:

        def run(*arguments: str, **answers: list[Answer]) -> Told:
            api = running.enter_context(answering(moto.endpoint, answers))
            monkeypatch.setenv("AWS_ENDPOINT_URL", api.endpoint)
            capfd.readouterr()
            status = train_sagemaker.main(["--region", REGION, *arguments])
            printed = capfd.readouterr()
            return Told(status, printed.out, printed.err, api)

        yield run


@pytest.fixture
def launch(command: Command, moto: Moto, bucket: str) -> Command:
    """Launches a job on a bucket with images."""
    for channel in ("train", "val", "test"):
        for key in ("NORMAL/1.jpeg", "PNEUMONIA/2.jpeg"):
            moto.s3().put_object(Bucket=bucket, Key=f"chest_xray/{channel}/{key}", Body=b"image")
    return lambda *arguments, **answers: command("--bucket", bucket, "--role", ROLE, *arguments, **answers)


@pytest.fixture
def job(bucket: str) -> str:
    """The name of a job in moto, finished at once as all of them."""
    name = f"pneumonia-training-{time.time_ns()}"
    boto3.client("sagemaker").create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={"TrainingImage": "image", "TrainingInputMode": "File"},
        RoleArn=ROLE,
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/pneumonia-training"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 3600},
    )
    return name


def result(bucket: str, job: str) -> str:
    archive = f"s3://{bucket}/pneumonia-training/{job}/output/model.tar.gz"
    return f"Model: {archive}\nNext: {this_python()} promote_model.py {archive} --bucket WEIGHTS_BUCKET\n"


def again(job: str) -> str:
    return f"Go on with `{this_python()} train_sagemaker.py --attach {job} --region {REGION}`.\n"


@pytest.mark.parametrize(
    "passing",
    [THROTTLED, pytest.param(EXPIRED, marks=pytest.mark.slow), refused("InternalFailure", "Oh", 500), hang_up],
    ids=["throttled", "expired", "failure", "no answer"],
)
def test_a_refusal_that_passes_does_not_end_the_watching(launch: Command, bucket: str, passing: Answer) -> None:
    often = 4  # botocore itself asks three times
    told = launch(DescribeTrainingJob=[*[passing] * often, as_moto_does])
    assert told.status == 0, told.error
    assert told.out.endswith(result(bucket, told.job))


@pytest.mark.parametrize("code", ["AccessDeniedException", "MalformedQueryString"])
def test_a_refusal_that_stays_names_the_job_that_was_created(launch: Command, moto: Moto, code: str) -> None:
    told = launch(DescribeTrainingJob=[refused(code, "User: x is not authorized")])
    assert told.status == 1
    assert f"\nTraining job {told.job} was created and goes on, but it cannot be watched" in f"\n{told.error}"
    assert f"AWS answers {code} (User: x is not authorized)" in told.error
    assert told.error.endswith(again(told.job))
    assert told.api.operations.count("CreateTrainingJob") == 1
    assert boto3.client("sagemaker", endpoint_url=moto.endpoint).describe_training_job(TrainingJobName=told.job)


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [("DescribeLogStreams", DENIED), ("GetLogEvents", DENIED), ("GetLogEvents", EXPIRED), ("GetLogEvents", THROTTLED)],
    ids=["streams denied", "events denied", "events expired", "events throttled"],
)
def test_a_log_that_cannot_be_read_does_not_end_the_watching(
    command: Command, bucket: str, job: str, operation: str, refusal: Answer
) -> None:
    write_log(job, "algo-1-1", "a line")
    running = changed(TrainingJobStatus="InProgress")
    told = command("--attach", job, **{operation: [refusal], "DescribeTrainingJob": [running] * 2 + [as_moto_does]})
    assert told.status == 0, told.error
    assert told.error.count(f"The log of {job} cannot be read") == 1
    assert told.out.endswith(result(bucket, job))


def test_answers_without_a_log_do_not_end_the_watching(command: Command, job: str) -> None:
    write_log(job, "algo-1-1", "a line")
    told = command("--attach", job, GetLogEvents=[changed(events=None, nextForwardToken=None)])
    assert told.status == 0, told.error
    assert command("--attach", job, DescribeLogStreams=[changed(logStreams=None)]).status == 0


def test_a_job_that_is_not_created_is_told_as_such(launch: Command) -> None:
    told = launch(
        CreateTrainingJob=[refused("ResourceLimitExceeded", "The account-level service limit is 0 Instances")]
    )
    assert told.status == 1
    assert re.fullmatch(
        r"The job cannot be launched[:,] AWS answers ResourceLimitExceeded "
        r"\(The account-level service limit is 0 Instances\).*",
        told.error.splitlines()[-1],
    )
    assert "DescribeTrainingJob" not in told.api.operations


def test_an_answer_that_is_lost_leaves_the_job_named(launch: Command) -> None:
    taken = refused("ResourceInUse", "Training job names must be unique within an AWS account and region")
    told = launch(CreateTrainingJob=[hang_up, taken])  # botocore asks again, and finds the name taken by itself
    assert told.status == 1
    assert f"Training job {told.job} may have been created although AWS did not confirm it" in told.error
    assert "AWS answers ResourceInUse (Training job names must be unique" in told.error
    assert f"Before another launch, look with `{this_python()} train_sagemaker.py --attach " in told.error


def test_an_answer_that_makes_no_sense_leaves_the_job_named(launch: Command) -> None:
    told = launch(CreateTrainingJob=[lambda _status, _answer: (200, ["no object"])])
    assert told.status == 1
    assert f"Training job {told.job} may have been created although AWS did not confirm it" in told.error


def test_jobs_that_are_not_waited_for_are_not_asked_for(launch: Command, bucket: str) -> None:
    told = launch("--no-wait", "--spot", DescribeTrainingJob=[DENIED])
    assert told.status == 0, told.error
    folder = f"s3://{bucket}/pneumonia-training/{told.job}"
    assert told.out == (
        f"Training job {told.job} in {REGION}\n"
        f"Checkpoints: {folder}/checkpoints\n"
        f"To watch it again: {this_python()} train_sagemaker.py --attach {told.job} --region {REGION}\n"
        f"Model, when the job has ended: {folder}/output/model.tar.gz\n"
        f"Next: {this_python()} promote_model.py {folder}/output/model.tar.gz --bucket WEIGHTS_BUCKET\n"
    )


def test_attaching_ends_as_a_launch_does(command: Command, bucket: str, job: str) -> None:
    told = command("--attach", job)
    assert told.status == 0, told.error
    assert told.out == f"Training job {job} in {REGION}\n{result(bucket, job)}"


def test_the_model_is_where_sagemaker_says(command: Command, job: str) -> None:
    artifacts = {"S3ModelArtifacts": "s3://elsewhere/model/"}
    told = command("--attach", job, DescribeTrainingJob=[changed(ModelArtifacts=artifacts)])
    assert "\nModel: s3://elsewhere/model/\n" in told.out


def test_a_failed_job_is_told_with_sagemakers_reason(command: Command, job: str) -> None:
    reason = "AlgorithmError: Images cannot be read, remove or replace them: train/NORMAL/1.jpeg"
    failed = changed(TrainingJobStatus="Failed", FailureReason=reason)
    told = command("--attach", job, DescribeTrainingJob=[failed])
    assert told.status == 1
    assert told.error == f"The job failed: {reason}\n"
    assert "model.tar.gz" not in told.out


def stopped(why: str, **fields: Any) -> Answer:  # noqa: ANN401
    return changed(TrainingJobStatus="Stopped", SecondaryStatus=why, **fields)


@pytest.mark.parametrize(
    ("reason", "told_as"),
    [("Exit 1\n\x1b[31mError", r"Exit 1 \x1b[31mError"), ("", "SageMaker gives no reason")],
    ids=["lines", "nothing"],
)
def test_the_reason_is_told_in_one_line(command: Command, job: str, reason: str, told_as: str) -> None:
    told = command("--attach", job, DescribeTrainingJob=[changed(TrainingJobStatus="Failed", FailureReason=reason)])
    assert told.error == f"The job failed: {told_as}\n"


def test_a_job_of_which_no_model_is_named_is_one_sentence(command: Command, job: str) -> None:
    told = command("--attach", job, DescribeTrainingJob=[changed(ModelArtifacts=None)])
    assert told.status == 1
    assert told.error.startswith(f"Training job {job} has ended, and SageMaker names no model of it")


def test_a_job_at_its_time_limit_is_told_with_its_checkpoints(command: Command, bucket: str, job: str) -> None:
    at_limit = stopped("MaxRuntimeExceeded", CheckpointConfig={"S3Uri": "s3://b/runs/1/"})
    told = command("--attach", job, DescribeTrainingJob=[at_limit])
    assert told.status == 1
    assert told.error == (
        f"Training job {job} was stopped at its time limit of 3600 s (MaxRuntimeExceeded). Its state after the last "
        "finished epoch, the best checkpoint with it, is in s3://b/runs/1/: --checkpoints s3://b/runs/1/ with the same "
        "settings and a larger --max-run-seconds goes on from there. The best checkpoint so far, if an epoch has "
        f"finished, is in s3://{bucket}/pneumonia-training/{job}/output/model.tar.gz; as it was not tested, only "
        "`promote_model.py --force` serves it.\n"
    )


def test_a_stopped_job_without_checkpoints_is_told_with_what_it_left(command: Command, job: str) -> None:
    told = command("--attach", job, DescribeTrainingJob=[stopped("Stopped", ModelArtifacts=None)])
    assert told.error == (
        f"Training job {job} was stopped (Stopped). Without --checkpoints or --spot no other job can go on from it.\n"
    )


def test_a_job_that_does_not_exist_is_one_sentence(command: Command) -> None:
    told = command("--attach", "nothing-like-it")
    assert told.status == 1
    assert told.error.startswith(f"There is no training job and no tuning job nothing-like-it in {REGION} (")
    assert told.error.endswith("): check the name and --region.\n")


def write_log(job: str, stream: str, *lines: str) -> None:
    logs = boto3.client("logs")
    if not logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]:
        logs.create_log_group(logGroupName=LOG_GROUP)
    logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=f"{job}/{stream}")
    now = int(time.time() * 1000)
    events = [{"timestamp": now + number, "message": line} for number, line in enumerate(lines)]
    logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=f"{job}/{stream}", logEvents=events)


def test_the_log_of_one_instance_is_printed_as_it_is(command: Command, job: str) -> None:
    write_log(job, "algo-1-1", "epoch=1 val_loss=0.5", "[bold] is no markup")
    told = command("--attach", job, DescribeTrainingJob=[changed(TrainingJobStatus="InProgress"), as_moto_does])
    assert told.out.splitlines()[1:3] == ["epoch=1 val_loss=0.5", "[bold] is no markup"]
    assert told.out.count("epoch=1") == 1


def test_lines_of_several_instances_begin_with_the_instance(command: Command, job: str) -> None:
    write_log(job, "algo-1-1", "first")
    write_log(job, "algo-2-1", "second")
    told = command("--attach", job)
    assert told.out.splitlines()[1:3] == ["algo-1: first", "algo-2: second"]


def test_interrupting_names_the_job(moto: Moto, job: str) -> None:
    running = changed(TrainingJobStatus="InProgress")
    with answering(moto.endpoint, {"DescribeTrainingJob": [running]}) as api:
        process = subprocess.Popen(
            [sys.executable, PROJECT / "train_sagemaker.py", "--attach", job, "--region", REGION],
            env=os.environ | moto.environment | {"AWS_ENDPOINT_URL": api.endpoint},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stdout.readline() == f"Training job {job} in {REGION}\n"
        while api.operations.count("DescribeTrainingJob") < 2:  # one to find it, one to watch it
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert error == f"Training job {job} was created and goes on in SageMaker. {again(job)}"


def tuned(best: str) -> Answer:
    """Answer that a tuning has ended, with this best job."""
    figure = {"MetricName": "validation:auroc", "Value": 0.98765, "Type": "Maximize"}
    summary = {
        "TrainingJobName": best,
        "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:123456789012:training-job/{best}",
        "CreationTime": 0,
        "TrainingJobStatus": "Completed",
        "TunedHyperParameters": {"learning-rate": "0.0004", "epochs": "12"},
        "FinalHyperParameterTuningJobObjectiveMetric": figure,
    }
    counters = {"Completed": 8, "InProgress": 1, "Stopped": 2, "NonRetryableError": 1, "RetryableError": 0}
    return changed(BestTrainingJob=summary, TrainingJobStatusCounters=counters)


def test_a_tuning_ends_with_its_best_model(launch: Command, bucket: str, job: str) -> None:
    told = launch("--tune", "learning-rate=1e-4:1e-3", DescribeHyperParameterTuningJob=[THROTTLED, tuned(job)])
    assert told.status == 0, told.error
    assert told.out == (
        f"Tuning job {told.job} in {REGION}\n"
        f"To watch it again: {this_python()} train_sagemaker.py --attach {told.job} --region {REGION}\n"
        f"Jobs: 8 completed, 1 running, 2 stopped early, 1 failed; best so far: {job}, validation:auroc 0.9877\n"
        f"Best job: {job}, validation:auroc 0.9877, with learning-rate 0.0004, epochs 12\n{result(bucket, job)}"
    )
    attached = launch("--attach", told.job, DescribeHyperParameterTuningJob=[tuned(job)])
    assert attached.status == 0
    assert attached.out.endswith(told.out[told.out.index("Jobs:") :])


def test_a_tuning_that_cannot_be_watched_is_named(launch: Command) -> None:
    told = launch("--tune", "epochs=1:3", DescribeHyperParameterTuningJob=[DENIED])
    assert told.status == 1
    assert f"Tuning job {told.job} was created and goes on, but it cannot be watched" in told.error
    assert told.error.endswith(again(told.job))


def test_a_failed_tuning_is_told_with_sagemakers_reason(launch: Command) -> None:
    """Its best job may be gone as well."""
    failed = changed(HyperParameterTuningJobStatus="Failed", FailureReason="All training jobs failed")
    told = launch("--tune", "epochs=1:3", DescribeHyperParameterTuningJob=[failed])
    assert told.status == 1
    assert told.error.endswith("The tuning failed: All training jobs failed\n")


def test_a_tuning_without_a_best_job_says_so(launch: Command) -> None:
    told = launch("--tune", "epochs=1:3", DescribeHyperParameterTuningJob=[changed(BestTrainingJob=None)])
    assert told.status == 1
    assert told.error.endswith("none of its jobs reported the objective; their logs say why.\n")


def test_jobs_of_a_tuning_are_as_promised(launch: Command, moto: Moto, bucket: str) -> None:
    told = launch("--tune", "epochs=1:3", "--no-wait", "--jobs", "2")
    assert told.status == 0, told.error
    assert len(told.job) <= 32
    described = boto3.client("sagemaker").describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=told.job)
    definition = json.loads(json.dumps(described["TrainingJobDefinition"], default=str))
    archive = definition["StaticHyperParameters"]["sagemaker_submit_directory"]
    assert archive.startswith(f"s3://{bucket}/pneumonia-training/")
    assert archive.removeprefix(f"s3://{bucket}/") in moto.keys(bucket)
    assert definition["StaticHyperParameters"]["sagemaker_program"] == "train_model.py"
