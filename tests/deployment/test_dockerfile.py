"""The Dockerfile: what it copies, and the image that buildah really builds from it.

AWS's base image is replaced by Debian with Lambda's runtime client, for machines that reach no image registry.
"""

import base64
import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pneumonia.releases.fetch import Weights
from pneumonia.serving.page import GUIDES, STATIC, Guide
from pneumonia.serving.predictor import Predictor
from pneumonia.serving.problems import NO_REASON
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.imports import closure_of, file_of
from tools.stand_ins.events import function_url_event, multipart
from tools.stand_ins.runtime_api import RuntimeApi

HANDLERS = ("app", "promote_model", "pneumonia.batch.s3_operations")
BASE = "localhost/lambda-python:base"
BASE_PACKAGES = {
    "awslambdaric",
    "pip",
    "setuptools",
    "simplejson",
    "snapshot-restore-py",
    "wheel",
}  # not the Dockerfile's
MACHINE_SETTINGS = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")  # a mirror, a proxy's certificate

# Lambda's surroundings: a user without rights, nothing to write to but /tmp. buildah's chroot isolation cannot make the
# root file system read-only; a mount namespace can, and it takes its mounts with it when the process ends.
SANDBOX = """
set -e
root=$1 tmp=$2
shift 2
mount --bind "$root" "$root"
mount --bind "$tmp" "$root/tmp"
mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec chroot --userspec=65534:65534 --groups= "$root" "$@"
"""

Invoke = Callable[[dict[str, Any]], dict[str, Any]]


def instructions() -> list[list[str]]:
    """Return the Dockerfile's instructions, split into words."""
    lines = [line for line in (PROJECT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    return [line.split() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def copied() -> list[str]:
    return [source for keyword, *words in instructions() if keyword == "COPY" for source in words[:-1]]


def files_copied() -> set[Path]:
    """Return the files that the Dockerfile's COPY instructions name, one by one or by their folder."""
    named = {path for pattern in copied() for path in PROJECT.glob(pattern)}
    within = {path for folder in named for path in folder.rglob("*") if "__pycache__" not in path.parts}
    return {path for path in named | within if path.is_file()}


def test_it_copies_the_rooms_of_what_the_handlers_import_and_show() -> None:
    imported = {file for handler in HANDLERS for module in closure_of(handler) if (file := file_of(module))}
    shown = {STATIC, GUIDES / "model-card", *(GUIDES / f"{guide}.md" for guide in Guide)}
    rooms = {
        f"pneumonia/{file.relative_to(PROJECT).parts[1]}" for file in imported if file.parent.parent.name == "pneumonia"
    }
    doors = {"requirements.txt", "app.py", "promote_model.py", "pneumonia/*.py"}

    assert imported <= files_copied()
    assert set(copied()) == doors | rooms | {str(path.relative_to(PROJECT)) for path in shown - {STATIC}}


def test_the_context_is_exactly_what_is_copied() -> None:
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    let_in = {
        path for rule in rules if rule[0] == "!" for path in (PROJECT / rule[1:], *(PROJECT / rule[1:]).rglob("*"))
    }
    refused = [rule for rule in rules[1:] if rule[0] != "!"]
    kept_out = {path for rule in refused for place in (rule, f"{rule}/**/*") for path in PROJECT.glob(place)}

    assert rules[0] == "*"
    assert {path for path in let_in - kept_out if path.is_file()} == files_copied()


def test_it_keeps_the_contract() -> None:
    steps = [" ".join(words) for words in instructions()]
    runs = [step for step in steps if step.startswith("RUN")]

    assert steps[:3] == ["ARG BASE_IMAGE=aws", "FROM public.ecr.aws/lambda/python:3.13 AS aws", "FROM ${BASE_IMAGE}"]
    assert "ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu" in steps
    assert 'python -c "import app' in runs[-1]
    assert steps[-1] == 'CMD ["app.handler"]'


def test_it_installs_before_it_copies_code() -> None:
    steps = [" ".join(words) for words in instructions()]
    install = next(number for number, step in enumerate(steps) if "pip install" in step)

    assert [step for step in steps[:install] if step.startswith("COPY")] == ["COPY requirements.txt ./"]


@dataclass(frozen=True)
class Image:
    """A built image.

    Attributes:
        root: its file system, as a folder of this machine.
        settings: its `Env`, `WorkingDir`, `Entrypoint` and `Cmd`.
    """

    root: Path
    settings: dict[str, Any]

    def command(self, tmp: Path, environment: dict[str, str], arguments: list[str] | None = None) -> list[str]:
        """Return the command that runs the image as Lambda would, or something else in the same surroundings.

        Args:
            tmp: folder that is /tmp in there.
            environment: variables on top of the image's own.
            arguments: None for the image's entrypoint and command.
        """
        variables = self.settings["Env"] + [f"{name}={value}" for name, value in environment.items()]
        inside = ["env", "--ignore-environment", f"--chdir={self.settings['WorkingDir']}", *variables]
        inside += arguments or self.settings["Entrypoint"] + self.settings["Cmd"]
        return ["unshare", "--mount", "sh", "-c", SANDBOX, "sh", str(self.root), str(tmp), *inside]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image of this checkout's Dockerfile; 20 GB of disk while the tests run, with a CUDA build of torch."""
    if missing := [tool for tool in ("buildah", "debootstrap", "apt-get", "unshare") if not shutil.which(tool)]:
        pytest.skip(f"building the image takes {', '.join(missing)}: apt-get install buildah debootstrap")
    if os.geteuid() != 0:
        pytest.skip("building the image takes root: debootstrap and chroot do")
    folder = tmp_path_factory.mktemp("image")
    try:
        buildah = Buildah(folder)
        make_base(buildah, *debian_mirror())
        build_arguments = (f"BASE_IMAGE={BASE}", f"TORCH_INDEX_URL={os.environ.get('TORCH_INDEX_URL', '')}")
        flags = [f"--build-arg={argument}" for argument in build_arguments]
        # One layer instead of one per instruction, and no container: vfs copies the whole file system for each.
        context = str(make_context(folder / "context"))
        buildah("build", "--layers=false", "--network=host", *flags, "--tag=app", context)
        settings = json.loads(buildah("inspect", "--type=image", "app"))["OCIv1"]["config"]
        handler = next((folder / "storage/vfs/dir").glob("*/var/task/app.py"))  # the image's layer, a plain folder
        yield Image(handler.parents[2], settings)
    finally:
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", folder], check=True)


class Buildah:
    """Runs buildah with a storage of its own, so that the user's is not touched.

    The driver vfs and the isolation chroot work in containers too, and leave nothing mounted.

    Args:
        folder: where images and containers are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._command = ["buildah", "--storage-driver=vfs", f"--root={folder}/storage", f"--runroot={folder}/run"]
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(folder)}

    def __call__(self, *arguments: str) -> str:
        """Run a subcommand and return what it prints; what goes wrong is on standard error."""
        command = [*self._command, *arguments]
        done = subprocess.run(command, env=self._environment, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()


def debian_mirror() -> tuple[str, str]:
    """Return the suite of this Debian and the mirror that apt is set to use for it."""
    system = platform.freedesktop_os_release()
    suite = system.get("VERSION_CODENAME", "")
    listing = subprocess.run(["apt-get", "update", "--print-uris"], check=True, capture_output=True, text=True).stdout
    mirror = re.search(rf"^'(https?://\S+)/dists/{suite}/InRelease'", listing, re.MULTILINE)
    if system["ID"] != "debian" or not mirror:
        pytest.skip("the image's stand-in for AWS's base is made of Debian, and apt names no mirror of it here")
    return suite, mirror[1]


def make_base(buildah: Buildah, suite: str, mirror: str) -> None:
    """Make an image that has what AWS's base image has, as far as a Dockerfile and a handler notice."""
    container = buildah("from", "scratch")
    root = Path(buildah("mount", container))
    packages = "--include=python3,python3-pip,python3-venv"
    # In a mount namespace, as debootstrap mounts /proc and /sys there and would leave them when it fails.
    subprocess.run(
        ["unshare", "--mount", "debootstrap", "--variant=minbase", packages, suite, root, mirror], check=True
    )
    for path in filter(os.path.exists, MACHINE_SETTINGS):
        shutil.copyfile(path, f"{root}{path}")
    entrypoint = root / "lambda-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\nexec python -m awslambdaric "$1"\n')
    entrypoint.chmod(0o755)
    (root / "usr/bin/python").symlink_to("python3")
    # Debian's word against pip, and its start-up code of setuptools: AWS's base has neither.
    for pattern in ("usr/lib/python3*/EXTERNALLY-MANAGED", "usr/lib/python3/dist-packages/distutils-precedence.pth"):
        for unwanted in root.glob(pattern):
            unwanted.unlink()
    if index := os.environ.get("PIP_INDEX_URL"):
        buildah("config", f"--env=PIP_INDEX_URL={index}", container)
    pins = (PROJECT / "requirements-dev.txt").read_text()
    client = next(line for line in pins.splitlines() if line.startswith("awslambdaric=="))
    install = f"python -m pip install --no-cache-dir --upgrade pip && pip install --no-cache-dir {shlex.quote(client)}"
    buildah("run", "--network=host", container, "--", "sh", "-c", install)
    task_root = ("--env=LAMBDA_TASK_ROOT=/var/task", "--workingdir=/var/task")
    buildah("config", *task_root, '--entrypoint=["/lambda-entrypoint.sh"]', container)
    buildah("commit", "--rm", container, BASE)


def make_context(destination: Path) -> Path:
    """Copy what is near the Dockerfile in the checkout, readable by its owner alone, as some checkouts are."""
    destination.mkdir()
    for path in PROJECT.glob("*.*"):
        if path.is_file():
            shutil.copyfile(path, destination / path.name)
    shutil.copyfile(PROJECT / "Dockerfile", destination / "Dockerfile")
    for folder in ("docs", "pneumonia"):
        shutil.copytree(PROJECT / folder, destination / folder)
    (destination / "weights").mkdir()
    (destination / "weights" / "pneumonia_classifier.pth").write_bytes(b"never in the image")
    for path in destination.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return destination


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    """An empty folder that anyone may write to, as /tmp is at a cold start."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@contextlib.contextmanager
def cold_start(image: Image, tmp: Path) -> Iterator[Invoke]:
    with RuntimeApi() as api:
        process = subprocess.Popen(image.command(tmp, {"AWS_LAMBDA_RUNTIME_API": api.address}))
        try:
            yield lambda event: api.invoke(event, timeout=300, process=process)
        finally:
            process.kill()
            process.wait()


def upload(data: bytes) -> dict[str, Any]:
    body, content_type = multipart("file", "xray.png", data, "image/png")
    return function_url_event("POST", "/predict", body, {"Content-Type": content_type})


@pytest.fixture(scope="module")
def radiograph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("radiograph") / "xray.png"
    draw_radiograph(Random(0), "PNEUMONIA").save(path)
    return path.read_bytes()


@pytest.mark.image
def test_the_task_root_has_the_copied_files_compiled_and_readable(image: Image) -> None:
    task_root = image.root / "var/task"
    files = [path for path in task_root.rglob("*") if path.is_file()]
    sources = [path for path in files if path.suffix != ".pyc"]
    compiled = {
        (path.parent.parent / path.name.partition(".")[0]).with_suffix(".py") for path in set(files) - set(sources)
    }

    expected = sorted(str(path.relative_to(PROJECT)) for path in files_copied())
    assert sorted(str(path.relative_to(task_root)) for path in sources) == expected
    assert compiled == {path for path in sources if path.suffix == ".py"}
    assert [path for path in files if not path.stat().st_mode & 0o004] == []


@pytest.mark.image
def test_only_tmp_is_writable_in_the_surroundings(image: Image, tmp: Path) -> None:
    script = "touch /tmp/file && ! touch /var/task/file && ! touch /var/tmp/file && id -u"
    done = subprocess.run(image.command(tmp, {}, ["sh", "-c", script]), check=True, capture_output=True, text=True)

    assert done.stdout == "65534\n"
    assert done.stderr.count("Read-only file system") == 2


@pytest.mark.image
def test_its_handler_answers_health_and_says_that_weights_are_missing(
    image: Image, tmp: Path, radiograph: bytes
) -> None:
    with cold_start(image, tmp) as invoke:
        health = invoke(function_url_event("GET", "/health"))
        prediction = invoke(upload(radiograph))

    assert (health["statusCode"], json.loads(health["body"])) == (200, {"status": "ok", "model_version": None})
    assert prediction["statusCode"] == 503
    assert json.loads(prediction["body"]) == {"detail": NO_REASON}


@pytest.mark.image
def test_its_handler_shows_the_page_and_the_model_card(image: Image, tmp: Path) -> None:
    with cold_start(image, tmp) as invoke:
        page, style, card, picture = (
            invoke(function_url_event("GET", path))
            for path in ("/", "/static/page.css", "/guide/model-card.md", "/guide/model-card/learning_curves.png")
        )

    assert page["body"] == (STATIC / "index.html").read_text()
    assert style["body"] == (STATIC / "page.css").read_text()
    assert '<h1 id="model-card">Model card</h1>' in card["body"]
    assert base64.b64decode(picture["body"]) == (GUIDES / "model-card/learning_curves.png").read_bytes()


@pytest.mark.image
def test_its_handler_answers_as_the_checkout_does(image: Image, tmp: Path, radiograph: bytes, weights: Path) -> None:
    model = tmp / "model.pth"
    shutil.copyfile(weights, model)
    expected = Predictor(Weights(model)).predict(radiograph)

    with cold_start(image, tmp) as invoke:
        response = invoke(upload(radiograph))

    answer = json.loads(response["body"])
    assert response["statusCode"] == 200
    assert response["headers"]["content-type"] == "application/json"
    assert (answer["prediction"], answer["model_version"]) == (expected.prediction, expected.model_version)
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.image
def test_every_package_in_it_is_imported_by_a_function(
    image: Image, tmp: Path, radiograph: bytes, weights: Path
) -> None:
    shutil.copyfile(weights, tmp / "model.pth")
    script = (PROJECT / "benchmarks/packages.py").read_text()
    done = subprocess.run(
        image.command(tmp, {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "2048"}, ["python", "-c", script]),
        input=json.dumps(upload(radiograph)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(done.stdout)
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]  # not what is logged about the request
    rows = [line.strip("| ").split(" | ") for line in table[1:]]
    unused = {name for name, _, user in rows if user == "none"}

    assert {"torch", "fastapi", "pillow"} <= {name for name, _, user in rows if user == "prediction"}
    # The CPU wheels of torch, which the image is made of where PyTorch's index can be reached, bring no CUDA.
    cuda = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["uv"]["pip"]["no-emit-package"]
    assert unused <= BASE_PACKAGES | set(cuda)
