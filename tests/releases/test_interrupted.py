"""A promotion, a rollback and an export that fail at any call: the sentence says what was done, and how to go on.

An export adds the ONNX file to a release that an older version of the code has promoted.
"""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import promote_model
from pneumonia.network.contract import ONNX_NAME, WEIGHTS_NAME
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.promotion import unpack_release
from pneumonia.releases.release_files import ReleaseFiles
from tests.builders.archives import archive_with
from tests.builders.releases import manifest_for, publish, publish_files
from tools.stand_ins.moto import Moto
from tools.stand_ins.s3_proxy import HANG_UP, proxy

OLD = "20250102-030405-0a1b2c3d"
# The calls of both, from a bucket that serves OLD; NEW stands for the other release.
CALLS = {
    "promotion": [
        "GET current.json",
        f"GET releases/{OLD}/manifest.json",
        f"PUT releases/NEW/{WEIGHTS_NAME}",
        f"PUT releases/NEW/{ONNX_NAME}",
        "PUT releases/NEW/manifest.json",
        "PUT current.json",
        f"PUT {WEIGHTS_NAME}",
        "GET current.json",
    ],
    "rollback": [
        "GET current.json",
        "GET releases/NEW/manifest.json",
        f"GET releases/NEW/{ONNX_NAME}",
        f"GET releases/NEW/{WEIGHTS_NAME}",
        "PUT current.json",
        f"PUT {WEIGHTS_NAME}",
        "GET current.json",
    ],
}
# Those of an export, of the release NEW without an ONNX file.
EXPORT = [
    "GET releases/NEW/manifest.json",
    f"GET releases/NEW/{WEIGHTS_NAME}",
    f"PUT releases/NEW/{ONNX_NAME}",
    "PUT releases/NEW/manifest.json",  # which finds that there is one
    "GET releases/NEW/manifest.json",
    "PUT releases/NEW/manifest.json",
]
EACH_CALL = [(name, number) for name, calls in CALLS.items() for number in range(1, len(calls) + 1)]
# After this one, the release is served whatever is denied.
EACH_NEEDED = [(name, number) for name, number in EACH_CALL if number <= CALLS[name].index("PUT current.json") + 1]
EACH_WRITE = [(name, number) for name, number in EACH_CALL if CALLS[name][number - 1].startswith("PUT")]


@dataclass
class Fault:
    """Gets in the way of one call, and remembers all.

    Attributes:
        call: its number, from 1; 0 for none.
        kind: `denied`; `denied always`, if it is repeated, too; `gone` if the network is, once the call has acted;
            `lost` if its answers are, however often it is repeated; `lost once`.
        seen: the calls so far.
    """

    call: int = 0
    kind: str = "denied"
    seen: list[str] = field(default_factory=list)

    def before(self, number: int, what: str) -> int | None:
        self.seen.append(what)
        if self.kind == "denied" and number == self.call:
            return 403
        if self.kind == "denied always" and [what] == self.seen[self.call - 1 : self.call]:
            return 403
        return HANG_UP if self.kind == "gone" and 0 < self.call < number else None

    def after(self, number: int, what: str) -> int | None:
        is_repeated = self.kind == "lost" and 0 < self.call < number and what == self.seen[self.call - 1]
        return HANG_UP if number == self.call or is_repeated else None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReleaseFiles]:
    """An archive, and its release."""
    archive = archive_with(tmp_path_factory.mktemp("trained"), 1)
    return archive, unpack_release(str(archive))


class Work:
    """A promotion or a rollback of the release NEW, in a bucket that serves OLD.

    Attributes:
        bucket: its name.
        new: the version of NEW.
    """

    def __init__(
        self, moto: Moto, bucket: str, trained: tuple[Path, ReleaseFiles], old: Path, patch: pytest.MonkeyPatch
    ) -> None:
        self._moto, self.bucket, self._old, self._patch = moto, bucket, old, patch
        self._archive, self._files = trained
        self.new = self._files.manifest.version
        patch.setenv("MODEL_BUCKET", bucket)

    def arguments(self, name: str) -> list[str]:
        """Put the bucket in its state, and return the arguments of the command."""
        arguments = [str(self._archive)]
        if name == "rollback":
            assert promote_model.main(arguments) == 0
            arguments = ["rollback"]
        publish(self._old, manifest_for(self._old, OLD), self.bucket)
        return arguments

    def export(self) -> list[str]:
        """Put an older release into the bucket, and return the arguments of the command that exports it."""
        older = ReleaseFiles(self._files.weights, None, dataclasses.replace(self._files.manifest, onnx=None))
        publish_files(older, self.bucket)
        return ["export", self.new]

    def run(self, arguments: list[str], fault: Fault) -> int:
        with proxy(self._moto.endpoint, fault.before, fault.after) as server:
            self._patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
            status = promote_model.main(arguments)
        self._patch.setenv("AWS_ENDPOINT_URL", self._moto.endpoint)
        return status

    def named(self, calls: list[str]) -> list[str]:
        return [call.replace(f"/{self.bucket}/", "").replace(self.new, "NEW") for call in calls]

    def served(self) -> str:
        pointer, _ = WeightsBucket(self.bucket).pointer()
        assert pointer
        return pointer.version

    def holds(self, name: str) -> bool:
        return f"releases/{self.new}/{name}" in self._moto.keys(self.bucket)

    def check_that_it_is_done(self) -> None:
        """Check that NEW is whole and served, by the plain key too."""
        assert WeightsBucket(self.bucket).check(self.new).onnx
        assert self.served() == self.new
        keys = (WEIGHTS_NAME, f"releases/{self.new}/{WEIGHTS_NAME}")
        plain, whole = (self._moto.s3().get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys)
        assert plain == whole


@pytest.fixture
def work(
    moto: Moto, bucket: str, trained: tuple[Path, ReleaseFiles], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> Work:
    return Work(moto, bucket, trained, weights, monkeypatch)


def check_that_it_is_true(told: str, work: Work) -> None:
    """Check a sentence about what was done against the bucket."""
    is_served = work.served() == work.new
    if "is served from" in told:
        assert is_served
    elif "whether it is served is not known" in told:
        assert work.holds("manifest.json")
    else:
        assert not is_served
    if "its weights are stored" in told or "its weights and its ONNX file are stored" in told:
        assert work.holds(WEIGHTS_NAME)
    if "its ONNX file are stored" in told:
        assert work.holds(ONNX_NAME)
    if "is stored in" in told or is_served:
        assert work.new in told
        assert work.holds(WEIGHTS_NAME)
        assert work.holds(ONNX_NAME)
        assert work.holds("manifest.json")


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_are_those_that_fail_here(work: Work, name: str) -> None:
    arguments = work.arguments(name)
    fault = Fault()
    assert work.run(arguments, fault) == 0
    assert work.named(fault.seen) == CALLS[name]
    work.check_that_it_is_done()


@pytest.mark.parametrize(
    ("name", "call", "kind"), [(*one, "denied") for one in EACH_NEEDED] + [(*one, "gone") for one in EACH_WRITE]
)
def test_what_fails_is_told_with_what_was_done_and_goes_on(
    work: Work, name: str, call: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = work.arguments(name)
    capsys.readouterr()
    assert work.run(arguments, Fault(call, kind)) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    check_that_it_is_true(told.err, work)
    named = re.search(r"`promote_model\.py (rollback \S+)`", told.err)
    assert bool(named) == (call > CALLS[name].index("PUT current.json"))  # `rollback` alone could go back further
    again = named[1].split() if named else arguments
    assert work.run(again, Fault()) == 0
    work.check_that_it_is_done()
    if name == "promotion":
        assert work.run(arguments, Fault()) == 0
        work.check_that_it_is_done()


@pytest.mark.parametrize("name", CALLS)
def test_a_copy_that_s3_will_not_make_is_made_here(work: Work, name: str) -> None:
    arguments = work.arguments(name)
    assert work.run(arguments, Fault(CALLS[name].index(f"PUT {WEIGHTS_NAME}") + 1, "denied")) == 0
    work.check_that_it_is_done()


@pytest.mark.parametrize("name", CALLS)
def test_a_plain_key_that_is_locked_is_a_warning(work: Work, name: str, caplog: pytest.LogCaptureFixture) -> None:
    arguments = work.arguments(name)
    assert work.run(arguments, Fault(CALLS[name].index(f"PUT {WEIGHTS_NAME}") + 1, "denied always")) == 0
    assert work.served() == work.new
    assert f"Release {work.new} is served from" in caplog.text
    assert f"bringing the key {WEIGHTS_NAME} up to it failed" in caplog.text
    assert "S3 answers AccessDenied" in caplog.text


@pytest.mark.parametrize(("name", "call"), EACH_WRITE)
def test_an_answer_that_is_lost_once_changes_nothing(work: Work, name: str, call: int) -> None:
    arguments = work.arguments(name)
    assert work.run(arguments, Fault(call, "lost once")) == 0
    work.check_that_it_is_done()


@pytest.mark.parametrize("name", CALLS)
def test_a_pointer_that_was_moved_is_found_moved(work: Work, name: str) -> None:
    arguments = work.arguments(name)
    assert work.run(arguments, Fault(CALLS[name].index("PUT current.json") + 1, "lost")) == 0
    work.check_that_it_is_done()


def test_the_calls_of_an_export_are_those_that_fail_here(work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = work.export()
    fault = Fault()
    assert work.run(arguments, fault) == 0
    assert work.named(fault.seen) == EXPORT
    work.check_that_it_is_done()
    assert re.fullmatch(
        rf"Release {work.new} in s3://\S+ has an ONNX file now, of [\d,]+ bytes\.\n", capsys.readouterr().out
    )
    again = Fault()
    assert work.run(arguments, again) == 0
    assert {call.split()[0] for call in again.seen} == {"GET", "HEAD"}
    assert capsys.readouterr().out.endswith(" has an ONNX file already.\n")


@pytest.mark.parametrize(
    ("call", "kind"),
    [(call, "denied") for call in range(1, len(EXPORT) + 1)] + [(call, "gone") for call in (3, 4, 6)],
)
def test_an_export_that_fails_is_told_with_what_was_done_and_goes_on(
    work: Work, call: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = work.export()
    assert work.run(arguments, Fault(call, kind)) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert work.served() == work.new
    if call > 2:
        assert f"`promote_model.py export {work.new}` goes on from there" in told.err
    is_as_it_was = f"Release {work.new} is as it was in" in told.err
    is_stored = f"The ONNX file of release {work.new} is stored in" in told.err
    assert (is_as_it_was, is_stored) == (call == 3, call > 3)
    assert not is_stored or work.holds(ONNX_NAME)
    WeightsBucket(work.bucket).check(work.new)  # it is whole all the time, without or with an ONNX file
    assert work.run(arguments, Fault()) == 0
    work.check_that_it_is_done()


@pytest.mark.parametrize("call", [3, 4, 6])
def test_an_answer_that_is_lost_once_changes_nothing_of_an_export(work: Work, call: int) -> None:
    assert work.run(work.export(), Fault(call, "lost once")) == 0
    work.check_that_it_is_done()
