"""The SDK missing, too old, broken, or wrongly configured: a sentence, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.checkout import PROJECT

pytestmark = pytest.mark.processes

ROLE = "arn:aws:iam::123456789012:role/training"
ARGUMENTS = ("--bucket", "xrays", "--role", ROLE, "--region", "us-east-1")
DOORS = [(), ("--dry-run",)]
INSTALLING = "run `make develop`, or pip install 'sagemaker>=3'."


def refusal(*arguments: str, **variables: str) -> str:
    """Return what the command prints when it refuses."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "TRAIN_"))}
    process = subprocess.run(
        [sys.executable, PROJECT / "train_sagemaker.py", *ARGUMENTS, *arguments],
        env=environment | {"AWS_EC2_METADATA_DISABLED": "true"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stdout == ""
    return process.stderr


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of packages before all others; `sagemaker` in it has nothing inside."""
    (tmp_path / "sagemaker").mkdir()
    (tmp_path / "sagemaker" / "__init__.py").write_text("")
    return tmp_path


@pytest.mark.parametrize("door", DOORS)
def test_an_older_sdk_is_told(packages: Path, door: tuple[str, ...]) -> None:
    about = packages / "sagemaker-2.232.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sagemaker\nVersion: 2.232.1\n")
    assert refusal(*door, PYTHONPATH=str(packages)) == (
        f"Launching a job needs version 3 of the SageMaker Python SDK, and 2.232.1 is installed: {INSTALLING}\n"
    )


@pytest.mark.parametrize("door", DOORS)
def test_an_sdk_without_what_is_needed_is_told(packages: Path, door: tuple[str, ...]) -> None:
    told = refusal(*door, PYTHONPATH=str(packages))
    assert told.startswith("Launching a job needs version 3 of the SageMaker Python SDK, and 3.")
    assert told.endswith(f" is installed but cannot be used (No module named 'sagemaker.core'): {INSTALLING}\n")


BROKEN = {
    "no YAML": ("SageMaker: [", "while parsing a flow node"),
    "another schema": ("SchemaVersion: '9.9'", "'9.9' is not one of ['1.0'], at $.SchemaVersion"),
    "a list": ("- 1", "[1] is not of type 'object', at $"),
    "no text": ("\x00", "special characters are not allowed"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_configuration_is_told(tmp_path: Path, case: str, door: tuple[str, ...]) -> None:
    content, reason = BROKEN[case]
    path = tmp_path / "config.yaml"
    path.write_text(content)
    told = refusal(*door, SAGEMAKER_USER_CONFIG_OVERRIDE=str(path))
    assert told.splitlines()[-1].startswith(f"The SageMaker SDK's configuration ({path}) cannot be used: ")
    assert reason in told.splitlines()[-1]
    assert "Traceback" not in told


@pytest.mark.parametrize("door", DOORS)
def test_an_aws_configuration_that_cannot_be_used_is_told(tmp_path: Path, door: tuple[str, ...]) -> None:
    """The SDK reads it while it is imported."""
    (tmp_path / "config").write_text("[default\n")
    for variables in ({"AWS_PROFILE": "nothing-like-it"}, {"AWS_CONFIG_FILE": str(tmp_path / "config")}):
        told = refusal(*door, **variables)
        assert told.startswith("The AWS configuration cannot be used (")
        assert told.count("\n") == 1
