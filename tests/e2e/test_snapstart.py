"""The function under Lambda SnapStart, by the real runtime client.

No snapshot is taken here: the process waits where Lambda would take one, in `/restore/next`, and goes on as the process
that Lambda restores would. What changes in the days between changes while it waits.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless

from pneumonia.network.contract import ONNX_NAME, WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from tests.builders.dicom_files import dicom
from tests.builders.function import BUCKET, Function, Response
from tests.builders.images import XRAY, encoded
from tests.builders.releases import bucket_with
from tests.builders.weights import write_weights
from tools.stand_ins.events import function_url_event, multipart
from tools.stand_ins.role_and_s3 import RoleAndS3
from tools.stand_ins.runtime_api import InvocationError

OLD, NEW = "20260102-030405-0a1b2c3d", "20260203-040506-1b2c3d4e"
CURRENT = f"/{BUCKET}/current.json"
WITHOUT_KEY = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": ""}
GRAY = Image.linear_gradient("L")
DEEP = np.arange(64_000, dtype=np.uint16).reshape(250, 256)
pytestmark = pytest.mark.usefixtures("engine")
FILES = {
    "JPEG": XRAY,
    "progressive JPEG": encoded(GRAY, "JPEG", progressive=True),
    "lossless JPEG": bytes(imagecodecs.jpeg8_encode(DEEP, lossless=True, predictor=1, bitspersample=16)),
    "PNG": encoded(GRAY, "PNG"),
    "PNG, 16-bit colours": bytes(imagecodecs.png_encode(np.stack([DEEP, DEEP, DEEP], axis=2))),
    "BMP": encoded(GRAY, "BMP"),
    "TIFF": encoded(GRAY, "TIFF"),
    "TIFF, floats": encoded(GRAY.convert("F"), "TIFF"),
    "TIFF, JPEG": encoded(GRAY, "TIFF", compression="jpeg"),
    "WebP": encoded(GRAY, "WEBP"),
    "DICOM": dicom(DEEP, ExplicitVRLittleEndian),
    "DICOM, JPEG": dicom((DEEP >> 8).astype(np.uint8), JPEGBaseline8Bit),
    "DICOM, lossless JPEG": dicom(DEEP, JPEGLosslessSV1),
    "DICOM, JPEG-LS": dicom(DEEP, JPEGLSLossless),
    "DICOM, JPEG 2000": dicom(DEEP, JPEG2000Lossless),
}

# A handler that tells what an invocation imports, and whether it draws the random numbers that the snapshot would give.
WATCHING = """
import random, sys
import app

torch = sys.modules.get("torch")  # not with every engine

def draw():
    return [random.random(), *([torch.rand(1).item()] if torch else [])]

states = random.getstate(), torch and torch.get_rng_state()
of_the_snapshot = draw()
random.setstate(states[0])
if torch:
    torch.set_rng_state(states[1])

def handler(event, context):
    before = set(sys.modules)
    response = app.handler(event, context)
    shared = [value == other for value, other in zip(draw(), of_the_snapshot)]
    return response | {"imported": sorted(set(sys.modules) - before), "shared": shared}
"""
FAILING = """
import app
from snapshot_restore_py import register_HOOK

@register_HOOK
def fail():
    raise RuntimeError("a hook of another module fails")

handler = app.handler
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that call everything NORMAL."""
    state = ResNet18().state_dict()
    state["fc.bias"] = torch.tensor([1000.0, 0.0])
    return write_weights(state, tmp_path_factory.mktemp("other") / WEIGHTS_NAME)


@pytest.fixture
def aws(weights: Path) -> Iterator[RoleAndS3]:
    """An S3 that serves the release OLD."""
    with RoleAndS3() as aws:
        promote(aws, weights, OLD)
        yield aws


def promote(aws: RoleAndS3, weights: Path, version: str) -> None:
    """Make a release the served one."""
    aws.objects |= {f"/{BUCKET}/{key}": data for key, data in bucket_with(weights, version).items()}


Start = Callable[..., AbstractContextManager[Function]]


@pytest.fixture
def start(aws: RoleAndS3, tmp_path: Path) -> Start:
    """Return what starts an instance of which Lambda would take a snapshot, with a handler module of the test's own."""

    @contextlib.contextmanager
    def started(module: str | None = None, **environment: str) -> Iterator[Function]:
        (tmp_path / "own.py").write_text(module or "from app import handler")
        variables = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start", "PYTHONPATH": str(tmp_path)}
        with Function(tmp_path, variables | aws.environment | environment, "own.handler") as function:
            yield function

    return started


def snapshot(function: Function) -> None:
    """Wait until the instance is where Lambda takes the snapshot."""
    function.api.wait_for_snapshot(process=function.process)


def predict(function: Function, image: bytes = XRAY, query: str = "") -> Response:
    body, content_type = multipart("file", "xray", image, "application/octet-stream")
    return function.invoke(function_url_event("POST", f"/predict{query}", body, {"Content-Type": content_type}))


def version(response: Response) -> str:
    """Return the release that has answered."""
    assert response["statusCode"] == 200, response
    return str(json.loads(response["body"])["model_version"])


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("It does not happen.")


def test_the_model_is_loaded_and_tried_before_the_snapshot_and_the_bucket_looked_at_after_the_restore(
    start: Start, aws: RoleAndS3
) -> None:
    with start() as function:
        snapshot(function)
        assert function.api.calls == ["GET restore/next"]
        function.wait_for_log("", f"Model {OLD} is loaded and tried: the snapshot can be taken.")
        assert '"Requests"' not in function.log_of("")  # what is tried is no patient's image
        before = len(aws.asked)
        function.api.restore()
        wait_for(lambda: function.api.calls == ["GET restore/next", "GET invocation/next"])
        assert aws.asked[before:] == [aws.ENDPOINT, CURRENT]
        assert version(predict(function)) == OLD
        assert aws.asked[before:] == [aws.ENDPOINT, CURRENT]


def test_first_answers_of_every_format_need_no_import_and_no_load(start: Start) -> None:
    with start(WATCHING) as function:
        snapshot(function)
        function.api.restore()
        imported = {kind: predict(function, image)["imported"] for kind, image in FILES.items()}
        imported["with a heatmap"] = predict(function, XRAY, "?explain=1&preview=1")["imported"]
        pages = {path: function.invoke(function_url_event("GET", path)) for path in ("/", "/docs", "/ready", "/health")}
        function.wait_for_log(function.api.request_ids[-1], "/health")
        assert function.log_of("").count("\tloaded s3://") == 1
    assert {kind: names for kind, names in imported.items() if names} == {}
    assert {path: response["imported"] for path, response in pages.items() if response["imported"]} == {}


@pytest.mark.parametrize("engine", ["onnx"], indirect=True)
def test_with_onnx_first_answers_need_no_import_and_nothing_of_torch(start: Start, aws: RoleAndS3, other: Path) -> None:
    watching = """
import sys
import app

def handler(event, context):
    before = set(sys.modules)
    response = app.handler(event, context)
    imported = {*sys.modules} - before | {"torch", "torch._C", "onnx"} & sys.modules.keys()
    return response | {"imported": sorted(imported)}
"""
    with start(watching) as function:
        snapshot(function)
        promote(aws, other, NEW)
        function.api.restore()
        answers = {kind: predict(function, image) for kind, image in FILES.items()}
        answers["with a heatmap"] = predict(function, XRAY, "?explain=1&preview=1")
    assert {version(answer) for answer in answers.values()} == {NEW}
    assert {kind: answer["imported"] for kind, answer in answers.items() if answer["imported"]} == {}


def test_restored_instances_draw_random_numbers_of_their_own(start: Start) -> None:
    with start(WATCHING) as function:
        snapshot(function)
        function.api.restore()
        assert not any(predict(function)["shared"])


def test_release_promoted_after_the_snapshot_gives_the_first_answer(start: Start, aws: RoleAndS3, other: Path) -> None:
    with start() as function:
        snapshot(function)
        promote(aws, other, NEW)
        function.api.restore()
        assert version(predict(function)) == NEW


@pytest.mark.parametrize(
    "environment",
    [{}, WITHOUT_KEY, WITHOUT_KEY | dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), "us-iso-east-1")],
    ids=["an access key too", "as Lambda has it", "read by boto3"],
)
def test_credentials_of_the_snapshot_may_have_expired(
    start: Start, aws: RoleAndS3, other: Path, environment: dict[str, str]
) -> None:
    with start(**environment) as function:
        snapshot(function)
        promote(aws, other, NEW)
        aws.renew_credentials()
        function.api.restore()
        assert version(predict(function)) == NEW
    assert aws.refused == []


def test_no_connection_is_open_in_the_snapshot(start: Start, aws: RoleAndS3, other: Path) -> None:
    with start() as function:
        snapshot(function)
        wait_for(lambda: not aws.connections)
        used = set(aws.clients)
        promote(aws, other, NEW)
        function.api.restore()
        assert version(predict(function)) == NEW
        assert not used & set(aws.clients[len(used) :])


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (RoleAndS3.stop, "cannot be read: Lambda's endpoint gives none (Connection refused)."),
        (
            RoleAndS3.refuse,
            f"cannot be read from s3://{BUCKET}/current.json, S3 answers ExpiredToken",
        ),
        (
            RoleAndS3.forget_role,
            "Lambda's endpoint answers 404 (cannot get credentials for the provided token)",
        ),
        (RoleAndS3.fall_silent, "cannot be read: Lambda's endpoint gives none (timed out)."),
    ],
    ids=["stopped", "refused", "no role", "silent"],
)
def test_restore_without_s3_serves_the_model_of_the_snapshot(
    start: Start, aws: RoleAndS3, fault: Callable[[RoleAndS3], None], sentence: str
) -> None:
    with start() as function:
        snapshot(function)
        fault(aws)
        function.api.restore()
        assert version(predict(function)) == OLD
        function.wait_for_log("", f"Model {OLD} serves on, as the bucket's release cannot be taken over: ")
        function.wait_for_log("", sentence)
        function.wait_for_log("", f"Restored from a snapshot: model {OLD} serves.")
        assert "POST restore/error" not in function.api.calls


def test_release_that_cannot_be_loaded_leaves_the_model_of_the_snapshot(
    start: Start, aws: RoleAndS3, other: Path
) -> None:
    with start() as function:
        snapshot(function)
        promote(aws, other, NEW)
        for name in (WEIGHTS_NAME, ONNX_NAME):
            aws.objects[f"/{BUCKET}/releases/{NEW}/{name}"] = b"something else"
        function.api.restore()
        assert version(predict(function)) == OLD
        function.wait_for_log("", "but its manifest says")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda aws: aws.objects.clear(), "promote a model"),
        (RoleAndS3.stop, "cannot be read: Lambda's endpoint gives none (Connection refused)."),
        (RoleAndS3.refuse, "S3 answers ExpiredToken"),
    ],
    ids=["empty bucket", "stopped", "refused"],
)
def test_without_a_model_there_is_no_snapshot(
    start: Start, aws: RoleAndS3, fault: Callable[[RoleAndS3], None], sentence: str
) -> None:
    fault(aws)
    with start() as function, pytest.raises(InvocationError, match="WeightsUnavailableError") as raised:
        snapshot(function)
    assert sentence in raised.value.document["errorMessage"]
    assert function.api.calls == ["POST init/error"]


def test_model_whose_outputs_are_no_numbers_is_not_taken(start: Start, aws: RoleAndS3, tmp_path: Path) -> None:
    state = ResNet18().state_dict()
    state["layer4.1.bn2.weight"].fill_(3e35)
    state["fc.weight"].fill_(1e4)
    promote(aws, write_weights(state, tmp_path / WEIGHTS_NAME), NEW)
    with start() as function, pytest.raises(InvocationError, match=f"release {NEW} are not finite"):
        snapshot(function)
    assert function.api.calls == ["POST init/error"]


def test_hook_that_fails_before_the_snapshot_is_reported(start: Start) -> None:
    with start(FAILING.replace("HOOK", "before_snapshot")) as function:
        with pytest.raises(InvocationError, match="a hook of another module fails"):
            snapshot(function)
        assert function.api.calls == ["POST init/error"]


def test_hook_that_fails_after_the_restore_is_reported(start: Start) -> None:
    with start(FAILING.replace("HOOK", "after_restore")) as function:
        snapshot(function)
        function.api.restore()
        with pytest.raises(InvocationError, match="a hook of another module fails"):
            predict(function)
        assert function.api.calls == ["GET restore/next", "POST restore/error"]
