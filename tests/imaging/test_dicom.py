"""DICOM files wherever images are read."""

import csv
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from mangum import Mangum
from PIL import Image
from pydicom.uid import (
    JPEGLSLossless,
    RLELossless,
)

from pneumonia.__main__ import main
from pneumonia.imaging.preprocessing import resize
from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.predictor import Predictor
from pneumonia.training.channels import scan_channels
from pneumonia.training.images import load_channel
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.dicom_files import PATIENT, radiograph
from tests.builders.dicom_files import dicom as made
from tests.builders.images import encoded
from tests.builders.missing_packages import refusal_without
from tools.stand_ins.events import function_url_event, multipart

OTHER, SIDE = "dicom_not_a_chest_radiograph", "dicom_not_a_frontal_view"


@pytest.mark.processes
def test_where_pydicom_is_missing_a_sentence_says_so(tmp_path: Path) -> None:
    path = tmp_path / "xray.dcm"
    path.write_bytes(made(radiograph(8)))
    assert refusal_without("pydicom", path).startswith(
        "Reading DICOM files needs pydicom and imagecodecs: install them"
    )


@pytest.fixture(scope="module")
def client(weights: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Predictor(Weights(weights)))) as client:
        yield client


def full_range() -> Image.Image:
    """Return a drawn radiograph that uses all of 8 bits, so that showing it as DICOM changes nothing of it."""
    image = draw_radiograph(Random(0), "PNEUMONIA")
    image.putpixel((0, 0), 0)
    image.putpixel((1, 0), 255)
    return image


def test_the_api_answers_for_dicom_as_for_the_same_image(client: TestClient) -> None:
    png = client.post("/predict", files={"file": encoded(full_range(), "PNG")}).json()
    answer = client.post("/predict", files={"file": ("whatever.jpg", made(np.asarray(full_range())))}).json()
    assert answer == png

    lateral = made(np.asarray(full_range()), RLELossless, Modality="CT", ViewPosition="LL")
    parameters = {"explain": "true", "preview": "true"}
    shown = client.post("/predict", files={"file": lateral}, params=parameters).json()
    assert shown["probabilities"] == png["probabilities"]
    assert shown["warnings"] == [*png["warnings"], OTHER, SIDE]
    assert {"heatmap", "preview"} <= shown.keys()

    files = [("file", lateral), ("file", made(None)), ("file", encoded(full_range(), "PNG"))]
    first, second, third = client.post("/predict/batch", files=files).json()["results"]
    assert first["warnings"] == [*png["warnings"], OTHER, SIDE]
    assert (second["status"], third["warnings"]) == (415, png["warnings"])


def test_the_schema_tells_what_the_warnings_mean(client: TestClient) -> None:
    fields = client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]["properties"]
    assert all(f"`{name}`" in fields["warnings"]["description"] for name in (OTHER, SIDE))


def test_a_lambda_event_may_bring_dicom(weights: Path) -> None:
    body, content_type = multipart(
        "file", "xray.dcm", made(np.asarray(full_range()), JPEGLSLossless), "application/dicom"
    )
    event = function_url_event("POST", "/predict", body, {"Content-Type": content_type})
    context = SimpleNamespace(aws_request_id="1", get_remaining_time_in_millis=lambda: 60_000)
    response = Mangum(create_app(Predictor(Weights(weights))), lifespan="off")(event, context)
    assert (response["statusCode"], json.loads(response["body"])["warnings"]) == (200, ["uncalibrated"])


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


def test_nothing_about_the_patient_is_logged_or_answered(
    client: TestClient, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    good = made(radiograph(8), RLELossless, Modality="CT", SpecificCharacterSet=PATIENT)
    # A name wherever the reader looks: as the modality, as a number, in an element of an unknown type, cut off within.
    files = [
        good,
        made(radiograph(8), Modality=PATIENT),
        made(radiograph(8), StudyDate=PATIENT[:8]),
        replaced(made(radiograph(8), WindowCenter="1", WindowWidth="1"), b"DS\x02\x001 ", b"DS\x02\x00Zw"),
        made(radiograph(8), PhotometricInterpretation=PATIENT[:14]),
        replaced(good, b"\x10\0\x10\0PN", b"\x10\0\x10\0??"),
        replaced(good, b"\x28\0\x10\0US", b"\x28\0\x10\0PN"),
        *(good[: len(good) * percent // 100] for percent in range(10, 100, 10)),
        good[: good.index(PATIENT.encode()) + 5],
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings(
            "ignore", module="pydicom"
        )  # as importing pneumonia.imaging.dicom has it outside of tests
        answers = [client.post("/predict", files={"file": data}).text for data in files]
    written = capfd.readouterr()
    for text in [*answers, caplog.text, written.out, written.err]:
        assert not any(name.lower() in text.lower() for name in ("Zwiebel", "Eulalia", "4711-0815"))


def test_a_batch_answers_for_dicom_and_tells_its_warnings(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "IM000001").write_bytes(made(np.asarray(full_range()), ViewPosition="LL"))
    (folder / "same.png").write_bytes(encoded(full_range(), "PNG"))
    (folder / "film.dcm").write_bytes(made(radiograph(8), NumberOfFrames=2))
    assert main(["batch", str(folder), str(tmp_path / "answers.csv"), "--weights", str(weights)]) == 3
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    image, png = rows["IM000001"], rows["same.png"]
    assert "several frames" in rows["film.dcm"]["error"]
    assert image["probability_pneumonia"] == png["probability_pneumonia"]
    assert image["warnings"].split() == [*png["warnings"].split(), SIDE]


def test_a_channel_may_hold_dicom(tmp_path: Path) -> None:
    for label in ("NORMAL", "PNEUMONIA"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.dcm").write_bytes(made(np.asarray(full_range()), RLELossless))
    images = load_channel(scan_channels({"train": tmp_path})["train"], 1)
    assert np.array_equal(images.pixels[0].numpy(), resize(full_range())[:1])
