"""The image that buildah really builds from the Dockerfile, as a folder, and what runs in it as on Lambda.

AWS's base image is replaced by Debian with Lambda's runtime client, for machines that reach no image registry.
"""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.builders.checkout import PROJECT

BASE = "localhost/lambda-python:base"
BASE_PACKAGES = {"awslambdaric", "pip", "setuptools", "simplejson", "snapshot-restore-py", "wheel"}
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


@dataclass(frozen=True)
class ContainerImage:
    """A built image.

    Attributes:
        engine: that it was built for.
        root: its file system, as a folder of this machine.
        settings: its `Env`, `WorkingDir`, `Entrypoint` and `Cmd`.
    """

    engine: str
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


class Buildah:
    """Runs buildah with a storage of its own, so that the user's is not touched.

    The driver vfs and the isolation chroot work in containers too, and leave nothing mounted.

    Args:
        folder: where images and containers are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layers = folder / "storage/vfs/dir"  # a plain folder each, with all that is below it
        self._command = ["buildah", "--storage-driver=vfs", f"--root={folder}/storage", f"--runroot={folder}/run"]
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(folder)}

    def __call__(self, *arguments: str) -> str:
        """Run a subcommand and return what it prints; what goes wrong is on standard error."""
        command = [*self._command, *arguments]
        done = subprocess.run(command, env=self._environment, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()


def skip_without_tools() -> None:
    """Skip the tests that need an image where none can be built."""
    if missing := [tool for tool in ("buildah", "debootstrap", "apt-get", "unshare") if not shutil.which(tool)]:
        pytest.skip(f"building the image takes {', '.join(missing)}: apt-get install buildah debootstrap")
    if os.geteuid() != 0:
        pytest.skip("building the image takes root: debootstrap and chroot do")


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


def build(buildah: Buildah, engine: str) -> ContainerImage:
    """Build the Dockerfile on the base.

    What it installs is written through a volume, and put into the image's folder afterwards: vfs would copy gigabytes
    of packages for each stage, and write them into an archive besides.

    Args:
        buildah: has the base and no image built on it.
        engine: to build for.
    """
    folder = buildah.folder / engine
    (of_base,) = buildah.layers.glob("*/usr/local/lib/python3*/dist-packages")
    place = Path(*of_base.relative_to(buildah.layers).parts[1:])
    packages = folder / "packages"
    shutil.copytree(of_base, packages)
    arguments = {"BASE_IMAGE": BASE, "TORCH_INDEX_URL": os.environ.get("TORCH_INDEX_URL", ""), "ENGINE": engine}
    flags = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    context = str(make_context(folder / "context"))
    # One layer instead of one per instruction.
    buildah("build", "--layers=false", "--network=host", f"--volume={packages}:/{place}", *flags, "--tag=app", context)
    settings = json.loads(buildah("inspect", "--type=image", "app"))["OCIv1"]["config"]
    (handler,) = buildah.layers.glob("*/var/task/app.py")
    root = handler.parents[2]
    shutil.rmtree(root / place)
    packages.rename(root / place)
    return ContainerImage(engine, root, settings)


def make_context(destination: Path) -> Path:
    """Copy what is near the Dockerfile in the checkout, readable by its owner alone, as some checkouts are."""
    destination.mkdir()
    for path in PROJECT.glob("*.*"):
        if path.is_file():
            shutil.copyfile(path, destination / path.name)
    shutil.copyfile(PROJECT / "Dockerfile", destination / "Dockerfile")
    for folder in ("docs", "pneumonia", "tools"):
        shutil.copytree(PROJECT / folder, destination / folder)
    (destination / "weights").mkdir()
    (destination / "weights" / "pneumonia_classifier.pth").write_bytes(b"never in the image")
    for path in destination.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return destination
