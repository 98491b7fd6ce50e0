"""What the commands do where a package is not installed: answer by the other engine, or say what is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.releases.history import listing
from pneumonia.releases.loading import load
from pneumonia.releases.release_files import ReleaseFiles
from tests.builders.archives import model_archive
from tests.builders.checkout import PROJECT
from tests.builders.images import XRAY
from tests.builders.releases import exported, manifest_for, publish_files

WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
sys.argv = sys.argv[2:]
run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
run(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def files(weights: Path) -> ReleaseFiles:
    return exported(weights, manifest_for(weights, "2"))


def run_without(packages: str, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a script or a module where packages are not installed."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, packages, *command],
        env=os.environ | variables,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.processes
@pytest.mark.parametrize("package", ["torch", "onnx", "onnxruntime"])
def test_promotion_says_which_package_is_missing(tmp_path: Path, weights: Path, package: str) -> None:
    archive = model_archive(tmp_path, weights)
    ended = run_without(package, "promote_model.py", str(archive), "--directory", str(tmp_path / "released"))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"`promote_model.py promote` needs {package}, which is not installed: pip install -r requirements.txt.\n"
    )
    assert not (tmp_path / "released").exists()


@pytest.mark.processes
def test_releases_are_listed_and_shown_without_torch(bucket: str, files: ReleaseFiles) -> None:
    publish_files(files, bucket)
    listed = run_without("torch,onnx,onnxruntime", "promote_model.py", "list", "--bucket", bucket)
    assert listed.stdout == listing(bucket) + "\n", listed.stderr
    shown = run_without("torch,onnx,onnxruntime", "promote_model.py", "show", "2", "--bucket", bucket)
    assert json.loads(shown.stdout)["version"] == "2", shown.stderr


@pytest.mark.processes
@pytest.mark.parametrize("verb", ["evaluate", "calibrate"])
def test_what_needs_torch_says_so_without_it(tmp_path: Path, files: ReleaseFiles, verb: str) -> None:
    files.write_into(tmp_path)
    (tmp_path / "xrays").mkdir()
    ended = run_without(
        "torch", "pneumonia", verb, str(tmp_path), str(tmp_path / "xrays"), "--output", str(tmp_path / "o")
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"`pneumonia {verb}` needs torch, which is not installed: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.processes
def test_commands_answer_by_the_onnx_file_where_there_is_no_torch(
    tmp_path: Path, files: ReleaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_into(tmp_path)
    (tmp_path / "xrays").mkdir()
    (tmp_path / "xrays" / "one.jpeg").write_bytes(XRAY)
    image, rows = str(tmp_path / "xrays" / "one.jpeg"), str(tmp_path / "rows.csv")
    predicted = run_without("torch", "pneumonia", "predict", "--weights", str(tmp_path), image)
    assert predicted.returncode == 0, predicted.stderr
    served = run_without("torch", "pneumonia", "predict", image, MODEL_PATH=str(tmp_path / WEIGHTS_NAME))
    assert served.stdout == predicted.stdout, served.stderr
    batch = run_without("torch", "pneumonia", "batch", "--weights", str(tmp_path), str(tmp_path / "xrays"), rows)
    assert batch.returncode == 0, batch.stderr
    told = json.loads(predicted.stdout)
    assert told["model_version"] == "2"
    assert str(told["probabilities"]["PNEUMONIA"]) in Path(rows).read_text()
    monkeypatch.setenv("ENGINE", "torch")
    assert load(tmp_path).predict(XRAY).probabilities["PNEUMONIA"] == pytest.approx(
        told["probabilities"]["PNEUMONIA"], abs=1e-4
    )
