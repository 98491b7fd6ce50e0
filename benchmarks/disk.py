"""Measure what `make run` writes to the disk of a bare machine, for each engine.

`python benchmarks/disk.py` copies the last commit into an empty folder, with a home folder and caches of its own. There
it runs `make run` until the server answers, and then does the same with `make run ENGINE=onnx` in another folder. It
prints a Markdown table of megabytes, counted by the blocks that are used; hard links count once.
"""

import argparse
import contextlib
import http.client
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

PROJECT = Path(__file__).parent.parent
CUDA = ("nvidia", "cuda", "triton")  # what torch of pip's default index needs on Linux, unlike a CPU wheel
SHOWN = 8  # packages in a line of the table


def used(paths: Iterable[Path]) -> float:
    """Return the megabytes of disk that files and folders use."""
    blocks = {}
    for path in paths:
        status = path.lstat()
        blocks[status.st_dev, status.st_ino] = status.st_blocks
    return sum(blocks.values()) * 512 / 1e6


def checkout(folder: Path) -> Path:
    """Write the files of the last commit into a new folder; return the folder."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=PROJECT, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def run_until_it_answers(folder: Path, home: Path, engine: str) -> None:
    """Run `make run` until the server has answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # A bare machine has neither this process's virtual environment nor its caches.
    outside = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "UV_CACHE_DIR"}}
    bare = outside | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    command = ["make", "run", f"PYTHON={sys.base_prefix}/bin/python3", f"PORT={port}", f"ENGINE={engine}"]
    process = subprocess.Popen(command, cwd=folder, env=bare, start_new_session=True)
    try:
        wait_for(process, port)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def wait_for(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Wait until the server at a port answers.

    Raises:
        RuntimeError: the process ends before that.
    """
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/health")
            connection.getresponse().read()
            return
        time.sleep(0.5)
    raise RuntimeError(f"make ended with {process.returncode}")


def packages_in(folder: Path) -> dict[str, float]:
    """Return the megabytes of the packages that were installed for serving, the largest first."""
    places = {str(path) for path in folder.glob(".venv/**/site-packages")}
    sizes: dict[str, float] = {}
    for distribution in distributions(path=sorted(places)):
        files = [Path(str(file.locate())) for file in distribution.files or []]
        sizes[distribution.name] = used(file for file in files if file.is_file())
    return dict(sorted(sizes.items(), key=lambda one: -one[1]))


def row(engine: str, folder: Path) -> str:
    """Return what `make run` writes to the disk with one engine, as a line of the table."""
    source, home = checkout(folder / "checkout"), folder / "home"
    home.mkdir()
    before = used(folder.rglob("*"))
    run_until_it_answers(source, home, engine)
    packages = packages_in(source)
    cuda = sum(size for name, size in packages.items() if name.startswith(CUDA))
    largest = ", ".join(f"{name} {size:.0f}" for name, size in list(packages.items())[:SHOWN])
    cells = (used(folder.rglob("*")) - before, used((source / ".venv").rglob("*")), used(home.rglob("*")), cuda)
    return f"| {engine} | {' | '.join(f'{cell:.0f}' for cell in cells)} | {largest} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", default=["torch", "onnx"], help="(torch onnx)")
    args = parser.parse_args()
    print(
        "| make run, MB | in all | .venv | caches | of it CUDA's packages | the largest packages |",
        "|---" * 6 + "|",
        sep="\n",
    )
    for engine in args.engines:
        folder = Path(tempfile.mkdtemp())
        try:
            print(row(engine, folder), flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
