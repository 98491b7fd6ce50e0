import re

import pytest

from pneumonia.errors import ConfigurationError
from pneumonia.launching import settings
from pneumonia.launching.settings import Range
from train_sagemaker import parse_arguments

ROLE = "arn:aws:iam::123456789012:role/training"
NEEDED = ["--bucket", "b-1", "--role", ROLE, "--region", "us-east-1"]


@pytest.mark.parametrize(
    ("bucket", "prefix", "address"),
    [
        ("xrays", None, ("xrays", "chest_xray")),
        ("xrays", "", ("xrays", "")),
        ("xrays", "/sets/one/", ("xrays", "sets/one")),
        ("s3://xrays", None, ("xrays", "chest_xray")),
        ("s3://xrays/", None, ("xrays", "chest_xray")),
        ("s3://xrays/", "", ("xrays", "")),
        ("s3://xrays/sets/one/", None, ("xrays", "sets/one")),
        ("s3://xrays/sets/one/", "sets/one", ("xrays", "sets/one")),
    ],
)
def test_bucket_may_be_an_address(bucket: str, prefix: str | None, address: tuple[str, str]) -> None:
    assert settings.dataset_address(bucket, prefix) == address


def test_arguments_of_the_machines_and_the_network_are_taken() -> None:
    network = ["--subnets", "subnet-0a1b, subnet-2c3d", "--security-groups", "sg-0a1b"]
    machine = ["--volume-size", "200", "--keep-alive", "3600"]
    container = ["--image-uri", "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1", "--checkpoints", "s3://b/runs/1"]
    args = parse_arguments([*NEEDED, *network, *machine, *container])
    assert (args.volume_size, args.keep_alive) == (200, 3600)
    assert args.checkpoints == "s3://b/runs/1/"  # without the slash it would begin runs/10 too
    assert (args.subnets, args.security_groups) == (["subnet-0a1b", "subnet-2c3d"], ["sg-0a1b"])
    assert args.image_uri == "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1"


def test_variables_stand_behind_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_TUNE", "epochs=5:20,learning-rate=1e-4:1e-3")
    monkeypatch.setenv("TRAIN_SUBNETS", "subnet-1,subnet-2")
    monkeypatch.setenv("TRAIN_SECURITY_GROUPS", "sg-1")
    args = parse_arguments(NEEDED)
    assert args.tune == {"epochs": Range(5, 20), "learning-rate": Range(0.0001, 0.001)}
    assert (args.jobs, args.at_once, args.objective) == (12, 3, "validation:auroc")
    assert args.subnets == ["subnet-1", "subnet-2"]


@pytest.mark.parametrize(
    ("text", "name", "scaling"),
    [
        ("learning-rate=1e-4:1e-3", "learning-rate", "Logarithmic"),
        ("learning_rate=0.03:0.3", "learning-rate", "Logarithmic"),
        ("learning-rate=1e-4:9e-4", "learning-rate", "Linear"),
        ("weight-decay=0:0.1", "weight-decay", "Linear"),
        ("batch_size=8:128", "batch-size", "Logarithmic"),
        ("--epochs=5:20", "epochs", "Linear"),
    ],
)
def test_a_range_of_a_power_of_ten_is_logarithmic(text: str, name: str, scaling: str) -> None:
    ((parsed, values),) = settings.parse_ranges([text]).items()
    assert (parsed, values.scaling) == (name, scaling)


def test_whole_numbers_stay_whole() -> None:
    values = settings.parse_ranges(["epochs=5:20"])["epochs"]
    assert isinstance(values.low, int)
    assert isinstance(values.high, int)


TUNED = ["--tune", "epochs=5:20"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bucket", "xr"], "--bucket is the name of a bucket, or s3://NAME/FOLDER, not xr."),
        (
            ["--bucket", "arn:aws:s3:::xrays"],
            "--bucket is the name of a bucket, or s3://NAME/FOLDER, not arn:aws:s3:::xrays",
        ),
        (["--bucket", "s3://"], "'s3://' is not an address in S3"),
        (["--bucket", "s3://xrays/a", "--prefix", "b"], "--bucket names the folder a, and --prefix b: name one."),
        (["--bucket", "s3://xrays/a", "--prefix", ""], "--bucket names the folder a, and --prefix the root: name one."),
        (["--prefix", "s3://xrays/a"], "--prefix is a folder in the bucket, such as chest_xray, not s3://xrays/a."),
        (["--volume-size", "0"], "--volume-size must be above 0, not 0."),
        (["--volume-size", "16385"], "--volume-size must be at most 16384, not 16385."),
        (["--volume-size", "1.5"], "Argument --volume-size: invalid int value: '1.5'."),
        (["--keep-alive", "-1"], "--keep-alive must be above 0, not -1."),
        (["--keep-alive", "3601"], "--keep-alive must be at most 3600, not 3601."),
        (["--keep-alive", "60", "--spot"], "--keep-alive is for on-demand instances"),
        (["--subnets", "subnet-1"], "A job in a VPC needs both --subnets and --security-groups."),
        (["--security-groups", "sg-1"], "A job in a VPC needs both --subnets and --security-groups."),
        (
            ["--subnets", "subnet-1,vpc-2", "--security-groups", "sg-1"],
            "--subnets takes identifiers such as subnet-0a1b2c3d, not vpc-2.",
        ),
        (["--checkpoints", "runs/1"], "--checkpoints is a folder in S3, s3://bucket/folder/, not runs/1."),
        (["--checkpoints", "s3://b"], "--checkpoints is a folder in S3, s3://bucket/folder/, not s3://b."),
        (["--learning-rate", "inf"], "--learning-rate must be finite, not inf."),
        (["--image-uri", "pytorch"], "--image-uri is the address of an image in ECR"),
        (["--attach", "a_b"], "--attach takes the name of a training or tuning job, not a_b."),
        (["--attach", "a", "--dry-run"], "--attach sends no request that --dry-run could print"),
        (["--jobs", "3"], "Without --tune NAME=LOW:HIGH, leave out --jobs."),
        (
            ["--tune", "lr=1:2"],
            "--tune takes epochs, batch-size, learning-rate or weight-decay as NAME=LOW:HIGH, not lr=1:2.",
        ),
        (["--tune", "weights=a:b"], "--tune takes epochs, batch-size, learning-rate or weight-decay as NAME=LOW:HIGH"),
        (["--tune", "epochs"], "--tune epochs takes two whole numbers, epochs=LOW:HIGH, not epochs."),
        (["--tune", "epochs=1.5:3"], "--tune epochs takes two whole numbers, epochs=LOW:HIGH, not epochs=1.5:3."),
        (["--tune", "learning-rate=a:b"], "--tune learning-rate takes two numbers, learning-rate=LOW:HIGH"),
        (["--tune", "epochs=9:3"], "--tune epochs takes the lower number first, and another one after it, not 9:3."),
        (["--tune", "learning-rate=1e-4:nan"], "takes the lower number first"),
        (
            ["--tune", "learning-rate=0:1e-3"],
            "--tune cannot try learning-rate=0:1e-3: --learning-rate must be above 0, not 0.0.",
        ),
        ([*TUNED, *TUNED], "--tune names epochs twice: give it one range."),
        ([*TUNED, "--epochs", "3"], "--tune tries values of epochs: leave the fixed ones out."),
        ([*TUNED, "--jobs", "751"], "--jobs must be at most 750, not 751."),
        ([*TUNED, "--at-once", "0"], "--at-once must be above 0, not 0."),
        (
            [*TUNED, "--checkpoints", "s3://b/x"],
            "With --tune, which starts many jobs, leave out --checkpoints.",
        ),
        (
            [*TUNED, "--objective", "auroc"],
            "--objective is validation:accuracy, validation:loss or validation:auroc, not auroc.",
        ),
        ([*TUNED, "--objective", "test:auroc"], "not test:auroc."),
    ],
)
def test_wrong_settings_are_told(arguments: list[str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        parse_arguments([*NEEDED, *arguments])


def test_attaching_needs_no_bucket_and_no_role(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    assert parse_arguments(["--attach", "job-1", "--region", "us-east-1"]).attach == "job-1"
    with pytest.raises(ConfigurationError, match=r"^Missing: --region \(AWS_REGION\)\. "):
        parse_arguments(["--attach", "job-1"])
