"""What a bucket serves and served: what is broken is told, and is never served again."""

import dataclasses
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumonia.errors import PneumoniaError, WeightsError
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import save_weights
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.history import last_served, listing, rollback
from pneumonia.releases.layout import Pointer
from pneumonia.releases.manifest import OWN_DIGEST
from tests.builders.input_checks import INPUT_CHECK
from tests.builders.releases import files_of, manifest_for, publish
from tools.stand_ins.moto import Moto
from tools.stand_ins.s3_proxy import proxy

OLD, NEW = "20260101-030405-0a1b2c3d", "20260102-030405-0a1b2c3d"
MANIFEST, WEIGHTS = f"releases/{OLD}/manifest.json", f"releases/{OLD}/{WEIGHTS_NAME}"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of another release."""
    path = tmp_path_factory.mktemp("other") / WEIGHTS_NAME
    save_weights(ResNet18().state_dict(), path)
    return path


@pytest.fixture
def two(bucket: str, weights: Path, other: Path) -> str:
    """A bucket that served OLD and serves NEW."""
    publish(other, manifest_for(other, OLD), bucket)
    publish(weights, manifest_for(weights, NEW), bucket)
    return bucket


def put(moto: Moto, bucket: str, key: str, body: bytes) -> None:
    moto.s3().put_object(Bucket=bucket, Key=key, Body=body)


def get(moto: Moto, bucket: str, key: str) -> bytes:
    content: bytes = moto.s3().get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def with_fields(**fields: Any) -> Callable[[Moto, str], None]:  # noqa: ANN401  # whatever JSON can hold
    """Return what changes fields of OLD's manifest."""

    def change(moto: Moto, bucket: str) -> None:
        content = json.loads(get(moto, bucket, MANIFEST)) | fields
        content.pop(OWN_DIGEST)
        put(moto, bucket, MANIFEST, json.dumps(content).encode())

    return change


def without_weights(moto: Moto, bucket: str) -> None:
    moto.s3().delete_object(Bucket=bucket, Key=WEIGHTS)


def with_half_the_weights(moto: Moto, bucket: str) -> None:
    put(moto, bucket, WEIGHTS, get(moto, bucket, WEIGHTS)[:-1000])


def with_a_bit_flipped(moto: Moto, bucket: str) -> None:
    content = bytearray(get(moto, bucket, WEIGHTS))
    content[1_000_000] ^= 1
    put(moto, bucket, WEIGHTS, bytes(content))


def copied_from_another(moto: Moto, bucket: str) -> None:
    for name in ("manifest.json", WEIGHTS_NAME):
        put(moto, bucket, f"releases/{OLD}/{name}", get(moto, bucket, f"releases/{NEW}/{name}"))


BROKEN: dict[str, tuple[Callable[[Moto, str], None], str]] = {
    "copied": (copied_from_another, f"is of version {NEW}: promote the model again"),
    "no weights": (without_weights, "cannot be read from|its weights file is missing"),
    "half": (with_half_the_weights, "holds other weights|but its manifest says|its weights file has"),
    "size": (with_fields(size=5), "holds other weights|but its manifest says|its weights file has"),
    "digest": (with_fields(sha256="0" * 3), "is not a valid manifest"),
    "no manifest": (lambda moto, bucket: put(moto, bucket, MANIFEST, b"{}"), "is not a valid manifest"),
    "endless": (lambda moto, bucket: put(moto, bucket, MANIFEST, b" " * 2_000_000), "has more than 1,048,576 bytes"),
}
# These show only when the release is read as a whole.
BROKEN_INSIDE = {
    "bit": (with_a_bit_flipped, "but its manifest says"),
    "classes": (with_fields(classes=["PNEUMONIA", "NORMAL"]), "was trained for other classes"),
    "preprocessing": (with_fields(preprocessing={}), "was trained for other classes or another preprocessing"),
    "input check": (
        with_fields(input_check=INPUT_CHECK | {"scale": INPUT_CHECK["mean"]}),
        "The input check has values that no fit gives",
    ),
}


@pytest.mark.parametrize("case", [*BROKEN, *BROKEN_INSIDE])
def test_a_release_that_inference_could_not_serve_is_not_gone_back_to(moto: Moto, two: str, case: str) -> None:
    damage, reason = (BROKEN | BROKEN_INSIDE)[case]
    damage(moto, two)
    before = get(moto, two, "current.json")
    for version in (OLD, None):
        with pytest.raises(PneumoniaError, match=reason):
            rollback(two, version)
    assert get(moto, two, "current.json") == before


def test_weights_whose_outputs_are_not_finite_are_not_gone_back_to(two: str, tmp_path: Path) -> None:
    state = ResNet18().state_dict()
    state["layer4.1.bn2.weight"].fill_(3e35)
    state["fc.weight"].fill_(1e4)
    save_weights(state, tmp_path / WEIGHTS_NAME)
    WeightsBucket(two).add(files_of(tmp_path / WEIGHTS_NAME, manifest_for(tmp_path / WEIGHTS_NAME, "1")))
    with pytest.raises(WeightsError, match="The outputs of the network in release 1 are not finite"):
        rollback(two, "1")


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_release_is_told_by_show_and_marked_by_list(moto: Moto, two: str, case: str) -> None:
    damage, reason = BROKEN[case]
    damage(moto, two)
    with pytest.raises(PneumoniaError, match=reason):
        WeightsBucket(two).check(OLD)
    row = listing(two).splitlines()[-1]
    assert row.startswith(f"  {OLD}  broken: ")
    assert re.search(reason, row)


def test_a_manifest_that_may_not_be_read_breaks_no_list(moto: Moto, two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(moto.endpoint, before=lambda _, what: 403 if what.endswith(f"{OLD}/manifest.json") else None) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        rows = listing(two).splitlines()
    assert rows[1].startswith(f"* {NEW}  0.9500")
    assert rows[2].startswith(f"  {OLD}  The release cannot be read from")


def test_names_in_a_manifest_tear_no_row(moto: Moto, two: str) -> None:
    with_fields(training_job="job\x1b[2J\nname", forced="a\nb")(moto, two)
    row = listing(two).splitlines()[2]
    assert row.endswith(r"job\x1b[2J\nname  forced: a\nb")


@pytest.mark.parametrize("version", ["../x", "a/b", "", "x" * 10_000, "a\nb", "\ud800", f"{OLD}/"])
def test_what_no_release_is_called_is_not_there(two: str, version: str) -> None:
    with pytest.raises(WeightsError, match=r"has no release '.*: `list` shows those it has\.$"):
        WeightsBucket(two).check(version)


def test_without_its_pointer_a_bucket_says_so_and_a_rollback_puts_it_back(moto: Moto, two: str) -> None:
    moto.s3().delete_object(Bucket=two, Key="current.json")
    sentence = f"s3://{two}/current.json is missing or broken, so that nobody knows which release was served"
    assert listing(two).splitlines()[-1].startswith(sentence)
    with pytest.raises(WeightsError, match=sentence):
        rollback(two, None)
    assert rollback(two, OLD) == (OLD, None, False)
    assert json.loads(get(moto, two, "current.json"))["version"] == OLD
    assert "broken" not in listing(two)


def test_a_pointer_to_a_release_that_is_not_there_is_told(moto: Moto, two: str) -> None:
    put(moto, two, "current.json", b'{"version": "1"}')
    assert listing(two).splitlines()[-1].startswith(f"s3://{two}/current.json names 1, which is not there")


def test_what_was_served_is_found_by_the_plain_key_and_else_it_is_the_newest(moto: Moto, two: str, other: Path) -> None:
    releases = WeightsBucket(two)
    assert last_served(releases, Pointer("1")) == Pointer("1")
    put(moto, two, WEIGHTS_NAME, other.read_bytes())
    assert last_served(releases, None) == Pointer(OLD, (), (NEW,))
    put(moto, two, WEIGHTS_NAME, b"another model's")
    assert last_served(releases, None) == Pointer(NEW, (), (OLD,))
    moto.s3().delete_object(Bucket=two, Key=WEIGHTS_NAME)
    ahead = "29990101-000000-0a1b2c3d"
    releases.add(files_of(other, manifest_for(other, ahead)))
    assert last_served(releases, None) == Pointer(NEW, (), (ahead, OLD))


@pytest.mark.parametrize(
    "content", [b" " * 30_000_000, b'{"version": "\\ud800"}', b'{"version": "a\\nb"}', b"[" * 60_000]
)
def test_junk_in_place_of_the_pointer_is_a_pointer_that_is_lost(moto: Moto, two: str, content: bytes) -> None:
    put(moto, two, "current.json", content)
    releases = WeightsBucket(two)
    tracemalloc.start()
    pointer, etag = releases.pointer()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (pointer, bool(etag)) == (None, True)
    assert peak < 5_000_000
    assert rollback(two, OLD) == (OLD, None, False)


def test_a_release_with_impossible_figures_that_is_listed_stays_served(moto: Moto, two: str) -> None:
    with_fields(metrics={"test_accuracy": 5, "test_auroc": 0.97})(moto, two)
    assert listing(two).splitlines()[2].startswith(f"  {OLD}  -         0.9700  -       pneu")
    assert rollback(two, None) == (OLD, NEW, False)
    assert dataclasses.asdict(WeightsBucket(two).check(OLD))["metrics"] == {"test_auroc": 0.97}


def test_a_bucket_whose_objects_are_locked_is_published_to(
    moto: Moto, bucket: str, weights: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")  # S3 takes none here without a checksum
    locked = f"{bucket[:50]}-locked"
    s3 = moto.s3()
    s3.create_bucket(
        Bucket=locked,
        CreateBucketConfiguration={"LocationConstraint": "eu-west-1"},
        ObjectLockEnabledForBucket=True,
    )
    retention: Any = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    s3.put_object_lock_configuration(
        Bucket=locked, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    publish(other, manifest_for(other, OLD), locked)
    publish(weights, manifest_for(weights, NEW), locked)
    assert get(moto, locked, WEIGHTS_NAME) == weights.read_bytes()
    assert rollback(locked, None) == (OLD, NEW, False)
    assert get(moto, locked, WEIGHTS_NAME) == other.read_bytes()
