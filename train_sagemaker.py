"""Launch train_model.py as a SageMaker training job on the chest X-rays in S3.

`python train_sagemaker.py --bucket BUCKET --role ROLE_ARN --region REGION`
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumonia.command import Parser
from pneumonia.errors import ConfigurationError, DataError, PneumoniaError, TrainingError, first_line
from pneumonia.storage.refusals import refusals_as
from pneumonia.training.channels import SPLITS
from pneumonia.training.hyperparameters import (
    Hyperparameters,
    add_hyperparameters,
    given_hyperparameters,
    option,
)

if TYPE_CHECKING:
    import boto3
    from botocore.model import OperationModel

PROJECT = Path(__file__).parent
ENTRY_SCRIPT = "train_model.py"
# What a job gets: the entry script, of the package the ground floor and these rooms. A requirements.txt could replace
# the container's torch, and is not needed: by AWS's published Dockerfiles the image has psutil, scikit-learn, and,
# through seaborn, matplotlib.
ROOMS = ("imaging", "network", "training")
JOB_PREFIX = "pneumonia-training"  # of job names, and of the S3 folder that holds each job's code and output
CONTAINER = {"framework": "pytorch", "version": "2.10.0", "py_version": "py313", "image_scope": "training"}
# CloudWatch's name of a metric to the word that train_model.py logs it under.
METRICS = {
    "train:loss": "train_loss",
    "train:images_per_second": "images_per_second",
    "validation:accuracy": "val_accuracy",
    "validation:loss": "val_loss",
    "validation:auroc": "val_auroc",
    "test:accuracy": "test_accuracy",
    "test:loss": "test_loss",
    "test:auroc": "test_auroc",
    "test:balanced_accuracy": "test_balanced_accuracy",
    "test:sensitivity": "test_sensitivity",
    "test:specificity": "test_specificity",
}
YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class DryRun(Exception):  # noqa: N818  # not an error: it carries the request out of the SDK
    """Ends a dry run with the request that would have been sent."""


def launch(args: argparse.Namespace) -> None:
    """Start the training job; wait for it and show its logs unless told otherwise.

    Raises:
        PneumoniaError: AWS refuses, there are no images, or the job fails.
    """
    import boto3  # noqa: PLC0415  # the SDK takes seconds to import: wrong arguments are told before
    from sagemaker.core.utils.exceptions import FailedStatusError  # noqa: PLC0415

    session = boto3.Session(region_name=args.region)
    try:
        check_dataset(session, args)
        job = start(session, args)
        print(f"Training job {job.training_job_name} in {args.region}", flush=True)
        if not args.no_wait:
            job.wait(logs=True)
            if job.training_job_status != "Completed":
                raise TrainingError(f"The job ended as {job.training_job_status}: {job.secondary_status}.")
    except FailedStatusError as error:
        raise TrainingError(f"The job failed: {job.failure_reason}") from error
    print_result(job.training_job_name, args)


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what AWS and its SDK raise into one sentence."""
    what = "The job cannot be launched"
    try:
        with refusals_as(TrainingError, what, service="AWS"):
            yield
    except ValueError as error:  # the SDK checks instance types and such
        raise TrainingError(f"{what}: {first_line(error)}") from error


def print_result(job_name: str, args: argparse.Namespace) -> None:
    """Print where the job's model is or will be, and what to do with it."""
    archive = f"s3://{args.bucket}/{JOB_PREFIX}/{job_name}/output/model.tar.gz"
    print(f"{'Model, when the job has ended' if args.no_wait else 'Model'}: {archive}")
    print(f"Next: python promote_model.py {archive} --bucket WEIGHTS_BUCKET")


def dry_run(args: argparse.Namespace) -> None:
    """Print the CreateTrainingJob request as JSON; nothing is sent or uploaded, and no credentials are needed."""
    import boto3  # noqa: PLC0415
    from botocore.awsrequest import AWSResponse  # noqa: PLC0415
    from botocore.compat import HTTPHeaders  # noqa: PLC0415

    def answer(model: "OperationModel", params: dict[str, Any], **_: object) -> Any:  # noqa: ANN401
        if model.name == "CreateTrainingJob":
            raise DryRun(params["body"])
        return AWSResponse("", 200, HTTPHeaders(), None), {"Buckets": [{"Name": args.bucket, "CreationDate": 0}]}

    # botocore's event ends every call before it is sent: the SDK believes that its uploads were made.
    session = boto3.Session("none", "none", region_name=args.region)
    session.events.register("before-call", answer)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            start(session, args)
    except DryRun as request:
        print(json.dumps(json.loads(request.args[0]), indent=2))


def start(session: "boto3.Session", args: argparse.Namespace) -> Any:  # noqa: ANN401  # the SDK has no types
    """Declare the job and start it.

    Returns:
        The SDK's TrainingJob.
    """
    from sagemaker.core.training.configs import InputData  # noqa: PLC0415

    # The SDK refuses every role without rights on network interfaces (ec2:CreateNetworkInterface and more), which a job
    # outside a VPC never uses. What a role really lacks, SageMaker says.
    os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
    with staged_source() as source:
        trainer = trainer_for(session, args, source)
        channels = [
            InputData(channel_name=name, data_source=f"s3://{args.bucket}/{args.prefix}/{name}/") for name in SPLITS
        ]
        trainer.train(input_data_config=channels, wait=False, logs=False)
    return trainer._latest_training_job  # noqa: SLF001  # the SDK's documentation reads it so; there is no other way


def trainer_for(session: "boto3.Session", args: argparse.Namespace, source: Path) -> Any:  # noqa: ANN401
    """Return the SDK's ModelTrainer for the job: where it runs, on what, with which settings."""
    from sagemaker.core import image_uris  # noqa: PLC0415
    from sagemaker.core.shapes import Tag  # noqa: PLC0415
    from sagemaker.core.training import configs  # noqa: PLC0415
    from sagemaker.train import ModelTrainer  # noqa: PLC0415
    from sagemaker.train.distributed import Torchrun  # noqa: PLC0415

    return ModelTrainer(
        sagemaker_session=sdk_session(session, args.bucket),
        role=args.role,
        base_job_name=JOB_PREFIX,
        training_image=image_uris.retrieve(region=args.region, instance_type=args.instance_type, **CONTAINER),
        source_code=configs.SourceCode(source_dir=str(source), entry_script=ENTRY_SCRIPT),
        # In the job it counts the GPUs: a process for each on every instance, or one where there are none.
        distributed=Torchrun(),
        compute=configs.Compute(
            instance_type=args.instance_type,
            instance_count=args.instance_count,
            enable_managed_spot_training=args.spot,
        ),
        stopping_condition=configs.StoppingCondition(
            max_runtime_in_seconds=args.max_run_seconds,
            max_wait_time_in_seconds=args.max_wait_seconds if args.spot else None,
        ),
        # With spot instances, SageMaker copies this folder to S3 and back: an interrupted job goes on from there.
        checkpoint_config=configs.CheckpointConfig(local_path="/opt/ml/checkpoints") if args.spot else None,
        output_data_config=configs.OutputDataConfig(s3_output_path=f"s3://{args.bucket}/{JOB_PREFIX}"),
        hyperparameters=args.hyperparameters,
        tags=[Tag(key=key, value=value) for key, value in args.tags.items()],
    ).with_metric_definitions(
        [configs.MetricDefinition(name=name, regex=metric_regex(word)) for name, word in METRICS.items()]
    )


def sdk_session(session: "boto3.Session", bucket: str) -> Any:  # noqa: ANN401
    """Return the SDK's session, which reports no call to its makers unless its configuration says so."""
    from sagemaker.core.config.config import load_sagemaker_config  # noqa: PLC0415
    from sagemaker.core.helper.session_helper import Session  # noqa: PLC0415

    config = {"SchemaVersion": "1.0"} | load_sagemaker_config()
    sdk = config.setdefault("SageMaker", {}).setdefault("PythonSDK", {}).setdefault("Modules", {})
    sdk.setdefault("TelemetryOptOut", True)
    return Session(boto_session=session, default_bucket=bucket, sagemaker_config=config)


@contextlib.contextmanager
def staged_source() -> Iterator[Path]:
    """Yield a folder with the files that the job needs, and no others."""
    package = PROJECT / "pneumonia"
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary)
        shutil.copy(PROJECT / ENTRY_SCRIPT, source)
        for file in [*package.glob("*.py"), *(file for room in ROOMS for file in (package / room).rglob("*.py"))]:
            copy = source / file.relative_to(PROJECT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        yield source


def check_dataset(session: "boto3.Session", args: argparse.Namespace) -> None:
    """Check that every channel has files, before an instance is paid for.

    Raises:
        DataError: a channel is empty.
    """
    s3 = session.client("s3")
    prefixes = [f"{args.prefix}/{name}/" for name in SPLITS]
    empty = [prefix for prefix in prefixes if not s3.list_objects_v2(Bucket=args.bucket, Prefix=prefix)["KeyCount"]]
    if empty:
        raise DataError(
            f"There are no files in {' and '.join(f's3://{args.bucket}/{prefix}' for prefix in empty)}: upload the "
            "images there, or name another folder with --prefix."
        )


def metric_regex(word: str) -> str:
    """Return the pattern by which SageMaker finds a metric in a log line such as `epoch=3 train_loss=0.1234 …`.

    The number has to end with its word: of `1.2e-05` nothing is taken, rather than 1.2.
    """
    return rf"\b{word}=([0-9.]+)(?:\s|$)"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; behind `--some-name` stands the environment variable TRAIN_SOME_NAME.

    Returns:
        The arguments, `tags` and `hyperparameters` among them: name to value of those that are given.

    Raises:
        ConfigurationError: settings are missing or wrong.
    """
    args = argument_parser().parse_args(argv)
    if missing := [name for name in ("bucket", "role", "region") if not getattr(args, name)]:
        named = [f"--{name} ({'AWS_REGION' if name == 'region' else variable_name(name)})" for name in missing]
        raise ConfigurationError(f"Missing: {', '.join(named)}. Pass the arguments or set the environment variables.")
    if not re.fullmatch(r"arn:[\w-]+:iam::\d{12}:role/\S+", args.role):
        raise ConfigurationError(f"--role is an ARN, arn:aws:iam::123456789012:role/training say, not {args.role}.")
    for name in ("instance_count", "max_run_seconds", "max_wait_seconds"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ConfigurationError(f"--{name.replace('_', '-')} must be above 0, not {value}.")
    args.prefix = args.prefix.strip("/")
    args.max_wait_seconds = args.max_wait_seconds or 2 * args.max_run_seconds
    if args.max_wait_seconds < args.max_run_seconds:
        raise ConfigurationError("--max-wait-seconds includes the run: it cannot be below --max-run-seconds.")
    args.tags = parse_tags(args.tag or (variable("tag") or "").split(","))
    args.hyperparameters = hyperparameters_in(args)
    return args


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are read off the environment."""
    parser = Parser(
        prog="train_sagemaker.py",
        description=__doc__.partition("\n")[0],
        epilog="Behind each argument stands an environment variable: TRAIN_BUCKET behind --bucket, TRAIN_BATCH_SIZE "
        "behind --batch-size, and so on; behind --region AWS_REGION and AWS_DEFAULT_REGION. "
        "Example: train_sagemaker.py --bucket xrays --role arn:aws:iam::123456789012:role/job --region eu-west-1",
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    for name, default, kind, text in (
        (
            "bucket",
            None,
            str,
            "S3 bucket with the images; it gets code, checkpoints and model too (required)",
        ),
        ("prefix", "chest_xray", str, "its folder with train/, val/ and test/ (%(default)s)"),
        ("role", None, str, "ARN of the role that the job runs under (required)"),
        ("region", region, str, "AWS region (required; AWS_REGION, AWS_DEFAULT_REGION)"),
        ("instance-type", "ml.g4dn.xlarge", str, "all of its GPUs are used (%(default)s)"),
        ("instance-count", "1", int, "machines that train together (%(default)s)"),
        ("max-run-seconds", "14400", int, "the job is stopped after this time (%(default)s)"),
        ("max-wait-seconds", None, int, "with --spot: time to run and to wait for capacity (twice --max-run-seconds)"),
    ):
        # argparse converts and checks a default that is text, just as it does with an argument.
        parser.add_argument(f"--{name}", default=variable(name) or default, type=kind, help=text)
    tag_help = "of the job; repeatable (none; TRAIN_TAG: KEY=VALUE,…)"
    parser.add_argument("--tag", action="append", metavar="KEY=VALUE", help=tag_help)
    for name, action, text in (
        ("spot", argparse.BooleanOptionalAction, "cheaper instances that may be interrupted (off)"),
        ("no-wait", "store_true", "return when the job has started (off)"),
        ("dry-run", "store_true", "print the request instead of sending it (off)"),
    ):
        parser.add_argument(f"--{name}", action=action, default=flag(name), help=text)
    add_hyperparameters(parser, variable)
    return parser


def hyperparameters_in(args: argparse.Namespace) -> dict[str, Any]:
    """Return the hyperparameters that are given, as the job's train_model.py takes them; its defaults hold for others.

    Raises:
        ConfigurationError: one that nothing can be trained with.
    """
    given = given_hyperparameters(args)
    try:
        Hyperparameters(**given)
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from error
    if args.weights not in {None, "imagenet", "none"}:
        raise ConfigurationError(f"--weights is imagenet or none, not {args.weights}: a job has no file of yours.")
    return {option(name): value for name, value in given.items()}


def variable_name(argument: str) -> str:
    """Return the environment variable behind an argument."""
    return f"TRAIN_{argument.upper().replace('-', '_')}"


def variable(argument: str) -> str | None:
    """Return the value of the environment variable behind an argument; empty counts as unset."""
    return os.environ.get(variable_name(argument)) or None


def flag(argument: str) -> bool:
    """Return whether the environment variable behind a switch is on.

    Raises:
        ConfigurationError: it is neither on nor off.
    """
    value = (variable(argument) or "").lower()
    if value not in YES + NO:
        raise ConfigurationError(f"{variable_name(argument)} is {value}: set it to true or false.")
    return value in YES


def parse_tags(tags: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE pairs; empty ones are skipped.

    Raises:
        ConfigurationError: a pair without key or equals sign.
    """
    pairs = [tag.strip().partition("=") for tag in tags if tag.strip()]
    if wrong := ["".join(pair) for pair in pairs if not (pair[0] and pair[1])]:
        raise ConfigurationError(f"A tag is KEY=VALUE, not {', '.join(wrong)}.")
    return {key: value for key, _, value in pairs}


def main(argv: Sequence[str] | None = None) -> int:
    """Launch; return the exit status."""
    try:
        args = parse_arguments(argv)
        with one_sentence():
            (dry_run if args.dry_run else launch)(args)
    except PneumoniaError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("No longer waiting; a job that has started goes on in SageMaker.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
