import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from pneumonia.deadline import Deadline
from pneumonia.errors import WeightsError, WeightsUnavailableError
from pneumonia.network.contract import MANIFEST_NAME, WEIGHTS_NAME
from pneumonia.releases.fetch import Weights
from pneumonia.releases.release import read_release
from pneumonia.storage.signed import Access
from tests.builders.checkout import PROJECT
from tests.builders.disk import full_after
from tests.builders.releases import manifest_for, publish
from tools.stand_ins.faulty_s3 import (
    PLAIN,
    Answer,
    chunked,
    cut,
    hang_up,
    held,
    last,
    refusal,
    refusal_of,
    reset,
    silence,
    standing_for_s3,
    trickle,
    wait_for_requests,
    whole,
)
from tools.stand_ins.moto import Moto

RELEASE = "releases/20260102-030405-0a1b2c3d"
FETCH = """
import sys
from pathlib import Path
from pneumonia.deadline import Deadline
from pneumonia.releases.fetch import Weights
Weights(Path(sys.argv[1]), "models").find(Deadline.after(60))
"""


def soon() -> Deadline:
    """Return a deadline that no test here reaches."""
    return Deadline.after(60)


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "model.pth"


@pytest.fixture(params=["signed here", "by boto3"])
def either_way(
    bucket: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """An empty bucket for both ways to read from it."""
    if request.param == "by boto3":
        credentials = tmp_path_factory.mktemp("aws") / "credentials"
        credentials.write_text("[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert (Access.from_environment() is None) == (request.param == "by boto3")
    return bucket


def nothing_in(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def test_fetch_brings_the_served_release_and_its_manifest(either_way: str, weights: Path, destination: Path) -> None:
    bucket = either_way
    manifest = manifest_for(weights)
    publish(weights, manifest, bucket)
    Weights(destination, bucket, WEIGHTS_NAME).find(soon())
    assert destination.read_bytes() == weights.read_bytes()
    assert read_release(destination).manifest == manifest


def test_pointer_chooses_between_releases(
    moto: Moto, bucket: str, weights: Path, destination: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    publish(weights, manifest_for(weights, "1"), bucket)
    publish(other, manifest_for(other, "2"), bucket)
    moto.s3().put_object(Bucket=bucket, Key="current.json", Body=b'{"version": "1"}')
    Weights(destination, bucket, WEIGHTS_NAME).find(soon())
    assert destination.read_bytes() == weights.read_bytes()


def test_without_a_pointer_the_key_serves(moto: Moto, either_way: str, destination: Path) -> None:
    bucket = either_way
    moto.s3().put_object(Bucket=bucket, Key="models/mine.pth", Body=b"weights")
    Weights(destination, bucket, "models/mine.pth").find(soon())
    assert destination.read_bytes() == b"weights"
    assert [path.name for path in destination.parent.iterdir()] == ["model.pth"]


def test_empty_bucket_says_what_to_do(either_way: str, destination: Path) -> None:
    with pytest.raises(WeightsUnavailableError) as caught:
        Weights(destination, either_way, WEIGHTS_NAME).find(soon())
    assert str(caught.value) == (
        f"The weights cannot be fetched from s3://{either_way}/{WEIGHTS_NAME}, S3 answers NoSuchKey (The specified key "
        "does not exist.): promote a model into this bucket first, or name another key."
    )
    assert nothing_in(destination.parent)


@pytest.mark.usefixtures("either_way")
def test_missing_bucket_says_what_to_do(destination: Path) -> None:
    with pytest.raises(WeightsUnavailableError) as caught:
        Weights(destination, "nowhere-at-all", WEIGHTS_NAME).find(soon())
    assert str(caught.value) == (
        "The served release cannot be read from s3://nowhere-at-all/current.json, S3 answers NoSuchBucket (The "
        "specified bucket does not exist): create the bucket, or name another."
    )
    assert nothing_in(destination.parent)


def test_object_that_is_not_what_the_manifest_says_is_refused(
    moto: Moto, either_way: str, weights: Path, destination: Path
) -> None:
    bucket = either_way
    publish(weights, manifest_for(weights), bucket)
    moto.s3().put_object(Bucket=bucket, Key=f"{RELEASE}/{WEIGHTS_NAME}", Body=b"something else")
    with pytest.raises(WeightsError, match=r"has 14 bytes with SHA-256 .* says .*: serve another release, or rem"):
        Weights(destination, bucket, WEIGHTS_NAME).find(soon())
    assert nothing_in(destination.parent)


@pytest.mark.parametrize("content", [b"", b"{}", b"<html>", b'{"version": "1"}'])
def test_broken_manifest_is_refused(moto: Moto, bucket: str, weights: Path, destination: Path, content: bytes) -> None:
    publish(weights, manifest_for(weights), bucket)
    moto.s3().put_object(Bucket=bucket, Key=f"{RELEASE}/manifest.json", Body=content)
    with pytest.raises(WeightsError) as caught:
        Weights(destination, bucket, WEIGHTS_NAME).find(soon())
    assert str(caught.value).startswith(f"s3://{bucket}/{RELEASE}/manifest.json is not a valid manifest (")
    assert nothing_in(destination.parent)


def test_full_disk_is_told_and_nothing_stays(either_way: str, weights: Path, destination: Path) -> None:
    publish(weights, manifest_for(weights), either_way)
    with full_after(1_000_000), pytest.raises(WeightsUnavailableError) as caught:
        Weights(destination, either_way, WEIGHTS_NAME).find(soon())
    assert str(caught.value) == (
        f"The weights cannot be fetched from s3://{either_way}/{RELEASE}/{WEIGHTS_NAME}: "
        f"File too large ({destination})."
    )
    assert nothing_in(destination.parent)


@pytest.mark.parametrize(
    "pointer",
    [
        *(b"", b"{}", b"[]", b"{", b'{"version": null}', b'{"version": ""}', b'{"version": {}}'),
        *(
            b'{"version": "1", "version": "2"}',
            b'{"version": "1\\n"}',
            b'{"version": "\\ud800"}',
            b'{"version": "../1"}',
        ),
    ],
)
def test_broken_pointer_is_refused(moto: Moto, bucket: str, destination: Path, pointer: bytes) -> None:
    moto.s3().put_object(Bucket=bucket, Key="current.json", Body=pointer)
    with pytest.raises(WeightsError, match=r"current\.json names no version \(.*\): promote the model again"):
        Weights(destination, bucket, WEIGHTS_NAME).find(soon())


def test_of_a_pointer_or_a_manifest_without_end_only_the_beginning_is_read(
    moto: Moto, either_way: str, weights: Path, destination: Path
) -> None:
    publish(weights, manifest_for(weights, "1"), either_way)
    for key in ("releases/1/manifest.json", "current.json"):
        moto.s3().put_object(Bucket=either_way, Key=key, Body=b" " * 30_000_000)
        tracemalloc.start()
        with pytest.raises(WeightsError, match=rf"{key} .* \(it has more than [0-9,]+ bytes\)"):
            Weights(destination, either_way, WEIGHTS_NAME).find(soon())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10_000_000


def test_manifest_of_another_version_than_its_folder_is_refused(
    moto: Moto, bucket: str, weights: Path, destination: Path
) -> None:
    publish(weights, manifest_for(weights, "1"), bucket)
    manifest = manifest_for(weights, "2").to_json().encode()
    moto.s3().put_object(Bucket=bucket, Key="releases/1/manifest.json", Body=manifest)
    with pytest.raises(WeightsError, match=r"releases/1/manifest\.json is of version 2: promote the model again"):
        Weights(destination, bucket, WEIGHTS_NAME).find(soon())
    assert nothing_in(destination.parent)


def test_pointer_to_a_missing_release_is_told(moto: Moto, bucket: str, destination: Path) -> None:
    moto.s3().put_object(Bucket=bucket, Key="current.json", Body=b'{"version": "1"}')
    with pytest.raises(
        WeightsUnavailableError,
        match=r"releases/1/manifest\.json, S3 answers NoSuchKey .*: current\.json names a release that is not whole: ",
    ):
        Weights(destination, bucket, WEIGHTS_NAME).find(soon())


def test_release_without_weights_is_told(moto: Moto, bucket: str, weights: Path, destination: Path) -> None:
    publish(weights, manifest_for(weights), bucket)
    moto.s3().delete_object(Bucket=bucket, Key=f"{RELEASE}/{WEIGHTS_NAME}")
    with pytest.raises(
        WeightsUnavailableError, match=r"S3 answers NoSuchKey .*: current\.json names a release that is"
    ):
        Weights(destination, bucket, WEIGHTS_NAME).find(soon())


@pytest.mark.processes
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (400, "KMS.DisabledException"),
        (403, "InvalidObjectState"),
        (403, "AllAccessDisabled"),
        (400, "ExpiredToken"),
        (404, "NoSuchBucket"),
    ],
)
def test_pointer_that_may_not_be_read_is_not_a_missing_one(
    status: int, code: str, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"/models/current.json": [refusal(status, code)], PLAIN: [whole(b"another model")]}
    with standing_for_s3(monkeypatch, answers) as server:
        assert said(destination).startswith(
            f"The served release cannot be read from s3://models/current.json, S3 answers {code}: "
        )
    assert server.count(PLAIN) == 0


@pytest.mark.processes
def test_page_of_a_proxy_is_not_a_missing_pointer(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"/models/current.json": [refusal_of(404, b"<html>Not here</html>")], PLAIN: [whole(b"another model")]}
    with standing_for_s3(monkeypatch, answers):
        assert said(destination).endswith("current.json: S3 answers 404 (Not here).")


def test_role_that_may_not_list_does_not_get_the_plain_key_instead_of_a_release(
    moto: Moto, bucket: str, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To such a role S3 answers AccessDenied for a missing current.json and for one that it may not read alike.
    moto.s3().put_object(Bucket=bucket, Key=WEIGHTS_NAME, Body=b"weights")
    key = restricted_access_key(moto, f"arn:aws:s3:::{bucket}/{WEIGHTS_NAME}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key[1])
    try:
        set_authorisation(moto, enforced=True)
        with pytest.raises(WeightsUnavailableError) as caught:
            Weights(destination, bucket, WEIGHTS_NAME).find(soon())
    finally:
        set_authorisation(moto, enforced=False)
    assert str(caught.value) == (
        f"The served release cannot be read from s3://{bucket}/current.json, S3 answers AccessDenied (Access Denied): "
        "grant s3:GetObject and s3:ListBucket, without which S3 says the same of a missing object, and kms:Decrypt if "
        "KMS encrypts the object."
    )
    assert nothing_in(destination.parent)


def test_unreachable_s3_is_one_sentence(bucket: str, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailableError, match=rf"s3://{bucket}.*\(Connection refused\) after \d tries in 1 s"):
        Weights(destination, bucket, WEIGHTS_NAME).find(Deadline.after(1))


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


def said(destination: Path, seconds: float = 60) -> str:
    """Return what fetch from the bucket `models` says when it fails, and see that it leaves nothing."""
    with pytest.raises(WeightsUnavailableError) as caught:
        Weights(destination, "models", WEIGHTS_NAME).find(Deadline.after(seconds))
    assert nothing_in(destination.parent)
    return str(caught.value)


@pytest.mark.processes
@pytest.mark.parametrize(
    "answers",
    [
        [cut(b"the weights", 4), whole(b"the weights")],
        [cut(b"the weights", 0), cut(b"the weights", 10), whole(b"the weights")],
        [hang_up, whole(b"the weights")],
        [refusal(503, "SlowDown"), refusal(503, "SlowDown"), whole(b"the weights")],
        [refusal(500, "InternalError"), cut(b"the weights", 4), last(b"the weights")],
        [refusal(503, "SlowDown")] * 4 + [whole(b"the weights")],
        [cut(b"the weights", 4)] * 4 + [whole(b"the weights")],
        [refusal(429, "TooManyRequests")] * 2 + [refusal_of(408, b"<html>late</html>"), whole(b"the weights")],
        [refusal(400, "RequestTimeout"), refusal_of(502, b"<html>Bad Gateway</html>"), whole(b"the weights")],
        [reset, cut(b"the weights", 0), chunked(b"the wei", is_whole=False), whole(b"the weights")],
    ],
    ids=[
        "cut once",
        "cut twice",
        "hung up",
        "overloaded twice",
        "one of each",
        "overloaded four times",
        "cut four times",
        "too many requests, and a proxy's time-out",
        "timed out, and a proxy's page",
        "reset, empty, and chunks that end early",
    ],
)
def test_what_passes_is_tried_again(answers: list[Answer], destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with standing_for_s3(monkeypatch, {PLAIN: answers}) as server:
        Weights(destination, "models", WEIGHTS_NAME).find(soon())
    assert destination.read_bytes() == b"the weights"
    assert [path.name for path in destination.parent.iterdir()] == ["model.pth"]
    assert server.count(PLAIN) == len(answers)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            cut(b"the weights", 4),
            " (the connection broke off after 4 of 11 bytes) after {tries}: check the network, and try again later.",
        ),
        (
            hang_up,
            " (Remote end closed connection without response) after {tries}: check the network, and try again later.",
        ),
        (refusal(503, "SlowDown"), ", S3 answers SlowDown after {tries}: try again later."),
    ],
)
def test_what_does_not_pass_is_given_up_at_the_deadline(
    answer: Answer, reason: str, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing_for_s3(monkeypatch, {PLAIN: [answer]}) as server:
        told = said(destination, 1.3)
    tries = f"{server.count(PLAIN)} tries in 1 s"
    assert told == f"The weights cannot be fetched from s3:/{PLAIN}{reason.format(tries=tries)}"
    assert server.count(PLAIN) >= 4


@pytest.mark.processes
def test_refusal_that_stays_is_not_tried_again(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with standing_for_s3(monkeypatch, {PLAIN: [refusal(403, "AccessDenied")]}) as server:
        assert "S3 answers AccessDenied: grant s3:GetObject" in said(destination)
    assert server.count(PLAIN) == 1


@pytest.mark.processes
@pytest.mark.parametrize("answer", [silence, trickle(bytes(10_000))], ids=["silence", "a byte now and then"])
def test_slow_s3_is_given_up_by_the_deadline(
    answer: Answer, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing_for_s3(monkeypatch, {PLAIN: [answer]}):
        told = said(destination, 0.7)
    assert re.search(rf"^The weights cannot be fetched from s3:/{PLAIN} \((timed out|the time is up)\)", told)
    with standing_for_s3(monkeypatch, {"/models/current.json": [answer]}):
        told = said(destination, 0.7)
    assert re.search(r"^The served release cannot be read from s3://models/current\.json \((timed out|the time)", told)


@pytest.mark.processes
def test_nothing_is_asked_for_when_the_time_is_over_already(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with standing_for_s3(monkeypatch, {PLAIN: [whole(b"the weights")]}) as server:
        assert said(destination, -1).endswith(" (the time is up): try again later.")
    assert server.seen == []


@pytest.mark.processes
@pytest.mark.parametrize(
    "answer",
    [
        refusal(301, "PermanentRedirect", {"x-amz-bucket-region": "us-east-2"}),
        refusal(400, "AuthorizationHeaderMalformed", {"x-amz-bucket-region": "us-east-2"}),
        refusal(400, "AuthorizationHeaderMalformed", more="<Region>us-east-2</Region>"),
    ],
)
def test_bucket_is_followed_to_its_region(answer: Answer, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_place = {"x-amz-bucket-region": "us-east-2"}
    answers = {"/models/current.json": [answer, refusal(404, "NoSuchKey", in_place)], PLAIN: [whole(b"the weights")]}
    with standing_for_s3(monkeypatch, answers) as server:
        Weights(destination, "models", WEIGHTS_NAME).find(soon())
    assert [(request.path, request.region) for request in server.seen] == [
        ("/models/current.json", "eu-west-1"),
        ("/models/current.json", "us-east-2"),
        (PLAIN, "us-east-2"),
    ]
    assert destination.read_bytes() == b"the weights"


@pytest.mark.processes
def test_bucket_that_is_in_no_region_is_given_up(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = [refusal(301, "PermanentRedirect", {"x-amz-bucket-region": f"us-east-{number}"}) for number in range(9)]
    with standing_for_s3(monkeypatch, {"/models/current.json": moved}) as server:
        assert "S3 answers PermanentRedirect" in said(destination)
    assert len(server.seen) == 2


@pytest.mark.processes
def test_old_leftovers_of_killed_processes_are_removed(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination.parent.mkdir()
    old = destination.with_name(".model.pth.old.part")
    young = destination.with_name(".model.pth.young.part")
    others = destination.with_name(".another.pth.old.part")
    for path, minutes in ((old, 16), (young, 14), (others, 16)):
        path.touch()
        os.utime(path, (time.time() - 60 * minutes,) * 2)
    with standing_for_s3(monkeypatch, {PLAIN: [whole(b"the weights")]}):
        Weights(destination, "models").find(soon())
    assert sorted(destination.parent.iterdir()) == sorted([destination, young, others])
    assert destination.read_bytes() == b"the weights"


@pytest.mark.processes
def test_two_processes_at_once_both_get_the_file(
    weights: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, both_ask = manifest_for(weights), threading.Event()
    answers = {
        "/models/current.json": [whole(b'{"version": "20260102-030405-0a1b2c3d"}')],
        f"/models/{RELEASE}/manifest.json": [whole(manifest.to_json().encode())],
        f"/models/{RELEASE}/{WEIGHTS_NAME}": [held(both_ask, whole(weights.read_bytes()))],
    }
    with standing_for_s3(monkeypatch, answers) as server:
        command = [sys.executable, "-W", "error", "-c", FETCH, str(destination)]
        processes = [subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE) for _ in range(2)]
        wait_for_requests(server, 2, *processes, path=f"/models/{RELEASE}/{WEIGHTS_NAME}")
        both_ask.set()
        assert [process.communicate()[1] for process in processes] == [b"", b""]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(path.name for path in destination.parent.iterdir()) == ["manifest.json", "model.pth"]
    assert destination.read_bytes() == weights.read_bytes()
    assert read_release(destination).manifest == manifest


@pytest.mark.processes
def test_many_threads_fetch_once(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights(destination, "models")
    with standing_for_s3(monkeypatch, {PLAIN: [whole(b"the weights")]}) as server, ThreadPoolExecutor(8) as pool:
        assert {release.weights for release in pool.map(weights.find, [soon()] * 8)} == {b"the weights"}
    assert server.count(PLAIN) == 1


@pytest.mark.processes
def test_who_waits_for_another_fetch_waits_no_longer_than_its_time(
    destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    weights = Weights(destination, "models")
    with standing_for_s3(monkeypatch, {PLAIN: [held(gate, whole(b"the weights"))]}) as server:
        weights.fetch_in_background(soon())
        wait_for_requests(server, 1)
        for seconds, shown in ((0.6, 1), (-5, 0)):
            with pytest.raises(WeightsUnavailableError) as caught:
                weights.find(Deadline.after(seconds))
            assert str(caught.value) == (
                f"The weights are still being downloaded from s3://models after {shown} s: try again."
            )
            assert caught.value.public == "it is still being downloaded: try again"
        gate.set()
        assert weights.find(soon()).weights == b"the weights"
    assert server.count(PLAIN) == 1


@pytest.mark.processes
def test_background_fetch_that_fails_is_tried_again(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights(destination, "models")
    answers = [refusal(403, "InvalidAccessKeyId"), whole(b"the weights")]
    with standing_for_s3(monkeypatch, {PLAIN: answers}) as server:
        weights.fetch_in_background(soon())
        wait_for_requests(server, 1)
        assert weights.find(soon()).weights == b"the weights"
    assert server.count(PLAIN) == 2


def test_nothing_is_fetched_in_the_background_without_a_bucket(destination: Path) -> None:
    before = threading.enumerate()
    Weights(destination).fetch_in_background(soon())
    assert threading.enumerate() == before
    assert not destination.parent.exists()


@pytest.mark.processes
def test_replace_fetches_though_there_is_a_file(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination.parent.mkdir()
    destination.write_bytes(b"the wei")
    weights = Weights(destination, "models")
    with standing_for_s3(monkeypatch, {PLAIN: [whole(b"the weights")]}):
        assert weights.find(soon()).weights == b"the wei"
        assert weights.replace(soon()).weights == b"the weights"


@pytest.mark.parametrize("is_named", [True, False])
def test_only_an_earlier_download_at_the_default_path_is_asked_after_in_the_background(
    moto: Moto,
    bucket: str,
    weights: Path,
    destination: Path,
    is_named: bool,  # noqa: FBT001
) -> None:
    publish(weights, manifest_for(weights), bucket)
    Weights(destination, bucket).find(soon())
    before = len(moto.requests())
    restarted = Weights(destination, bucket, is_named=is_named)
    restarted.fetch_in_background(soon())
    assert restarted.find(soon()).version == manifest_for(weights).version
    assert moto.requests()[before:] == ([] if is_named else [f"GET /{bucket}/current.json"])


@pytest.mark.processes
@pytest.mark.parametrize("damage", ["circle", "huge weights", "huge manifest"])
def test_what_cannot_be_read_from_the_disk_is_fetched_anew(
    damage: str, bucket: str, weights: Path, destination: Path
) -> None:
    publish(weights, manifest_for(weights), bucket)
    destination.parent.mkdir()
    if damage == "circle":
        destination.symlink_to(destination)
    else:
        destination.write_bytes(weights.read_bytes())
        os.truncate(destination if damage == "huge weights" else _manifest_beside(destination), 10**12)
    release = Weights(destination, bucket).find(soon())
    assert release.manifest == manifest_for(weights)
    assert read_release(destination) == dataclasses.replace(release, source=str(destination))


def _manifest_beside(weights: Path) -> Path:
    manifest_for(weights).write_beside(weights)
    return weights.with_name(MANIFEST_NAME)


@pytest.mark.processes
def test_failed_replacement_keeps_the_file(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination.parent.mkdir()
    destination.write_bytes(b"the wei")
    with standing_for_s3(monkeypatch, {}), pytest.raises(WeightsUnavailableError, match="NoSuchKey"):
        Weights(destination, "models").replace(soon())
    assert destination.read_bytes() == b"the wei"
    assert list(destination.parent.iterdir()) == [destination]


def test_without_a_bucket_there_is_nothing_to_replace_from(destination: Path) -> None:
    with pytest.raises(ValueError, match="no bucket"):
        Weights(destination).replace(soon())


@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        ("localhost:9000", r"^S3 cannot be used: Invalid endpoint: localhost:9000\.$"),
        ("http://[::1", r"^S3 cannot be used: Invalid IPv6 URL\.$"),
        ("ftp://localhost:9000", r"current\.json: Custom endpoint `ftp://localhost:9000` was not a valid URI\.$"),
    ],
)
def test_endpoint_that_is_no_address_is_told(
    bucket: str, destination: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str, sentence: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(WeightsUnavailableError, match=sentence):
        Weights(destination, bucket, WEIGHTS_NAME).find(soon())


@pytest.mark.usefixtures("bucket")
def test_name_that_no_bucket_can_have_is_told(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with pytest.raises(
        WeightsUnavailableError, match=r"cannot be read from s3://m{64}/current\.json: .*label.* too long"
    ):
        Weights(destination, "m" * 64, WEIGHTS_NAME).find(soon())
