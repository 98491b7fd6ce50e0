import json
import time
import urllib.request
from pathlib import Path

import boto3
import pytest

from pneumonia import WEIGHTS_NAME, store
from pneumonia.errors import WeightsError, WeightsUnavailableError
from pneumonia.manifest import manifest_of
from pneumonia.weights import Weights, fetch
from tests.conftest import Moto
from tests.test_manifest import manifest_for

RELEASE = "releases/20260102-030405-0a1b2c3d"


def soon() -> float:
    """Return a deadline that no test here reaches."""
    return time.monotonic() + 60


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "model.pth"


def test_fetch_brings_the_served_release_and_its_manifest(bucket: str, weights: Path, destination: Path) -> None:
    manifest = manifest_for(weights)
    store.publish(weights, manifest, bucket)
    fetch(bucket, WEIGHTS_NAME, destination, soon())
    assert destination.read_bytes() == weights.read_bytes()
    assert manifest_of(destination) == manifest


def test_pointer_chooses_between_releases(moto: Moto, bucket: str, weights: Path, destination: Path) -> None:
    other = destination.with_name("other.pth")
    other.write_bytes(b"other weights")
    store.publish(weights, manifest_for(weights, "1"), bucket)
    store.publish(other, manifest_for(other, "2"), bucket)
    moto.s3().put_object(Bucket=bucket, Key="current.json", Body=b'{"version": "1"}')
    fetch(bucket, WEIGHTS_NAME, destination, soon())
    assert destination.read_bytes() == weights.read_bytes()


def test_without_a_pointer_the_key_serves(moto: Moto, bucket: str, destination: Path) -> None:
    moto.s3().put_object(Bucket=bucket, Key="models/mine.pth", Body=b"weights")
    fetch(bucket, "models/mine.pth", destination, soon())
    assert destination.read_bytes() == b"weights"
    assert [path.name for path in destination.parent.iterdir()] == ["model.pth"]


def test_empty_bucket_says_what_to_do(bucket: str, destination: Path) -> None:
    with pytest.raises(
        WeightsUnavailableError, match=rf"s3://{bucket}/{WEIGHTS_NAME}, S3 answers NoSuchKey: promote a"
    ):
        fetch(bucket, WEIGHTS_NAME, destination, soon())
    assert not list(destination.parent.iterdir())


@pytest.mark.usefixtures("bucket")
def test_missing_bucket_says_what_to_do(destination: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"nowhere-at-all.*NoSuchBucket: make the bucket"):
        fetch("nowhere-at-all", WEIGHTS_NAME, destination, soon())


def test_object_that_is_not_what_the_manifest_says_is_refused(
    moto: Moto, bucket: str, weights: Path, destination: Path
) -> None:
    store.publish(weights, manifest_for(weights), bucket)
    moto.s3().put_object(Bucket=bucket, Key=f"{RELEASE}/{WEIGHTS_NAME}", Body=b"something else")
    with pytest.raises(WeightsError, match=r"has 14 bytes with SHA-256 .* but its manifest says"):
        fetch(bucket, WEIGHTS_NAME, destination, soon())
    assert not list(destination.parent.iterdir())


@pytest.mark.parametrize("pointer", [b"", b"{}", b"[]", b"{"])
def test_broken_pointer_is_refused(moto: Moto, bucket: str, destination: Path, pointer: bytes) -> None:
    moto.s3().put_object(Bucket=bucket, Key="current.json", Body=pointer)
    with pytest.raises(WeightsError, match=r"current\.json names no version: promote the model again"):
        fetch(bucket, WEIGHTS_NAME, destination, soon())


def test_pointer_to_a_missing_release_is_told(moto: Moto, bucket: str, destination: Path) -> None:
    moto.s3().put_object(Bucket=bucket, Key="current.json", Body=b'{"version": "1"}')
    with pytest.raises(WeightsUnavailableError, match=r"current\.json, S3 answers NoSuchKey"):
        fetch(bucket, WEIGHTS_NAME, destination, soon())


def test_role_that_may_read_one_key_but_not_list_gets_it(
    moto: Moto, bucket: str, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To such a role S3 answers AccessDenied for the missing current.json, where others read NoSuchKey.
    moto.s3().put_object(Bucket=bucket, Key=WEIGHTS_NAME, Body=b"weights")
    key = restricted_access_key(moto, f"arn:aws:s3:::{bucket}/{WEIGHTS_NAME}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key[1])
    try:
        set_authorisation(moto, enforced=True)
        fetch(bucket, WEIGHTS_NAME, destination, soon())
        with pytest.raises(WeightsUnavailableError, match="S3 answers AccessDenied: grant the role s3:GetObject"):
            fetch(bucket, "another.pth", destination, soon())
    finally:
        set_authorisation(moto, enforced=False)
    assert destination.read_bytes() == b"weights"


def test_unreachable_s3_is_one_sentence(bucket: str, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailableError, match=rf"s3://{bucket}.*Connection refused"):
        fetch(bucket, WEIGHTS_NAME, destination, soon())


def restricted_access_key(moto: Moto, resource: str) -> tuple[str, str]:
    iam = boto3.client("iam", endpoint_url=moto.endpoint)
    iam.create_user(UserName="reader")
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": resource}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def set_authorisation(moto: Moto, *, enforced: bool) -> None:
    """Have moto check policies after as many more calls as the number says."""
    request = urllib.request.Request(
        f"{moto.endpoint}/moto-api/reset-auth",
        data=b"0" if enforced else b"inf",
        headers={"Content-Type": "text/plain"},
    )
    urllib.request.urlopen(request, timeout=30).close()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL_PATH", "MODEL_BUCKET", "MODEL_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert settings() == (Path("/tmp/model.pth"), None, "pneumonia_classifier.pth")
    monkeypatch.setenv("MODEL_PATH", "/data/m.pth")
    monkeypatch.setenv("MODEL_BUCKET", "models")
    monkeypatch.setenv("MODEL_KEY", "a/b.pth")
    assert settings() == (Path("/data/m.pth"), "models", "a/b.pth")
    monkeypatch.setenv("MODEL_BUCKET", "")
    assert settings()[1] is None


def settings() -> tuple[Path, str | None, str]:
    weights = Weights.from_environment()
    return weights.path, weights.bucket, weights.key
