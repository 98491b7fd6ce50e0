"""What tests/releases/test_fetch.py leaves open: it reads, both ways, what BucketReader does."""

import subprocess
import sys

import pytest

from pneumonia.deadline import Deadline
from pneumonia.errors import StorageError
from pneumonia.storage.answers import AddressError
from pneumonia.storage.reading import BucketReader
from tests.builders.checkout import PROJECT
from tools.stand_ins.faulty_s3 import standing_for_s3

WITHOUT_BOTO3 = """
import sys
sys.modules["boto3"] = None  # as if it were not installed
from pneumonia.deadline import Deadline
from pneumonia.errors import StorageError
from pneumonia.storage.reading import BucketReader
try:
    BucketReader("models", Deadline.after(60), StorageError)
except StorageError as error:
    print(error)
"""


@pytest.mark.processes
def test_without_boto3_what_reading_takes_is_told() -> None:
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_BOTO3], cwd=PROJECT, env={}, capture_output=True, text=True, check=True
    )
    assert process.stdout == (
        "Reading from S3 needs AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, without a proxy, as Lambda "
        "sets them; otherwise it needs boto3: pip install boto3.\n"
    )


@pytest.mark.processes
@pytest.mark.parametrize("name", ["models/", "models/xrays", "s3://models", "no bucket"])
def test_a_name_that_no_bucket_has_is_told_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # Put before a key, "models/" would have S3 look for another key and say that there is none.
    with standing_for_s3(monkeypatch, {}) as server:
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        with pytest.raises(AddressError, match="Invalid bucket name") as caught:
            BucketReader(name, Deadline.after(60), StorageError).read("current.json", 100)
        assert name in str(caught.value)
        assert server.seen == []
