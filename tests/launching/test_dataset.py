from collections.abc import Callable, Iterable
from pathlib import Path

import boto3
import pytest

from pneumonia.errors import DataError
from pneumonia.launching.dataset import check_dataset
from pneumonia.training.channels import SPLITS
from tools.stand_ins.moto import REGION, Moto, running_moto

Put = Callable[[Iterable[str]], None]
Check = Callable[[str], str]

RIGHT = [
    f"{channel}/{name}" for channel in SPLITS for name in ("NORMAL/IM-0001-0001.jpeg", "PNEUMONIA/person1_virus_1.jpeg")
]


@pytest.fixture
def put(moto: Moto, bucket: str) -> Put:
    """Puts empty objects into the bucket."""

    def put(keys: Iterable[str]) -> None:
        for key in keys:
            moto.s3().put_object(Bucket=bucket, Key=key, Body=b"")

    return put


@pytest.fixture
def refusal(bucket: str) -> Check:
    """Returns what is wrong with the channels in a folder, "" for nothing, with BUCKET for the bucket's name."""

    def refusal(prefix: str) -> str:
        try:
            check_dataset(boto3.Session(region_name=REGION), bucket, prefix)
        except DataError as error:
            return str(error).replace(bucket, "BUCKET")
        return ""

    return refusal


def changed(old: str, new: str | None) -> list[str]:
    """Return the right keys, with a part of some replaced by another, or without these keys."""
    kept = [key for key in RIGHT if new is not None or old not in key]
    return [key.replace(old, new or old) for key in kept]


@pytest.mark.parametrize("prefix", ["", "chest_xray", "sets/one"])
def test_channels_as_the_job_needs_them_pass(put: Put, refusal: Check, prefix: str) -> None:
    put(f"{prefix}/{key}".lstrip("/") for key in RIGHT)
    assert refusal(prefix) == ""


def test_hidden_files_and_the_objects_of_folders_are_passed_over(put: Put, refusal: Check) -> None:
    put([*RIGHT, "train/", "train/NORMAL/", "train/.DS_Store", "train/NORMAL/.DS_Store", "val/.hidden/x", "README.txt"])
    assert refusal("") == ""


WANTED = "it must hold exactly the folders NORMAL and PNEUMONIA"
BOTH = "every channel needs images of both NORMAL and PNEUMONIA."


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        pytest.param(
            changed("val/", None),
            "There are no files in s3://BUCKET/val/: upload the images there, or name another folder with --prefix.",
            id="no channel",
        ),
        pytest.param(
            [*changed("val/", None), "val/.DS_Store"],
            f"s3://BUCKET/val/ lacks NORMAL and PNEUMONIA: {WANTED}, and it has no folder at all.",
            id="hidden file only",
        ),
        pytest.param(
            [*changed("val/", None), "val/"],
            f"s3://BUCKET/val/ lacks NORMAL and PNEUMONIA: {WANTED}, and it has no folder at all.",
            id="object of the folder only",
        ),
        pytest.param(
            [*changed("val/", None), "val/NORMAL/", "val/PNEUMONIA/", "val/PNEUMONIA/.DS_Store"],
            f"There are no images in val/NORMAL, val/PNEUMONIA: {BOTH}",
            id="objects of class folders only",
        ),
        pytest.param(
            changed("train/NORMAL", "train/Normal"),
            f"s3://BUCKET/train/ lacks NORMAL: {WANTED}, and it has Normal, PNEUMONIA.",
            id="other letters",
        ),
        pytest.param(
            changed("test/PNEUMONIA", None),
            f"s3://BUCKET/test/ lacks PNEUMONIA: {WANTED}, and it has NORMAL.",
            id="one class",
        ),
        pytest.param(
            [*RIGHT, "train/COVID/1.jpeg", "train/__MACOSX/._1.jpeg"],
            f"s3://BUCKET/train/ has more than two classes: {WANTED}, remove COVID, __MACOSX.",
            id="more classes",
        ),
        pytest.param(
            [key.replace("NORMAL/", "").replace("PNEUMONIA/", "") for key in RIGHT],
            " ".join(
                f"s3://BUCKET/{channel}/ lacks NORMAL and PNEUMONIA: {WANTED}, and it has no folder at all."
                for channel in SPLITS
            ),
            id="no class folders",
        ),
        pytest.param(
            changed("val/", "val/val/"),
            f"s3://BUCKET/val/ lacks NORMAL and PNEUMONIA: {WANTED}, and it has val.",
            id="channel within itself",
        ),
        pytest.param(
            changed("val/NORMAL/IM-0001-0001.jpeg", "val/NORMAL/person7_bacteria_1.jpeg"),
            "The class folders look swapped: every file of val/NORMAL is named as PNEUMONIA are, "
            "person7_bacteria_1.jpeg among them. Exchange the folders, or rename the files if they lie right.",
            id="swapped",
        ),
        pytest.param(
            changed("val/NORMAL/", "val/NORMAL/more/"),
            "val/NORMAL must hold images alone, and has the folders more.",
            id="folder among the images",
        ),
        pytest.param(
            [*changed("val/NORMAL/IM-0001-0001.jpeg", "val/NORMAL/Thumbs.db")],
            f"There are no images in val/NORMAL: {BOTH}",
            id="Windows' hidden file only",
        ),
        pytest.param(
            [*RIGHT, "val/\x1b[31m/1.jpeg", "val//2.jpeg"],
            rf"s3://BUCKET/val/ has more than two classes: {WANTED}, remove $'\x1b[31m', /.",
            id="control code and no name",
        ),
        pytest.param(
            [
                *changed("val/", None),
                "val/Normal/1.jpeg",
                "test/NORMAL/1.jpeg",
                "test/PNEUMONIA/",
                "train/NORMAL/1.png",
            ],
            f"s3://BUCKET/val/ lacks NORMAL and PNEUMONIA: {WANTED}, and it has Normal.",
            id="some right",
        ),
    ],
)
def test_what_the_job_would_refuse_is_told(put: Put, refusal: Check, keys: list[str], sentence: str) -> None:
    put(keys)
    assert refusal("") == sentence


def test_several_problems_are_told_together(put: Put, refusal: Check) -> None:
    put(["x/train/Normal/1.jpeg", "x/train/PNEUMONIA/2.jpeg", "x/test/NORMAL/", "x/test/PNEUMONIA/3.jpeg"])
    assert refusal("x") == (
        "There are no files in s3://BUCKET/x/val/: upload the images there, or name another folder with --prefix. "
        f"s3://BUCKET/x/train/ lacks NORMAL: {WANTED}, and it has Normal, PNEUMONIA. "
        f"There are no images in test/NORMAL: {BOTH}"
    )


@pytest.mark.parametrize(
    ("meant", "value"), [("chest_xray/chest_xray/", "chest_xray/chest_xray"), ("", '""'), ("a/", "a")]
)
def test_channels_in_another_folder_are_found(put: Put, refusal: Check, meant: str, value: str) -> None:
    put([*(meant + key for key in RIGHT), "other/file"])
    assert refusal("chest_xray") == (
        "There are no files in s3://BUCKET/chest_xray/train/ and s3://BUCKET/chest_xray/val/ and "
        f"s3://BUCKET/chest_xray/test/, but s3://BUCKET/{meant} has these folders: pass --prefix {value}."
    )


@pytest.mark.processes
def test_no_more_than_some_pages_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was not looked at is neither missed nor refused: all that was seen in a class is hidden or of the other."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    with running_moto(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        bucket = server.make_bucket("many")
        hidden = [f"train/NORMAL/.{number:02}" for number in range(10)]
        swapped = [f"train/PNEUMONIA/IM-{number:04}-0001.jpeg" for number in range(11)]
        for key in [*RIGHT, *hidden, *swapped, *(f"train/{number:02}.jpeg" for number in range(10))]:
            server.s3().put_object(Bucket=bucket, Key=key, Body=b"")
        check_dataset(boto3.Session(region_name=REGION), bucket, "")
    assert capsys.readouterr().err.splitlines() == [
        f"Only the first 10 names in s3://many/train/{folder} were checked." for folder in ("NORMAL/", "PNEUMONIA/", "")
    ]
