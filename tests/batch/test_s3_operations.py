"""The command that creates a job; tests/e2e/test_s3_batch.py has the function that the job invokes."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from pneumonia.__main__ import main
from tools.stand_ins.moto import REGION, Moto

ACCOUNT = "123456789012"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:pneumonia-batch"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/pneumonia-batch"
JOB = "0a1b2c3d-4e5f-6789-abcd-ef0123456789"
ENDPOINT = "http://s3-control.test"  # boto3 puts the account's number before it, which no resolver here would know
NAMESPACE = "{http://awss3control.amazonaws.com/doc/2018-08-20/}"
KEYS = ["xrays/a.jpg", "xrays/ward 3/b+c.jpg", "xrays/röntgen.png"]


class Control(ThreadingHTTPServer):
    """Stands for S3 Control, which moto has without its jobs: a proxy, so that any address leads here.

    Attributes:
        requests: method and address, and the body, of each request.
        answer: status and body of every answer.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, bytes]] = []
        self.answer = (200, f"<CreateJobResult><JobId>{JOB}</JobId></CreateJobResult>")


class _Handler(BaseHTTPRequestHandler):
    server: Control

    def do_POST(self) -> None:  # http.server's name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((f"POST {self.path}", body))
        status, text = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Say nothing: a failed request shows in the command's answer."""


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    with Control() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3_CONTROL", ENDPOINT)
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1,localhost")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def xrays(moto: Moto, bucket: str) -> str:
    """A bucket with three objects, and a folder that a console made."""
    for key in (*KEYS, "xrays/", "other.jpg"):
        moto.s3().put_object(Bucket=bucket, Key=key, Body=b"" if key.endswith("/") else b"x")
    return bucket


def create(bucket: str, *options: str, source: str | None = None, report: str | None = None) -> int:
    """Run the command on the X-rays in a bucket."""
    places = [source or f"s3://{bucket}/xrays/", "--report", report or f"s3://{bucket}/reports/"]
    return main(["s3-batch", *places, "--function", FUNCTION, "--role", ROLE, *options])


def manifest_in(moto: Moto, bucket: str, prefix: str = "reports/") -> tuple[str, str, str]:
    """Return key, ETag and text of the one manifest in a bucket."""
    (key,) = [key for key in moto.keys(bucket) if re.fullmatch(rf"{prefix}manifest-[0-9a-f]{{12}}\.csv", key)]
    found = moto.s3().get_object(Bucket=bucket, Key=key)
    return key, found["ETag"].strip('"'), found["Body"].read().decode()


def text_of(request: bytes, *path: str) -> str | None:
    """Return an element's text in a request's XML."""
    element = ElementTree.fromstring(request).find("/".join(NAMESPACE + name for name in path))
    return None if element is None else element.text


def test_dry_run_prints_a_request_that_s3_control_takes_and_writes_nothing(
    xrays: str, moto: Moto, control: Control, capsys: pytest.CaptureFixture[str]
) -> None:
    before = moto.keys(xrays)
    assert create(xrays, "--dry-run") == 0
    request: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert request["Operation"] == {"LambdaInvoke": {"FunctionArn": FUNCTION, "InvocationSchemaVersion": "2.0"}}
    assert request["AccountId"] == ACCOUNT
    assert request["ConfirmationRequired"] is True
    assert request["Description"] == "Chest X-rays, 3 objects"
    assert request["Report"]["ReportScope"] == "AllTasks"
    assert (request["RoleArn"], request["Priority"]) == (ROLE, 10)
    model = ServiceModel(Loader().load_service_model("s3control", "service-2"))
    shape = model.operation_model("CreateJob").input_shape
    assert shape
    problems = ParamValidator().validate(request | {"ClientRequestToken": "added by boto3"}, shape)
    assert not problems.has_errors(), problems.generate_report()
    assert moto.keys(xrays) == before
    assert control.requests == []


def test_manifest_is_written_and_the_job_created_to_be_confirmed(
    xrays: str, moto: Moto, control: Control, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(xrays) == 0
    key, etag, text = manifest_in(moto, xrays)
    assert text == (f"{xrays},xrays/a.jpg\n{xrays},xrays/r%C3%B6ntgen.png\n{xrays},xrays/ward%203/b%2Bc.jpg\n")
    ((address, body),) = control.requests
    assert address == f"POST http://{ACCOUNT}.s3-control.test/v20180820/jobs"
    assert text_of(body, "Manifest", "Location", "ObjectArn") == f"arn:aws:s3:::{xrays}/{key}"
    assert text_of(body, "Manifest", "Location", "ETag") == etag
    assert text_of(body, "Manifest", "Spec", "Format") == "S3BatchOperations_CSV_20180820"
    assert text_of(body, "Operation", "LambdaInvoke", "FunctionArn") == FUNCTION
    assert text_of(body, "Operation", "LambdaInvoke", "InvocationSchemaVersion") == "2.0"
    assert text_of(body, "Report", "Bucket") == f"arn:aws:s3:::{xrays}"
    assert text_of(body, "Report", "Prefix") == "reports"
    assert text_of(body, "ConfirmationRequired") == "true"
    assert text_of(body, "ClientRequestToken")
    assert capsys.readouterr().out == (
        f"Job {JOB} waits for confirmation, in the console or by:\naws s3control update-job-status "
        f"--region {REGION} --account-id {ACCOUNT} --job-id {JOB} --requested-job-status Ready\n"
    )


def test_job_may_begin_at_once_with_a_priority(
    xrays: str, control: Control, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(xrays, "--run-now", "--priority", "7", report=f"s3://{xrays}") == 0
    ((_, body),) = control.requests
    assert (text_of(body, "ConfirmationRequired"), text_of(body, "Priority")) == ("false", "7")
    assert text_of(body, "Report", "Prefix") is None
    assert capsys.readouterr().out.startswith(f"Job {JOB} has started. Follow it by: aws s3control describe-job ")


@pytest.mark.parametrize(("version", "fields"), [("", ["Bucket", "Key"]), (",v1", ["Bucket", "Key", "VersionId"])])
def test_manifest_may_be_given(
    version: str, fields: list[str], xrays: str, moto: Moto, control: Control, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f'"{xrays}","xrays/ward+3/b%2Bc.jpg"{version}\n')
    assert create(xrays, source=str(manifest)) == 0
    assert manifest_in(moto, xrays)[2] == f"{xrays},xrays/ward%203/b%2Bc.jpg{version}\n"
    ((_, body),) = control.requests
    found = ElementTree.fromstring(body).iterfind(f"{NAMESPACE}Manifest/{NAMESPACE}Spec/{NAMESPACE}Fields/*")
    assert [element.text for element in found] == fields


@pytest.mark.parametrize(
    "rows",
    ["one,a.jpg\ntwo,a.jpg\n", "one,a.jpg,v1\none,b.jpg\n"],
    ids=["two buckets", "one version"],
)
def test_objects_that_no_job_takes_together_are_refused(
    rows: str, xrays: str, moto: Moto, control: Control, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(rows)
    before = moto.keys(xrays)
    assert create(xrays, source=str(manifest)) == 1
    assert "are in several buckets, or only some have a version: a job takes one bucket" in capsys.readouterr().err
    assert (moto.keys(xrays), control.requests) == (before, [])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--function", "pneumonia"], "'pneumonia' is not a function's ARN: pass --function arn:aws:lambda:REGION:"),
        (["--role", "admin"], "'admin' is not a role's ARN: pass --role arn:aws:iam::ACCOUNT:role/NAME."),
        (["--priority", "-1"], "--priority must be 0 or more, not -1."),
        (["--report", "reports"], "'reports' is not an address in S3"),
    ],
)
def test_wrong_arguments_are_told(
    options: list[str], sentence: str, xrays: str, control: Control, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(xrays, *options) == 1
    assert sentence in capsys.readouterr().err
    assert control.requests == []


def test_what_is_not_there_is_told(xrays: str, control: Control, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(xrays, source=f"s3://{xrays}/nothing") == 1
    assert f"s3://{xrays}/nothing holds no objects: name a prefix or a manifest" in capsys.readouterr().err
    assert create(xrays, source="s3://no-such-bucket-at-all/xrays") == 1
    assert "s3://no-such-bucket-at-all/xrays cannot be listed, S3 answers NoSuchBucket (" in capsys.readouterr().err
    assert create(xrays, source="none.csv") == 1
    assert "none.csv does not exist: check the name." in capsys.readouterr().err
    assert create(xrays, report="s3://no-such-bucket-at-all/reports") == 1
    assert "The manifest cannot be written to s3://no-such-bucket-at-all/reports/mani" in capsys.readouterr().err
    assert control.requests == []


def test_refusal_of_the_job_is_told_in_aws_words(
    xrays: str, control: Control, capsys: pytest.CaptureFixture[str]
) -> None:
    error = "<Error><Code>InvalidRequest</Code><Message>Role is not assumable.</Message></Error>"
    control.answer = (400, f"<ErrorResponse>{error}</ErrorResponse>")
    assert create(xrays) == 1
    assert capsys.readouterr().err == "The job cannot be created: S3 answers InvalidRequest (Role is not assumable.).\n"


def test_s3_control_that_cannot_be_reached_is_told(
    xrays: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3_CONTROL", ENDPOINT)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    assert create(xrays) == 1
    assert capsys.readouterr().err.startswith("The job cannot be created (Failed to connect to proxy URL")


def test_job_whose_answer_is_lost_may_have_been_created_and_is_asked_for_once(
    xrays: str, control: Control, capsys: pytest.CaptureFixture[str]
) -> None:
    control.answer = (503, "")
    assert create(xrays) == 1
    told = capsys.readouterr().err
    assert re.match(r"The job cannot be created, S3 answers .*503", told)
    assert told.endswith(
        "If it was created, and only the answer was lost, this lists it: aws s3control list-jobs --region eu-west-1 "
        "--account-id 123456789012\n"
    )
    tokens = {text_of(body, "ClientRequestToken") for _, body in control.requests}
    assert len(control.requests) > len(tokens) == 1  # by which S3 knows that these are one and the same
