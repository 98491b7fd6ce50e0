import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pneumonia.deadline import Deadline
from pneumonia.errors import ReleaseConflictError, WeightsError, WeightsUnavailableError
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import save_weights
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.fetch import fetch
from pneumonia.releases.layout import Pointer
from tests.builders.checkout import PROJECT
from tests.builders.releases import files_of, manifest_for, publish
from tools.stand_ins.moto import Moto
from tools.stand_ins.s3_proxy import proxy

PUBLISH = """
import sys
from pathlib import Path
from pneumonia.releases.manifest import parse
from tests.builders.releases import files_of, publish_files, with_onnx
weights, manifest, bucket = sys.argv[1:]
publish_files(with_onnx(files_of(Path(weights), parse(manifest, "here")), b"stands for an ONNX file"), bucket)
"""
VERSION = "20260102-030405-0a1b2c3d"
RELEASE = f"releases/{VERSION}"


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Weights that differ from each other."""
    folder = tmp_path_factory.mktemp("others")
    state = ResNet18().state_dict()
    paths = []
    for number in range(2):
        state["fc.bias"] = torch.full((2,), float(number))
        paths.append(folder / f"{number}.pth")
        save_weights(state, paths[-1])
    return paths


def contents(moto: Moto, bucket: str, key: str) -> bytes:
    body: bytes = moto.s3().get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def pointer(moto: Moto, bucket: str) -> dict[str, object]:
    """Return what `current.json` says, without the list of withdrawn releases where it is empty."""
    content: dict[str, object] = json.loads(contents(moto, bucket, "current.json"))
    return {name: value for name, value in content.items() if name != "withdrawn" or value}


def test_publish_leaves_a_release_the_pointer_and_the_plain_key(moto: Moto, bucket: str, weights: Path) -> None:
    manifest = manifest_for(weights)
    publish(weights, manifest, bucket)

    assert {key: contents(moto, bucket, key) for key in moto.keys(bucket)} == {
        f"{RELEASE}/{WEIGHTS_NAME}": weights.read_bytes(),
        f"{RELEASE}/manifest.json": manifest.to_json().encode(),
        "current.json": b'{"version": "20260102-030405-0a1b2c3d", "previous": [], "withdrawn": []}\n',
        WEIGHTS_NAME: weights.read_bytes(),
    }


def test_release_is_complete_before_the_pointer_names_it(moto: Moto, bucket: str, weights: Path) -> None:
    publish(weights, manifest_for(weights), bucket)
    put = [request.partition("?")[0] for request in moto.requests() if request.startswith(f"PUT /{bucket}/")]
    names = [request.removeprefix(f"PUT /{bucket}/") for request in put]
    assert names == [f"{RELEASE}/{WEIGHTS_NAME}", f"{RELEASE}/manifest.json", "current.json", WEIGHTS_NAME]


def test_the_same_release_twice_is_one(moto: Moto, bucket: str, weights: Path, others: list[Path]) -> None:
    publish(others[0], manifest_for(others[0], "1"), bucket)
    for _ in range(2):
        publish(weights, manifest_for(weights, "2"), bucket)
    assert pointer(moto, bucket) == {"version": "2", "previous": ["1"]}
    assert WeightsBucket(bucket).stored() == dict.fromkeys(("1", "2"), (weights.stat().st_size, None))


def test_a_release_that_was_stopped_before_its_manifest_is_completed(moto: Moto, bucket: str, weights: Path) -> None:
    moto.s3().put_object(Bucket=bucket, Key=f"{RELEASE}/{WEIGHTS_NAME}", Body=weights.read_bytes())
    assert WeightsBucket(bucket).stored() == {}
    publish(weights, manifest_for(weights), bucket)
    assert [*WeightsBucket(bucket).stored()] == [VERSION]


def test_other_weights_under_the_same_version_are_not_overwritten(
    moto: Moto, bucket: str, weights: Path, others: list[Path]
) -> None:
    publish(weights, manifest_for(weights), bucket)
    assert weights.stat().st_size == others[0].stat().st_size
    with pytest.raises(WeightsError, match=rf"holds other weights than {VERSION}'s: remove that release first\.$"):
        publish(others[0], manifest_for(others[0]), bucket)
    assert contents(moto, bucket, f"{RELEASE}/{WEIGHTS_NAME}") == weights.read_bytes()


def test_who_comes_second_is_told_and_changes_nothing(
    moto: Moto, bucket: str, weights: Path, others: list[Path]
) -> None:
    publish(weights, manifest_for(weights, "1"), bucket)
    late = WeightsBucket(bucket)
    served, mark = late.pointer()
    publish(others[0], manifest_for(others[0], "2"), bucket)
    late.add(files_of(others[1], manifest_for(others[1], "3")))
    with pytest.raises(ReleaseConflictError, match=rf"s3://{bucket} serves 2 now, and 3 is stored but not served\."):
        late.serve("3", served, mark)
    assert pointer(moto, bucket) == {"version": "2", "previous": ["1"]}
    assert contents(moto, bucket, WEIGHTS_NAME) == others[0].read_bytes()


def test_who_comes_second_to_an_empty_bucket_is_told(bucket: str, weights: Path, others: list[Path]) -> None:
    late = WeightsBucket(bucket)
    assert late.pointer() == (None, None)
    publish(weights, manifest_for(weights, "1"), bucket)
    late.add(files_of(others[0], manifest_for(others[0], "2")))
    with pytest.raises(ReleaseConflictError, match="serves 1 now"):
        late.serve("2", None, None)


def test_who_comes_second_with_the_same_release_is_content(moto: Moto, bucket: str, weights: Path) -> None:
    late = WeightsBucket(bucket)
    served, mark = late.pointer()
    publish(weights, manifest_for(weights), bucket)
    late.add(files_of(weights, manifest_for(weights)))
    late.serve(VERSION, served, mark)
    assert pointer(moto, bucket) == {"version": VERSION, "previous": []}


def test_plain_key_follows_the_pointer_though_an_earlier_promotion_is_the_last_to_fill_it(
    moto: Moto, bucket: str, weights: Path, others: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first promotion is held before it fills the plain key, until another is done."""
    held: list[str] = []

    def hold(_number: int, what: str) -> None:
        if what == f"PUT /{bucket}/{WEIGHTS_NAME}" and not held:
            held.append(what)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
                publish(others[0], manifest_for(others[0], "2"), bucket)

    with proxy(moto.endpoint, before=hold) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        publish(weights, manifest_for(weights, "1"), bucket)
    assert held
    assert pointer(moto, bucket) == {"version": "2", "previous": ["1"]}
    assert contents(moto, bucket, WEIGHTS_NAME) == others[0].read_bytes()


def test_pointer_remembers_what_was_served_and_what_was_rolled_back() -> None:
    pointer = Pointer("1").moved_to("2").moved_to("3")
    assert pointer == Pointer("3", ("2", "1"))
    assert pointer.moved_to("3") == pointer
    assert pointer.moved_to("2") == Pointer("2", ("1",), ("3",))
    assert pointer.moved_to("2").moved_to("4") == Pointer("4", ("2", "1"), ("3",))
    assert pointer.moved_to("1") == Pointer("1", (), ("3", "2"))
    assert pointer.moved_to("1").moved_to("3") == Pointer("3", ("1",), ("2",))


def test_a_manifest_that_cannot_be_read_is_replaced(moto: Moto, bucket: str, weights: Path) -> None:
    for broken in (b"{}", b"", manifest_for(weights, "other").to_json().encode()):
        moto.s3().put_object(Bucket=bucket, Key=f"{RELEASE}/manifest.json", Body=broken)
        publish(weights, manifest_for(weights), bucket)
        assert WeightsBucket(bucket).manifest(VERSION) == manifest_for(weights)


@pytest.mark.parametrize(
    "other", [{"calibration": Calibration(2.0)}, {"classes": ["PNEUMONIA", "NORMAL"]}, {"preprocessing": {}}]
)
def test_a_version_has_one_way_to_answer(bucket: str, weights: Path, other: dict[str, Any]) -> None:
    first = manifest_for(weights)
    publish(weights, first, bucket)
    with pytest.raises(
        WeightsError, match=rf"manifest\.json has another {next(iter(other))} than is promoted now: rem"
    ):
        publish(weights, dataclasses.replace(first, **other), bucket)
    assert WeightsBucket(bucket).manifest(VERSION) == first


def test_what_a_release_was_forced_against_is_added_to_its_manifest(bucket: str, weights: Path) -> None:
    forced = dataclasses.replace(manifest_for(weights), forced="its test_auroc is low")
    for manifest in (manifest_for(weights), forced, manifest_for(weights)):
        publish(weights, manifest, bucket)
    assert WeightsBucket(bucket).manifest(VERSION) == forced


def test_weights_without_a_checksum_are_read_to_be_compared(
    moto: Moto, bucket: str, weights: Path, others: list[Path]
) -> None:
    manifest = manifest_for(weights)
    key = f"{RELEASE}/{WEIGHTS_NAME}"
    moto.s3().put_object(Bucket=bucket, Key=key, Body=weights.read_bytes(), ChecksumAlgorithm="CRC32")
    publish(weights, manifest, bucket)
    moto.s3().put_object(Bucket=bucket, Key=key, Body=others[0].read_bytes(), ChecksumAlgorithm="CRC32")
    with pytest.raises(WeightsError, match=rf"holds other weights than {VERSION}'s"):
        publish(weights, manifest, bucket)
    with pytest.raises(WeightsError, match=rf"holds other weights than {VERSION}'s"):
        WeightsBucket(bucket).check(VERSION)


def test_release_without_its_weights_is_not_complete(moto: Moto, bucket: str, weights: Path) -> None:
    publish(weights, manifest_for(weights), bucket)
    WeightsBucket(bucket).check(VERSION)
    moto.s3().delete_object(Bucket=bucket, Key=f"{RELEASE}/{WEIGHTS_NAME}")
    with pytest.raises(WeightsUnavailableError, match=r"^The weights cannot be read from s3://.*, S3 answers 404"):
        WeightsBucket(bucket).check(VERSION)


@pytest.mark.parametrize("name", [f"{RELEASE}/{WEIGHTS_NAME}", f"{RELEASE}/manifest.json", "current.json"])
def test_what_another_is_writing_is_written_again(
    moto: Moto, bucket: str, weights: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    refused: list[str] = []

    def refuse(_number: int, what: str) -> int | None:
        if what != f"PUT /{bucket}/{name}" or len(refused) == 2:
            return None
        refused.append(what)
        return 409

    with proxy(moto.endpoint, before=refuse) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        publish(weights, manifest_for(weights), bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
    assert len(refused) == 2
    assert pointer(moto, bucket) == {"version": VERSION, "previous": []}
    assert WeightsBucket(bucket).manifest(VERSION) == manifest_for(weights)


def test_a_pointer_that_cannot_be_read_is_replaced(moto: Moto, bucket: str, weights: Path) -> None:
    for broken in (b"", b"nonsense"):
        moto.s3().put_object(Bucket=bucket, Key="current.json", Body=broken)
        publish(weights, manifest_for(weights), bucket)
        assert pointer(moto, bucket) == {"version": VERSION, "previous": []}


def test_a_pointer_that_goes_meanwhile_is_a_conflict(moto: Moto, bucket: str, weights: Path) -> None:
    publish(weights, manifest_for(weights), bucket)
    releases = WeightsBucket(bucket)
    served, mark = releases.pointer()
    moto.s3().delete_object(Bucket=bucket, Key="current.json")
    with pytest.raises(ReleaseConflictError, match="serves none now"):
        releases.serve(VERSION, served, mark)


def test_release_that_is_not_there_is_told(bucket: str) -> None:
    with pytest.raises(WeightsError, match=rf"^s3://{bucket} has no release '7': `list` shows those it has\.$"):
        WeightsBucket(bucket).manifest("7")


@pytest.mark.usefixtures("bucket")
def test_missing_bucket_says_what_to_do(weights: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"from s3://nowhere-at-all/current\.json, S3 answers NoSuchB"):
        publish(weights, manifest_for(weights), "nowhere-at-all")


def test_unreachable_s3_is_one_sentence(bucket: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailableError, match=rf"s3://{bucket}/current\.json \(Could not connect to the endp"):
        publish(weights, manifest_for(weights), bucket)


def whole_release(moto: Moto, bucket: str) -> str | None:
    """Fetch as both engines do, which compares with the manifest; return the version, None where none is served."""
    if "current.json" not in moto.keys(bucket):
        return None
    (version,) = {fetch(bucket, "none", Deadline.after(60), engine).version for engine in ("torch", "onnx")}
    return version


@pytest.mark.slow
def test_killed_at_any_call_the_served_release_is_whole(moto: Moto, bucket: str, others: list[Path]) -> None:
    served: list[str | None] = []
    for number, weights in enumerate(others):
        for last_call in itertools.count(1):
            killer = Killer(last_call)
            with proxy(moto.endpoint, after=killer) as server:
                variables = {"AWS_ENDPOINT_URL": server.endpoint}
                manifest = manifest_for(weights, f"{number}").to_json()
                killer.start([sys.executable, "-c", PUBLISH, weights, manifest, bucket], variables)
                ended = killer.process.wait()
            served.append(whole_release(moto, bucket))
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
    assert list(dict.fromkeys(served)) == [None, "0", "1"]  # never one that is half there, and never back
    assert len(served) == 22  # killed at each of ten calls, and not at all, for both
    assert contents(moto, bucket, WEIGHTS_NAME) == others[1].read_bytes()


class Killer:
    """Kills a process when a call is done whose answer it waits for."""

    process: "subprocess.Popen[bytes]"

    def __init__(self, last_call: int) -> None:
        self._last_call = last_call
        self._started = threading.Event()

    def start(self, command: Sequence[str | Path], variables: dict[str, str]) -> None:
        self.process = subprocess.Popen(command, env=os.environ | variables, cwd=PROJECT)
        self._started.set()

    def __call__(self, number: int, _what: str) -> None:
        self._started.wait()
        if number == self._last_call:
            self.process.kill()
            self.process.wait()
