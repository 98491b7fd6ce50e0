import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumonia.errors import WeightsError, WeightsRefusedError
from pneumonia.network.contract import MAX_WEIGHTS, WEIGHTS_NAME
from pneumonia.network.training_report import MAX_REPORT, REPORT_NAME, TrainingReport, parse
from pneumonia.releases.archive import MAX_MEMBERS
from pneumonia.releases.training_output import take_model
from tests.builders.archives import REPORT
from tools.stand_ins.faulty_s3 import refusal, reset
from tools.stand_ins.moto import Moto
from tools.stand_ins.s3_in_front import broken_off, first, in_front_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "code").mkdir(parents=True)
    (tmp_path / "model" / WEIGHTS_NAME).write_bytes(b"weights")
    (tmp_path / "model" / REPORT_NAME).write_text(json.dumps(REPORT))
    return tmp_path / "model"


def uploaded(folder: Path, moto: Moto, bucket: str) -> str:
    """Put a folder's files below a prefix in S3, and return its address."""
    for path in folder.iterdir():
        if path.is_file():
            moto.s3().upload_file(str(path), bucket, f"job-1/output/model/{path.name}")
    return f"s3://{bucket}/job-1/output/model/"


@pytest.fixture(params=["here", "s3"])
def address(request: pytest.FixtureRequest, folder: Path) -> Callable[[], str]:
    """Returns the folder's address, on this machine or in S3, once a test has changed it."""
    if request.param == "here":
        return lambda: str(folder)
    moto, bucket = request.getfixturevalue("moto"), request.getfixturevalue("bucket")
    return lambda: uploaded(folder, moto, bucket)


@pytest.mark.processes
def test_only_weights_and_report_are_taken(folder: Path, address: Callable[[], str], tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("x")
    assert take_model(address(), tmp_path / "w.pth") == parse(json.dumps(REPORT), REPORT_NAME)
    assert (tmp_path / "w.pth").read_bytes() == b"weights"


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_download_that_breaks_off_begins_again(
    folder: Path, moto: Moto, bucket: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = uploaded(folder, moto, bucket)
    if kind == "archive":
        with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
            tar.add(folder / WEIGHTS_NAME, WEIGHTS_NAME)
        moto.s3().upload_file(str(tmp_path / "model.tar.gz"), bucket, "job-1/output/model.tar.gz")
        source = f"s3://{bucket}/job-1/output/model.tar.gz"
    faults = [broken_off(0.5), refusal(503, "SlowDown"), reset, broken_off(0), refusal(400, "RequestTimeout")]
    with in_front_of(moto.endpoint, first(*faults, of="model.tar.gz" if kind == "archive" else WEIGHTS_NAME)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        take_model(source, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == b"weights"
    assert len(server.seen) > len(faults)


@pytest.mark.processes
def test_folder_without_a_report_gives_an_empty_one(folder: Path, address: Callable[[], str], tmp_path: Path) -> None:
    (folder / REPORT_NAME).unlink()
    assert take_model(address(), tmp_path / "w.pth") == TrainingReport()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (WEIGHTS_NAME, None, rf"holds no {WEIGHTS_NAME} at its top, but .*'{REPORT_NAME}'"),
        (
            REPORT_NAME,
            b" " * (MAX_REPORT + 1),
            "holds training.json of 1,048,577 bytes; at most 1,048,576 are expected",
        ),
        (REPORT_NAME, b"[]", "training.json in .* is not a JSON object"),
    ],
    ids=["no weights", "large report", "no report"],
)
def test_what_is_no_model_is_refused(
    folder: Path, address: Callable[[], str], tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        take_model(address(), tmp_path / "w.pth")


def test_weights_of_a_size_that_cannot_be_are_refused(folder: Path, tmp_path: Path) -> None:
    os.truncate(folder / WEIGHTS_NAME, MAX_WEIGHTS + 1)
    with pytest.raises(WeightsError, match=r"of 134,217,729 bytes; at most 134,217,728 are expected"):
        take_model(str(folder), tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()


@pytest.mark.parametrize("name", [WEIGHTS_NAME, REPORT_NAME])
@pytest.mark.parametrize("kind", ["link", "broken link", "pipe", "folder"])
def test_what_is_not_a_plain_file_is_refused(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    path = folder / name
    path.rename(tmp_path / "elsewhere")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / ("elsewhere" if kind == "link" else "nowhere"))
    with pytest.raises(WeightsError, match=rf"holds '{name}', which is a link or not a plain file: it is refused"):
        take_model(str(folder), tmp_path / "w.pth")


def test_empty_folder_is_told(moto: Moto, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    moto.s3().put_object(Bucket=bucket, Key="job-1/output/model/")
    for source in (str(tmp_path / "empty"), f"s3://{bucket}/job-1/output/model/", f"s3://{bucket}/other/"):
        with pytest.raises(WeightsError, match=rf"^There is nothing in {source}: check that the job has ended"):
            take_model(source, tmp_path / "w.pth")


def test_a_whole_bucket_is_a_folder_too(folder: Path, moto: Moto, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"^There is nothing in s3://{bucket}: "):
        take_model(f"s3://{bucket}", tmp_path / "w.pth")
    for name in (WEIGHTS_NAME, REPORT_NAME):
        moto.s3().put_object(Bucket=bucket, Key=name, Body=(folder / name).read_bytes())
    assert take_model(f"s3://{bucket}", tmp_path / "w.pth") == parse(json.dumps(REPORT), REPORT_NAME)


def test_folder_above_the_model_is_told_with_what_it_holds(
    folder: Path, moto: Moto, bucket: str, tmp_path: Path
) -> None:
    uploaded(folder, moto, bucket)
    with pytest.raises(WeightsError, match=r"at its top, but 'model/': was it written by train_model\.py"):
        take_model(f"s3://{bucket}/job-1/output/", tmp_path / "w.pth")


@pytest.mark.slow
def test_very_many_files_are_refused(folder: Path, moto: Moto, bucket: str, tmp_path: Path) -> None:
    address = uploaded(folder, moto, bucket)
    for number in range(MAX_MEMBERS):
        moto.s3().put_object(Bucket=bucket, Key=f"job-1/output/model/{number}")
    with pytest.raises(WeightsError, match=r"holds more than 1,000 files"):
        take_model(address, tmp_path / "w.pth")


def test_bucket_that_is_not_there_is_told(bucket: str, tmp_path: Path) -> None:
    assert bucket
    with pytest.raises(
        WeightsRefusedError, match=r"^s3://nowhere-at-all/model/ cannot be listed, S3 answers NoSuchBuc"
    ):
        take_model("s3://nowhere-at-all/model/", tmp_path / "w.pth")
    with pytest.raises(WeightsRefusedError, match=r"^s3://nowhere-at-all/model cannot be downloaded, S3 answers NoSuc"):
        take_model("s3://nowhere-at-all/model", tmp_path / "w.pth")
