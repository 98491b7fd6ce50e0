import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import boto3
import pytest

import train_model
from pneumonia.command import this_python
from pneumonia.errors import ConfigurationError
from pneumonia.launching.job import staged_source
from pneumonia.launching.metrics import metric_regex
from pneumonia.training.hyperparameters import Hyperparameters, option
from tests.builders.checkout import PROJECT
from tools.stand_ins.moto import REGION, Moto
from tools.stand_ins.sagemaker_api import answering, changed
from train_sagemaker import parse_arguments

ROLE = "arn:aws:iam::123456789012:role/training"
IN_US = ("--role", ROLE, "--region", "us-east-1")
LOG = (
    "epoch=3 train_loss=0.1234 val_accuracy=0.9512 val_loss=0.1402 val_auroc=0.9876 images_per_second=123.4 best=yes",
    (
        "test_accuracy=0.9512 test_loss=0.1402 test_auroc=0.9876 test_balanced_accuracy=0.9412 "
        "test_sensitivity=0.9712 test_specificity=0.9112"
    ),
)


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the command with no AWS or TRAIN variable but those given."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "TRAIN_"))}
    return subprocess.run(
        [sys.executable, PROJECT / "train_sagemaker.py", *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def run_help(script: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRAIN_")}
    process = subprocess.run(
        [sys.executable, PROJECT / script, "--help"],
        env=environment | {"COLUMNS": "250"},
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "TRAIN_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def request_body() -> dict[str, Any]:
    """The request of a dry run with every option, without credentials or a server."""
    options = ["--spot", "--max-run-seconds", "3600", "--max-wait-seconds", "7200", "--tag", "a=b", "--tag", "c=d=e"]
    options += ["--instance-count", "2"]
    process = run(
        *("--bucket", "xrays", "--role", ROLE, "--region", "us-east-1", "--prefix", "sets/one/", "--dry-run"),
        *("--epochs", "3", "--learning-rate", "1e-4", "--weights", "none"),
        *options,
    )
    assert process.returncode == 0, process.stderr
    body: dict[str, Any] = json.loads(process.stdout)
    return body


@pytest.mark.processes
def test_what_is_missing_is_named_all_at_once() -> None:
    process = run()
    assert process.returncode == 1
    assert process.stdout == ""
    assert process.stderr == (
        "Missing: --bucket (TRAIN_BUCKET), --role (TRAIN_ROLE), --region (AWS_REGION). "
        "Pass the arguments or set the environment variables.\n"
    )


@pytest.mark.processes
def test_missing_credentials_are_told_with_what_to_do(tmp_path: Path) -> None:
    arguments = ("--bucket", "xrays", "--role", ROLE, "--region", "us-east-1")
    process = run(*arguments, AWS_EC2_METADATA_DISABLED="true", HOME=str(tmp_path))
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == (
        "The job cannot be launched without AWS credentials: "
        "run 'aws configure' or 'aws sso login', or set AWS_PROFILE."
    )


def test_variables_stand_behind_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "TRAIN_BUCKET": "b-1",
        "TRAIN_ROLE": ROLE,
        "AWS_DEFAULT_REGION": "us-west-2",
        "TRAIN_INSTANCE_TYPE": "ml.g5.xlarge",
        "TRAIN_INSTANCE_COUNT": "2",
        "TRAIN_SPOT": "true",
        "TRAIN_MAX_RUN_SECONDS": "60",
        "TRAIN_TAG": "a=b,c=d",
        "TRAIN_BATCH_SIZE": "64",
        "TRAIN_EPOCHS": "",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    args = parse_arguments(["--batch-size", "8"])
    assert (args.bucket, args.role, args.region, args.instance_type) == ("b-1", ROLE, "us-west-2", "ml.g5.xlarge")
    assert args.instance_count == 2
    assert args.spot
    assert (args.max_run_seconds, args.max_wait_seconds) == (60, 120)
    assert args.tags == {"a": "b", "c": "d"}
    assert args.hyperparameters == {"batch-size": 8}
    assert not parse_arguments(["--no-spot"]).spot
    assert parse_arguments(["--instance-count", "3"]).instance_count == 3


@pytest.mark.parametrize("word", ["1", "true", "on", "0", "off", ""])
def test_variables_stand_behind_switches_too(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    for name in ("TRAIN_SPOT", "TRAIN_NO_WAIT", "TRAIN_DRY_RUN"):
        monkeypatch.setenv(name, word)
    args = parse_arguments(["--bucket", "b-1", "--role", ROLE, "--region", "us-east-1"])
    assert (args.spot, args.no_wait, args.dry_run) == (word in {"1", "true", "on"},) * 3


def test_switch_that_is_neither_on_nor_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_DRY_RUN", "perhaps")
    with pytest.raises(ConfigurationError, match=r"TRAIN_DRY_RUN is perhaps: set it to true or false\."):
        parse_arguments(["--bucket", "b-1", "--role", ROLE, "--region", "us-east-1"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tag", "a"], "A tag is KEY=VALUE, not a."),
        (["--tag", "=b"], "A tag is KEY=VALUE, not =b."),
        (["--role", "training"], "--role is an ARN such as arn:aws:iam::123456789012:role/training, not training."),
        (["--instance-count", "0"], "--instance-count must be above 0, not 0."),
        (["--instance-count", "-1"], "--instance-count must be above 0, not -1."),
        (["--epochs", "0"], "--epochs must be above 0, not 0."),
        (
            ["--epochs", "0", "--refining-runs", "3"],
            "--epochs 0 refines a network of yours, and a job has none: train for an epoch or more.",
        ),
        (["--learning-rate", "nan"], "--learning-rate must be above 0, not nan."),
        (["--weight-decay", "-1"], "--weight-decay must not be below 0, and is -1.0."),
        (["--seed", "-1"], "--seed must be from 0 to 18446744073709551615, not -1."),
        (["--weights", "mine.pth"], "--weights is imagenet or none, not mine.pth"),
        (["--patients", "(?<='child)1"], "--patients has a ', which breaks the script that starts a job: write \\x27"),
        (["--batch-size", "1000001"], "--batch-size must be at most 1,000,000, not 1000001."),
        (["--max-run-seconds", "0"], "--max-run-seconds must be above 0, not 0."),
        (["--max-wait-seconds", "1"], "--max-wait-seconds includes the run"),
    ],
)
def test_wrong_settings_are_told(arguments: list[str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        parse_arguments(["--bucket", "b-1", "--role", ROLE, "--region", "us-east-1", *arguments])


@pytest.mark.processes
def test_letters_that_the_terminal_lacks_are_replaced() -> None:
    argv = [sys.executable, "train_sagemaker.py", "--attach", "\u60a3\u8005", "--region", "us-east-1"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(argv, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "--attach takes the name of a training or tuning job, not ??.\n"


@pytest.mark.processes
def test_request_names_the_channels(request_body: dict[str, Any]) -> None:
    channels = {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in request_body["InputDataConfig"]
    }
    assert {name: channels[name] for name in ("train", "val", "test")} == {
        "train": "s3://xrays/sets/one/train/",
        "val": "s3://xrays/sets/one/val/",
        "test": "s3://xrays/sets/one/test/",
    }
    assert sorted(channels) == ["code", "sm_drivers", "test", "train", "val"]


@pytest.mark.processes
def test_request_has_what_was_asked_for(request_body: dict[str, Any]) -> None:
    assert request_body["RoleArn"] == ROLE
    assert request_body["ResourceConfig"]["InstanceType"] == "ml.g4dn.xlarge"
    assert request_body["ResourceConfig"]["InstanceCount"] == 2
    assert request_body["HyperParameters"] == {"epochs": "3", "learning-rate": "0.0001", "weights": "none"}
    assert request_body["EnableManagedSpotTraining"] is True
    assert request_body["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    assert request_body["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    assert request_body["CheckpointConfig"]["S3Uri"].startswith("s3://xrays/pneumonia-training/")
    assert request_body["Tags"] == [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d=e"}]
    assert request_body["OutputDataConfig"]["S3OutputPath"] == "s3://xrays/pneumonia-training"


@pytest.mark.processes
def test_request_of_one_job_has_machines_network_and_checkpoints() -> None:
    machine = ("--volume-size", "200", "--keep-alive", "600", "--image-uri", "1.dkr.ecr.us-east-1.amazonaws.com/mine:1")
    network = ("--subnets", "subnet-1,subnet-2", "--security-groups", "sg-1", "--checkpoints", "s3://kept/runs/1")
    process = run("--bucket", "s3://xrays/", "--prefix", "", *IN_US, "--dry-run", *machine, *network)
    assert process.returncode == 0, process.stderr
    body = json.loads(process.stdout)
    assert body["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] == "s3://xrays/train/"
    assert body["ResourceConfig"] == {
        "InstanceType": "ml.g4dn.xlarge",
        "InstanceCount": 1,
        "VolumeSizeInGB": 200,
        "KeepAlivePeriodInSeconds": 600,
    }
    assert body["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1", "subnet-2"]}
    assert body["CheckpointConfig"] == {"S3Uri": "s3://kept/runs/1/", "LocalPath": "/opt/ml/checkpoints"}
    assert body["AlgorithmSpecification"]["TrainingImage"] == "1.dkr.ecr.us-east-1.amazonaws.com/mine:1"
    assert body["EnableManagedSpotTraining"] is False


@pytest.mark.processes
def test_request_of_a_tuning_has_ranges_and_an_objective() -> None:
    ranges = ("--tune", "learning-rate=1e-4:1e-3", "--tune", "weight-decay=0:0.1", "--tune", "epochs=5:20")
    limits = ("--jobs", "12", "--at-once", "3", "--objective", "validation:loss", "--weights", "none", "--tag", "a=b")
    process = run("--bucket", "xrays", *IN_US, "--dry-run", "--spot", *ranges, *limits)
    assert process.returncode == 0, process.stderr
    body = json.loads(process.stdout)
    assert re.fullmatch(r"pneumonia-tuning-\d{6}-\d{6}", body["HyperParameterTuningJobName"])
    assert body["HyperParameterTuningJobConfig"] == {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "validation:loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 12, "MaxParallelTrainingJobs": 3},
        "TrainingJobEarlyStoppingType": "Auto",
        "ParameterRanges": {
            "ContinuousParameterRanges": [
                {"Name": "learning-rate", "MinValue": "0.0001", "MaxValue": "0.001", "ScalingType": "Logarithmic"},
                {"Name": "weight-decay", "MinValue": "0.0", "MaxValue": "0.1", "ScalingType": "Linear"},
            ],
            "IntegerParameterRanges": [{"Name": "epochs", "MinValue": "5", "MaxValue": "20", "ScalingType": "Linear"}],
        },
    }
    definition = body["TrainingJobDefinition"]
    fixed = definition["StaticHyperParameters"]
    assert {name: fixed[name] for name in ("weights", "sagemaker_program", "sagemaker_torch_distributed_enabled")} == {
        "weights": "none",
        "sagemaker_program": "train_model.py",
        "sagemaker_torch_distributed_enabled": "true",  # a process for each GPU
    }
    metrics = [metric["Name"] for metric in definition["AlgorithmSpecification"]["MetricDefinitions"]]
    assert "validation:loss" in metrics
    assert "CheckpointConfig" not in definition  # one address for all jobs
    assert body["Tags"] == [{"Key": "a", "Value": "b"}]


@pytest.mark.processes
def test_container_is_of_the_region_and_has_a_gpu(request_body: dict[str, Any]) -> None:
    image = request_body["AlgorithmSpecification"]["TrainingImage"]
    assert re.fullmatch(r"\d{12}\.dkr\.ecr\.us-east-1\.amazonaws\.com/pytorch-training:2\.10\.0-gpu-py313", image)


@pytest.mark.processes
def test_dry_run_sends_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        arguments = ["--bucket", "xrays", "--role", ROLE, "--region", REGION, "--dry-run"]
        process = run(*arguments, HTTP_PROXY=address, HTTPS_PROXY=address)
        assert process.returncode == 0, process.stderr
        proxy.setblocking(False)  # noqa: FBT003  # socket's argument has no name
        with pytest.raises(BlockingIOError):  # nobody has called
            proxy.accept()


@pytest.mark.processes
def test_metric_definitions_match_the_log_lines(request_body: dict[str, Any]) -> None:
    definitions = request_body["AlgorithmSpecification"]["MetricDefinitions"]
    found = {
        definition["Name"]: [match for line in LOG for match in re.findall(definition["Regex"], line)]
        for definition in definitions
    }
    assert found == {
        "train:loss": ["0.1234"],
        "train:images_per_second": ["123.4"],
        "validation:accuracy": ["0.9512"],
        "validation:loss": ["0.1402"],
        "validation:auroc": ["0.9876"],
        "test:accuracy": ["0.9512"],
        "test:loss": ["0.1402"],
        "test:auroc": ["0.9876"],
        "test:balanced_accuracy": ["0.9412"],
        "test:sensitivity": ["0.9712"],
        "test:specificity": ["0.9112"],
    }


@pytest.mark.parametrize("number", ["1.2e-05", "nan", "inf", "-0.5", ""])
@pytest.mark.parametrize("line", ["epoch=1 train_loss={} val_accuracy=0.5", "train_loss={}"])
def test_no_metric_is_read_off_what_is_no_plain_number(line: str, number: str) -> None:
    assert re.findall(metric_regex("train_loss"), line.format("0.5")) == ["0.5"]
    assert not re.findall(metric_regex("train_loss"), line.format(number))


@pytest.mark.parametrize("word", ["accuracy", "val_accuracy", "loss"])
def test_metric_is_not_found_inside_another_word(word: str) -> None:
    assert not re.findall(metric_regex(word), "test_balanced_accuracy=0.9 old_val_accuracy=0.8 test_loss=0.1")


def test_hyperparameters_are_what_training_takes_and_its_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_arguments(["--bucket", "b-1", "--role", ROLE, "--region", "us-east-1"]).hyperparameters == {}
    values = ("2", "64", "0.001", "0.1", "none", "3", "7", r"^(p\d+)", "4")
    fields = dataclasses.fields(Hyperparameters)
    given = [word for one, value in zip(fields, values, strict=True) for word in (f"--{option(one.name)}", value)]
    launched = parse_arguments(["--bucket", "b-1", "--role", ROLE, "--region", "us-east-1", *given]).hyperparameters
    passed = [word for name, value in launched.items() for word in (f"--{name}", str(value))]
    _, chosen = train_model.parse_arguments(passed)
    assert chosen == Hyperparameters(2, 64, 0.001, 0.1, "none", 3, 7, r"^(p\d+)", 4)
    monkeypatch.setenv("TRAIN_SEED", "5")
    assert parse_arguments(["--bucket", "b-1", "--role", ROLE, "--region", "us-east-1"]).hyperparameters == {"seed": 5}


@pytest.mark.processes
def test_both_scripts_say_the_same_of_hyperparameters() -> None:
    told = []
    for script in ("train_model.py", "train_sagemaker.py"):
        help_ = run_help(script)
        told.append(help_[help_.index("\nhyperparameters:\n") :].strip().partition("\n\n")[0])
    assert told[0] == told[1]
    for one in dataclasses.fields(Hyperparameters):
        assert f"--{option(one.name)} " in told[0]
    assert "(0.0005)" in told[0]


@pytest.mark.processes
@pytest.mark.parametrize("script", ["train_model.py", "train_sagemaker.py"])
def test_help_explains_every_option_and_its_default(script: str) -> None:
    help_ = run_help(script)
    options = re.findall(r"^  --.*(?:\n {20,}.*)?$", help_, re.MULTILINE)  # long names have a line of their own
    assert len(options) > 10
    assert [option for option in options if not re.search(r"\s{2,}\w.*\(.+\)$", option)] == []
    assert "None" not in help_


@pytest.fixture
def data_bucket(moto: Moto, bucket: str) -> str:
    for channel in ("train", "val", "test"):
        for name in ("NORMAL/1.jpeg", "PNEUMONIA/2.jpeg"):
            moto.s3().put_object(Bucket=bucket, Key=f"chest_xray/{channel}/{name}", Body=b"image")
    return bucket


def test_job_gets_the_shipped_files_and_no_others(moto: Moto, data_bucket: str) -> None:
    process = run("--bucket", data_bucket, "--role", ROLE, "--region", REGION, "--no-wait", **moto.environment)
    assert process.returncode == 0, process.stderr
    code = {key.partition("/input/code/")[2] for key in moto.keys(data_bucket) if "/input/code/" in key}
    with staged_source() as source:
        assert code == {str(file.relative_to(source)) for file in source.rglob("*.py")}


def test_job_of_two_instances_starts_torchrun_over_all_images(moto: Moto, data_bucket: str) -> None:
    options = ["--bucket", data_bucket, "--role", ROLE, "--region", REGION, "--instance-count", "2", "--no-wait"]
    process = run(*options, **moto.environment)
    assert process.returncode == 0, process.stderr
    name = re.search(r"^Training job (\S+) in", process.stdout, re.MULTILINE)
    assert name
    job = boto3.client("sagemaker").describe_training_job(TrainingJobName=name[1])
    assert job["ResourceConfig"]["InstanceCount"] == 2
    sources = {channel["ChannelName"]: channel["DataSource"]["S3DataSource"] for channel in job["InputDataConfig"]}
    assert {source["S3DataDistributionType"] for source in sources.values()} == {"FullyReplicated"}

    def driver(file: str) -> str:
        key = urlparse(sources["sm_drivers"]["S3Uri"]).path.strip("/") + f"/{file}"
        return moto.s3().get_object(Bucket=data_bucket, Key=key)["Body"].read().decode()

    assert json.loads(driver("distributed.json"))["process_count_per_node"] is None  # one for each GPU
    assert "/distributed_drivers/torchrun_driver.py\n" in driver("sm_train.sh")


@pytest.mark.parametrize("waiting", [[], ["--no-wait"]], ids=["wait", "no wait"])
def test_launch_ends_with_the_model_and_the_next_command(moto: Moto, data_bucket: str, waiting: list[str]) -> None:
    process = run("--bucket", data_bucket, "--role", ROLE, "--region", REGION, *waiting, **moto.environment)
    assert process.returncode == 0, process.stderr
    name = re.search(r"^Training job (\S+) in eu-west-1$", process.stdout, re.MULTILINE)
    assert name
    archive = f"s3://{data_bucket}/pneumonia-training/{name[1]}/output/model.tar.gz"
    following = f"{this_python()} promote_model.py {archive} --bucket WEIGHTS_BUCKET"
    assert process.stdout.endswith(f"{archive}\nNext: {following}\n")


def test_empty_channel_is_told_before_a_job_starts(moto: Moto, data_bucket: str) -> None:
    for name in ("NORMAL/1.jpeg", "PNEUMONIA/2.jpeg"):
        moto.s3().delete_object(Bucket=data_bucket, Key=f"chest_xray/val/{name}")
    process = run("--bucket", data_bucket, "--role", ROLE, "--region", REGION, **moto.environment)
    assert process.returncode == 1
    assert process.stderr.endswith(
        f"There are no files in s3://{data_bucket}/chest_xray/val/: upload the images there, or name another folder "
        "with --prefix.\n"
    )
    assert not any("/input/code/" in key for key in moto.keys(data_bucket))


def test_refusal_by_aws_is_one_sentence(moto: Moto) -> None:
    process = run("--bucket", "nowhere-at-all", "--role", ROLE, "--region", REGION, **moto.environment)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == (
        "The job cannot be launched, AWS answers NoSuchBucket (The specified bucket does not exist): "
        "create the bucket, or name another."
    )
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["launch", "dry run"])
def test_instance_type_that_does_not_exist_is_one_sentence(moto: Moto, data_bucket: str, dry: list[str]) -> None:
    options = ["--bucket", data_bucket, "--role", ROLE, "--region", REGION, "--instance-type", "large"]
    process = run(*options, *dry, **moto.environment)
    assert process.returncode == 1
    assert "The job cannot be launched: " in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr


def test_failed_job_exits_with_sagemakers_reason(moto: Moto, data_bucket: str) -> None:
    reason = "AlgorithmError: Images cannot be read, remove or replace them: train/NORMAL/1.jpeg"
    failed = changed(TrainingJobStatus="Failed", FailureReason=reason)
    with answering(moto.endpoint, {"DescribeTrainingJob": [failed]}) as api:
        variables = moto.environment | {"AWS_ENDPOINT_URL": api.endpoint}
        process = run("--bucket", data_bucket, "--role", ROLE, "--region", REGION, **variables)
    assert process.returncode == 1
    assert process.stderr.endswith(f"The job failed: {reason}\n")
    assert "Traceback" not in process.stderr
    assert "model.tar.gz" not in process.stdout
