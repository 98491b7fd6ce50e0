"""Reading ahead from an S3 that has troubles which pass, and from one whose troubles stay."""

import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest

from pneumonia.batch.sources import listed, read_ahead
from pneumonia.errors import ImageError, StorageError
from pneumonia.storage.objects import S3Object
from tests.builders.checkout import PROJECT
from tools.stand_ins.faulty_s3 import Answer, hang_up, refusal, refusal_of, reset, standing_for_s3
from tools.stand_ins.moto import Moto
from tools.stand_ins.s3_in_front import broken_off, first, in_front_of

KEYS = [f"xrays/{number:03}.jpg" for number in range(100)]
FAULTS: list[Answer] = [
    broken_off(0.5),
    broken_off(0),
    refusal(503, "SlowDown"),
    refusal(400, "RequestTimeout"),
    refusal_of(429, b""),
    refusal_of(502, b"<html>Bad Gateway</html>"),
    hang_up,
    reset,
]


def content_of(key: str) -> bytes:
    return key.encode() * 10_000


@pytest.fixture
def objects(moto: Moto, bucket: str) -> list[S3Object]:
    for key in KEYS:
        moto.s3().put_object(Bucket=bucket, Key=key, Body=content_of(key))
    return [S3Object(bucket, key) for key in KEYS]


def test_no_object_is_lost_to_troubles_that_pass(
    moto: Moto, objects: list[S3Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_front_of(moto.endpoint, first(*FAULTS * 3, of="/xrays/")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        read = list(chain.from_iterable(read_ahead(objects)))
    assert read == [content_of(key) for key in KEYS]
    assert len(server.seen) == len(KEYS) + 3 * len(FAULTS)


def test_body_that_breaks_off_again_and_again_is_read(
    moto: Moto, objects: list[S3Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_front_of(moto.endpoint, first(*[broken_off(0.9)] * 5)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        assert list(chain.from_iterable(read_ahead(objects[:1]))) == [content_of(KEYS[0])]


def test_pages_of_a_listing_are_asked_for_again(
    moto: Moto, bucket: str, objects: list[S3Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_front_of(moto.endpoint, first(*FAULTS[2:], of="list-type")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        assert list(listed(f"s3://{bucket}/xrays/")) == objects
    assert len(server.seen) == len(FAULTS) - 1


def test_what_is_about_one_object_is_asked_for_once_and_stays_its_own(
    moto: Moto, bucket: str, objects: list[S3Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_front_of(moto.endpoint, first(refusal(403, "AccessDenied"), of=KEYS[0])) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        denied, missing, good = chain.from_iterable(read_ahead([objects[0], S3Object(bucket, "none.jpg"), objects[1]]))
    assert isinstance(denied, ImageError)
    assert "S3 answers AccessDenied" in str(denied)
    assert isinstance(missing, ImageError)
    assert "S3 answers NoSuchKey" in str(missing)
    assert good == content_of(KEYS[1])
    assert len(server.seen) == 3


@pytest.mark.processes
def test_given_up_is_told_with_how_often_it_was_tried_and_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = refusal(503, "SlowDown", message="Reduce your request rate.")
    with (
        standing_for_s3(monkeypatch, {"/models/a.jpg": [refusing]}) as server,
        pytest.raises(StorageError) as caught,
    ):
        list(read_ahead([S3Object("models", "a.jpg")], patience=14))  # 13 of which one attempt may take
    assert str(caught.value) == (
        f"The object cannot be read, S3 answers SlowDown (Reduce your request rate.) after {len(server.seen)} tries in "
        "1 s: try again later. The same command continues from here."
    )
    assert len(server.seen) > 2


@pytest.mark.processes
def test_ctrl_c_ends_a_run_that_waits_to_try_again_at_once(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = refusal(503, "SlowDown", {"Retry-After": "100"})
    rows = tmp_path / "rows.txt"
    rows.write_text("s3://models/a.jpg\n" * 40)
    with standing_for_s3(monkeypatch, {"/models/a.jpg": [busy]}) as server:
        arguments = ["batch", "--weights", str(weights), str(rows), str(tmp_path / "answers.csv")]
        process = subprocess.Popen([sys.executable, "-m", "pneumonia", *arguments], cwd=PROJECT, stderr=subprocess.PIPE)
        while len(server.seen) < 16:  # every reader waits
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, b"Stopped: the same command continues from here.\n")
