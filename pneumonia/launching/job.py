"""Declare the training job to the SDK: where it runs, on what, with which files and settings."""

import argparse
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3

from pneumonia.launching.metrics import METRICS, metric_regex
from pneumonia.launching.sdk import sdk_session
from pneumonia.training.channels import SPLITS

PROJECT = Path(__file__).parents[2]
ENTRY_SCRIPT = "train_model.py"
# What a job gets: the entry script, of the package the ground floor and these rooms. A requirements.txt could replace
# the container's torch, and is not needed: by AWS's published Dockerfiles the image has psutil, scikit-learn, and,
# through seaborn, matplotlib.
ROOMS = ("imaging", "network", "training")
JOB_PREFIX = "pneumonia-training"  # of job names, and of the S3 folder that holds each job's code and output
CONTAINER = {"framework": "pytorch", "version": "2.10.0", "py_version": "py313", "image_scope": "training"}
CHECKPOINTS = "/opt/ml/checkpoints"


def train(session: boto3.Session, args: argparse.Namespace) -> None:
    """Upload the job's code and have the SDK create the job."""
    with staged_source() as source:
        trainer_for(session, args, source).train(input_data_config=channels(args), wait=False, logs=False)


def channels(args: argparse.Namespace) -> list[Any]:
    """Return the SDK's input for each channel."""
    from sagemaker.core.training.configs import InputData  # noqa: PLC0415

    folder = f"s3://{args.bucket}/{args.prefix}".rstrip("/")
    return [InputData(channel_name=name, data_source=f"{folder}/{name}/") for name in SPLITS]


def trainer_for(session: boto3.Session, args: argparse.Namespace, source: Path) -> Any:  # noqa: ANN401
    """Return the SDK's ModelTrainer for the job.

    Args:
        session: the AWS session.
        args: the settings.
        source: folder with the job's code.
    """
    from sagemaker.core.shapes import Tag  # noqa: PLC0415
    from sagemaker.core.training import configs  # noqa: PLC0415
    from sagemaker.train import ModelTrainer  # noqa: PLC0415
    from sagemaker.train.distributed import Torchrun  # noqa: PLC0415

    # The SDK refuses every role without rights on network interfaces (ec2:CreateNetworkInterface and more), which a job
    # outside a VPC never uses. What a role really lacks, SageMaker says.
    os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
    return ModelTrainer(
        sagemaker_session=sdk_session(session, args.bucket),
        role=args.role,
        base_job_name=JOB_PREFIX,
        training_image=training_image(args),
        source_code=configs.SourceCode(source_dir=str(source), entry_script=ENTRY_SCRIPT),
        # In the job it counts the GPUs: a process for each on every instance, or one if there are none.
        distributed=Torchrun(),
        compute=compute(args),
        networking=networking(args),
        stopping_condition=configs.StoppingCondition(
            max_runtime_in_seconds=args.max_run_seconds,
            max_wait_time_in_seconds=args.max_wait_seconds if args.spot else None,
        ),
        checkpoint_config=checkpoint_config(args),
        output_data_config=configs.OutputDataConfig(s3_output_path=f"s3://{args.bucket}/{JOB_PREFIX}"),
        hyperparameters=args.hyperparameters,
        tags=[Tag(key=key, value=value) for key, value in args.tags.items()],
    ).with_metric_definitions(
        [configs.MetricDefinition(name=name, regex=metric_regex(word)) for name, word in METRICS.items()]
    )


def compute(args: argparse.Namespace) -> Any:  # noqa: ANN401
    """Return the machines."""
    from sagemaker.core.training.configs import Compute  # noqa: PLC0415

    return Compute(
        instance_type=args.instance_type,
        instance_count=args.instance_count,
        volume_size_in_gb=args.volume_size,
        keep_alive_period_in_seconds=args.keep_alive,
        enable_managed_spot_training=args.spot,
    )


def networking(args: argparse.Namespace) -> Any:  # noqa: ANN401
    """Return the VPC that the job runs in, None for none."""
    from sagemaker.core.training.configs import Networking  # noqa: PLC0415

    return Networking(subnets=args.subnets, security_group_ids=args.security_groups) if args.subnets else None


def training_image(args: argparse.Namespace) -> str:
    """Return the address of the container's image: the given one, or AWS's for PyTorch on such an instance."""
    from sagemaker.core import image_uris  # noqa: PLC0415

    image: str = args.image_uri or image_uris.retrieve(
        region=args.region, instance_type=args.instance_type, **CONTAINER
    )
    return image


def checkpoint_config(args: argparse.Namespace) -> Any:  # noqa: ANN401
    """Return the folder that SageMaker copies to S3 and back, so that a job goes on where another ended; None for none.

    A tuning has none: its jobs have one address for all, and would go on from each other's.
    """
    from sagemaker.core.training import configs  # noqa: PLC0415

    if args.tune or not (args.checkpoints or args.spot):
        return None
    address = {"s3_uri": args.checkpoints} if args.checkpoints else {}  # else the SDK takes a folder of the job's own
    return configs.CheckpointConfig(local_path=CHECKPOINTS, **address)


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
