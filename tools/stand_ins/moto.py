"""Moto's server as S3, SageMaker and CloudWatch Logs, in a process of its own."""

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import boto3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION: Final = "eu-west-1"


class Moto:
    """Moto's server in a process of its own, and what an AWS client needs to use it instead of AWS."""

    def __init__(self, endpoint: str, log: Path) -> None:
        self.endpoint = endpoint
        self._log = log
        self.environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }

    def s3(self) -> "S3Client":
        """Return a client of this server's S3."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its name."""
        self.s3().create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return name

    def keys(self, bucket: str) -> list[str]:
        """Return the keys in a bucket."""
        return [item["Key"] for item in self.s3().list_objects_v2(Bucket=bucket).get("Contents", [])]

    def requests(self) -> list[str]:
        """Return what was asked so far, as `GET /path`, oldest first."""
        return re.findall(r'"([A-Z]+ \S+) HTTP/1\.[01]"', self._log.read_text())


@contextlib.contextmanager
def running_moto(folder: Path) -> Iterator[Moto]:
    """Run moto's server, with its log in a folder."""
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("moto_server"), "--host", "127.0.0.1", "--port", "0"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    try:
        yield Moto(_endpoint(process, log), log)
    finally:
        process.terminate()
        process.wait()


def _endpoint(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait until the server answers, and return its address."""
    while process.poll() is None:
        if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text()):
            urllib.request.urlopen(f"{found[1]}/moto-api/", timeout=30).close()
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"moto_server did not start: {log.read_text()}")
