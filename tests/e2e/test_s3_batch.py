"""The function as S3 Batch Operations invokes it: real events, the real runtime client, moto's S3."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.releases.fetch import Weights
from pneumonia.serving.predictor import Predictor
from tests.builders.function import Function, Response
from tests.builders.images import XRAY, encoded
from tools.stand_ins.faulty_s3 import Answer, cut, refusal, reset, serving, whole
from tools.stand_ins.moto import Moto
from tools.stand_ins.runtime_api import InvocationError

XRAYS = "xrays"
WEIGHTS = "weights-of-batches"
INVOCATION = "YXNkbGZqYWRmaiBhc2RmdW9hZHNmZGpmaGFzbGtkaGZza2RmaAo"


def event_2(*keys: str, bucket: str = XRAYS, version: str | None = None) -> dict[str, Any]:
    """Return an event of invocation schema 2.0; AWS puts one task into each, and its schema has room for more.

    Args:
        keys: URL-encoded, as the manifest has them; AWS sends a space as `+`.
        bucket: of all of them.
        version: of all of them.
    """
    return {
        "invocationSchemaVersion": "2.0",
        "invocationId": INVOCATION,
        "job": {"id": "f3cc4f60-61f6-4a2b-8a21-d07600c373ce", "userArguments": {"k1": "v1", "k2": "v2"}},
        "tasks": [
            {"taskId": f"dGFza2lkZ29lc2hlcmUK{number}", "s3Key": key, "s3VersionId": version, "s3Bucket": bucket}
            for number, key in enumerate(keys)
        ],
    }


class BatchFunction(Function):
    """One instance of the function, with the handler for S3 Batch Operations."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(folder, {"MODEL_BUCKET": WEIGHTS} | environment, "pneumonia.batch.s3_operations.handler")

    def invoke(self, event: Any, timeout: float = 60) -> Response:  # noqa: ANN401  # JSON
        """Return the response to an event, which is as S3 Batch Operations takes it."""
        response = super().invoke(event, timeout)
        assert list(response) == ["invocationSchemaVersion", "treatMissingKeysAs", "invocationId", "results"]
        assert response["invocationSchemaVersion"] == event["invocationSchemaVersion"]
        assert response["invocationId"] == event["invocationId"]
        assert [result["taskId"] for result in response["results"]] == [task["taskId"] for task in event["tasks"]]
        for result in response["results"]:
            assert list(result) == ["taskId", "resultCode", "resultString"]
            assert result["resultCode"] in {"Succeeded", "TemporaryFailure", "PermanentFailure"}
            assert 0 < len(result["resultString"]) <= 1024
        return response

    def result(self, event: dict[str, Any], timeout: float = 60) -> tuple[str, str]:
        """Return code and text of the one result of an event."""
        (result,) = self.invoke(event, timeout)["results"]
        return result["resultCode"], result["resultString"]


@pytest.fixture(scope="module")
def versions(moto: Moto, weights: Path) -> list[str]:
    """Fill the buckets; return the versions of the object `versioned.jpg`, of which the first is no image."""
    s3 = moto.s3()
    moto.make_bucket(WEIGHTS)
    s3.put_object(Bucket=WEIGHTS, Key=WEIGHTS_NAME, Body=weights.read_bytes())
    moto.make_bucket(XRAYS)
    s3.put_bucket_versioning(Bucket=XRAYS, VersioningConfiguration={"Status": "Enabled"})
    objects = {
        "ward 3/röntgen+1.jpg": XRAY,
        "text.jpg": b"Dear radiologist,\n",
        "empty.jpg": b"",
        "scan.gif": encoded(Image.new("L", (9, 9)), "GIF"),
        "large.bmp": bytes(MAX_BYTES + 1),
    }
    for key, body in objects.items():
        s3.put_object(Bucket=XRAYS, Key=key, Body=body)
    return [s3.put_object(Bucket=XRAYS, Key="versioned.jpg", Body=body)["VersionId"] for body in (b"text", XRAY)]


@pytest.fixture(scope="module")
def function(moto: Moto, versions: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchFunction]:
    assert versions
    with BatchFunction(tmp_path_factory.mktemp("function"), {"AWS_ENDPOINT_URL": moto.endpoint}) as function:
        yield function


@pytest.mark.parametrize("space", ["+", "%20"])
def test_xray_is_answered_as_by_serving(function: BatchFunction, weights: Path, space: str) -> None:
    code, text = function.result(event_2(f"ward{space}3/r%C3%B6ntgen%2B1.jpg"))
    assert code == "Succeeded"
    expected = Predictor(Weights(weights)).predict(XRAY)
    answer = json.loads(text)
    assert list(answer) == ["prediction", "confidence", "probabilities", "model_version", "warnings"]
    assert (answer["prediction"], answer["model_version"]) == (expected.prediction, expected.model_version)
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


def test_version_that_the_manifest_names_is_read(function: BatchFunction, versions: list[str]) -> None:
    assert function.result(event_2("versioned.jpg", version=versions[0]))[0] == "PermanentFailure"
    assert function.result(event_2("versioned.jpg", version=versions[1]))[0] == "Succeeded"
    assert function.result(event_2("versioned.jpg"))[0] == "Succeeded"


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("text.jpg", "The file is not an image: send a chest X-ray as JPEG, PNG, BMP, TIFF, WebP or DICOM."),
        ("empty.jpg", "The file is empty: send a chest X-ray as JPEG, PNG, BMP, TIFF, WebP or DICOM."),
        ("scan.gif", "GIF files are not read: send the X-ray as JPEG, PNG, BMP, TIFF, WebP or DICOM."),
        ("large.bmp", "The file is larger than 20,971,520 bytes: send a smaller or a compressed"),
        (
            "none.jpg",
            "The object cannot be read, S3 answers NoSuchKey (The specified key does not exist.): check the key.",
        ),
        ("%ff.jpg", "The object's key is not URL-encoded UTF-8, as a manifest's keys must be."),
    ],
)
def test_object_that_would_fail_again_fails_for_good(function: BatchFunction, key: str, sentence: str) -> None:
    code, text = function.result(event_2(key))
    assert code == "PermanentFailure"
    assert text.startswith(sentence)


def test_each_task_has_its_own_result(function: BatchFunction) -> None:
    results = function.invoke(event_2("text.jpg", "versioned.jpg", "none.jpg"))["results"]
    assert [result["resultCode"] for result in results] == ["PermanentFailure", "Succeeded", "PermanentFailure"]


def test_bucket_that_is_not_there_fails_for_good(function: BatchFunction) -> None:
    code, text = function.result(event_2("a.jpg", bucket="no-such-bucket-at-all"))
    assert code == "PermanentFailure"
    assert text.startswith("The object cannot be read, S3 answers NoSuchBucket (The specified bucket does not exist): ")


def test_model_is_loaded_once_and_no_key_is_logged(function: BatchFunction, moto: Moto) -> None:
    assert function.result(event_2("versioned.jpg"))[0] == "Succeeded"
    before = len(moto.requests())
    for _ in range(3):
        assert function.result(event_2("versioned.jpg"))[0] == "Succeeded"
    asked = moto.requests()[before:]
    assert [request.partition("?")[0] for request in asked] == [f"GET /{XRAYS}/versioned.jpg"] * 3
    assert "versioned" not in function.log()


OTHER_EVENTS = {
    "of a Function URL": {"version": "2.0", "rawPath": "/predict"},
    "of schema 1.0": event_2("versioned.jpg") | {"invocationSchemaVersion": "1.0"},
}


@pytest.mark.parametrize("name", OTHER_EVENTS)
def test_other_event_is_refused(function: BatchFunction, name: str) -> None:
    with pytest.raises(InvocationError) as error:
        function.api.invoke(OTHER_EVENTS[name], 60, function.process)
    assert (
        "answers only S3 Batch Operations, with invocation schema 2.0: for requests, deploy the image with app.handler."
        in str(error.value)
    )
    assert function.result(event_2("versioned.jpg"))[0] == "Succeeded"


def test_weights_that_are_not_to_be_had_are_asked_for_again(moto: Moto, versions: list[str], tmp_path: Path) -> None:
    assert versions
    environment = {"AWS_ENDPOINT_URL": moto.endpoint, "MODEL_BUCKET": "weights-that-come-late"}
    with BatchFunction(tmp_path, environment) as function:
        code, text = function.result(event_2("versioned.jpg"))
        assert code == "TemporaryFailure"
        assert text.startswith("The served release cannot be read from s3://weights-that-come-late/current.json")
        function.wait_for_log("", "Task dGFza2lkZ29lc2hlcmUK0: The served release cannot be read")

        moto.make_bucket("weights-that-come-late")
        weights = moto.s3().get_object(Bucket=WEIGHTS, Key=WEIGHTS_NAME)["Body"].read()
        moto.s3().put_object(Bucket="weights-that-come-late", Key=WEIGHTS_NAME, Body=weights)
        assert function.result(event_2("versioned.jpg"))[0] == "Succeeded"


DENIED = (
    ", S3 answers AccessDenied: grant s3:GetObject and s3:ListBucket, without which S3 says the same of a missing "
    "object, and kms:Decrypt if KMS encrypts the object."
)
KEY = (
    ", S3 answers KMS.DisabledException: check in KMS that the object's key exists and is enabled, and that you may "
    "use it."
)


@pytest.mark.slow
def test_what_may_pass_is_a_temporary_failure_and_what_will_not_a_permanent_one(weights: Path, tmp_path: Path) -> None:
    answers: dict[str, tuple[Answer, str, str]] = {
        "busy.jpg": (refusal(503, "SlowDown"), "TemporaryFailure", ", S3 answers SlowDown after "),
        "error.jpg": (refusal(500, "InternalError"), "TemporaryFailure", ", S3 answers InternalError after "),
        "expired.jpg": (
            refusal(400, "ExpiredToken"),
            "TemporaryFailure",
            ", S3 answers ExpiredToken: log in to AWS again, or renew the access keys.",
        ),
        "cut.jpg": (cut(XRAY, 1000), "TemporaryFailure", " ("),
        "denied.jpg": (refusal(403, "AccessDenied"), "PermanentFailure", DENIED),
        "archived.jpg": (
            refusal(403, "InvalidObjectState"),
            "PermanentFailure",
            ", S3 answers InvalidObjectState: restore the object from its archive first (aws s3api restore-object).",
        ),
        "locked.jpg": (refusal(400, "KMS.DisabledException"), "PermanentFailure", KEY),
        "moved.jpg": (
            refusal(400, "IllegalLocationConstraintException"),
            "PermanentFailure",
            ", S3 answers IllegalLocationConstraintException: set AWS_REGION and AWS_DEFAULT_REGION to the bucket's",
        ),
    }
    objects = {f"/{XRAYS}/{key}": [answer] for key, (answer, *_) in answers.items()}
    with (
        serving(objects | {f"/{XRAYS}/good.jpg": [whole(XRAY)]}) as s3,
        BatchFunction(tmp_path, {"AWS_ENDPOINT_URL": s3.endpoint, "MODEL_PATH": str(weights)}) as function,
    ):
        assert function.result(event_2("good.jpg"))[0] == "Succeeded"  # it has started
        for key, (_, code, reason) in answers.items():
            found, text = function.result(event_2(key), timeout=20)  # of which few are for trying again
            assert found == code
            assert text.startswith(f"The object cannot be read{reason}")
            is_tried_again = s3.count(f"/{XRAYS}/{key}") > 1
            assert is_tried_again == (code == "TemporaryFailure" and "expired" not in key)
        assert "busy" not in function.log()


@pytest.mark.slow
def test_what_passes_within_the_invocations_time_is_no_failure(weights: Path, tmp_path: Path) -> None:
    faults = [refusal(503, "SlowDown"), cut(XRAY, 1000), refusal(429, "TooManyRequests"), reset, cut(XRAY, 0)]
    with (
        serving({f"/{XRAYS}/xray.jpg": [*faults, whole(XRAY)]}) as s3,
        BatchFunction(tmp_path, {"AWS_ENDPOINT_URL": s3.endpoint, "MODEL_PATH": str(weights)}) as function,
    ):
        assert function.result(event_2("xray.jpg"))[0] == "Succeeded"
        assert s3.count(f"/{XRAYS}/xray.jpg") == len(faults) + 1
