import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import promote_model
from pneumonia.errors import WeightsUnavailableError
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import ONNX_NAME, WEIGHTS_NAME
from pneumonia.network.input_check import InputCheck
from pneumonia.network.training_report import parse
from pneumonia.releases.fetch import Weights
from pneumonia.releases.promotion import manifest_for
from pneumonia.releases.release import read_release
from tests.builders.archives import REPORT, archive_of, archive_with, make_archive, member, model_archive
from tests.builders.checkout import PROJECT
from tests.builders.events import mutations
from tests.builders.input_checks import INPUT_CHECK
from tests.builders.releases import USUAL
from tools.stand_ins.moto import Moto
from tools.stand_ins.runtime_api import RuntimeApi
from tools.stand_ins.s3_proxy import proxy


@pytest.fixture
def archive(tmp_path: Path, weights: Path) -> Path:
    return model_archive(tmp_path, weights)


def run(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {key: value for key, value in os.environ.items() if key != "MODEL_BUCKET"}
    return subprocess.run(
        [sys.executable, PROJECT / "promote_model.py", *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_archive_on_s3_becomes_the_served_release(moto: Moto, bucket: str, archive: Path, weights: Path) -> None:
    moto.s3().upload_file(str(archive), bucket, "job/output/model.tar.gz")
    process = run(f"s3://{bucket}/job/output/model.tar.gz", MODEL_BUCKET=bucket, **moto.environment)
    assert process.returncode == 0, process.stderr
    version = json.loads(moto.s3().get_object(Bucket=bucket, Key="current.json")["Body"].read())["version"]
    assert process.stdout == f"Released {version} to s3://{bucket}\n"
    assert version.startswith("20260102-030405-")
    served = moto.s3().get_object(Bucket=bucket, Key=f"releases/{version}/{WEIGHTS_NAME}")["Body"].read()
    assert served == weights.read_bytes()


@pytest.mark.processes
def test_local_archive_fills_a_folder(archive: Path, weights: Path, tmp_path: Path) -> None:
    process = run(archive, "--directory", tmp_path / "released")
    assert process.returncode == 0, process.stderr
    released = tmp_path / "released" / WEIGHTS_NAME
    assert released.read_bytes() == weights.read_bytes()
    assert sorted(path.name for path in released.parent.iterdir()) == ["manifest.json", ONNX_NAME, WEIGHTS_NAME]
    manifest = read_release(released).manifest
    assert manifest
    assert manifest.size == weights.stat().st_size
    assert manifest.metrics == REPORT["metrics"]
    assert manifest.training_job == "pneumonia-training-1"
    assert manifest.dataset_fingerprint == "f" * 64
    assert manifest.calibration == Calibration(1.37, -0.45, 0.3, 0.7)


def test_input_check_reaches_the_manifest_and_is_shown_by_its_length(weights: Path) -> None:
    report = parse(json.dumps(REPORT | {"input_check": INPUT_CHECK}), "training.json")
    manifest = manifest_for(weights, report)
    assert manifest.input_check == InputCheck(**INPUT_CHECK)
    shown = json.loads(promote_model.shown(manifest))
    assert shown["input_check"] == INPUT_CHECK | {
        "mean": "4,096 characters",
        "scale": "4,096 characters",
        "components": "2,048 characters",
    }
    assert shown["version"] == manifest.version


def test_usual_evidence_reaches_the_manifest_and_is_shown_row_by_row(weights: Path) -> None:
    manifest = manifest_for(weights, parse(json.dumps(REPORT | {"usual_evidence": USUAL}), "training.json"))
    assert manifest.usual_evidence == USUAL
    shown = json.loads(promote_model.shown(manifest))["usual_evidence"]
    assert [tuple(map(float, row.split())) for row in shown] == list(USUAL)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["model.tar.gz"], "The bucket is missing: pass --bucket, or set MODEL_BUCKET, or pass --directory."),
        (
            ["nowhere.tar.gz", "--directory", "d"],
            "nowhere.tar.gz does not exist: check the name.",
        ),
    ],
)
def test_command_says_what_is_wrong(arguments: list[str], sentence: str) -> None:
    process = run(*arguments)
    assert (process.returncode, process.stdout, process.stderr) == (1, "", f"{sentence}\n")


def put_folder(moto: Moto, bucket: str, weights: Path) -> None:
    """Leave a model as SageMaker does without compression, beside what else a job leaves."""
    report = json.dumps(REPORT).encode()
    for name, body in (("", b""), (WEIGHTS_NAME, weights.read_bytes()), ("training.json", report), ("code/x.py", b"x")):
        moto.s3().put_object(Bucket=bucket, Key=f"job-1/output/model/{name}", Body=body)
    moto.s3().put_object(Bucket=bucket, Key="job-1/output/data/metrics.json", Body=b"{}")


@pytest.mark.parametrize("address", ["job-1/output/model/", "job-1/output/model"])
def test_model_without_compression_gives_the_same_release(
    moto: Moto,
    bucket: str,
    archive: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    address: str,
) -> None:
    put_folder(moto, bucket, weights)
    (tmp_path / "model").mkdir()
    shutil.copyfile(weights, tmp_path / "model" / WEIGHTS_NAME)
    (tmp_path / "model" / "training.json").write_text(json.dumps(REPORT))
    for number, source in enumerate((f"s3://{bucket}/{address}", tmp_path / "model", archive)):
        assert promote_model.main([str(source), "--directory", str(tmp_path / f"{number}")]) == 0
    versions = {told.split()[1] for told in capsys.readouterr().out.splitlines()}
    assert len(versions) == 1
    assert versions.pop().startswith("20260102-030405-")


def test_missing_archive_on_s3_is_told(moto: Moto, bucket: str) -> None:
    process = run(f"s3://{bucket}/model.tar.gz", "--bucket", bucket, **moto.environment)
    assert process.returncode == 1
    assert process.stderr == (
        f"s3://{bucket}/model.tar.gz cannot be downloaded, S3 answers NoSuchKey (The specified key does not exist.): "
        "check that the job has ended, and that this is the address that it printed.\n"
    )


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three good models, of ever later trainings."""
    folder = tmp_path_factory.mktemp("archives")
    return [archive_with(folder, number) for number in (1, 2, 3)]


class Command:
    """The command, in this process, with the bucket in its environment."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> str:
        """Run what is to succeed; return what it prints."""
        assert promote_model.main([*map(str, arguments)]) == 0
        return self._capsys.readouterr().out

    def fails(self, *arguments: str | Path) -> str:
        """Run what is to fail; return its one sentence."""
        assert promote_model.main([*map(str, arguments)]) == 1
        captured = self._capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        return captured.err.rstrip("\n")


@pytest.fixture
def command(moto: Moto, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name, value in {**moto.environment, "MODEL_BUCKET": bucket}.items():
        monkeypatch.setenv(name, value)
    return Command(capsys)


def pointer(moto: Moto, bucket: str) -> dict[str, Any]:
    """Return what `current.json` says, without the list of withdrawn releases."""
    content: dict[str, Any] = json.loads(moto.s3().get_object(Bucket=bucket, Key="current.json")["Body"].read())
    del content["withdrawn"]
    return content


def test_releases_are_listed_shown_and_rolled_back(
    moto: Moto, bucket: str, archives: list[Path], command: Command
) -> None:
    versions = [command(archive).split()[1] for archive in archives]
    assert command("list").splitlines() == [
        "  version                   accuracy  AUROC   ONNX    training job",
        f"* {versions[2]}  0.9500    0.9800  half    job-3",
        f"  {versions[1]}  0.9500    0.9800  half    job-2",
        f"  {versions[0]}  0.9500    0.9800  half    job-1",
    ]
    assert json.loads(command("show", versions[0]))["training_job"] == "job-1"

    told = command("rollback")
    assert told.startswith(
        f"s3://{bucket} serves {versions[1]} now, instead of {versions[2]}: `rollback {versions[2]}`"
    )
    assert pointer(moto, bucket) == {"version": versions[1], "previous": [versions[0]]}
    command("rollback", versions[2])
    assert pointer(moto, bucket) == {"version": versions[2], "previous": [versions[1], versions[0]]}
    command("rollback", versions[0])
    manifest = json.loads(command("show", versions[0]))
    plain = moto.s3().get_object(Bucket=bucket, Key=WEIGHTS_NAME)["Body"].read()
    assert hashlib.sha256(plain).hexdigest() == manifest["sha256"]

    assert "has no release ''" in command.fails("rollback", "")
    assert command.fails("rollback") == (
        f"s3://{bucket} has no earlier release than {versions[0]} to go back to: name one, `list` shows them."
    )


def test_commands_on_an_empty_bucket(bucket: str, command: Command) -> None:
    assert command("list") == f"s3://{bucket} has no releases yet: promote a model.tar.gz there.\n"
    assert command.fails("rollback") == f"s3://{bucket} serves no release yet: promote a model first."
    assert command.fails("rollback", "7") == f"s3://{bucket} serves no release yet: promote a model first."
    assert command.fails("show", "7") == f"s3://{bucket} has no release '7': `list` shows those it has."


@pytest.mark.parametrize("written", ["s3://{}", "s3://{}/", "{}/", " {}\n"])
def test_a_bucket_may_be_written_as_its_address(
    bucket: str, command: Command, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    told = f"s3://{bucket} has no releases yet: promote a model.tar.gz there.\n"
    assert command("list", "--bucket", written.format(bucket)) == told
    monkeypatch.setenv("MODEL_BUCKET", written.format(bucket))
    assert command("list") == told
    assert Weights.from_environment().bucket == bucket


@pytest.mark.parametrize("arguments", [["list"], ["show", "1"], ["rollback"]])
def test_commands_without_a_bucket(command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.delenv("MODEL_BUCKET")
    assert command.fails(*arguments) == "The bucket is missing: pass --bucket, or set MODEL_BUCKET."


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"test_accuracy": 0.79}, r"its test_accuracy of 0\.7900 is below 0\.80"),
        ({"test_auroc": 0.89}, r"its test_auroc of 0\.8900 is below 0\.90"),
        ({"test_accuracy": 0.91}, r"its test_accuracy of 0\.9100 is more than 0\.03 below the 0\.9500 of 20260101-03"),
        ({"test_auroc": 0.94}, r"its test_auroc of 0\.9400 is more than 0\.03 below the 0\.9800 of 20260101-03"),
        ({"test_accuracy": 0.5, "test_auroc": 0.5}, r"test_accuracy .* and its test_auroc of 0\.5000 is below 0\.90"),
    ],
)
def test_gate_refuses_unless_forced_and_the_manifest_tells(
    moto: Moto,
    bucket: str,
    archives: list[Path],
    tmp_path: Path,
    command: Command,
    metrics: dict[str, float],
    sentence: str,
) -> None:
    command(archives[0])
    served, before = pointer(moto, bucket), moto.keys(bucket)
    archive = archive_with(tmp_path, 2, **metrics)
    assert re.search(rf"{sentence}.*: train again, or pass --force", command.fails(archive))
    assert (pointer(moto, bucket), moto.keys(bucket)) == (served, before)

    command(archive, "--force")
    version = pointer(moto, bucket)["version"]
    assert pointer(moto, bucket) == {"version": version, "previous": [served["version"]]}
    assert re.search(sentence, json.loads(command("show", version))["forced"])
    assert re.search(sentence, command("list"))


def test_folder_gets_what_a_bucket_would_refuse_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = archive_with(tmp_path, 1, test_auroc=0.6)
    assert promote_model.main([str(archive), "--directory", str(tmp_path / "released")]) == 0
    told = capsys.readouterr().err
    assert told == "A bucket would refuse it, because its test_auroc of 0.6000 is below 0.90.\n"


def test_gate_refuses_a_model_without_figures(
    moto: Moto, bucket: str, tmp_path: Path, weights: Path, command: Command
) -> None:
    path = make_archive(tmp_path / "m.tar.gz", [(member(WEIGHTS_NAME), weights.read_bytes())])
    sentence = (
        "because its training reported no test_accuracy and its training reported no test_auroc: continue its training "
        "from the checkpoint to the end, or pass --force"
    )
    assert sentence in command.fails(path)
    assert moto.keys(bucket) == []
    command(path, "--force")
    assert pointer(moto, bucket)["previous"] == []


EVENT: dict[str, Any] = {
    "version": "0",
    "id": "844e2571-85d4-695f-b930-0153b71dcb42",
    "detail-type": "SageMaker Training Job State Change",
    "source": "aws.sagemaker",
    "account": "123456789012",
    "time": "2026-01-02T03:10:00Z",
    "region": "eu-central-1",
    "resources": ["arn:aws:sagemaker:eu-central-1:123456789012:training-job/job-1"],
    "detail": {
        "TrainingJobName": "job-1",
        "TrainingJobArn": "arn:aws:sagemaker:eu-central-1:123456789012:training-job/job-1",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://bucket/job-1/output/model.tar.gz"},
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
    },
}


@pytest.fixture
def function(moto: Moto, bucket: str, tmp_path: Path) -> Iterator[RuntimeApi]:
    """The promotion function: the real runtime client, and the API that feeds it; it writes to `tmp_path / "log"`."""
    with RuntimeApi() as api, (tmp_path / "log").open("w") as log:
        variables = {"MODEL_BUCKET": bucket, "POWERTOOLS_SERVICE_NAME": "promotion"}
        variables["AWS_LAMBDA_RUNTIME_API"] = api.address
        process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", "promote_model.handler"],
            env=os.environ | moto.environment | variables,
            cwd=PROJECT,
            stdout=log,
        )
        try:
            yield api
        finally:
            process.kill()
            process.wait()


def event_of(moto: Moto, bucket: str, archive: Path, content: bytes | None = None) -> dict[str, Any]:
    """Put an archive, or other content, where SageMaker leaves it, and return the event that follows."""
    key = f"{archive.stem}/output/model.tar.gz"
    moto.s3().put_object(Bucket=bucket, Key=key, Body=archive.read_bytes() if content is None else content)
    return EVENT | {"detail": {**EVENT["detail"], "ModelArtifacts": {"S3ModelArtifacts": f"s3://{bucket}/{key}"}}}


def test_completed_training_jobs_are_promoted_once_each(
    moto: Moto,
    bucket: str,
    archives: list[Path],
    tmp_path: Path,
    function: RuntimeApi,
) -> None:
    first = event_of(moto, bucket, archives[0])
    version = function.invoke(first)["version"]
    assert function.invoke(first) == {"version": version, "served": True}
    assert pointer(moto, bucket) == {"version": version, "previous": []}
    second = function.invoke(event_of(moto, bucket, archives[1]))["version"]
    assert pointer(moto, bucket) == {"version": second, "previous": [version]}

    refused = function.invoke(event_of(moto, bucket, archive_with(tmp_path, 3, test_auroc=0.6)))
    assert "its test_auroc of 0.6000 is below 0.90" in refused["refused"]
    assert pointer(moto, bucket)["version"] == second
    assert function.invoke(first) == {"version": version, "served": False}  # late, and not newer
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line.get("Promotions", line.get("PromotionsRefused")) for line in lines] == [[1.0]] * 4 + [[0.0]]
    assert [line.get("model_version") for line in lines] == [version, version, second, None, version]
    assert {line["service"] for line in lines} == {"promotion"}


def test_a_repeated_event_is_not_judged_again(
    moto: Moto, bucket: str, tmp_path: Path, command: Command, function: RuntimeApi
) -> None:
    archives = [archive_with(tmp_path, number, test_accuracy=0.88 + 0.02 * number) for number in (1, 2, 3)]
    events = [event_of(moto, bucket, archive) for archive in archives]
    versions = [function.invoke(event)["version"] for event in events]
    assert function.invoke(events[0]) == {"version": versions[0], "served": False}  # 0.04 below what is served
    command("rollback", versions[0])
    assert function.invoke(events[0]) == {"version": versions[0], "served": True}
    assert function.invoke(events[2]) == {"version": versions[2], "served": False}
    bad = archive_with(tmp_path, 4, test_accuracy=0.7)
    forced = command(bad, "--force").split()[1]
    assert function.invoke(event_of(moto, bucket, bad)) == {"version": forced, "served": True}


def test_an_event_undoes_no_rollback(
    moto: Moto, bucket: str, archives: list[Path], function: RuntimeApi, command: Command
) -> None:
    events = [event_of(moto, bucket, archive) for archive in archives]
    versions = [function.invoke(event)["version"] for event in events[:2]]
    command("rollback")
    assert function.invoke(events[1]) == {"version": versions[1], "served": False}
    assert pointer(moto, bucket)["version"] == versions[0]
    assert function.invoke(events[2])["served"]  # a new one is no repetition
    command(archives[1])  # said by a person
    assert pointer(moto, bucket)["version"] == versions[1]


@pytest.mark.parametrize("address", ["job-1/output/model/", "job-1/output/model"])
def test_a_model_without_compression_is_promoted(
    moto: Moto, bucket: str, weights: Path, function: RuntimeApi, address: str
) -> None:
    put_folder(moto, bucket, weights)
    artifacts = {"S3ModelArtifacts": f"s3://{bucket}/{address}"}
    promoted = function.invoke(EVENT | {"detail": {**EVENT["detail"], "ModelArtifacts": artifacts}})
    assert promoted["served"]
    assert pointer(moto, bucket)["version"] == promoted["version"]


def test_whatever_a_part_of_the_event_is_the_answer_is_a_sentence_and_a_line(
    bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MODEL_BUCKET", bucket)
    read = {name: EVENT["detail"][name] for name in ("TrainingJobName", "TrainingJobStatus")}
    detail = read | {"ModelArtifacts": {"S3ModelArtifacts": f"s3://{bucket}/gone/output/model.tar.gz"}}
    event = {name: EVENT[name] for name in ("source", "detail-type")} | {"detail": detail}
    for place, changed in mutations(event):
        told = promote_model.handler(changed, None)["refused"]
        (line,) = capsys.readouterr().out.splitlines()
        assert json.loads(line)["refused"] == told, place
        assert told.isprintable(), place
    assert not caplog.records


def test_what_another_try_cannot_mend_is_no_error(
    moto: Moto, bucket: str, archives: list[Path], command: Command
) -> None:
    assert command
    gone = {**EVENT["detail"], "ModelArtifacts": {"S3ModelArtifacts": f"s3://{bucket}/gone.tar.gz"}}
    told = promote_model.handler(EVENT | {"detail": gone}, None)["refused"]
    assert "gone.tar.gz cannot be downloaded, S3 answers NoSuchKey" in told
    half_a_character = {**EVENT["detail"], "ModelArtifacts": {"S3ModelArtifacts": f"s3://{bucket}/\ud800.tar.gz"}}
    told = promote_model.handler(EVENT | {"detail": half_a_character}, None)["refused"]
    assert told.endswith(".tar.gz cannot be downloaded: the name is not text that can be sent.")
    damaged = event_of(moto, bucket, archives[0], archives[0].read_bytes()[:1000])
    assert "is not a whole tar.gz" in promote_model.handler(damaged, None)["refused"]


@contextlib.contextmanager
def refusing_the_pointer(moto: Moto, status: int, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answer every call about `current.json` with this status."""
    with proxy(moto.endpoint, before=lambda _, what: status if what.endswith("current.json") else None) as server:
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        yield
    patch.setenv("AWS_ENDPOINT_URL", moto.endpoint)


def test_what_s3_refuses_for_good_is_no_error(
    moto: Moto, bucket: str, archives: list[Path], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command
    event = event_of(moto, bucket, archives[0])
    with refusing_the_pointer(moto, 403, monkeypatch):
        assert "S3 answers AccessDenied" in promote_model.handler(event, None)["refused"]


@pytest.mark.parametrize(("status", "code"), [(400, "ExpiredToken"), (503, "SlowDown")])
def test_what_may_pass_is_an_error_so_that_lambda_tries_again(
    moto: Moto,
    bucket: str,
    archives: list[Path],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
) -> None:
    assert command
    event = event_of(moto, bucket, archives[0])
    with (
        refusing_the_pointer(moto, status, monkeypatch),
        pytest.raises(WeightsUnavailableError, match=f"S3 answers {code}"),
    ):
        promote_model.handler(event, None)


def test_a_release_that_was_never_served_is_counted(
    moto: Moto, bucket: str, archives: list[Path], function: RuntimeApi, tmp_path: Path
) -> None:
    events = [event_of(moto, bucket, archive) for archive in archives]
    newest = function.invoke(events[2])["version"]
    late = function.invoke(events[0])
    assert late == {"version": late["version"], "served": False}
    function.invoke(events[2])
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line.get("PromotionsNotServed") for line in lines] == [None, [1.0], None]
    assert lines[1]["not_served"] == (
        f"Release {late['version']} is stored in s3://{bucket} but was never served, as {newest} is newer: "
        f"`promote_model.py rollback {late['version']}` serves it."
    )


def test_a_release_whose_clock_was_ahead_shuts_out_none_that_follow(
    moto: Moto, bucket: str, archives: list[Path], weights: Path, tmp_path: Path, command: Command
) -> None:
    report = REPORT | {"finished": "2999-01-01T00:00:00+00:00"}
    ahead = archive_of(torch.load(weights), report, tmp_path)
    event = event_of(moto, bucket, ahead)
    told = promote_model.handler(event, None)["refused"]
    assert "is not released, because its training finished at 2999-01-01 00:00 UTC by a clock that was ahead" in told
    assert "Released 29990101-000000-" in command(ahead, "--force")
    promoted = promote_model.handler(event_of(moto, bucket, archives[0]), None)
    assert promoted["served"]
    assert pointer(moto, bucket)["version"] == promoted["version"]


def test_what_is_damaged_in_the_bucket_is_mended_by_a_promotion(
    moto: Moto, bucket: str, archives: list[Path], command: Command
) -> None:
    versions = [command(archive).split()[1] for archive in archives[:2]]
    moto.s3().put_object(Bucket=bucket, Key=f"releases/{versions[1]}/manifest.json", Body=b"{}")
    assert "is not a valid manifest" in command("list")
    assert "is not a valid manifest" in command.fails("rollback", versions[1])
    command(archives[1])
    assert json.loads(command("show", versions[1]))["version"] == versions[1]

    moto.s3().put_object(Bucket=bucket, Key="current.json", Body=b"")
    assert "current.json is missing or broken, so that nobody knows which" in command.fails("rollback")
    command("rollback", versions[0])
    assert pointer(moto, bucket) == {"version": versions[0], "previous": []}


def test_a_pointer_that_is_lost_makes_no_promotion_the_first(
    moto: Moto, bucket: str, archives: list[Path], tmp_path: Path, command: Command
) -> None:
    versions = [command(archive).split()[1] for archive in archives[:2]]
    command("rollback")
    moto.s3().delete_object(Bucket=bucket, Key="current.json")
    told = promote_model.handler(event_of(moto, bucket, archives[1]), None)
    assert told == {"version": versions[1], "served": False}  # it was rolled back
    assert "current.json is missing or broken, so that nobody knows which release was served" in command("list")
    worse = archive_with(tmp_path, 3, test_accuracy=0.91)
    assert f"more than 0.03 below the 0.9500 of {versions[0]}" in command.fails(worse)  # which the plain key holds
    promoted = promote_model.handler(event_of(moto, bucket, archives[2]), None)
    assert promoted["served"]
    assert pointer(moto, bucket) == {"version": promoted["version"], "previous": [versions[0]]}


def test_a_served_release_with_figures_that_cannot_be_shuts_out_none_that_follow(
    moto: Moto, bucket: str, archives: list[Path], command: Command
) -> None:
    version = command(archives[0]).split()[1]
    key = f"releases/{version}/manifest.json"
    manifest = json.loads(moto.s3().get_object(Bucket=bucket, Key=key)["Body"].read())
    manifest["metrics"] = {"test_accuracy": 5, "test_auroc": 88.0}
    moto.s3().put_object(Bucket=bucket, Key=key, Body=json.dumps(manifest).encode())
    assert "Released" in command(archives[1])


def test_rollback_to_a_release_without_its_weights_changes_nothing(
    moto: Moto, bucket: str, archives: list[Path], command: Command
) -> None:
    versions = [command(archive).split()[1] for archive in archives[:2]]
    moto.s3().delete_object(Bucket=bucket, Key=f"releases/{versions[0]}/{WEIGHTS_NAME}")
    assert "The weights cannot be read from" in command.fails("rollback")
    assert pointer(moto, bucket)["version"] == versions[1]


def test_an_event_that_cannot_be_promoted_is_told_and_not_tried_again(tmp_path: Path, function: RuntimeApi) -> None:
    failed = EVENT | {"detail": {"TrainingJobStatus": "Failed", "TrainingJobName": "job-1"}}
    without_model = EVENT | {"detail": {"TrainingJobStatus": "Completed", "TrainingJobName": "job-1"}}
    events: list[object] = [failed, without_model, [], {}]
    told = [function.invoke(event)["refused"] for event in events]
    assert (
        "is not a completed training job but 'SageMaker Training Job State Change' with the status 'Failed'" in told[0]
    )
    assert "The training job job-1 is completed, but the event names no model: its S3ModelArtifacts are None" in told[1]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["PromotionsRefused"], line["refused"]) for line in lines] == [([1.0], sentence) for sentence in told]


def test_a_mistyped_option_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert promote_model.main(["promote", "model.tar.gz", "--forse"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "Unrecognized arguments: --forse. `promote_model.py --help` lists the arguments.\n"
