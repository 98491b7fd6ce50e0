import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumonia.errors import WeightsError
from pneumonia.files import NotPlainError
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.training_report import parse
from pneumonia.releases.archive import MAX_MEMBERS, MAX_UNPACKED, extract
from pneumonia.releases.promotion import promote_to_folder
from tests.builders.archives import REPORT, make_archive, member, model_archive
from tests.builders.disk import full_after


@pytest.fixture
def archive(tmp_path: Path, weights: Path) -> Path:
    return model_archive(tmp_path, weights)


def test_only_the_weights_are_written_to_disk(archive: Path, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "into"
    folder.mkdir()
    assert extract(archive, folder / "weights.pth", "model.tar.gz") == parse(json.dumps(REPORT), "training.json")
    assert [path.name for path in folder.iterdir()] == ["weights.pth"]
    assert (folder / "weights.pth").read_bytes() == weights.read_bytes()


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (member("../evil.py"), "leads out of its folder"),
        (member("/etc/cron.d/evil"), "leads out of its folder"),
        (member("a/../../evil"), "leads out of its folder"),
        (member("..\\evil.py"), "leads out of its folder"),
        (member("C:\\evil.py"), "leads out of its folder"),
        (member("link", tarfile.SYMTYPE, "/etc/passwd"), "is a link or not a plain file"),
        (member("link", tarfile.LNKTYPE, "/etc/passwd"), "is a link or not a plain file"),
        (member(WEIGHTS_NAME, tarfile.SYMTYPE, "/etc/passwd"), "is a link or not a plain file"),
        (member("pipe", tarfile.FIFOTYPE), "is a link or not a plain file"),
        (member("device", tarfile.CHRTYPE), "is a link or not a plain file"),
        (member(f"./{WEIGHTS_NAME}"), "twice"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
@pytest.mark.parametrize("place", ["first", "last"])
def test_suspicious_archive_is_refused_as_a_whole(
    tmp_path: Path, bad: tarfile.TarInfo, sentence: str, place: str
) -> None:
    good = (member(WEIGHTS_NAME), b"weights")
    path = make_archive(tmp_path / "model.tar.gz", [(bad, b""), good] if place == "first" else [good, (bad, b"")])
    with pytest.raises(WeightsError, match=sentence):
        promote_to_folder(str(path), tmp_path / "released")
    assert not (tmp_path / "released").exists()


def test_an_archive_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.tar.gz")
    with pytest.raises(NotPlainError, match="it is not a plain file but a pipe, a socket or a device"):
        promote_to_folder(str(tmp_path / "model.tar.gz"), tmp_path / "released")


def zeros(path: Path, name: str, size: int, kind: bytes = tarfile.REGTYPE) -> Path:
    """Write an archive with one member of zeros, without holding them."""
    info = member(name, kind)
    info.size = size
    with tarfile.open(path, "w:gz", compresslevel=1) as tar, Path("/dev/zero").open("rb") as content:
        tar.addfile(info, content)
    return path


def test_bomb_beside_the_weights_is_refused(tmp_path: Path) -> None:
    path = zeros(tmp_path / "model.tar.gz", "notes.txt", MAX_UNPACKED + 1)
    assert path.stat().st_size < MAX_UNPACKED // 100
    with pytest.raises(WeightsError, match=r"unpacks to more than 536,870,912 bytes"):
        extract(path, tmp_path / "weights.pth", "model.tar.gz")


def test_bomb_in_a_header_is_refused(tmp_path: Path) -> None:
    path = zeros(tmp_path / "model.tar.gz", "long", MAX_UNPACKED + 1, tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(WeightsError, match=r"unpacks to more than 536,870,912 bytes"):
        extract(path, tmp_path / "weights.pth", "model.tar.gz")


def test_weights_of_a_size_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = zeros(tmp_path / "model.tar.gz", WEIGHTS_NAME, 200_000_000)
    with pytest.raises(WeightsError, match=r"of 200,000,000 bytes; at most 134,217,728 are expected"):
        extract(path, tmp_path / "weights.pth", "model.tar.gz")
    assert not (tmp_path / "weights.pth").exists()


def test_very_many_files_are_refused(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "model.tar.gz", [(member(f"{n}"), b"") for n in range(MAX_MEMBERS + 1)])
    with pytest.raises(WeightsError, match=r"holds more than 1,000 files"):
        extract(path, tmp_path / "weights.pth", "model.tar.gz")


def test_archive_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "model.tar.gz", [(member("model/weights.bin"), b"")])
    with pytest.raises(WeightsError, match=r"holds no pneumonia_classifier\.pth at its top, but 'model/weights\.bin'"):
        extract(path, tmp_path / "weights.pth", "model.tar.gz")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: b"PK\x03\x04" + data,
        lambda data: data[: len(data) // 2],
        lambda data: data[:-100],
        lambda data: data[:-8],
        lambda data: data[:-8] + bytes(4) + data[-4:],
    ],
    ids=["empty", "zip", "half", "end missing", "checksum missing", "checksum wrong"],
)
def test_damaged_archive_is_refused(archive: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(WeightsError, match=r"is not a whole tar\.gz|is not a tar\.gz|holds no pneumonia_classifier"):
        promote_to_folder(str(archive), tmp_path / "released")
    assert not (tmp_path / "released").exists()


def test_weights_in_place_of_the_archive_are_named_so(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is not a tar\.gz: name the model\.tar\.gz that training wrote\.$"):
        promote_to_folder(str(weights), tmp_path / "there")


def test_malformed_header_is_refused(tmp_path: Path) -> None:
    header = b"99999999999999999999999999 path=a\n"
    path = make_archive(tmp_path / "m.tar.gz", [(member("pax", tarfile.XHDTYPE), header), (member("a"), b"")])
    with pytest.raises(WeightsError, match=r"is not a whole tar\.gz"):
        extract(path, tmp_path / "weights.pth", "model.tar.gz")


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_full_disk_is_told_with_the_file_and_releases_nothing(
    archive: Path, weights: Path, tmp_path: Path, *, is_packed: bool
) -> None:
    source = archive if is_packed else weights.parent
    with full_after(100_000), pytest.raises(OSError, match="File too large") as caught:
        promote_to_folder(str(source), tmp_path / "released")
    assert Path(caught.value.filename).name == WEIGHTS_NAME
    assert not (tmp_path / "released").exists()
