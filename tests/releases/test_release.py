"""Weights and manifest on a disk: both of one release, or a sentence."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pneumonia.deadline import Deadline
from pneumonia.errors import WeightsError, WeightsUnavailableError
from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.contract import MANIFEST_NAME
from pneumonia.releases.fetch import Weights
from pneumonia.releases.loading import load
from pneumonia.releases.manifest import Manifest
from pneumonia.releases.release import read_release
from pneumonia.releases.release_files import write_release
from tests.builders.checkout import PROJECT
from tests.builders.releases import CALIBRATION, manifest_for

LOAD = """
import sys
from pathlib import Path
from pneumonia.errors import WeightsError
from pneumonia.releases.loading import load
for _ in range(8):
    try:
        print(load(Path(sys.argv[1])).version)
    except WeightsError as error:
        print(error)
"""


@pytest.fixture
def file(weights: Path, tmp_path: Path) -> Path:
    """Weights with their manifest, in a folder of their own."""
    copy = Path(shutil.copy(weights, tmp_path / "model.pth"))
    manifest_for(copy).write_beside(copy)
    return copy


@pytest.fixture
def releases(weights: Path, tmp_path: Path) -> list[tuple[bytes, Manifest]]:
    """Two releases; what torch does not read at the end of its file makes them differ."""
    given = []
    for version in ("1", "2"):
        path = tmp_path / version
        path.write_bytes(b"PK of release " + version.encode() + weights.read_bytes())
        given.append((path.read_bytes(), manifest_for(path, version)))
    return given


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_release_is_its_weights_and_their_manifest(file: Path) -> None:
    release = read_release(file)
    assert (release.weights, release.sha256) == (file.read_bytes(), sha256(file))
    assert release.manifest == manifest_for(file)
    assert release.version == "20260102-030405-0a1b2c3d"


def test_weights_without_a_manifest_are_foreign(file: Path) -> None:
    file.with_name(MANIFEST_NAME).unlink()
    release = read_release(file)
    assert release.manifest is None
    assert release.version == f"sha256-{sha256(file)[:12]}"


@pytest.mark.parametrize(
    "content",
    ['{"name": "Radiology", "start_url": "/", "icons": []}', '{"manifest_version": 3, "version": "1.0"}', "{}", "[]"],
)
def test_manifest_of_another_program_makes_weights_foreign(file: Path, content: str) -> None:
    file.with_name(MANIFEST_NAME).write_text(content)
    assert load(file).is_foreign


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.5, 0.99, 1])
def test_a_flipped_bit_of_the_weights_is_damage(file: Path, share: float) -> None:
    flip(file, round(share * (file.stat().st_size - 1)))
    with pytest.raises(WeightsError) as caught:
        read_release(file, Deadline.after(0))
    assert str(caught.value) == (
        f"{file} has {file.stat().st_size} bytes with SHA-256 {sha256(file)}, but its manifest says "
        f"{file.stat().st_size} bytes with {read(file)['sha256']}: promote the model again, or remove manifest.json if "
        "these weights are another model's."
    )


def read(file: Path) -> dict[str, Any]:
    """Return the manifest beside weights as JSON."""
    return dict(json.loads(file.with_name(MANIFEST_NAME).read_text()))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_a_cut_of_the_weights_is_damage(file: Path, share: float) -> None:
    os.truncate(file, round(share * file.stat().st_size))
    with pytest.raises(WeightsError, match="but its manifest says"):
        read_release(file, Deadline.after(0))


def test_manifest_that_is_cut_anywhere_is_damage(file: Path) -> None:
    beside = file.with_name(MANIFEST_NAME)
    whole = beside.read_bytes()
    for end in range(0, len(whole.rstrip()), 97):
        beside.write_bytes(whole[:end])
        with pytest.raises(WeightsError, match=r"manifest\.json is not a valid manifest .*: promote the model again"):
            read_release(file, Deadline.after(0))


@pytest.mark.parametrize(
    "broken", [{"calibration": None}, {"input_check": []}, {"version": 1}, {"sha256": "0"}, {"size": None}]
)
def test_broken_field_is_damage(file: Path, broken: dict[str, object]) -> None:
    file.with_name(MANIFEST_NAME).write_text(json.dumps(read(file) | broken))
    with pytest.raises(WeightsError, match=r"manifest\.json is not a valid manifest .*: promote the model"):
        read_release(file, Deadline.after(0))


@pytest.mark.parametrize("name", ["model.pth", MANIFEST_NAME])
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_what_is_no_plain_file_is_refused_at_once(file: Path, name: str, kind: str) -> None:
    path = file.with_name(name)
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(WeightsError, match=f"{name} cannot be read: it is not a plain file but a "):
        read_release(file)


def test_file_without_end_is_refused_before_it_is_read(file: Path) -> None:
    os.truncate(file, 10**12)
    with pytest.raises(WeightsError, match=r"model\.pth cannot be read: it has more than 134,217,728 bytes"):
        read_release(file)


@pytest.mark.parametrize("name", ["x" * 300, "circle"])
def test_path_that_the_system_refuses_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(WeightsUnavailableError, match=f"{name} cannot be read: (File name too|Too many levels)"):
        load(tmp_path / name)
    with pytest.raises(WeightsUnavailableError, match=f"{name} cannot be read: (File name too|Too many levels)"):
        Weights(tmp_path / name).find(Deadline.after(0))


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"none\.pth cannot be read: No such file or directory"):
        read_release(tmp_path / "none.pth")


@pytest.mark.parametrize(
    "other", [{"classes": ["PNEUMONIA", "NORMAL"]}, {"preprocessing": PREPROCESSING | {"resize": [256, 256]}}]
)
def test_release_for_another_code_is_refused(file: Path, other: dict[str, Any]) -> None:
    dataclasses.replace(manifest_for(file), **other).write_beside(file)
    with pytest.raises(WeightsError, match=r"^Release 20260102-030405-0a1b2c3d was trained for other classes or"):
        load(file)


def test_classifier_is_the_releases(file: Path) -> None:
    model = load(file)
    assert (model.version, model.calibration, model.is_foreign) == ("20260102-030405-0a1b2c3d", CALIBRATION, False)


@pytest.mark.parametrize("is_foreign", [False, True], ids=["by another release", "by foreign weights"])
def test_release_that_is_replaced_meanwhile_is_read_whole(
    tmp_path: Path, releases: list[tuple[bytes, Manifest]], *, is_foreign: bool
) -> None:
    path, ended = tmp_path / "folder" / "model.pth", threading.Event()
    path.parent.mkdir()
    other, its_manifest = releases[1]
    written = [releases[0], (other, None if is_foreign else its_manifest)]
    write_release({path: other}, written[1][1])

    def replace_it() -> None:
        while not ended.is_set():
            for content, manifest in written:
                write_release({path: content}, manifest)

    thread = threading.Thread(target=replace_it)
    thread.start()
    try:
        read = [read_release(path) for _ in range(12)]
    finally:
        ended.set()
        thread.join()
    assert all((release.weights, release.manifest) in written for release in read)


def test_release_that_is_removed_and_written_anew_is_waited_for(
    tmp_path: Path, releases: list[tuple[bytes, Manifest]]
) -> None:
    path = tmp_path / "model.pth"
    thread = threading.Timer(0.3, lambda: write_release({path: releases[0][0]}, releases[0][1]))
    thread.start()
    try:
        read = read_release(path)
    finally:
        thread.join()
    assert (read.weights, read.manifest) == releases[0]


@pytest.mark.slow
@pytest.mark.processes
def test_copy_onto_the_file_while_it_is_loaded_kills_nobody(file: Path, weights: Path) -> None:
    command = [sys.executable, "-c", LOAD, str(file)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            shutil.copyfile(weights, file)
            time.sleep(0.5)
        assert process.stdout
        assert set(process.stdout.read().splitlines()) == {"20260102-030405-0a1b2c3d"}
    assert process.returncode == 0
