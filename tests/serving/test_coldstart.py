"""Each in a process of its own: what was imported there before is what matters."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEGLosslessSV1

from pneumonia.engines.onnx_file import onnx_file
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.engine_file import NAMES, path_for
from pneumonia.releases.release_files import ReleaseFiles
from tests.builders.checkout import PROJECT
from tests.builders.dicom_files import dicom
from tests.builders.releases import files_of, manifest_for, publish_files, with_onnx
from tools.stand_ins.moto import Moto

pytestmark = pytest.mark.processes

UNWANTED = [
    "boto3",
    "botocore.session",  # Powertools imports the package itself, which is 2 ms
    "imagecodecs",
    "matplotlib",
    "numpy._typing",
    "pneumonia.serving.connections",
    "pneumonia.serving.snapstart",
    "pneumonia.serving.uploads",
    "pneumonia.storage.role_credentials",
    "pydantic.v1",
    "pydicom",
    "sagemaker",
    "snapshot_restore_py",
    "sympy",
    "torch._dynamo",
    "torch._meta_registrations",
    "torchvision",
    "uvicorn",
]
OTHERS = {"torch": ["onnx", "onnxruntime"], "onnx": ["onnx", "torch"]}  # by engine, what belongs to the other
ENGINES = pytest.mark.parametrize("engine", OTHERS)
ANSWER = """
import sys
from pathlib import Path
import app  # first, as on Lambda
from fastapi.testclient import TestClient
with TestClient(app.app) as client:
    response = client.post("/predict", files={"file": Path(sys.argv[1]).read_bytes()})
print(response.status_code, response.json().get("model_version"), *sorted(set(sys.argv[2:]) & sys.modules.keys()))
"""


ON_LAMBDA = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"}  # nobody listens: only the handler would ask


def run(program: str, *arguments: str, **environment: str) -> str:
    """Return what a program prints."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=os.environ | {"PYTHONPATH": str(PROJECT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_lean_imports_leave_nothing_behind() -> None:
    program = """
import gc, sys
from pneumonia.serving.coldstart import UNUSED, lean_imports
with lean_imports():
    import torch, fastapi, numpy
    assert not gc.isenabled()
assert gc.isenabled()
assert not UNUSED.keys() & sys.modules.keys(), UNUSED.keys() & sys.modules.keys()
assert "_meta_registrations" not in vars(torch)
assert not {"typing", "_typing"} & vars(numpy).keys()

from torch import _meta_registrations
import torch._meta_registrations
import pydantic.v1
from numpy.typing import ArrayLike, NDArray
assert _meta_registrations is torch._meta_registrations is sys.modules["torch._meta_registrations"]
assert torch._meta_registrations.__file__ and pydantic.v1.BaseModel
assert NDArray[numpy.int8].__origin__ is numpy.ndarray and numpy.typing.NDArray is NDArray
meta = torch.nn.functional.conv2d(torch.empty(1, 3, 8, 8, device="meta"), torch.empty(2, 3, 3, 3, device="meta"))
assert meta.shape == (1, 2, 6, 6)
print("fine")
"""
    assert run(program) == "fine\n"


def test_a_models_schema_is_built_when_the_model_is_first_used() -> None:
    program = """
from pneumonia.serving.coldstart import lean_imports
with lean_imports():
    from fastapi.openapi.models import Info, OpenAPI, Operation, Schema
    from pydantic import BaseModel
    class Of(BaseModel):
        other: "Other"
    class Other(BaseModel):
        number: int
    assert Of.model_rebuild() is None
models = Info, OpenAPI, Operation, Schema, Of
print(*(model.__pydantic_complete__ for model in models))
print(Schema(type="string").type, OpenAPI(openapi="3", info=Info(title="t", version="1")).info.title)
print(Of(other={"number": "3"}).other.number, *(model.__pydantic_complete__ for model in models))

class After(BaseModel):
    later: "Later"
class Later(BaseModel):
    number: int
print(Later.__pydantic_complete__, After.__pydantic_complete__, After.model_rebuild(), After.__pydantic_complete__)
"""
    assert run(program).splitlines() == [
        "False False False False False",
        "string t",
        "3 True True False True True",
        "True False True True",
    ]


def test_api_and_its_documentation_are_the_same_however_it_was_imported(weights: Path, xray: str) -> None:
    program = """
import sys
from pathlib import Path
import app
from fastapi.testclient import TestClient
xray = Path(sys.argv[1]).read_bytes()
with TestClient(app.app) as client:
    def show(response):
        print(response.status_code, response.text)
    for path in ("openapi.json", "docs", "health", "ready?load=1", "ready?load=2", "", "nowhere", "guide/none.md"):
        show(client.get(f"/{path}"))
    for path in ("/predict", "/predict?explain=1&preview=1", "/predict?explain=maybe", "/predict/batch"):
        show(client.post(path, files={"file": xray}))
    show(client.post("/predict/batch", files=[("file", xray), ("file", b"GIF89a")]))
    show(client.post("/predict", files={"image": xray}))
    show(client.post("/predict", json={}))
    show(client.put("/predict"))
"""
    printed = (run(program, xray, MODEL_PATH=str(weights), **where).splitlines() for where in (ON_LAMBDA, {}))
    lean, whole = ([line for line in lines if not line.startswith("{")] for lines in printed)  # without the log
    assert lean == whole
    assert len(lean) > 16


def test_error_while_importing_passes_and_leaves_nothing_behind() -> None:
    program = """
import gc, sys
from pneumonia.serving.coldstart import UNUSED, lean_imports
try:
    with lean_imports():
        import no_such_module
except ModuleNotFoundError as error:
    assert error.name == "no_such_module"
    print("fine")
assert gc.isenabled()
assert not UNUSED.keys() & sys.modules.keys()
"""
    assert run(program) == "fine\n"


def test_modules_that_were_imported_before_stay() -> None:
    program = """
import sys
import pydantic.v1 as before
from pneumonia.serving.coldstart import lean_imports
with lean_imports():
    import pydantic.v1 as within
    assert "torch._meta_registrations" in sys.modules
import pydantic.v1 as after
assert before is within is after is sys.modules["pydantic.v1"]
assert "torch._meta_registrations" not in sys.modules
print("fine")
"""
    assert run(program) == "fine\n"


@pytest.fixture
def xray(tmp_path: Path) -> str:
    path = tmp_path / "xray.png"
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "PNG")
    path.write_bytes(file.getvalue())
    return str(path)


@pytest.fixture(scope="module")
def files(weights: Path) -> ReleaseFiles:
    """A release with the weights of both engines."""
    return with_onnx(files_of(weights, manifest_for(weights)), onnx_file(load_weights(weights)))


@ENGINES
def test_first_answer_imports_nothing_that_it_does_not_need(
    engine: str, files: ReleaseFiles, tmp_path: Path, xray: str
) -> None:
    files.write_into(tmp_path)
    where = {"ENGINE": engine, "MODEL_PATH": str(tmp_path / WEIGHTS_NAME)} | ON_LAMBDA
    printed = run(ANSWER, xray, *UNWANTED, *OTHERS[engine], **where)
    assert printed.splitlines()[-1].split() == ["200", files.manifest.version]


def test_dicom_is_answered_where_the_first_answer_went_without_what_it_takes(
    weights: Path, xray: str, tmp_path: Path
) -> None:
    path = tmp_path / "xray.dcm"
    path.write_bytes(dicom(np.arange(64_000, dtype=np.uint16).reshape(250, 256), JPEGLosslessSV1))
    program = """
import sys
from pathlib import Path
import app
from fastapi.testclient import TestClient
with TestClient(app.app) as client:
    for path in sys.argv[1:]:
        response = client.post("/predict", files={"file": Path(path).read_bytes()})
        print(response.status_code, "pydicom" in sys.modules)
"""
    printed = run(program, xray, str(path), MODEL_PATH=str(weights), **ON_LAMBDA).splitlines()
    assert [line for line in printed if line.startswith("200 ")] == ["200 False", "200 True"]


@ENGINES
def test_nor_does_it_where_the_weights_come_from_s3(
    engine: str, moto: Moto, bucket: str, files: ReleaseFiles, tmp_path: Path, xray: str
) -> None:
    publish_files(files, bucket)
    where = {"ENGINE": engine, "MODEL_PATH": str(tmp_path / "model.pth"), "MODEL_BUCKET": bucket} | ON_LAMBDA
    printed = run(ANSWER, xray, *UNWANTED, *OTHERS[engine], **where)
    version, name = files.manifest.version, NAMES[engine]
    assert printed.splitlines()[-1].split() == ["200", version]
    assert path_for(tmp_path / "model.pth", engine).read_bytes() == files.by_engine()[engine]
    got = [request for request in moto.requests() if request.startswith(f"GET /{bucket}/")]
    assert got[-3:] == [  # publishing has asked as well
        f"GET /{bucket}/current.json",
        f"GET /{bucket}/releases/{version}/manifest.json",
        f"GET /{bucket}/releases/{version}/{name}",
    ]


def test_elsewhere_nothing_is_missing_afterwards() -> None:
    program = """
import app, torch, torchvision
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
"""
    assert run(program) == "2.0\n"
