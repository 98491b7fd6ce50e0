"""Trying again, in both ways to read: from an S3 whose troubles pass, and from one whose troubles stay."""

import contextlib
import datetime
import itertools
import time
from email.utils import format_datetime
from pathlib import Path

import pytest

from pneumonia.deadline import Deadline
from pneumonia.errors import StorageError
from pneumonia.storage.answers import S3Error, error_in, seconds_in
from pneumonia.storage.reading import BucketReader
from pneumonia.storage.refusals import refusals_as
from pneumonia.storage.retries import LONGEST_PAUSE, until
from tools.stand_ins.faulty_s3 import (
    Answer,
    Handler,
    chunked,
    cut,
    hang_up,
    refusal,
    refusal_of,
    reset,
    silence,
    standing_for_s3,
    trickle,
    whole,
)
from tools.stand_ins.role_and_s3 import RoleAndS3

CONTENT = bytes(range(256)) * 8000  # more than one chunk
PATH = "/models/key"


def longer_than_promised(handler: Handler) -> None:
    """Answer with a whole object, and more, which the next answer over this connection would begin with."""
    handler.begin(200, len(CONTENT))
    handler.wfile.write(CONTENT + b"and more")


PASSING: dict[str, list[Answer]] = {
    "overloaded": [refusal(503, "SlowDown")] * 5,
    "throttled": [refusal(400, "ThrottlingException"), refusal(503, "ServiceUnavailable"), refusal_of(429, b"")],
    "failing": [refusal(500, "InternalError"), refusal_of(504, b"<html>late</html>"), refusal_of(502, b"")],
    "timed out": [refusal(400, "RequestTimeout"), refusal_of(408, b"<html>late</html>")],
    "cut": [cut(CONTENT, 0), cut(CONTENT, 1), cut(CONTENT, 1_500_000), cut(CONTENT, len(CONTENT) - 1)],
    "cut in chunks": [chunked(CONTENT[:9], is_whole=False), chunked(CONTENT[:1_500_000], is_whole=False)],
    "hung up": [hang_up, reset, hang_up],
    "all sorts": [refusal(503, "SlowDown"), cut(CONTENT, 10), reset, refusal_of(429, b""), chunked(is_whole=False)],
}


def read(seconds: float = 60) -> bytes:
    bucket = BucketReader("models", Deadline.after(seconds), StorageError)
    with contextlib.closing(bucket), refusals_as(StorageError, "It fails"):
        return bucket.read("key", len(CONTENT))


@pytest.mark.processes
@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_what_passes_is_read_whole(either_way: pytest.MonkeyPatch, faults: list[Answer]) -> None:
    with standing_for_s3(either_way, {PATH: [*faults, whole(CONTENT)]}) as server:
        assert read() == CONTENT
    assert server.count(PATH) == len(faults) + 1


@pytest.mark.processes
def test_bytes_after_an_object_do_not_get_into_the_next(either_way: pytest.MonkeyPatch) -> None:
    with standing_for_s3(either_way, {PATH: [longer_than_promised, whole(b"next")]}):
        reader = BucketReader("models", Deadline.after(60), StorageError)
        assert reader.read("key", len(CONTENT)) == CONTENT
        assert reader.read("key", len(CONTENT)) == b"next"
        reader.close()


@pytest.mark.processes
@pytest.mark.parametrize(
    "code", ["AccessDenied", "NoSuchKey", "NoSuchBucket", "InvalidAccessKeyId", "RequestTimeTooSkewed"]
)
def test_what_stays_is_answered_at_once(either_way: pytest.MonkeyPatch, code: str) -> None:
    answers = {PATH: [refusal(403, code)]}
    with standing_for_s3(either_way, answers) as server, pytest.raises(StorageError, match=rf"S3 answers {code}: "):
        read()
    assert server.count(PATH) == 1


@pytest.mark.processes
@pytest.mark.parametrize("answer", [silence, trickle(bytes(10_000)), hang_up], ids=["silence", "trickle", "hung up"])
def test_deadline_holds(either_way: pytest.MonkeyPatch, answer: Answer) -> None:
    with standing_for_s3(either_way, {PATH: [answer]}):
        started = time.monotonic()
        with pytest.raises(StorageError, match=r"^It fails \(.*\).*try again later\.$"):
            read(2)
    assert time.monotonic() - started < 8  # boto3 is imported, and makes clients


@pytest.mark.processes
def test_a_connection_that_fell_silent_leaves_time_for_another(either_way: pytest.MonkeyPatch) -> None:
    with standing_for_s3(either_way, {PATH: [silence, whole(b"content")]}):
        assert read(4) == b"content"


@pytest.mark.processes
def test_last_reason_of_s3s_own_is_told_with_how_often_and_how_long(either_way: pytest.MonkeyPatch) -> None:
    answers = [refusal(500, "InternalError"), refusal(503, "SlowDown", message="Reduce your rate."), silence]
    with standing_for_s3(either_way, {PATH: answers}), pytest.raises(StorageError) as caught:
        read(3)
    assert str(caught.value).startswith("It fails, S3 answers SlowDown (Reduce your rate.) after ")
    assert str(caught.value).endswith(" s: try again later.")


@pytest.mark.processes
def test_s3_is_left_alone_for_as_long_as_it_asks(either_way: pytest.MonkeyPatch) -> None:
    busy = refusal(503, "SlowDown", {"Retry-After": "2"})
    with standing_for_s3(either_way, {PATH: [busy, whole(b"content")]}):
        started = time.monotonic()
        read()
        assert time.monotonic() - started >= 2
    busy = refusal(503, "SlowDown", {"Retry-After": "3600"})
    told = r"S3 answers SlowDown: try again later\."
    with standing_for_s3(either_way, {PATH: [busy]}) as server, pytest.raises(StorageError, match=told):
        read()
    assert server.count(PATH) == 1


def test_a_date_may_say_when_to_come_back() -> None:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    assert 85 < (seconds_in(format_datetime(then, usegmt=True)) or 0) <= 90
    assert seconds_in("7") == 7
    assert seconds_in("soon") is None
    assert seconds_in("Wed, 21 Oct 2015 07:28:00 +99999999999999999") is None


def test_no_error_page_takes_long_to_be_searched() -> None:
    started = time.monotonic()
    for part in (b"<Error><Code>", b"<Error><!--", b"<Error><![CDATA[", b"<style>"):
        assert error_in(part * 50_000, 503).is_temporary
    assert time.monotonic() - started < 20  # of the first, this took minutes


def test_pauses_grow_differ_and_end_with_the_deadline() -> None:
    pauses: list[float] = []

    def fail() -> None:
        raise S3Error("SlowDown", 503)

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 400

    with pytest.raises(S3Error, match="SlowDown"):
        until(Deadline.after(3600), fail, wait)
    limits = [0.2, 0.4, 0.8, 1.6, 3.2, *itertools.repeat(LONGEST_PAUSE, 395)]
    assert all(0 <= pause <= limit for pause, limit in zip(pauses, limits, strict=True))
    assert len(set(pauses)) == 400
    assert 2 < sum(pauses[5:]) / 395 < 3


@pytest.mark.processes
def test_credentials_that_expired_are_read_anew_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with RoleAndS3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
        server.objects[PATH] = b"content"
        reader = BucketReader("models", Deadline.after(60), StorageError)
        server.renew_credentials()
        assert reader.read("key", 100) == b"content"
        assert server.refused == [PATH]
        server.refuse()
        with pytest.raises(S3Error, match="ExpiredToken"):
            reader.read("key", 100)
        assert server.refused == [PATH, PATH]
        reader.close()


@pytest.mark.processes
def test_a_profile_with_newer_keys_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = tmp_path / "credentials"

    def expired(handler: Handler) -> None:
        profile.write_text("[default]\naws_access_key_id = AKIDNEWER\naws_secret_access_key = hush\n")
        refusal(400, "ExpiredToken")(handler)

    with standing_for_s3(monkeypatch, {PATH: [expired, whole(b"content")]}) as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        profile.write_text("[default]\naws_access_key_id = AKIDOLDER\naws_secret_access_key = hush\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it remembers those of other tests
        assert read() == b"content"
    keys = [request.headers["Authorization"].partition("Credential=")[2].partition("/")[0] for request in server.seen]
    assert keys == ["AKIDOLDER", "AKIDNEWER"]
