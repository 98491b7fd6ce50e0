"""A release that is written to a disk by a process that is killed, or by several at once."""

import itertools
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pneumonia.files import locked
from pneumonia.network.contract import MANIFEST_NAME, ONNX_NAME, WEIGHTS_NAME
from pneumonia.releases.manifest import Manifest, parse
from pneumonia.releases.release_files import write_release
from tests.builders.checkout import PROJECT
from tests.builders.disk import full_after
from tests.builders.releases import manifest_for

# Writes a release, and kills itself before its nth operation on the folder: opening, renaming or removing a file.
WRITE = """
import os, signal, sys
from pathlib import Path
from pneumonia.releases.manifest import parse
from pneumonia.releases.release_files import write_release
weights, content, manifest = Path(sys.argv[1]), sys.argv[2].encode(), parse(sys.argv[3], "here")
left = int(sys.argv[4])
def count(event, arguments):
    global left
    if event in {"open", "os.rename", "os.chmod", "os.remove"} and str(arguments[0]).startswith(str(weights.parent)):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
write_release({weights: content, weights.with_suffix(".onnx"): content}, manifest)
"""


def manifest_of_bytes(content: bytes, folder: Path, version: str) -> Manifest:
    path = folder / "bytes"
    path.write_bytes(content)
    manifest = manifest_for(path, version)
    path.unlink()
    return manifest


def versions_in(folder: Path) -> tuple[str | None, str | None]:
    """Return the versions that the weights and the manifest in a folder are of; None for a file that is not there."""
    manifest = folder / MANIFEST_NAME
    version = parse(manifest.read_bytes(), "here").version if manifest.exists() else None
    return text_of(folder / WEIGHTS_NAME), version


def text_of(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def files_with(content: bytes, folder: Path) -> dict[Path, bytes]:
    """Return both files of a release with the same content."""
    return {folder / WEIGHTS_NAME: content, folder / ONNX_NAME: content}


@pytest.mark.processes
@pytest.mark.parametrize("before", [None, "old"])
def test_killed_at_any_step_the_manifest_is_there_before_the_weights(tmp_path: Path, before: str | None) -> None:
    manifest = manifest_of_bytes(b"new", tmp_path, "new").to_json()
    seen = []
    for step in itertools.count(1):
        folder = tmp_path / str(step)
        folder.mkdir()
        if before:
            write_release(files_with(b"old", folder), manifest_of_bytes(b"old", tmp_path, "old"))
        arguments: list[str | Path] = [folder / WEIGHTS_NAME, "new", manifest, str(step)]
        ended = subprocess.run([sys.executable, "-c", WRITE, *arguments], cwd=PROJECT, check=False).returncode
        seen.append((text_of(folder / ONNX_NAME), *versions_in(folder)))
        assert ended in {0, -signal.SIGKILL}
        if ended == 0:
            break
        write_release(files_with(b"new", folder), parse(manifest, "here"))
        assert (text_of(folder / ONNX_NAME), *versions_in(folder)) == ("new", "new", "new")
    assert len(seen) > 10
    assert list(dict.fromkeys(seen)) == [
        *((before, before, before), (before, before, "new")),
        *(("new", before, "new"), ("new", "new", "new")),
    ]


def test_two_at_once_write_one_after_the_other(tmp_path: Path) -> None:
    releases = {name: manifest_of_bytes(name.encode(), tmp_path, name) for name in ("1", "2", "3")}
    folder = tmp_path / "released"
    folder.mkdir()
    threads = [
        threading.Thread(target=write_release, args=({folder / WEIGHTS_NAME: name.encode()}, manifest))
        for name, manifest in releases.items()
    ]
    with locked(folder):
        for thread in threads:
            thread.start()
        assert not list(folder.iterdir())
    for thread in threads:
        thread.join()
    weights, manifest = versions_in(folder)
    assert weights == manifest
    assert {path.name for path in folder.iterdir()} == {WEIGHTS_NAME, MANIFEST_NAME}


def test_foreign_weights_leave_no_manifest_of_another_release(tmp_path: Path) -> None:
    write_release({tmp_path / WEIGHTS_NAME: b"old"}, manifest_of_bytes(b"old", tmp_path, "old"))
    write_release({tmp_path / WEIGHTS_NAME: b"foreign"}, None)
    assert versions_in(tmp_path) == ("foreign", None)


def test_a_full_disk_leaves_both_files_as_they_were(tmp_path: Path) -> None:
    weights = tmp_path / WEIGHTS_NAME
    write_release({weights: b"old"}, manifest_of_bytes(b"old", tmp_path, "old"))
    large = manifest_of_bytes(bytes(50_000), tmp_path, "new")
    with full_after(40_000), pytest.raises(OSError, match="File too large"):
        write_release({weights: bytes(50_000)}, large)
    with full_after(100), pytest.raises(OSError, match="File too large"):
        write_release({weights: b"new"}, manifest_of_bytes(b"new", tmp_path, "new"))
    assert versions_in(tmp_path) == ("old", "old")
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS_NAME, MANIFEST_NAME}
