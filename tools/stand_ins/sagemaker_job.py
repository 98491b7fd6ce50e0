"""Runs a training job that moto's SageMaker recorded, the way SageMaker would: its own entrypoint over `/opt/ml`."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import boto3
import pytest

from tools.stand_ins.moto import REGION, Moto

OPT_ML = Path("/opt/ml")  # fixed in the SDK's scripts
# Without the right to write to /opt, or where /opt/ml is taken, a user namespace gives an /opt of its own: what was
# there, and /opt/ml.
OWN_OPT = """
set -e
mkdir "$1/.opt" && mount --rbind /opt "$1/.opt" && mount -t tmpfs tmpfs /opt
for entry in "$1"/.opt/*/; do
    [ -d "$entry" ] && mkdir "/opt/$(basename "$entry")" && mount --rbind "$entry" "/opt/$(basename "$entry")"
done
mkdir -p /opt/ml && mount --bind "$1" /opt/ml
shift && exec "$@"
"""


@dataclass(frozen=True)
class FinishedJob:
    """What a job left.

    Attributes:
        status: of the container's process.
        log: what it printed.
        failure: the text of /opt/ml/output/failure, None where there is none.
        archive: S3 URI of model.tar.gz.
    """

    status: int
    log: str
    failure: str | None
    archive: str


def run_training_job(moto: Moto, name: str, root: Path) -> FinishedJob:
    """Run a recorded job in this machine's Python, and put its model where SageMaker would.

    Args:
        moto: the server that recorded it.
        name: the job's.
        root: empty folder that serves as /opt/ml.
    """
    client = boto3.client(
        "sagemaker",
        endpoint_url=moto.endpoint,
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    job: dict[str, Any] = dict(client.describe_training_job(TrainingJobName=name))
    _lay_out(moto, job, root)
    process = _run_container(job, root)
    output = urlparse(job["OutputDataConfig"]["S3OutputPath"])
    key = f"{output.path.strip('/')}/{name}/output/model.tar.gz"
    with tarfile.open(root / "model.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(root / "model", arcname=".")
    moto.s3().upload_file(str(root / "model.tar.gz"), output.netloc, key)
    failure = root / "output" / "failure"
    return FinishedJob(
        status=process.returncode,
        log=process.stdout,
        failure=failure.read_text() if failure.exists() else None,
        archive=f"s3://{output.netloc}/{key}",
    )


def _lay_out(moto: Moto, job: dict[str, Any], root: Path) -> None:
    channels: dict[str, dict[str, str]] = {}
    for channel in job["InputDataConfig"]:
        name, source = channel["ChannelName"], urlparse(channel["DataSource"]["S3DataSource"]["S3Uri"])
        _download(moto, source.netloc, source.path.strip("/") + "/", root / "input" / "data" / name)
        channels[name] = {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        }
    instance = job["ResourceConfig"]["InstanceType"]
    config = {
        "hyperparameters": job["HyperParameters"],
        "inputdataconfig": channels,
        "resourceconfig": {
            "current_host": "algo-1",
            "current_instance_type": instance,
            "hosts": ["algo-1"],
            "network_interface_name": "lo",
        },
    }
    for folder in ("input/config", "model", "output/data"):
        (root / folder).mkdir(parents=True)
    for name, content in config.items():
        (root / "input" / "config" / f"{name}.json").write_text(json.dumps(content))


def _download(moto: Moto, bucket: str, prefix: str, folder: Path) -> None:
    s3 = moto.s3()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page["Contents"]:
            path = folder / item["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, item["Key"], str(path))


def _run_container(job: dict[str, Any], root: Path) -> "subprocess.CompletedProcess[str]":
    specification = job["AlgorithmSpecification"]
    command = [*specification["ContainerEntrypoint"], *specification["ContainerArguments"]]
    environment = {
        "HOME": str(root),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # its first python3 and torchrun run
        "PET_LOCAL_ADDR": "127.0.0.1",  # where the machine's own name does not resolve, torchrun would wait
        "TRAINING_JOB_NAME": job["TrainingJobName"],
        "CURRENT_HOST": "algo-1",
        "OMP_WAIT_POLICY": "passive",  # the Makefile says why
    }
    with _as_opt_ml(root, command) as runnable:
        return subprocess.run(
            runnable,
            env=environment,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


@contextlib.contextmanager
def _as_opt_ml(root: Path, command: list[str]) -> Iterator[list[str]]:
    """Yield the command in a form for which /opt/ml is `root`."""
    if os.access("/opt", os.W_OK) and not OPT_ML.exists():
        OPT_ML.symlink_to(root)
        try:
            yield command
        finally:
            OPT_ML.unlink()
        return
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("/opt/ml can neither be made nor be mounted: run the tests as root, or allow user namespaces")
    yield ["unshare", "-rm", "/bin/sh", "-c", OWN_OPT, "sh", str(root), *command]
