"""Which files of a release are stored, kept and replaced, when some are there. Bytes stand for the ONNX file."""

import dataclasses
import logging
from pathlib import Path

import pytest

from pneumonia.errors import ReleaseConflictError, WeightsError
from pneumonia.network.contract import ONNX_NAME, WEIGHTS_NAME
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.layout import manifest_key, onnx_key
from pneumonia.releases.release_files import ReleaseFiles
from tests.builders.releases import USUAL, files_of, manifest_for, with_onnx
from tools.stand_ins.moto import Moto
from tools.stand_ins.s3_proxy import proxy

VERSION = "20260102-030405-0a1b2c3d"
RELEASE = f"releases/{VERSION}"


@pytest.fixture
def older(weights: Path) -> ReleaseFiles:
    """A release without an ONNX file."""
    return files_of(weights, manifest_for(weights))


@pytest.fixture
def files(older: ReleaseFiles) -> ReleaseFiles:
    return with_onnx(older, b"as this code writes it")


@pytest.fixture
def otherwise(older: ReleaseFiles) -> ReleaseFiles:
    """The same release, whose ONNX file another version of the code wrote."""
    return with_onnx(older, b"as another version writes it")


def stored(moto: Moto, bucket: str, key: str) -> bytes:
    body: bytes = moto.s3().get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def check_that_it_is(moto: Moto, bucket: str, files: ReleaseFiles) -> None:
    """Check that a bucket has these files, and no others."""
    assert {key: stored(moto, bucket, key) for key in moto.keys(bucket)} == {
        f"{RELEASE}/{WEIGHTS_NAME}": files.weights,
        f"{RELEASE}/{ONNX_NAME}": files.onnx,
        f"{RELEASE}/manifest.json": files.manifest.to_json().encode(),
    }
    assert WeightsBucket(bucket).check(VERSION) == files.manifest
    assert WeightsBucket(bucket).files(VERSION) == files


def test_the_manifest_is_stored_last(moto: Moto, bucket: str, files: ReleaseFiles) -> None:
    WeightsBucket(bucket).add(files)
    put = [request.partition("?")[0] for request in moto.requests() if request.startswith(f"PUT /{bucket}/")]
    assert put == [f"PUT /{bucket}/{RELEASE}/{name}" for name in (WEIGHTS_NAME, ONNX_NAME, "manifest.json")]
    check_that_it_is(moto, bucket, files)


def test_the_same_twice_is_one(moto: Moto, bucket: str, files: ReleaseFiles) -> None:
    for _ in range(2):
        WeightsBucket(bucket).add(files)
    check_that_it_is(moto, bucket, files)


@pytest.mark.parametrize("left", [[WEIGHTS_NAME], [WEIGHTS_NAME, ONNX_NAME], [ONNX_NAME, "manifest.json"]])
def test_what_is_missing_is_added(moto: Moto, bucket: str, files: ReleaseFiles, left: list[str]) -> None:
    WeightsBucket(bucket).add(files)
    for name in {WEIGHTS_NAME, ONNX_NAME, "manifest.json"} - {*left}:
        moto.s3().delete_object(Bucket=bucket, Key=f"{RELEASE}/{name}")
    WeightsBucket(bucket).add(files)
    check_that_it_is(moto, bucket, files)


def test_a_whole_onnx_file_of_another_version_of_the_code_stays(
    moto: Moto, bucket: str, files: ReleaseFiles, otherwise: ReleaseFiles, caplog: pytest.LogCaptureFixture
) -> None:
    WeightsBucket(bucket).add(otherwise)
    with caplog.at_level(logging.WARNING):
        WeightsBucket(bucket).add(files)
    check_that_it_is(moto, bucket, otherwise)
    assert f"{ONNX_NAME} is not what this code would write. It stays, because it is whole." in caplog.text


@pytest.mark.parametrize("manifest", [None, b"{}", "older"], ids=["no manifest", "a broken one", "an older one"])
def test_an_onnx_file_that_no_manifest_knows_is_replaced(
    moto: Moto, bucket: str, older: ReleaseFiles, files: ReleaseFiles, manifest: bytes | str | None
) -> None:
    moto.s3().put_object(Bucket=bucket, Key=onnx_key(VERSION), Body=b"of a promotion that was killed")
    if manifest:
        text = older.manifest.to_json().encode() if isinstance(manifest, str) else manifest
        moto.s3().put_object(Bucket=bucket, Key=manifest_key(VERSION), Body=text)
    WeightsBucket(bucket).add(files)
    check_that_it_is(moto, bucket, files)


def test_a_damaged_onnx_file_is_replaced(moto: Moto, bucket: str, files: ReleaseFiles, otherwise: ReleaseFiles) -> None:
    WeightsBucket(bucket).add(otherwise)
    moto.s3().put_object(Bucket=bucket, Key=onnx_key(VERSION), Body=b"damage")
    with pytest.raises(WeightsError, match=r"is missing, or not what the manifest says: `promote_model\.py export "):
        WeightsBucket(bucket).check(VERSION)
    WeightsBucket(bucket).add(files)
    check_that_it_is(moto, bucket, files)


@pytest.mark.parametrize("way", ["add", "add_onnx"])
def test_a_release_without_an_onnx_file_gets_one_and_stays_as_it_was(
    moto: Moto, bucket: str, older: ReleaseFiles, files: ReleaseFiles, way: str
) -> None:
    forced = dataclasses.replace(older.manifest, forced="its test_auroc is low", created="2026-02-02T00:00:00+00:00")
    WeightsBucket(bucket).add(dataclasses.replace(older, manifest=forced))
    getattr(WeightsBucket(bucket), way)(files)
    expected = dataclasses.replace(forced, onnx=files.manifest.onnx)
    check_that_it_is(moto, bucket, dataclasses.replace(files, manifest=expected))


def test_a_stored_release_gets_the_usual_evidence_that_it_lacks_and_keeps_what_it_has(
    moto: Moto, bucket: str, files: ReleaseFiles
) -> None:
    """Earlier versions of the code promoted the same training report without it."""
    newer, other = (
        dataclasses.replace(files, manifest=dataclasses.replace(files.manifest, usual_evidence=usual))
        for usual in (USUAL, ((0.0,) * 7,) * 7)
    )
    WeightsBucket(bucket).add(files)
    for again in (newer, other, files):
        WeightsBucket(bucket).add(again)
        check_that_it_is(moto, bucket, newer)


def test_a_release_with_an_onnx_file_keeps_it(
    moto: Moto, bucket: str, older: ReleaseFiles, files: ReleaseFiles
) -> None:
    WeightsBucket(bucket).add(files)
    WeightsBucket(bucket).add(older)
    check_that_it_is(moto, bucket, files)


def test_a_manifest_that_another_process_writes_meanwhile_is_looked_at_again(
    moto: Moto, bucket: str, older: ReleaseFiles, files: ReleaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading and writing, another process has the release forced."""
    WeightsBucket(bucket).add(older)
    forced = dataclasses.replace(older.manifest, forced="its test_auroc is low")
    writes: list[str] = []

    def write(_number: int, what: str) -> None:
        if what == f"PUT /{bucket}/{manifest_key(VERSION)}":
            writes.append(what)
            if len(writes) == 2:  # the first finds that there is one
                moto.s3().put_object(Bucket=bucket, Key=manifest_key(VERSION), Body=forced.to_json().encode())

    with proxy(moto.endpoint, before=write) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        WeightsBucket(bucket).add_onnx(files)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
    assert len(writes) == 3
    expected = dataclasses.replace(forced, onnx=files.manifest.onnx)
    check_that_it_is(moto, bucket, dataclasses.replace(files, manifest=expected))


def test_a_manifest_that_changes_all_the_time_is_a_conflict(
    moto: Moto, bucket: str, older: ReleaseFiles, files: ReleaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    WeightsBucket(bucket).add(older)

    def write(number: int, what: str) -> None:
        if what == f"PUT /{bucket}/{manifest_key(VERSION)}":
            other = dataclasses.replace(older.manifest, training_job=f"job-{number}")
            moto.s3().put_object(Bucket=bucket, Key=manifest_key(VERSION), Body=other.to_json().encode())

    with proxy(moto.endpoint, before=write) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        with pytest.raises(ReleaseConflictError, match=r"manifest\.json at the same time: do the same again\.$"):
            WeightsBucket(bucket).add_onnx(files)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
    WeightsBucket(bucket).add_onnx(files)
    assert WeightsBucket(bucket).check(VERSION).onnx == files.manifest.onnx
