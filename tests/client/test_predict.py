"""`pneumonia predict --url`: the answers, errors and exit statuses of the local command, from a server."""

import base64
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx2
import numpy as np
import pytest

from pneumonia.__main__ import main
from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.commands import sentence
from tests.builders.dicom_files import dicom
from tests.builders.images import encoded
from tools.browser import TIMEOUT, serving
from tools.stand_ins.function_url import REGION, FunctionUrl, RefusedError

pytestmark = pytest.mark.processes

PREDICTION = {
    "prediction": "NORMAL",
    "confidence": 0.9,
    "probabilities": {"NORMAL": 0.9, "PNEUMONIA": 0.1},
    "model_version": "1",
    "warnings": [],
}
NO_PREDICTIONS = [
    json.dumps(PREDICTION | {name: value})
    for name, value in (
        ("confidence", math.nan),
        ("confidence", 7.0),
        ("probabilities", [0.9, 0.1]),
        ("probabilities", {"NORMAL": 0.9}),
        ("probabilities", {"NORMAL": math.inf, "PNEUMONIA": 0.1}),
        ("model_version", 1),
        ("warnings", "uncertain"),
        ("warnings", None),
    )
] + ["[" * 100_000]
FORBIDDEN = RefusedError(403, "AccessDeniedException", {"Message": "Forbidden"})


@pytest.fixture(scope="module")
def local(weights: Path) -> Iterator[str]:
    """The address of the API under uvicorn."""
    with serving(weights) as served:
        httpx2.get(f"{served.address}/health", timeout=TIMEOUT / 1000)
        yield served.address


@pytest.fixture
def xrays(tmp_path: Path) -> list[str]:
    """Files of all kinds, good and bad, with names of all kinds."""
    radiograph = draw_radiograph(Random(0), "PNEUMONIA")
    contents = {
        "xray.png": encoded(radiograph, "PNG"),
        'Straße 7; rm -rf "%20&.jpg': encoded(radiograph, "JPEG"),
        os.fsdecode(b"latin \xe4\n.jpg"): encoded(radiograph, "JPEG"),
        "radiograph.dcm": dicom(np.asarray(radiograph)),
        "text.txt": b"no image",
        "empty": b"",
        "animation.gif": encoded(radiograph, "GIF"),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with (tmp_path / "huge.dcm").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    return [str(tmp_path / name) for name in [*contents, "huge.dcm", "missing.jpg", "."]] + ["s3://bucket/xray.jpg"]


def lines(argv: list[str], capsys: pytest.CaptureFixture[str], status: int) -> list[dict[str, object]]:
    """Return what a command printed, a line of JSON each; probabilities rounded, as they depend on a batch's size."""
    assert main(argv) == status
    printed = capsys.readouterr().out.splitlines()
    return [json.loads(line, parse_float=lambda number: round(float(number), 6)) for line in printed]


def test_a_function_answers_as_a_model_on_this_machine(
    url: FunctionUrl, xrays: list[str], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = lines(["predict", *xrays, "--weights", str(weights)], capsys, 3)
    assert lines(["predict", *xrays, "--url", url.address, "--sign", REGION], capsys, 3) == expected
    assert [("prediction" in line) for line in expected] == [True] * 4 + [False] * 7
    assert url.requests == ["POST /predict"] * 7  # what cannot be read here is not sent
    assert url.connections == 1


def test_a_server_without_signatures_does_too(
    local: str, xrays: list[str], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = lines(["predict", *xrays, "--weights", str(weights)], capsys, 3)
    assert lines(["predict", *xrays, "--url", f"{local}/predict"], capsys, 3) == expected
    assert lines(["predict", xrays[0], "--url", local.removeprefix("http://")], capsys, 0) == expected[:1]


def test_four_megabytes_arrive_and_more_are_told_before_they_are_sent(
    url: FunctionUrl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = tmp_path / "small.dcm", tmp_path / "large.dcm"
    small.write_bytes(dicom(np.zeros((2048, 2048), np.uint8)))
    large.write_bytes(dicom(np.zeros((2048, 2560), np.uint8)))
    answered, refused = lines(["predict", str(small), str(large), "--url", url.address, "--sign", REGION], capsys, 3)
    assert "prediction" in answered
    assert small.stat().st_size > 4 * 1024 * 1024
    assert refused["error"] == (
        "The upload is larger than the 4,718,592 bytes that Lambda takes: save the X-ray as a JPEG, or smaller."
    )
    assert url.requests == ["POST /predict"]


def test_no_name_of_a_file_is_sent(url: FunctionUrl, xrays: list[str]) -> None:
    main(["predict", xrays[0], "--url", url.address, "--sign", REGION])
    (event,) = url.events
    assert b'filename="xray"' in base64.b64decode(event["body"])
    assert "xray.png" not in json.dumps(event) + base64.b64decode(event["body"]).decode("latin-1")


def test_what_refuses_every_image_ends_the_command(
    url: FunctionUrl, xrays: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    url.answers = [FORBIDDEN]
    assert sentence(["predict", *xrays, "--url", url.address, "--sign", REGION], capsys) == (
        f"{url.address} refuses, the server answers AccessDeniedException (Forbidden): grant your user or role "
        "lambda:InvokeFunctionUrl and lambda:InvokeFunction on the function's alias."
    )
    assert url.requests == ["POST /predict"]


def test_what_concerns_one_image_leaves_the_others_their_answers(
    url: FunctionUrl, xrays: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    too_large = {"Message": "Request must be smaller than 6291456 bytes for the InvokeFunction operation"}
    url.answers = [RefusedError(413, "", too_large), RefusedError(429, "", {"message": "Rate Exceeded."})]
    first, second = lines(["predict", *xrays[:2], "--url", url.address, "--sign", REGION], capsys, 3)
    assert first["error"] == (
        f"{url.address} refuses: the server answers 413 Request Entity Too Large ({too_large['Message']})."
    )
    assert "prediction" in second  # after a pause
    assert len(url.requests) == 3


def test_the_sentence_of_the_api_becomes_the_error_of_the_file(
    local: str, xrays: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (answer,) = lines(["predict", xrays[0], "--url", f"{local}/prefix"], capsys, 3)
    assert answer["error"] == "There is nothing at this address: /docs lists what there is."


@pytest.mark.parametrize(
    ("status", "headers", "body", "told"),
    [
        (200, {"Content-Type": "text/html"}, "<h1>Log in</h1>", " answers, but not with a prediction (text/html): "),
        (200, {"Content-Type": "application/json"}, "[]", " answers, but not with a prediction (application/json): "),
        (
            200,
            {},
            '{"prediction": "PNEUMONIA", "confidence": "0.9"}',
            " answers, but not with a prediction (no type): ",
        ),
        *((200, {}, body, " answers, but not with a prediction (no type): check") for body in NO_PREDICTIONS),
        (204, {}, "", " answers, but not with a prediction (no type): check the address."),
        (404, {"Content-Type": "text/html"}, "<h1>Nothing</h1>", " refuses: the server answers 404 Not Found."),
        (404, {}, "no such page", " refuses: the server answers 404 Not Found (no such page)."),
        (405, {}, '{"message": "Not allowed"}', " refuses: the server answers 405 Method Not Allowed (Not allowed)."),
        (
            308,
            {"Location": "https://xrays.example.org/predict"},
            "",
            " refuses, the server answers 308 Permanent Redirect: name https://xrays.example.org/predict instead.",
        ),
    ],
)
def test_a_server_that_is_another_is_told(
    url: FunctionUrl,
    xrays: list[str],
    status: int,
    headers: dict[str, str],
    body: str,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url.invoke = lambda _: {"statusCode": status, "headers": headers, "body": body}
    told_here = sentence(["predict", *xrays, "--url", url.address, "--sign", REGION], capsys)
    assert told_here.startswith(f"{url.address}{told}")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--url", "s3://xrays"], "'s3://xrays' is not the address of a server: "),
        (["--url", ""], "'' is not the address of a server: "),
        (["--url", "localhost", "--weights", "a"], "--weights names a model on this machine, and --url a server: "),
        (["--sign", REGION], "--sign is for requests to a server: name it with --url."),
        (["--url", "http://127.0.0.1:1"], "http://127.0.0.1:1 cannot be asked (Connection refused): "),
    ],
)
def test_what_cannot_be_asked_is_told(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sentence(["predict", "docs/tutorial/IM-0086-0001.jpeg", *argv], capsys).startswith(told)


def test_asking_a_server_imports_no_torch(url: FunctionUrl, xrays: list[str]) -> None:
    argv = ["predict", xrays[0], "--url", url.address, "--sign", REGION]
    program = f"import sys; from pneumonia.__main__ import main; main({argv}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert '"prediction"' in done.stdout
