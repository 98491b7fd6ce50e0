"""Each engine reads its own file of a release, with the manifest of the same release, or says what is missing.

Nothing here is run: bytes stand for the ONNX file.
"""

import dataclasses
import logging
from pathlib import Path

import pytest

from pneumonia.deadline import Deadline
from pneumonia.errors import ConfigurationError, PneumoniaError, WeightsError, WeightsUnavailableError
from pneumonia.network.contract import MANIFEST_NAME, ONNX_NAME, WEIGHTS_NAME
from pneumonia.releases.engine_file import path_for
from pneumonia.releases.fetch import DEFAULT_PATH, Weights
from pneumonia.releases.layout import onnx_key
from pneumonia.releases.loading import release_at, weights_at
from pneumonia.releases.release import read_release
from pneumonia.releases.release_files import ReleaseFiles
from tests.builders.releases import files_of, manifest_for, publish, publish_files, with_onnx
from tools.stand_ins.moto import Moto

VERSION = "20260102-030405-0a1b2c3d"
CONTENT = b"stands for an ONNX file"


@pytest.fixture
def files(weights: Path) -> ReleaseFiles:
    """A release with both files."""
    return with_onnx(files_of(weights, manifest_for(weights)), CONTENT)


@pytest.fixture
def folder(files: ReleaseFiles, tmp_path: Path) -> Path:
    """A folder with that release."""
    files.write_into(tmp_path)
    return tmp_path


@pytest.fixture
def _onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE", "onnx")


def soon() -> Deadline:
    return Deadline.after(60)


@pytest.mark.parametrize(
    ("given", "engine", "read"),
    [
        ("m/model.pth", "onnx", "m/model.onnx"),
        ("m/model.onnx", "onnx", "m/model.onnx"),
        ("m/model.onnx", "torch", "m/model.pth"),
        ("m/model.pth", "torch", "m/model.pth"),
        ("m/my.model.pth", "onnx", "m/my.model.onnx"),
        ("m/model", "onnx", "m/model"),
        ("m/model.bin", "torch", "m/model.bin"),
        (DEFAULT_PATH, "onnx", "/tmp/model.onnx"),  # the contract
    ],
)
def test_a_path_means_the_file_that_the_engine_reads(given: str, engine: str, read: str) -> None:
    assert path_for(Path(given), engine) == Path(read)


@pytest.mark.parametrize(("engine", "name"), [("torch", WEIGHTS_NAME), ("onnx", ONNX_NAME)])
@pytest.mark.parametrize("named", ["", WEIGHTS_NAME, ONNX_NAME])
def test_either_file_and_their_folder_stand_for_the_release(
    folder: Path, files: ReleaseFiles, engine: str, name: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE", engine)
    assert weights_at(folder / named, engine) == folder / name
    for release in (release_at(folder / named), Weights(folder / (named or name)).find(soon())):
        assert release.weights == files.by_engine()[engine]
        assert (release.manifest, release.version, release.engine) == (files.manifest, VERSION, engine)


@pytest.mark.parametrize(("engine", "lacks"), [("torch", WEIGHTS_NAME), ("onnx", ONNX_NAME)])
def test_the_other_engines_file_alone_is_told(
    folder: Path, engine: str, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE", engine)
    (folder / lacks).unlink()
    other, there = ("torch", WEIGHTS_NAME) if engine == "onnx" else ("onnx", ONNX_NAME)
    sentence = (
        f"{folder / there} is for the engine {other}, and the engine {engine} reads {folder / lacks}, which does not "
        f"exist: promote the model again, which writes both, or set ENGINE={other}."
    )
    for named in ("", there, lacks):
        with pytest.raises(ConfigurationError) as caught:
            release_at(folder / named)
        assert str(caught.value) == sentence
    with pytest.raises(WeightsUnavailableError) as unavailable:
        Weights(folder / there).find(soon())
    assert str(unavailable.value) == sentence


def test_a_manifest_is_not_taken_for_weights(folder: Path) -> None:
    for read in (release_at, Weights):
        with pytest.raises(ConfigurationError) as caught:
            read(folder / MANIFEST_NAME)
        assert str(caught.value) == f"{folder / MANIFEST_NAME} is a manifest: name the weights file beside it."


@pytest.mark.usefixtures("_onnx")
def test_where_neither_file_is_the_usual_sentence_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"mine\.onnx does not exist: name a weights file, a folder with one"):
        release_at(tmp_path / "mine.pth")


@pytest.mark.usefixtures("_onnx")
def test_an_onnx_file_without_any_manifest_is_foreign(folder: Path) -> None:
    (folder / MANIFEST_NAME).unlink()
    release = read_release(folder / ONNX_NAME)
    assert (release.manifest, release.version[:7]) == (None, "sha256-")


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "empty"])
def test_a_damaged_onnx_file_is_refused_by_its_engine_alone(folder: Path, damage: str) -> None:
    path = folder / ONNX_NAME
    flipped = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    path.write_bytes({"flipped": flipped, "cut": CONTENT[:-1], "longer": CONTENT + b"!", "empty": b""}[damage])
    with pytest.raises(WeightsError, match=rf"{ONNX_NAME} has \d+ bytes with SHA-256 .*, but its manifest says 23 byt"):
        read_release(path, Deadline.after(0), "onnx")
    assert read_release(folder / WEIGHTS_NAME, soon(), "torch").version == VERSION


def test_files_of_two_releases_do_not_fit(
    folder: Path, files: ReleaseFiles, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    newer = dataclasses.replace(files, manifest=dataclasses.replace(files.manifest, version="2"))
    with_onnx(newer, b"another network's ONNX").write_into(other)
    (folder / MANIFEST_NAME).write_bytes((other / MANIFEST_NAME).read_bytes())
    with pytest.raises(WeightsError, match="but its manifest says"):
        read_release(folder / ONNX_NAME, Deadline.after(0), "onnx")


def test_an_onnx_file_that_the_manifest_does_not_know_is_refused(folder: Path, files: ReleaseFiles) -> None:
    dataclasses.replace(files.manifest, onnx=None).write_beside(folder / ONNX_NAME)
    with pytest.raises(WeightsError, match=rf"^Release {VERSION} has no ONNX file, which the engine onnx reads: pr"):
        read_release(folder / ONNX_NAME, Deadline.after(0), "onnx")


def test_files_and_manifest_that_do_not_fit_are_no_release(files: ReleaseFiles) -> None:
    with pytest.raises(WeightsError, match="but its manifest says"):
        dataclasses.replace(files, onnx=b"other")
    with pytest.raises(WeightsError, match="but its manifest says"):
        dataclasses.replace(files, weights=b"other")
    with pytest.raises(ValueError, match="without its ONNX file"):
        dataclasses.replace(files, onnx=None)


@pytest.mark.usefixtures("_onnx")
def test_an_instance_fetches_the_onnx_file_and_no_other(
    moto: Moto, bucket: str, files: ReleaseFiles, tmp_path: Path
) -> None:
    publish_files(files, bucket)
    before = len(moto.requests())
    release = Weights(tmp_path / "folder" / "model.pth", bucket).find(soon())
    assert (release.weights, release.manifest) == (CONTENT, files.manifest)
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"model.onnx", MANIFEST_NAME}
    asked = [request.partition("?")[0] for request in moto.requests()[before:]]
    assert asked == [
        f"GET /{bucket}/{key}" for key in ("current.json", f"releases/{VERSION}/manifest.json", onnx_key(VERSION))
    ]
    assert Weights(tmp_path / "folder" / "model.pth", bucket).find(soon()).weights == CONTENT
    assert len(moto.requests()) == before + 3  # the file was there


@pytest.mark.usefixtures("_onnx")
def test_a_release_without_an_onnx_file_says_how_to_add_it(bucket: str, weights: Path, tmp_path: Path) -> None:
    publish(weights, manifest_for(weights), bucket)
    with pytest.raises(WeightsError) as caught:
        Weights(tmp_path / "model.onnx", bucket).find(soon())
    assert str(caught.value) == (
        f"Release {VERSION} has no ONNX file, which the engine onnx reads: `promote_model.py export {VERSION} --bucket "
        f"{bucket}` adds it."
    )
    assert caught.value.public == f"release {VERSION} has no ONNX file, which `promote_model.py export {VERSION}` adds"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_onnx")
def test_an_onnx_file_that_is_not_what_the_manifest_says_is_refused(
    moto: Moto, bucket: str, files: ReleaseFiles, tmp_path: Path
) -> None:
    publish_files(files, bucket)
    moto.s3().put_object(Bucket=bucket, Key=onnx_key(VERSION), Body=b"something else")
    with pytest.raises(WeightsError, match=rf"manifest says 23 bytes .*: `promote_model\.py export {VERSION}` wri"):
        Weights(tmp_path / "model.onnx", bucket).find(soon())
    moto.s3().delete_object(Bucket=bucket, Key=onnx_key(VERSION))
    with pytest.raises(WeightsUnavailableError, match=r"current\.json names a release that is not whole"):
        Weights(tmp_path / "model.onnx", bucket).find(soon())
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_onnx")
def test_what_lies_on_the_disk_of_the_other_engine_is_fetched_anew(
    bucket: str, files: ReleaseFiles, weights: Path, tmp_path: Path
) -> None:
    """Two functions share a folder, and an older release's weights lie there."""
    files_of(weights, manifest_for(weights, "1")).write_into(tmp_path)
    (tmp_path / ONNX_NAME).write_bytes(b"of a release before")
    publish_files(files, bucket)
    release = Weights(tmp_path / WEIGHTS_NAME, bucket).find(soon())
    assert (release.weights, release.version) == (CONTENT, VERSION)


@pytest.mark.parametrize(
    ("engine", "key"), [("onnx", WEIGHTS_NAME), ("onnx", "models/mine.pth"), ("torch", "models/mine.onnx")]
)
def test_without_a_pointer_a_key_of_the_other_engine_is_told(
    moto: Moto, bucket: str, tmp_path: Path, engine: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE", engine)
    moto.s3().put_object(Bucket=bucket, Key=key, Body=b"weights")
    with pytest.raises(WeightsUnavailableError) as caught:
        Weights(tmp_path / "model.pth", bucket, key).find(soon())
    assert str(caught.value) == (
        f"s3://{bucket} has no current.json, and the engine {engine} cannot read {key}: promote a model, or serve a "
        "release that is there by `promote_model.py rollback VERSION`, or name another key by MODEL_KEY."
    )
    assert caught.value.public
    assert bucket not in caught.value.public


@pytest.mark.usefixtures("_onnx")
def test_without_a_pointer_the_key_of_an_onnx_file_serves(
    moto: Moto, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moto.s3().put_object(Bucket=bucket, Key="models/mine.onnx", Body=CONTENT)
    with caplog.at_level(logging.WARNING):
        release = Weights(tmp_path / "model.onnx", bucket, "models/mine.onnx").find(soon())
    assert (release.weights, release.manifest) == (CONTENT, None)
    assert f"s3://{bucket} has no current.json, so models/mine.onnx serves, uncalibrated" in caplog.text


def test_the_engine_torch_needs_no_onnx_file(moto: Moto, bucket: str, files: ReleaseFiles, tmp_path: Path) -> None:
    publish_files(files, bucket)
    moto.s3().delete_object(Bucket=bucket, Key=onnx_key(VERSION))
    assert Weights(tmp_path / "model.pth", bucket).find(soon()).weights == files.weights


def test_an_engine_that_there_is_not_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE", "tensorflow")
    for read in (lambda: Weights(tmp_path / "model.pth"), lambda: release_at(tmp_path), lambda: read_release(tmp_path)):
        with pytest.raises(PneumoniaError, match=r"^ENGINE is 'tensorflow': set it to torch or onnx\.$"):
            read()
