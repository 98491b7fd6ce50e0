"""A deployed function: the real handler in the real runtime client, behind a URL that checks signatures."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.checkout import PROJECT
from tools.stand_ins.function_url import ENVIRONMENT, FunctionUrl, Invoke, function_url
from tools.stand_ins.runtime_api import RuntimeApi


@pytest.fixture(scope="session")
def invoke(weights: Path) -> Iterator[Invoke]:
    """Hands an event to the function, which serves an untrained network."""
    with RuntimeApi() as api:
        process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", "app.handler"],
            env=os.environ | {"AWS_LAMBDA_RUNTIME_API": api.address, "MODEL_PATH": str(weights)},
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
        )
        yield lambda event: api.invoke(event, process=process)
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that the URL accepts, and nothing else that AWS's tools are configured by."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def url(invoke: Invoke) -> Iterator[FunctionUrl]:
    with function_url(invoke) as server:
        yield server
