from pathlib import Path

import pytest

from pneumonia import WEIGHTS_NAME, store
from pneumonia.errors import WeightsUnavailableError
from tests.conftest import Moto
from tests.test_manifest import manifest_for

RELEASE = "releases/20260102-030405-0a1b2c3d"


def test_publish_leaves_a_release_the_pointer_and_the_plain_key(moto: Moto, bucket: str, weights: Path) -> None:
    manifest = manifest_for(weights)
    store.publish(weights, manifest, bucket)

    objects = {key: moto.s3().get_object(Bucket=bucket, Key=key)["Body"].read() for key in moto.keys(bucket)}
    assert objects == {
        f"{RELEASE}/{WEIGHTS_NAME}": weights.read_bytes(),
        f"{RELEASE}/manifest.json": manifest.to_json().encode(),
        "current.json": b'{"version": "20260102-030405-0a1b2c3d"}\n',
        WEIGHTS_NAME: weights.read_bytes(),
    }


def test_release_is_complete_before_the_pointer_names_it(moto: Moto, bucket: str, weights: Path) -> None:
    store.publish(weights, manifest_for(weights), bucket)
    put = [request.partition("?")[0] for request in moto.requests() if request.startswith(f"PUT /{bucket}/")]
    names = [request.removeprefix(f"PUT /{bucket}/") for request in put]
    assert names == [f"{RELEASE}/{WEIGHTS_NAME}", f"{RELEASE}/manifest.json", "current.json", WEIGHTS_NAME]


@pytest.mark.usefixtures("bucket")
def test_missing_bucket_says_what_to_do(weights: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match="cannot be published to s3://nowhere-at-all, S3 answers NoSuchB"):
        store.publish(weights, manifest_for(weights), "nowhere-at-all")


def test_unreachable_s3_is_one_sentence(bucket: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailableError, match=rf"s3://{bucket}: Could not connect to the endpoint"):
        store.publish(weights, manifest_for(weights), bucket)
