import hashlib
import os
import time
from pathlib import Path

import pytest

from pneumonia.errors import file_sentence
from pneumonia.files import NotPlainError, locked, open_plain, read_plain, remove_abandoned, replacing, sha256
from tests.builders.disk import full_after


def write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def interrupted_write(path: Path, interruption: type[BaseException]) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise interruption


def test_writes_a_new_file(tmp_path: Path) -> None:
    write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_missing_folder_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "none" / "file", b"new")
    assert caught.value.filename == str(tmp_path / "none")


def test_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "file", b"old")
    write(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_the_old_content_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"ne")
        assert path.read_bytes() == b"old"
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    with pytest.raises(interruption):
        interrupted_write(path, interruption)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_two_writers_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as first:
        with replacing(path) as second:
            first.write_bytes(b"first")
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"


def test_others_may_read_the_file(tmp_path: Path) -> None:
    write(tmp_path / "file", b"new")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        write(tmp_path / "missing" / "file", b"new")


def test_a_full_disk_keeps_the_old_file_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    with full_after(1000), pytest.raises(OSError, match="too large") as caught:
        write(path, bytes(2000))
    assert caught.value.filename == str(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_an_error_that_is_not_the_disks_keeps_its_text(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"^the connection broke off$"), replacing(tmp_path / "file"):
        raise ConnectionError("the connection broke off")


@pytest.mark.parametrize("name", ["file", "file [v1]?*.pth"])
def test_only_old_temporary_files_of_that_file_are_abandoned(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with replacing(path) as old, replacing(path) as young, replacing(tmp_path / "another") as others:
        for temporary, minutes in ((old, 16), (young, 14), (others, 16)):
            os.utime(temporary, (time.time() - 60 * minutes,) * 2)
        remove_abandoned(path)
        assert sorted(tmp_path.iterdir()) == sorted([young, others])
        old.touch()  # to be renamed at the end


@pytest.mark.parametrize("content", [b"", b"abc", bytes(3_000_000)])
def test_sha256_is_that_of_the_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_plain_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with open_plain(tmp_path / "file") as file:
        assert file.read() == b"content"


def test_what_may_never_end_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link", "."):
        with pytest.raises(NotPlainError, match="it is not a plain file"), open_plain(tmp_path / name):
            pass


@pytest.mark.parametrize("name", ["file", "/proc/self/status"])
def test_a_file_is_read_whole_or_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if not path.exists():
        path.write_bytes(b"content")
    size = len(path.read_bytes())
    assert len(read_plain(path, size + 100)) == size
    with pytest.raises(OSError, match="it has more than 6 bytes"):
        read_plain(path, 6)


def test_a_sparse_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(OSError, match="it has more than 1,000,000 bytes"):
        read_plain(tmp_path / "file", 1_000_000)


def test_a_folder_is_locked_by_one_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(BlockingIOError) as caught, locked(tmp_path, seconds=0.1):
        pass
    assert file_sentence(caught.value) == f"{tmp_path} cannot be read or written: another process is writing there."
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []
