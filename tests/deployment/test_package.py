"""`pip install .`: the wheel that it makes, in an environment that has no checkout beside it."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from pneumonia import __version__
from pneumonia.files import sha256
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.serving.page import Guide
from tests.builders.checkout import PROJECT

pytestmark = pytest.mark.processes

UV = Path(sys.executable).with_name("uv")
CHEST = PROJECT / "docs" / "tutorial" / "person96_virus_96.jpeg"
CLASSIFY = f"""
from pathlib import Path
from pneumonia.releases.fetch import Weights
from pneumonia.serving.predictor import Predictor
print(Predictor(Weights(Path("none.pth"))).predict(Path({str(CHEST)!r}).read_bytes()).prediction)
"""
VERSIONS = """
import importlib.metadata, pneumonia
print(importlib.metadata.version("pneumonia-sagemaker-lambda"), pneumonia.__version__)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel of this checkout, and its dependencies lent by the environment of this process."""
    folder = tmp_path_factory.mktemp("package")
    environment = folder / "env"
    venv.create(environment, symlinks=True)
    subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", folder, PROJECT], check=True)
    (wheel,) = folder.glob("*.whl")
    python = environment / "bin" / "python"
    subprocess.run([UV, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True)
    (packages_of(environment) / "lent.pth").write_text(sysconfig.get_path("purelib"))
    return environment


@pytest.fixture
def package(environment: Path) -> Path:
    return packages_of(environment) / "pneumonia"


def packages_of(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))


def files_below(folder: Path) -> set[Path]:
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {file for file in files if "__pycache__" not in file.parts}


def python(environment: Path, folder: Path, code: str) -> str:
    return run(environment, folder, "python", "-c", code)


def run(environment: Path, folder: Path, program: str, *arguments: str) -> str:
    """Run a program in a folder without a checkout, and return what it printed."""
    command: list[str | Path] = [environment / "bin" / program, *arguments]
    return subprocess.run(command, cwd=folder, env={}, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_it_has_the_whole_package_and_none_of_the_scripts(environment: Path, package: Path) -> None:
    of_the_package = {file for file in files_below(package) if file.parts[0] not in {"weights", "docs"}}
    assert of_the_package == files_below(PROJECT / "pneumonia")
    assert Path("py.typed") in of_the_package
    metadata = f"pneumonia_sagemaker_lambda-{__version__}.dist-info"
    assert {path.name for path in packages_of(environment).iterdir()} == {"pneumonia", metadata, "lent.pth"}


def test_it_has_the_released_weights(package: Path) -> None:
    assert files_below(package / "weights") == files_below(PROJECT / "weights")
    assert sha256(package / "weights" / WEIGHTS_NAME) == sha256(RELEASED_WEIGHTS)


def test_it_shows_its_own_page_and_guides(environment: Path, package: Path, tmp_path: Path) -> None:
    code = "from pneumonia.serving.page import GUIDES, STATIC; print(GUIDES, STATIC, sep='\\n')"
    guides, static = map(Path, python(environment, tmp_path, code).splitlines())
    assert static == package / "serving" / "static"
    assert files_below(guides / "model-card") == files_below(PROJECT / "docs" / "model-card")
    for guide in Guide:
        assert (guides / f"{guide}.md").read_text() == (PROJECT / "docs" / f"{guide}.md").read_text()


def test_it_classifies_with_the_released_weights(environment: Path, tmp_path: Path) -> None:
    assert python(environment, tmp_path, CLASSIFY) == "PNEUMONIA\n"


def test_its_version_is_said_in_one_place(environment: Path, tmp_path: Path) -> None:
    assert python(environment, tmp_path, VERSIONS).split() == [__version__, __version__]


def test_it_brings_the_command(environment: Path, tmp_path: Path) -> None:
    assert __version__ in run(environment, tmp_path, "pneumonia", "--version")
    help_ = run(environment, tmp_path, "pneumonia", "--help")
    assert help_ == run(environment, tmp_path, "python", "-m", "pneumonia", "--help")
    for word in ("predict", "evaluate", "split", "draw", "serve", "batch", "s3-batch"):
        assert word in help_
