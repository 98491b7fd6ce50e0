"""GET /ready: a probe that loads nothing, and with `?load=1` the way to warm an instance up."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pneumonia.releases.fetch import Weights
from pneumonia.releases.release import read_release
from pneumonia.serving.api import create_app
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.problems import NO_REASON

NOT_LOADED = {"ready": False, "model_version": None}


@pytest.fixture
def client(weights: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Predictor(Weights(weights)))) as client:
        yield client


@pytest.fixture
def client_without_weights(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Predictor(Weights(tmp_path)))) as client:
        yield client


def test_probe_loads_nothing(client_without_weights: TestClient) -> None:
    for query in ("", "?load=0", "?load=false"):
        response = client_without_weights.get(f"/ready{query}")  # loading would fail
        assert response.status_code == 200
        assert response.json() == NOT_LOADED


@pytest.mark.parametrize("value", ["1", "true"])
def test_load_loads_and_is_seen_afterwards(client: TestClient, weights: Path, value: str) -> None:
    release = read_release(weights)
    loaded = {"ready": True, "model_version": release.version}
    assert client.get("/ready").json()["ready"] is False

    response = client.get(f"/ready?load={value}")
    assert response.status_code == 200
    assert response.json() == loaded
    assert client.get("/ready").json() == loaded
    assert client.get("/health").json() == {"status": "ok", "model_version": loaded["model_version"]}


def test_load_without_weights_says_what_is_missing(client_without_weights: TestClient) -> None:
    response = client_without_weights.get("/ready?load=1")
    assert response.status_code == 503
    assert response.json() == {"detail": NO_REASON}
    assert client_without_weights.get("/ready").json() == NOT_LOADED


@pytest.mark.parametrize("value", ["nonsense", "2", ""])
def test_another_value_is_answered_with_one_sentence(client: TestClient, value: str) -> None:
    response = client.get(f"/ready?load={value}")
    assert response.status_code == 422
    assert response.json() == {"detail": "'load' must be true or false, or 1 or 0: see /docs."}
    assert client.get("/ready").json()["ready"] is False


def test_other_methods_are_refused(client: TestClient) -> None:
    response = client.post("/ready?load=1")
    assert response.status_code == 405
    assert response.json() == {"detail": "This address does not take that method: /docs lists what it takes."}


def test_it_is_documented(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/ready"]["get"]
    (load,) = operation["parameters"]
    assert (load["name"], load["in"], load["required"]) == ("load", "query", False)
    assert load["schema"]["type"] == "boolean"
    assert load["description"]
    assert operation["responses"]["503"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Problem"
    }
    assert list(schema["components"]["schemas"]["Readiness"]["properties"]) == ["ready", "model_version"]
