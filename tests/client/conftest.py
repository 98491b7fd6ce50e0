"""A deployed function: the real handler in the real runtime client, behind a URL that checks signatures."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.function import Function
from tools.stand_ins.function_url import ENVIRONMENT, FunctionUrl, function_url


@pytest.fixture(scope="session")
def function(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """The function, which serves an untrained network."""
    environment = {"MODEL_BUCKET": "", "MODEL_PATH": str(weights)}
    with Function(tmp_path_factory.mktemp("function"), environment) as function:
        yield function


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
def url(function: Function) -> Iterator[FunctionUrl]:
    with function_url(function.invoke) as server:
        yield server
