"""`pneumonia download`: from a server that breaks off, refuses, changes the file, or sends another one."""

import http.server
import os
import re
import signal
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pneumonia.__main__ import main
from pneumonia.command import this_python
from pneumonia.errors import ArchiveError, DataError
from pneumonia.training.partial_download import Part, download
from pneumonia.training.published import TEST, TRAIN, TRAIN_WITHOUT_VAL, unpack
from tests.builders.disk import full_after
from tools.stand_ins.local_server import running

pytestmark = pytest.mark.processes

TAG = '"1f2e-5d"'
AT_ONCE = (0, 0, 0)


def image(index: int) -> bytes:
    """Return the bytes of what stands for an image."""
    return b"\xff\xd8" + b"%08d" % index


def entries_of(counts: dict[str, dict[str, int]], top: str = "chest_xray") -> dict[str, bytes]:
    """Return an archive's entries by their names, as the public one has them."""
    names = [
        f"{top}/{split}/{label}/image-{number}.jpeg"
        for split, classes in counts.items()
        for label, count in classes.items()
        for number in range(count)
    ]
    return {name: image(index) for index, name in enumerate(names)}


PUBLIC = entries_of({"train": TRAIN, "test": TEST})


def packed(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return packed(tmp_path_factory.mktemp("public") / "ChestXRay2017.zip", PUBLIC).read_bytes()


class Mirror(http.server.ThreadingHTTPServer):
    """Serves one file, and does with each request what the next step says; the last step stays.

    Attributes:
        url: the file's.
        asked: the Range of each request, empty without one.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.tag: str | None = TAG
        self.steps: list[Callable[[Handler], None]] = [whole]
        self.asked: list[str] = []
        self.agents: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}/ChestXRay2017.zip"

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that is gone."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Range", ""))
        self.server.agents.add(self.headers["User-Agent"])
        step = self.server.steps.pop(0) if len(self.server.steps) > 1 else self.server.steps[0]
        step(self)

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def whole(request: Handler, until: int | None = None) -> None:
    """Serve what is asked for, as RFC 9110 says, but break off before a byte."""
    content = request.server.content
    asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    start = int(asked[1]) if asked and request.headers.get("If-Range", TAG) == request.server.tag else 0
    if start >= len(content):
        request.answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
    elif start:
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers = {"Content-Range": place, "Content-Length": str(len(content) - start)}
        request.answer(206, headers, content[start:until])
    else:
        request.answer(200, {"Content-Length": str(len(content))}, content[:until])


def broken_off(until: int) -> Callable[[Handler], None]:
    return lambda request: whole(request, until)


def without_ranges(request: Handler, until: int | None = None) -> None:
    request.answer(200, {"Content-Length": str(len(request.server.content))}, request.server.content[:until])


def refusing(status: int, body: bytes = b"", headers: Mapping[str, str] = {}) -> Callable[[Handler], None]:
    return lambda request: request.answer(status, headers, body)


@pytest.fixture
def mirror(archive: bytes) -> Iterator[Mirror]:
    server = Mirror(archive)
    with running(server):
        yield server


@pytest.fixture
def part(mirror: Mirror, tmp_path: Path) -> Part:
    return Part(tmp_path / "xrays.zip.part", mirror.url)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def sentence(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr of a command that ends with status 1."""
    assert main(argv) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told.strip()


def test_the_data_set_is_laid_out_and_its_authors_are_named(
    mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "xrays"
    assert main(["download", str(folder), "--url", mirror.url]) == 0
    told = capsys.readouterr().out
    assert files_in(folder) == {name.removeprefix("chest_xray/") for name in PUBLIC}
    assert (folder / "test/NORMAL/image-7.jpeg").read_bytes() == PUBLIC["chest_xray/test/NORMAL/image-7.jpeg"]
    assert [path.name for path in folder.parent.iterdir()] == ["xrays"]  # the archive is gone
    assert f"{folder}/train has 1,349 NORMAL and 3,883 PNEUMONIA." in told
    assert f"{folder}/test is the official test: 234 NORMAL and 390 PNEUMONIA." in told
    assert "Licence: CC BY 4.0" in told
    assert "doi:10.17632/rscbjbr9sj.2" in told
    assert "doi:10.1016/j.cell.2018.02.010" in told
    assert f"Next: {this_python()} -m pneumonia split {folder}/train chest_xray\n" in told
    assert all(agent.startswith("Mozilla/5.0 ") for agent in mirror.agents)


def test_split_takes_what_it_leaves(mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", str(tmp_path / "xrays"), "--url", mirror.url]) == 0
    assert main(["split", str(tmp_path / "xrays/train"), str(tmp_path / "chest_xray")]) == 0
    assert "train " in capsys.readouterr().out


def test_a_download_that_breaks_off_goes_on(mirror: Mirror, part: Part) -> None:
    size = len(mirror.content)
    mirror.steps = [broken_off(1000), broken_off(300_000), whole]
    download(part, AT_ONCE)
    assert part.path.read_bytes() == mirror.content
    assert mirror.asked == ["", "bytes=1000-", "bytes=300000-"]
    assert size > 300_000


def test_the_same_command_goes_on_later(
    mirror: Mirror, part: Part, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.steps = [broken_off(1000), refusing(503)]
    with pytest.raises(DataError) as caught:
        download(part, AT_ONCE)
    assert str(caught.value) == (
        f"The download broke off after 1,000 of {len(mirror.content):,} bytes (the server answers 503 Service "
        "Unavailable): the same command goes on from there."
    )
    mirror.steps, mirror.asked = [whole], []
    assert main(["download", str(tmp_path / "xrays"), "--url", mirror.url]) == 0
    assert mirror.asked == ["bytes=1000-"]
    assert f"{len(mirror.content):,} bytes, going on after 1,000" in capsys.readouterr().out


def test_a_full_disk_keeps_what_has_arrived_and_says_so(
    mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "xrays.zip.part"
    with full_after(5_000):
        assert main(["download", str(tmp_path / "xrays"), "--url", mirror.url]) == 1
    assert capsys.readouterr().err == (
        f"{part} cannot be read or written: File too large. {part} is kept: the same command goes on from there.\n"
    )
    assert main(["download", str(tmp_path / "xrays"), "--url", mirror.url]) == 0
    assert mirror.asked == ["", "bytes=5000-"]


@pytest.mark.parametrize(
    "notes",
    [
        b"",
        b"[" * 50_000,
        b"{" + bytes(100_000),
        b'{"url": "http://", "version": 1, "size": "x"}',
        b'{"url": "URL", "version": 17, "size": 1000000}',
        b'{"url": "URL", "version": null, "size": "1000"}',
        b'{"url": "URL", "version": null, "size": true}',
        b"\xff\xfe",
    ],
)
def test_notes_on_a_part_that_are_damaged_are_not_gone_by(notes: bytes, mirror: Mirror, part: Part) -> None:
    part.path.write_bytes(mirror.content[:1000])
    part.path.with_name(f"{part.path.name}.origin").write_bytes(notes.replace(b"URL", mirror.url.encode()))
    download(part, AT_ONCE)
    assert mirror.asked == [""]
    assert part.path.read_bytes() == mirror.content


def test_ctrl_c_keeps_what_has_arrived(mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupting(request: Handler) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        request.rfile.read()  # until the client is gone

    mirror.steps = [broken_off(1000), interrupting]
    assert main(["download", str(tmp_path / "xrays"), "--url", mirror.url]) == 130
    assert capsys.readouterr().err == "Stopped: the same command goes on from here.\n"
    assert (tmp_path / "xrays.zip.part").stat().st_size == 1000
    mirror.steps = [whole]
    assert main(["download", str(tmp_path / "xrays"), "--url", mirror.url]) == 0


def test_a_whole_archive_that_could_not_be_unpacked_is_not_downloaded_again(mirror: Mirror, part: Part) -> None:
    download(part, AT_ONCE)
    download(part, AT_ONCE)
    assert mirror.asked == [""]


def test_without_its_size_the_end_is_found_by_asking(mirror: Mirror, part: Part) -> None:
    """As from a server that sends chunks; here, until the connection ends."""
    mirror.steps = [lambda request: request.answer(200, {}, request.server.content), whole]
    download(part, AT_ONCE)
    download(part, AT_ONCE)
    assert mirror.asked == ["", f"bytes={len(mirror.content)}-"]
    assert part.path.read_bytes() == mirror.content


@pytest.mark.parametrize("tag", [TAG, None])
def test_a_server_that_knows_no_ranges_sends_all_again(mirror: Mirror, part: Part, tag: str | None) -> None:
    mirror.tag = tag
    mirror.steps = [lambda request: without_ranges(request, 1000), without_ranges]
    download(part, AT_ONCE)
    assert part.path.read_bytes() == mirror.content


def test_a_server_that_knows_no_ranges_and_always_breaks_off_is_given_up(mirror: Mirror, part: Part) -> None:
    mirror.steps = [lambda request: without_ranges(request, 1000)]
    with pytest.raises(DataError, match=r"^The download broke off after 1,000 of [\d,]+ bytes \(the connection ended"):
        download(part, AT_ONCE)
    assert len(mirror.asked) == 4


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_a_file_that_has_changed_meanwhile_is_downloaded_anew(
    mirror: Mirror, part: Part, *, knows_if_range: bool
) -> None:
    mirror.steps = [broken_off(1000), refusing(404)]
    with pytest.raises(DataError):
        download(part, AT_ONCE)
    mirror.content, mirror.tag = bytes(reversed(mirror.content[4:])), '"another"'
    mirror.content = b"PK\x03\x04" + mirror.content
    place = f"bytes 1000-{len(mirror.content) - 1}/{len(mirror.content)}"
    half = refusing(206, mirror.content[1000:], {"Content-Range": place})
    mirror.steps = [whole] if knows_if_range else [half, whole]
    download(part, AT_ONCE)
    assert part.path.read_bytes() == mirror.content


def test_a_file_that_is_shorter_now_is_downloaded_anew(mirror: Mirror, part: Part) -> None:
    mirror.steps = [broken_off(1000), refusing(404)]
    with pytest.raises(DataError):
        download(part, AT_ONCE)
    mirror.content = mirror.content[:900]
    mirror.steps = [refusing(416, headers={"Content-Range": "bytes */900"}), whole]
    download(part, AT_ONCE)
    assert part.path.read_bytes() == mirror.content


def test_a_part_of_another_address_is_not_continued(mirror: Mirror, part: Part, archive: bytes) -> None:
    part.path.write_bytes(b"something")
    download(part, AT_ONCE)
    assert part.path.read_bytes() == archive
    assert mirror.asked == [""]


def test_redirects_are_followed(mirror: Mirror, part: Part) -> None:
    mirror.steps = [
        refusing(302, headers={"Location": "/elsewhere.zip"}),
        broken_off(1000),
        refusing(302, headers={"Location": "/b.zip"}),
        whole,
    ]
    download(part, AT_ONCE)
    assert part.path.read_bytes() == mirror.content
    assert mirror.asked == ["", "", "bytes=1000-", "bytes=1000-"]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (refusing(403), "{url} cannot be downloaded: the server answers 403 Forbidden."),
        (refusing(404), "{url} cannot be downloaded: the server answers 404 Not Found."),
        (refusing(302, headers={"Location": "http://[::1/"}), "{url} cannot be downloaded: Invalid IPv6 URL."),
        (refusing(410), "{url} cannot be downloaded: the server answers 410 Gone."),
        (
            refusing(200, b"<!doctype html><title>Log in</title>"),
            "{url} sends something other than a zip file: it begins with '<!doctype html><title>Log in</title>'.",
        ),
        (
            refusing(200, b"\x1b[31m\nhello"),
            "{url} sends something other than a zip file: it begins with '\\x1b[31m\\nhello'.",
        ),
    ],
)
def test_what_the_server_refuses_is_told_with_the_way_by_hand(
    mirror: Mirror, tmp_path: Path, step: Callable[[Handler], None], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.steps = [step]
    assert sentence(["download", str(tmp_path / "xrays"), "--url", mirror.url], capsys) == (
        f"{reason.format(url=mirror.url)} Or download ChestXRay2017.zip in a browser from "
        "https://data.mendeley.com/datasets/rscbjbr9sj/2, and name that file with --url."
    )
    assert list(tmp_path.iterdir()) == []
    assert len(mirror.asked) == 1


def test_what_was_there_stays_where_the_server_refuses_the_rest(mirror: Mirror, part: Part) -> None:
    mirror.steps = [broken_off(1000), refusing(403)]
    with pytest.raises(DataError, match="403 Forbidden"):
        download(part, AT_ONCE)
    mirror.steps = [whole]
    download(part, AT_ONCE)
    assert mirror.asked[-1] == "bytes=1000-"


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^http://127.0.0.1:1/a.zip cannot be downloaded: .*Connection refused\.$"):
        download(Part(tmp_path / "part", "http://127.0.0.1:1/a.zip"), AT_ONCE)


@pytest.mark.parametrize("end", [0.5, 0.999])
def test_half_an_archive_is_removed_and_told(
    mirror: Mirror, tmp_path: Path, end: float, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.content = mirror.content[: int(len(mirror.content) * end)]
    folder = tmp_path / "xrays"
    told = sentence(["download", str(folder), "--url", mirror.url], capsys)
    assert told.startswith(f"{folder}.zip.part is not a whole zip file (")
    assert "It was removed: start again." in told
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_already_is_unpacked_and_stays(
    archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ChestXRay2017.zip"
    path.write_bytes(archive)
    assert main(["download", str(tmp_path / "xrays"), "--url", str(path)]) == 0
    assert len(files_in(tmp_path / "xrays")) == 5_856
    assert path.read_bytes() == archive
    path.write_bytes(archive[:-100])
    assert sentence(["download", str(tmp_path / "again"), "--url", str(path)], capsys) == (
        f"{path} is not a whole zip file (File is not a zip file)."
    )
    assert path.exists()


def test_one_wrong_byte_leaves_nothing(archive: bytes, tmp_path: Path) -> None:
    place = archive.index(image(2_500))
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(archive[: place + 5] + b"#" + archive[place + 6 :])
    with pytest.raises(ArchiveError, match=r"damaged.zip is not a whole zip file \(Bad CRC-32 for file 'chest_xray/"):
        unpack(damaged, tmp_path / "xrays")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.zip"]


def test_kaggles_copy_is_the_same_data_set(tmp_path: Path) -> None:
    val = {"NORMAL": 8, "PNEUMONIA": 8}
    once = entries_of({"train": TRAIN_WITHOUT_VAL, "test": TEST})
    once |= {f"chest_xray/val/{label}/val-{n}.jpeg": image(n) for label in val for n in range(8)}
    twice = {f"chest_xray/{name}": content for name, content in once.items()}
    junk = {
        "chest_xray/.DS_Store": b"",
        "chest_xray/train/NORMAL/.DS_Store": b"junk",
        "chest_xray/train/NORMAL/": b"",
        "__MACOSX/chest_xray/train/NORMAL/._image-1.jpeg": b"junk",
        "__MACOSX/chest_xray/train/NORMAL/image-1.jpeg": b"junk",
        "chest_xray/README.txt": b"text",
    }
    assert unpack(packed(tmp_path / "kaggle.zip", once | twice | junk), tmp_path / "xrays") == {
        "train": TRAIN,
        "test": TEST,
    }
    assert len(files_in(tmp_path / "xrays")) == 5_856
    assert not any(".DS_Store" in name or "._" in name for name in files_in(tmp_path / "xrays"))


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        (["chest_xray/train/NORMAL/../../../../evil.jpeg"], "leads out of its folder"),
        (["../evil/test/NORMAL/evil.jpeg"], "leads out of its folder"),
        (["/tmp/train/NORMAL/evil.jpeg"], "leads out of its folder"),
        (["..\\..\\evil.jpeg"], "leads out of its folder"),
        (["a/train/NORMAL/1.jpeg", "b/train/NORMAL/1.jpeg"], "has two different images train/NORMAL/1.jpeg"),
        ([], "a.zip has 0 NORMAL and 0 PNEUMONIA for training"),
        ([*PUBLIC, "chest_xray/train/NORMAL/one-more.jpeg"], "has 1,350 NORMAL and 3,883 PNEUMONIA for training"),
        ([*PUBLIC, "chest_xray/test/PNEUMONIA/one-more.jpeg"], "234 NORMAL and 391 PNEUMONIA for the test"),
    ],
    ids=["up", "up at once", "root", "Windows", "two", "none", "one more", "one more to test"],
)
def test_what_is_unsafe_or_another_data_set_is_refused(tmp_path: Path, entries: list[str], told: str) -> None:
    archive = packed(tmp_path / "a.zip", {name: image(index) for index, name in enumerate(entries)})
    with pytest.raises(ArchiveError, match=re.escape(told)):
        unpack(archive, tmp_path / "xrays")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("chest_xray/train/NORMAL/link.jpeg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match=r"/link.jpeg' leads out of its folder"):
        unpack(tmp_path / "a.zip", tmp_path / "xrays")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("chest_xray/train/NORMAL/bomb.jpeg", bytes(30_000_000))
    with pytest.raises(ArchiveError, match=r"bomb.jpeg' has 30,000,000 bytes: no image has that many\.$"):
        unpack(path, tmp_path / "xrays")


def test_an_image_that_unpacks_to_more_than_it_says_is_damage(tmp_path: Path) -> None:
    """The size in an archive's table may lie: no more bytes than that are written."""
    name = "chest_xray/train/NORMAL/image-0.jpeg"
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(1_000_000))
        for other, content in PUBLIC.items():
            if other != name:
                archive.writestr(other, content)
    data = path.read_bytes()
    path.write_bytes(data.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ArchiveError, match="Bad CRC-32"):
        unpack(path, tmp_path / "xrays")


def test_an_encrypted_archive_is_told(tmp_path: Path, archive: bytes) -> None:
    entry = archive.index(b"PK\x01\x02")
    path = tmp_path / "a.zip"
    path.write_bytes(archive[: entry + 8] + b"\x01" + archive[entry + 9 :])
    with pytest.raises(ArchiveError, match="is encrypted, password required"):
        unpack(path, tmp_path / "xrays")


def test_nothing_is_overwritten(mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "xrays").mkdir()
    (tmp_path / "xrays" / "mine").touch()
    told = sentence(["download", str(tmp_path / "xrays"), "--url", mirror.url], capsys)
    assert told == f"{tmp_path}/xrays already exists and nothing is overwritten: name a new folder or empty it."
    assert mirror.asked == []


def test_too_little_space_is_told_before_it_is_filled(
    mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = 10**18
    mirror.steps = [refusing(200, b"PK\x03\x04", {"Content-Length": str(huge)})]
    told = sentence(["download", str(tmp_path / "xrays"), "--url", mirror.url], capsys)
    assert re.fullmatch(
        rf"{tmp_path} cannot be read or written: there is space for \d+\.\d GB, and this takes 2100000000\.0 GB\.", told
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["ftp://example.org/a.zip", "missing.zip", "", "file:///etc/passwd"])
def test_what_is_neither_a_file_nor_a_url_is_told(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = sentence(["download", str(tmp_path / "xrays"), "--url", url], capsys)
    assert told == f"{url!r} is neither a file nor a URL: name a zip file, or https://…."
