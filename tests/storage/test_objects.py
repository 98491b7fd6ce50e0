from pathlib import Path

import boto3
import pytest

from pneumonia.deadline import Deadline
from pneumonia.errors import ConfigurationError, ImageTooLargeError, ObjectError, StorageError
from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.storage import objects
from pneumonia.storage.addresses import split
from pneumonia.storage.client import new_client
from pneumonia.storage.objects import S3Object
from tools.stand_ins.faulty_s3 import standing_for_s3, whole
from tools.stand_ins.moto import Moto
from tools.stand_ins.s3_proxy import proxy

ODD_KEY = 'ward 3/röntgen+100%,"a"?&=.jpg'


def read(image: S3Object, seconds: float = 60) -> bytes:
    return objects.read(new_client(attempts=1), image, Deadline.after(seconds))


def test_object_is_read_in_the_version_asked_for(moto: Moto, bucket: str) -> None:
    s3 = moto.s3()
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    versions = [s3.put_object(Bucket=bucket, Key=ODD_KEY, Body=body)["VersionId"] for body in (b"old", b"new")]

    assert read(S3Object(bucket, ODD_KEY)) == b"new"
    assert read(S3Object(bucket, ODD_KEY, versions[0])) == b"old"
    assert str(S3Object(bucket, "a.jpg", "v1")) == f"s3://{bucket}/a.jpg?versionId=v1"


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (
            "missing key",
            "The object cannot be read, S3 answers NoSuchKey (The specified key does not exist.): check the key.",
        ),
        (
            "missing bucket",
            "The object cannot be read, S3 answers NoSuchBucket (The specified bucket does not exist): create",
        ),
        (
            "no bucket's name",
            'The object cannot be read: Parameter validation failed: Invalid bucket name "no bucket": ',
        ),
    ],
)
def test_what_concerns_one_object_is_told_apart(bucket: str, where: str, sentence: str) -> None:
    image = {
        "missing key": S3Object(bucket, "none.jpg"),
        "missing bucket": S3Object("no-such-bucket-at-all", "a.jpg"),
        "no bucket's name": S3Object("no bucket", "a.jpg"),
    }[where]
    with pytest.raises(ObjectError) as error:
        read(image)
    assert str(error.value).startswith(sentence)


def test_s3_that_cannot_be_reached_is_told_with_its_address(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the discard port, where nothing listens
    with pytest.raises(StorageError) as error:
        read(S3Object(bucket, "patient.jpg"), seconds=1)
    assert str(error.value) == (
        "The object cannot be read (Could not connect to the endpoint URL: "
        f'"http://127.0.0.1:9/{bucket}/patient.jpg"): check the network, and try again later.'
    )


def test_a_server_that_redirects_everything_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy("http://127.0.0.1:9", before=lambda *_: 301) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        with pytest.raises(
            StorageError, match=r"\(the server redirects to nowhere, as S3 does not\): check AWS_ENDPOINT"
        ):
            read(S3Object(bucket, "patient.jpg"))


@pytest.mark.processes
@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Log in</title>", b"\n<HTML>"])
def test_a_server_that_sends_pages_has_no_empty_folder(monkeypatch: pytest.MonkeyPatch, page: bytes) -> None:
    path = "/models?list-type=2&prefix=x&encoding-type=url"
    with (
        standing_for_s3(monkeypatch, {path: [whole(page)]}),
        pytest.raises(StorageError, match=r"cannot be listed \(the server sends a page of HTML, as S3 does not\): "),
    ):
        list(objects.below(new_client(), "s3://models/x"))


def test_object_larger_than_any_image_is_not_read(moto: Moto, bucket: str) -> None:
    for size in (MAX_BYTES, MAX_BYTES + 1):
        moto.s3().put_object(Bucket=bucket, Key=str(size), Body=bytes(size))
    assert len(read(S3Object(bucket, str(MAX_BYTES)))) == MAX_BYTES
    with pytest.raises(ImageTooLargeError, match=r"is larger than 20,971,520 bytes"):
        read(S3Object(bucket, str(MAX_BYTES + 1)))


def test_objects_below_a_prefix_are_listed_page_after_page_without_folders(moto: Moto, bucket: str) -> None:
    s3 = moto.s3()
    keys = [f"xrays/{number:04}.jpg" for number in range(1100)]  # a page has 1,000
    for key in (*keys, "xrays/", "other/a.jpg", ODD_KEY):
        s3.put_object(Bucket=bucket, Key=key, Body=b"" if key.endswith("/") else b"x")
    assert [one.key for one in objects.below(new_client(), f"s3://{bucket}/xrays/")] == keys
    assert S3Object(bucket, ODD_KEY) in list(objects.below(new_client(), f"s3://{bucket}"))


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "bucket/key", "https://bucket/key"])
def test_address_without_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not an address in S3: name one as s3://bucket/key\."):
        split(uri)


@pytest.mark.parametrize("version", [None, "v1"])
def test_manifests_row_comes_back_as_the_object(tmp_path: Path, version: str | None) -> None:
    image = S3Object("bucket", ODD_KEY, version)
    row = objects.manifest_row(image)
    assert row[:2] == ["bucket", "ward%203/r%C3%B6ntgen%2B100%25%2C%22a%22%3F%26%3D.jpg"]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(",".join(row) + "\n")
    assert list(objects.manifest_rows(manifest)) == [image]


def test_manifest_may_be_quoted_and_have_spaces_as_plus(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text('"bucket","ward+3/a.jpg"\n\nbucket,b.jpg,\nbucket,c.jpg,v1\n')
    assert list(objects.manifest_rows(manifest)) == [
        S3Object("bucket", "ward 3/a.jpg"),
        S3Object("bucket", "b.jpg"),
        S3Object("bucket", "c.jpg", "v1"),
    ]


@pytest.mark.parametrize(
    "content", [b"a.jpg\n", b"bucket,\n", b",a.jpg\n", b"bucket,a.jpg,v1,17\n", b"bucket,%ff\n", b"bucket,\xff\n"]
)
def test_other_tables_are_refused(tmp_path: Path, content: bytes) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_bytes(b"bucket,good.jpg\n" + content)
    with pytest.raises(ConfigurationError, match=r"is not a manifest with rows of bucket,key or bucket,key,version: ."):
        list(objects.manifest_rows(manifest))


def test_missing_credentials_are_told_with_what_to_do(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers those of other tests
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StorageError) as error:
        read(S3Object(bucket, "patient.jpg"))
    assert str(error.value) == (
        "The object cannot be read without AWS credentials: run 'aws configure' or 'aws sso login', or set AWS_PROFILE."
    )
