"""What is printed and logged where a name is hostile: the lines of a harmless one, and no character that is obeyed."""

import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import boto3
import pytest
from PIL import Image

import promote_model
import train_model
import train_sagemaker
from pneumonia import logs
from pneumonia.__main__ import main
from pneumonia.batch.predict import print_table
from pneumonia.errors import ImageError, PneumoniaError, printable
from pneumonia.network.prediction import Prediction
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.archives import model_archive
from tests.builders.images import XRAY, encoded
from tests.builders.releases import manifest_for, publish
from tools.stand_ins.moto import REGION, Moto
from tools.stand_ins.sagemaker_api import answering, changed

# What clears a terminal, rings, goes back, begins lines of its own, turns text round, and is no text at all.
HOSTILE = "a\x1b[2J\x07\r\nERROR:root:forged\x0b\x0c\x1c\x85\u2028\x9b31m\u202e\x7f" + os.fsdecode(b"\xff")
HARMLESS = "harmless"
EOL = "\r\n"
SCRIPTS = {
    "pneumonia": main,
    "promote_model.py": promote_model.main,
    "train_model.py": train_model.main,
    "train_sagemaker.py": train_sagemaker.main,
}


@pytest.fixture(scope="module")
def drawn() -> list[bytes]:
    return [encoded(draw_radiograph(Random(seed), "NORMAL"), "JPEG") for seed in range(12)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path, drawn: list[bytes]) -> Path:
    """The current folder, with the same files under each name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL_PATH", str(weights))
    monkeypatch.setenv("SM_OUTPUT_DIR", str(tmp_path))
    for name in (HARMLESS, HOSTILE):
        below = tmp_path / f"images-{name}"
        below.mkdir()
        (below / f"{name}.jpg").write_bytes(XRAY)
        (below / f"{name}.png").write_bytes(encoded(Image.new("L", (9, 9)), "PNG")[:-20])
        for place, label in enumerate(("NORMAL", "PNEUMONIA")):
            labelled = tmp_path / f"labelled-{name}" / label
            labelled.mkdir(parents=True)
            for patient in range(6):
                (labelled / f"film {place}{patient} {name}.jpeg").write_bytes(drawn[6 * place + patient])
        shutil.copytree(tmp_path / f"labelled-{name}", tmp_path / f"more-{name}" / name)
        (tmp_path / f"{name}.txt").write_text(f"missing-{name.replace(EOL, ' ')}\n", errors="surrogateescape")
        (tmp_path / f"text-{name}.tar.gz").write_text("no archive")
        (tmp_path / f"release-{name}").mkdir()
        shutil.copy(model_archive(tmp_path / f"release-{name}", weights), tmp_path / f"model-{name}.tar.gz")
    return tmp_path


# A command, with NAME where the name goes.
COMMANDS = [
    "pneumonia NAME",
    "pneumonia predict images-NAME/NAME.jpg images-NAME/NAME.png gone-NAME",
    "pneumonia predict --weights gone-NAME images-NAME/NAME.jpg",
    "pneumonia predict --weights images-NAME/NAME.png images-NAME/NAME.jpg",
    "pneumonia predict --url http://127.0.0.1:1/NAME images-NAME/NAME.jpg",
    "pneumonia predict --url http://NAME images-NAME/NAME.jpg",
    "pneumonia predict --url NAME images-NAME/NAME.jpg",
    "pneumonia predict --url http://127.0.0.1:1 --sign NAME images-NAME/NAME.jpg",
    "pneumonia predict --no-NAME x",
    "pneumonia serve --port NAME",
    pytest.param("pneumonia open NAME", marks=pytest.mark.processes),
    "pneumonia batch images-NAME answers-NAME.csv",
    "pneumonia batch NAME.txt answers-NAME.parquet",
    "pneumonia batch images-NAME answers-NAME.parquet",
    "pneumonia batch images-NAME images-NAME/answers.csv",
    "pneumonia batch images-NAME answers.NAME",
    "pneumonia batch gone-NAME answers.csv",
    "pneumonia batch s3://NAME/NAME answers.csv",
    "pneumonia split labelled-NAME split-NAME",
    "pneumonia split more-NAME split-NAME",
    "pneumonia split gone-NAME split-NAME",
    "pneumonia split labelled-NAME split --patients NAME(",
    "pneumonia evaluate NAME labelled-NAME --output report",
    pytest.param("pneumonia evaluate MODEL labelled-NAME --output report-NAME --num-workers 1", marks=pytest.mark.slow),
    "pneumonia evaluate MODEL more-NAME --output report-NAME",
    "pneumonia calibrate MODEL labelled-NAME --output calibrated-NAME --num-workers 1",
    "pneumonia draw drawn-NAME --images 4",
    "pneumonia draw labelled-NAME --images 4",
    "pneumonia download data-NAME --url text-NAME.tar.gz",
    "pneumonia download data --url ftp://NAME",
    "pneumonia s3-batch NAME --report s3://NAME/x --role NAME --function NAME",
    "promote_model.py model-NAME.tar.gz --directory served-NAME",
    "promote_model.py text-NAME.tar.gz --directory served-NAME",
    "promote_model.py gone-NAME --directory served-NAME",
    "promote_model.py s3://NAME/NAME --directory served",
    "promote_model.py list --bucket NAME",
    "promote_model.py show NAME --bucket NAME",
    "promote_model.py rollback --NAME",
    "train_model.py --train gone-NAME --val gone-NAME --test gone-NAME --model-dir model --output-data-dir output",
    "train_model.py --train more-NAME --val labelled-NAME --test labelled-NAME --model-dir m --output-data-dir o",
    "train_model.py --weights NAME --model-dir images-NAME --output-data-dir o",
    "train_model.py --epochs NAME",
    "train_sagemaker.py --bucket NAME --role NAME --region NAME",
    "train_sagemaker.py --bucket bucket --role arn:aws:iam::123456789012:role/r --region NAME --tag NAME",
    "train_sagemaker.py --attach NAME --region eu-west-1",
    "train_sagemaker.py --NAME",
]


def told(command: str, name: str, weights: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command with a name, and return its exit status and all that it printed."""
    script, *arguments = command.split(" ")
    given = [one.replace("NAME", name).replace("MODEL", str(weights)) for one in arguments]
    status = SCRIPTS[script](given)
    printed = capsys.readouterr()
    return status, printed.out + printed.err


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_hostile_name_is_told_as_a_harmless_one(
    command: str, folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.is_dir()
    status, harmless = told(command, HARMLESS, weights, capsys)
    (folder / "failure").unlink(missing_ok=True)
    assert told_alike(told(command, HOSTILE, weights, capsys), (status, harmless))
    if (failure := folder / "failure").exists():
        assert failure.read_text().isprintable()


def told_alike(hostile: tuple[int, str], harmless: tuple[int, str]) -> bool:
    """Return whether both have the same status and number of lines, and each line of the first is printable."""
    lines = hostile[1].removesuffix("\n").split("\n")
    assert [line for line in lines if not line.isprintable()] == []
    assert (hostile[0], len(lines)) == (harmless[0], len(harmless[1].removesuffix("\n").split("\n"))), hostile[1]
    return True


def test_a_release_is_listed_and_shown_as_a_line(
    moto: Moto, bucket: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[tuple[int, str]] = []
    publish(weights, manifest_for(weights), bucket)
    for name in (HARMLESS, HOSTILE.encode(errors="replace").decode()):
        manifest = dataclasses.replace(manifest_for(weights), training_job=name, forced=name)
        content = json.dumps(dataclasses.asdict(manifest)).encode()
        moto.s3().put_object(Bucket=bucket, Key=f"releases/{manifest.version}/manifest.json", Body=content)
        status = promote_model.main(["list", "--bucket", bucket]) + promote_model.main(
            ["show", manifest.version, "--bucket", bucket]
        )
        printed.append((status, "".join(capsys.readouterr())))
    assert HARMLESS in printed[0][1]
    assert told_alike(printed[1], printed[0])


@pytest.mark.filterwarnings("ignore")  # of boto3's own
def test_what_aws_says_of_a_job_is_told_as_a_line(
    moto: Moto, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job, region = f"pneumonia-{time.time_ns()}", ["--region", REGION]
    boto3.client("sagemaker").create_training_job(
        TrainingJobName=job,
        AlgorithmSpecification={"TrainingImage": "image", "TrainingInputMode": "File"},
        RoleArn="arn:aws:iam::123456789012:role/training",
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 3600},
    )
    name = HOSTILE.encode(errors="replace").decode()
    place = {"S3Uri": f"s3://{bucket}/{name}"}
    answers = {"DescribeLogStreams": [changed(logStreams=[{"logStreamName": f"{job}/algo-1-1"}])]}
    answers |= {"GetLogEvents": [changed(events=[{"message": f"{name}\tend"}], nextForwardToken="x")]}
    for description in (
        changed(TrainingJobStatus="Failed", FailureReason=name, CheckpointConfig=place),
        changed(TrainingJobStatus="Stopped", SecondaryStatus=name, CheckpointConfig=place),
        changed(ModelArtifacts={"S3ModelArtifacts": place["S3Uri"]}),
    ):
        with answering(moto.endpoint, answers | {"DescribeTrainingJob": [description]}) as api:
            monkeypatch.setenv("AWS_ENDPOINT_URL", api.endpoint)
            train_sagemaker.main(["--attach", job, *region])
        lines = "".join(capsys.readouterr()).removesuffix("\n").split("\n")
        assert any("forged" in line for line in lines)
        assert all(line.isprintable() and not line.startswith("ERROR") for line in lines)


def test_keys_of_objects_are_told_as_lines(
    moto: Moto, bucket: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[tuple[int, str]] = []
    for name in (HARMLESS, HOSTILE.encode(errors="replace").decode().replace(EOL, "")):  # which moto's S3 does not take
        moto.s3().put_object(Bucket=bucket, Key=f"xrays/{len(printed)}/{name}.jpg", Body=b"no image")
        output = folder / f"answers-{len(printed)}.csv"
        status = main(["batch", f"s3://{bucket}/xrays/{len(printed)}/", str(output)])
        printed.append((status, "".join(capsys.readouterr())))
    assert f"{HARMLESS}.jpg: " in printed[0][1]
    assert told_alike(printed[1], printed[0])


def test_a_row_of_a_table_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    prediction = Prediction("NORMAL", 0.9, {"NORMAL": 0.9, "PNEUMONIA": 0.1}, HOSTILE, [HOSTILE])
    rows = {name: (prediction, ImageError(f"{name} is broken.")) for name in (HARMLESS, HOSTILE)}
    printed: list[tuple[int, str]] = []
    for name, (answer, error) in rows.items():
        print_table(iter([(name, answer), (f"other-{name}", error)]), 20)
        printed.append((0, capsys.readouterr().out))
    assert told_alike(printed[1], printed[0])


def test_an_error_is_a_printable_line() -> None:
    assert str(PneumoniaError("a\x1b[2J\n\ud800\u202eb")) == r"a\x1b[2J\n\ud800\u202eb"
    assert printable("röntgen 胸 a  b") == "röntgen 胸 a  b"


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Reads what the logger "printable" has written, as processes of ours have it."""
    before, file = logging.getLogRecordFactory(), tmp_path / "log"
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    logs.make_printable()
    logging.getLogger("printable").addHandler(handler)
    yield file.read_text
    logging.getLogger("printable").removeHandler(handler)
    handler.close()
    logging.setLogRecordFactory(before)


def test_a_record_is_a_line(logged: Callable[[], str]) -> None:
    logging.getLogger("printable").warning("%s is %d", HOSTILE, 1)
    assert logged().startswith(r"WARNING:printable:a\x1b[2J\x07\r\nERROR:root:forged\x0b\x0c")
    assert logged().removesuffix("\n").isprintable()


def test_lines_of_a_traceback_are_none_of_the_log(logged: Callable[[], str]) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("printable").exception("It failed.")
    first, *lines = logged().removesuffix("\n").split("\n")
    assert first == "ERROR:printable:It failed."
    assert all(line.startswith("  ") and line.isprintable() for line in lines)
    assert lines[0] == "  Traceback (most recent call last):"
