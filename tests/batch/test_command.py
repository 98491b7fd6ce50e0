import contextlib
import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image
from pyarrow import parquet

from pneumonia.__main__ import main
from pneumonia.batch.command import answers
from pneumonia.batch.journal import Journal, JournalHeader, digest_of, opened
from pneumonia.batch.sources import files_below, listed, state_of
from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.names import named, quoted
from pneumonia.network.calibration import Calibration
from pneumonia.network.classifier import BATCH_SIZE
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.identity import identity_of
from pneumonia.network.input_check import InputCheck
from pneumonia.releases.fetch import Weights
from pneumonia.releases.loading import load_served
from pneumonia.serving.predictor import Predictor
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.disk import full_after
from tests.builders.images import encoded
from tests.builders.input_checks import INPUT_CHECK
from tests.builders.releases import exported, manifest_for, publish
from tools.stand_ins.faulty_s3 import refusal, standing_for_s3
from tools.stand_ins.moto import Moto

COLUMNS = ["file", "prediction", "confidence", "probability_pneumonia", "warnings", "model_version", "error"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with more X-rays than two batches have, in folders of folders."""
    folder = tmp_path / "images"
    random = Random(0)
    for number in range(2 * BATCH_SIZE + 5):
        path = folder / ("b/c" if number % 2 else "a") / f"{number:02}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_radiograph(random, "PNEUMONIA", 64).save(path)
    return folder


def run(*arguments: object) -> int:
    return main(["batch", *(str(one) for one in arguments)])


def rows_of(output: Path) -> list[dict[str, str]]:
    with output.open(newline="") as file:
        return list(csv.DictReader(file))


def start(weights: Path, *arguments: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "pneumonia", "batch", "--weights", str(weights), *map(str, arguments)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.005)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_answers_are_those_of_serving_in_the_order_of_the_names(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "answers.csv"
    assert run(images, output, "--weights", weights) == 0
    rows = rows_of(output)
    predictor = Predictor(Weights(weights))
    paths = sorted(path for path in images.rglob("*") if path.is_file())
    assert [row["file"] for row in rows] == [str(path) for path in paths]
    for path, row in zip(paths, rows, strict=True):
        expected = predictor.predict(path.read_bytes())
        assert list(row) == COLUMNS
        assert (row["prediction"], row["model_version"]) == (expected.prediction, expected.model_version)
        assert float(row["confidence"]) == pytest.approx(expected.confidence, abs=1e-5)
        assert float(row["probability_pneumonia"]) == pytest.approx(expected.probabilities["PNEUMONIA"], abs=1e-5)
        assert (row["warnings"], row["error"]) == ("uncalibrated", "")
    told = capsys.readouterr()
    assert "has the answers of model sha256-" in told.out
    assert told.err == ""  # no progress bar in a log
    assert list(output.parent.iterdir()) == [output]  # and no journal


def test_broken_files_have_a_row_of_their_own_are_named_and_make_status_3(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "a" / "00.jpeg").write_bytes(b"")
    (images / "a" / "02.jpeg").write_bytes((images / "a" / "02.jpeg").read_bytes()[:500])
    (images / "a" / "03.txt").write_text("Dear radiologist,\n")
    (images / "a" / "04.gif").write_bytes(encoded(Image.new("L", (9, 9)), "GIF"))
    (images / "a" / "gone.jpeg").symlink_to("nowhere")
    (images / "a" / ".hidden").write_text("not looked at")
    os.mkfifo(images / "a" / "pipe.jpeg")
    with (images / "a" / "large.jpeg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    output = tmp_path / "answers.csv"
    assert run(images, output, "--weights", weights) == 3
    rows = rows_of(output)
    errors = {Path(row["file"]).name: row["error"] for row in rows if row["error"]}
    assert {name: error.partition(":")[0] for name, error in errors.items()} == {
        "00.jpeg": "The file is empty",
        "02.jpeg": "The image is broken",
        "03.txt": "The file is not an image",
        "04.gif": "GIF files are not read",
        "gone.jpeg": "The file cannot be read",
        "large.jpeg": "The file is larger than 20,971,520 bytes",
        "pipe.jpeg": "This is not a plain file",
    }
    for row in rows:
        assert any(row[name] for name in COLUMNS[1:-1]) != bool(row["error"])
    told = capsys.readouterr().err
    assert f"7 of {len(rows)} images have no answer:" in told
    assert f"{images}/a/00.jpeg: The file is empty" in told


def test_of_many_broken_files_the_first_ten_are_named(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(12):
        (images / f"{number:02}").write_text("text")
    assert run(images, tmp_path / "answers.csv", "--weights", weights) == 3
    told = capsys.readouterr().err
    assert "09: The file is not an image" in told
    assert "10: " not in told
    assert "and 2 more, in the column `error`" in told


def test_parquet_has_the_same_rows_as_csv(images: Path, weights: Path, tmp_path: Path) -> None:
    (images / "broken").write_text("text")
    (images / os.fsdecode(b"bytes\xff.jpeg")).write_bytes(encoded(draw_radiograph(Random(1), "NORMAL"), "JPEG"))
    assert run(images, tmp_path / "answers.csv", "--weights", weights) == 3
    assert run(images, tmp_path / "answers.parquet", "--weights", weights) == 3
    table = parquet.read_table(tmp_path / "answers.parquet")
    assert table.schema.names == COLUMNS
    assert str(table.schema.field("probability_pneumonia").type) == "double"
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    assert [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()
    ] == expected


def test_uncertain_answers_carry_the_warning(images: Path, weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.pth"
    copy.write_bytes(weights.read_bytes())
    dataclasses.replace(manifest_for(copy), calibration=Calibration(1, 0, 0, 1)).write_beside(copy)
    assert run(images, tmp_path / "answers.csv", "--weights", copy) == 0
    assert {row["warnings"] for row in rows_of(tmp_path / "answers.csv")} == {"uncertain"}


@pytest.mark.slow
def test_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(images: Path, weights: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "answers.csv"
    (images / "a" / "broken.jpeg").write_text("text")
    assert run(images, whole, "--weights", weights) == 3
    journal = tmp_path / "answers.csv.journal"
    starts = 0
    while not output.exists():  # killed after every batch, at whatever it is doing then
        process = start(weights, images, output)
        starts += 1
        before = max(1, lines_in(journal))
        wait_until(lambda before=before: lines_in(journal) > before or output.exists(), process)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert starts <= 4
    assert starts > 1
    status = 3 if not journal.exists() else run(images, output, "--weights", weights)  # may be killed before the end
    assert status == 3
    assert output.read_bytes() == whole.read_bytes()
    assert not journal.exists()


@contextlib.contextmanager
def opened_for(images: Path, weights: Path, tmp_path: Path) -> Iterator[Journal]:
    """Open the journal of a run over a folder."""
    paths = list(files_below(images))
    names = [str(path) for path in paths]
    model = Predictor(Weights(weights)).load()
    header = JournalHeader(model.version, identity_of(model, "torch"), len(names), digest_of(names))
    with opened(tmp_path / "answers.csv.journal", header, [state_of(path) for path in paths]) as journal:
        yield journal


def journal_of(images: Path, weights: Path, tmp_path: Path) -> tuple[Path, bytes]:
    """Return the path that a journal has to have, and the content of one that is whole."""
    with opened_for(images, weights, tmp_path) as journal:
        for row in answers(Predictor(Weights(weights)).load(), list(files_below(images))):
            journal.append(row)
    return journal.path, journal.path.read_bytes()


@pytest.mark.slow
def test_journal_cut_off_anywhere_is_gone_on_from(images: Path, weights: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.csv"
    assert run(images, whole, "--weights", weights) == 0
    journal, content = journal_of(images, weights, tmp_path)
    lines = content.splitlines(keepends=True)
    batch_end = len(b"".join(lines[: 1 + BATCH_SIZE]))
    for kept in (
        content,  # killed before the output was written …
        content[:-1],
        content[: batch_end + 300],
        content[:batch_end] + bytes(700),  # what a power cut may leave
        content[: len(lines[0]) - 5],
        b"",
    ):
        journal.write_bytes(kept)
        if kept == content:  # … or after that, before the journal was removed
            (tmp_path / "answers.csv").write_bytes(whole.read_bytes())
        assert run(images, tmp_path / "answers.csv", "--weights", weights) == 0
        assert (tmp_path / "answers.csv").read_bytes() == whole.read_bytes()
        assert not journal.exists()
        (tmp_path / "answers.csv").unlink()


def test_answers_in_the_journal_are_not_computed_again(images: Path, weights: Path, tmp_path: Path) -> None:
    with opened_for(images, weights, tmp_path) as journal:
        for _ in range(BATCH_SIZE):
            journal.append(["NORMAL", 0.875, 0.125, "", "v", None])
    assert run(images, tmp_path / "answers.csv", "--weights", weights) == 0
    probabilities = [row["probability_pneumonia"] for row in rows_of(tmp_path / "answers.csv")]
    assert probabilities[:BATCH_SIZE] == ["0.125"] * BATCH_SIZE
    assert "0.125" not in probabilities[BATCH_SIZE:]


def test_an_image_that_has_changed_is_answered_again(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal_of(images, weights, tmp_path)
    path = list(files_below(images))[BATCH_SIZE + 1]
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(images, tmp_path / "answers.csv", "--weights", weights) == 3
    assert rows_of(tmp_path / "answers.csv")[BATCH_SIZE + 1]["error"].startswith("The file is not an image")
    assert f"journal is damaged after {BATCH_SIZE} answers, or images have changed." in capsys.readouterr().err


def test_an_object_that_has_changed_has_another_state(moto: Moto, bucket: str) -> None:
    states = []
    for content in (b"one", b"one", b"two"):
        moto.s3().put_object(Bucket=bucket, Key="a", Body=content)
        states.append(state_of(next(listed(f"s3://{bucket}"))))
    assert states[0] == states[1] != states[2]


def test_the_same_version_with_another_calibration_or_input_check_is_another_run(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "model.pth"
    copy.write_bytes(weights.read_bytes())
    manifest = manifest_for(copy)
    manifest.write_beside(copy)
    journal, content = journal_of(images, copy, tmp_path)
    for changed in (
        dataclasses.replace(manifest, calibration=Calibration(bias=0.5)),
        dataclasses.replace(manifest, input_check=InputCheck(**INPUT_CHECK)),
    ):
        changed.write_beside(copy)
        assert run(images, tmp_path / "answers.csv", "--weights", copy) == 1
        told = f"has answers of model {manifest.version} with another engine, calibration, input check or code: remove"
        assert told in capsys.readouterr().err
        assert journal.read_bytes() == content


def test_the_same_release_by_the_other_engine_is_another_run(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = exported(weights, manifest_for(weights))
    (tmp_path / "release").mkdir()
    files.write_into(tmp_path / "release")
    journal, content = journal_of(images, tmp_path / "release" / WEIGHTS_NAME, tmp_path)
    monkeypatch.setenv("ENGINE", "onnx")
    assert run(images, tmp_path / "answers.csv", "--weights", tmp_path / "release") == 1
    told = f"has answers of model {files.manifest.version} with another engine, calibration, input check or code"
    assert told in capsys.readouterr().err
    assert journal.read_bytes() == content


@pytest.mark.parametrize("name", ["answers.csv", "answers.parquet"])
def test_a_full_disk_names_the_file_and_what_is_kept(
    name: str, images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, journal = tmp_path / name, tmp_path / f"{name}.journal"
    kept = f"File too large. The answers so far are kept in {journal}: the same command continues from there.\n"
    with full_after(5_000):
        assert run(images, output, "--weights", weights) == 1
    assert capsys.readouterr().err == f"{journal} cannot be read or written: {kept}"
    journal.unlink()
    whole, _ = journal_of(images, weights, tmp_path)
    whole.rename(journal)
    with full_after(1_000):
        assert run(images, output, "--weights", weights) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"{output} cannot be read or written: ")
    assert told.endswith(kept)
    assert {path.name for path in tmp_path.iterdir()} == {"images", journal.name}


def test_a_folder_that_cannot_be_written_keeps_nothing(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(images, tmp_path / "file" / "answers.csv", "--weights", weights) == 1
    assert "kept" not in capsys.readouterr().err
    (tmp_path / "answers.csv.journal").mkdir()
    assert run(images, tmp_path / "answers.csv", "--weights", weights) == 1
    assert "answers.csv.journal is not a plain file: remove it" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["another model", "another input", "no journal", "earlier version", "damaged header"])
def test_journal_of_another_run_is_refused_and_kept(
    what: str, images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, content = journal_of(images, weights, tmp_path)
    copy = tmp_path / "model.pth"
    copy.write_bytes(weights.read_bytes())
    if what == "another model":
        manifest_for(copy).write_beside(copy)
    elif what == "another input":
        (images / "a" / "new.jpeg").write_text("text")
    else:
        content = {
            "no journal": b"Dear diary,\n",
            "earlier version": b'{"model_version": "v", "images": 1, "inputs": ""}\n["NORMAL", 1, 0, "", "v", null]\n',
            "damaged header": content.replace(b'"images"', b'"imagez"', 1),
        }[what]
        journal.write_bytes(content)
    assert run(images, tmp_path / "answers.csv", "--weights", copy) == 1
    assert {
        "another model": "has answers of model sha256-",
        "another input": "has answers for another input, of 37 images: remove it to start anew",
        "no journal": "is not a journal of a run: remove it, or name another output.",
        "earlier version": "is of an earlier version of this program: remove it to start anew",
        "damaged header": "is damaged in its first line: remove it, or name another output.",
    }[what] in capsys.readouterr().err
    assert journal.read_bytes() == content
    assert not (tmp_path / "answers.csv").exists()


def test_two_runs_never_write_one_journal(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened_for(images, weights, tmp_path):
        assert run(images, tmp_path / "answers.csv", "--weights", weights) == 1
    assert "is being written by another run: wait until that ends." in capsys.readouterr().err


@pytest.mark.processes
def test_interrupted_run_says_that_it_can_go_on(images: Path, weights: Path, tmp_path: Path) -> None:
    for copy in range(500):  # so many that no machine is through before it is interrupted
        (images / f"{copy}.txt").symlink_to(images / "a" / "00.jpeg")
    process = start(weights, images, tmp_path / "answers.csv")
    wait_until(lambda: lines_in(tmp_path / "answers.csv.journal") > 1, process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130
    assert told.decode().endswith("Stopped: the same command continues from here.\n")
    assert "Traceback" not in told.decode()


def test_prefix_in_s3_is_answered_like_a_folder(
    images: Path, weights: Path, moto: Moto, bucket: str, tmp_path: Path
) -> None:
    for path in images.rglob("*.jpeg"):
        moto.s3().upload_file(str(path), bucket, f"xrays/{path.relative_to(images)}")
    moto.s3().put_object(Bucket=bucket, Key="xrays/z.txt", Body=b"text")
    assert run(f"s3://{bucket}/xrays/", tmp_path / "s3.csv", "--weights", weights) == 3
    assert run(images, tmp_path / "local.csv", "--weights", weights) == 0
    *rows, broken = rows_of(tmp_path / "s3.csv")
    for row, expected in zip(rows, rows_of(tmp_path / "local.csv"), strict=True):
        assert row["file"] == f"s3://{bucket}/xrays/{Path(expected['file']).relative_to(images)}"
        assert {**row, "file": ""} == {**expected, "file": ""}
    assert broken["file"] == f"s3://{bucket}/xrays/z.txt"
    assert broken["error"].startswith("The file is not an image")


def test_manifests_name_objects_and_files(images: Path, weights: Path, moto: Moto, bucket: str, tmp_path: Path) -> None:
    xray = images / "a" / "00.jpeg"
    moto.s3().upload_file(str(xray), bucket, "ward 3/a.jpeg")
    rows, lines = tmp_path / "rows.csv", tmp_path / "lines.txt"
    rows.write_text(f"{bucket},ward%203/a.jpeg\n{bucket},none.jpeg\n")
    lines.write_text(f"s3://{bucket}/ward 3/a.jpeg\n\n{xray}\n")
    assert run(rows, tmp_path / "1.csv", "--weights", weights) == 3
    assert run(lines, tmp_path / "2.csv", "--weights", weights) == 0
    first, missing = rows_of(tmp_path / "1.csv")
    assert (first["file"], missing["file"]) == (f"s3://{bucket}/ward 3/a.jpeg", f"s3://{bucket}/none.jpeg")
    assert (
        missing["error"]
        == "The object cannot be read, S3 answers NoSuchKey (The specified key does not exist.): check the key."
    )
    second, local = rows_of(tmp_path / "2.csv")
    assert local["file"] == str(xray)
    assert second["probability_pneumonia"] == local["probability_pneumonia"]


def test_manifests_may_begin_with_a_mark_and_have_windows_ends_of_lines(
    images: Path, weights: Path, moto: Moto, bucket: str, tmp_path: Path
) -> None:
    xray = images / "a" / "00.jpeg"
    moto.s3().upload_file(str(xray), bucket, "=a +ü .jpeg")
    for name, content in {
        "rows.csv": f"\ufeff{bucket},%3Da+%2B%C3%BC%20.jpeg\r\n",
        "lines.txt": f"\ufeff$'s3://{bucket}/=a +\\xc3\\xbc .jpeg'\r\n\r\n",
    }.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        assert run(tmp_path / name, tmp_path / f"{name}.csv", "--weights", weights) == 0
        (row,) = rows_of(tmp_path / f"{name}.csv")
        assert named(row["file"]) == f"s3://{bucket}/=a +ü .jpeg"


@pytest.mark.parametrize("ending", ["csv", "txt"])
def test_a_manifest_that_is_a_pipe_is_not_waited_for(
    ending: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / f"names.{ending}")
    assert run(tmp_path / f"names.{ending}", tmp_path / "answers.csv", "--weights", weights) == 1
    assert "it is not a plain file but a pipe" in capsys.readouterr().err


def test_names_that_none_can_have_are_rows_with_an_error(weights: Path, bucket: str, tmp_path: Path) -> None:
    manifest = tmp_path / "lines.txt"
    lines = [b"zero\0byte.jpeg", f"s3://{bucket}/".encode() + b"bytes\xff.jpeg", f"s3://{bucket}".encode(), b"."]
    manifest.write_bytes(b"\n".join(lines))
    assert run(manifest, tmp_path / "answers.csv", "--weights", weights) == 3
    rows = rows_of(tmp_path / "answers.csv")
    assert [row["file"] for row in rows[:2]] == [r"$'zero\x00byte.jpeg'", rf"$'s3://{bucket}/bytes\xff.jpeg'"]
    errors = [row["error"] for row in rows]
    empty_key = "Parameter validation failed: Invalid length for parameter Key, value: 0, valid min length: 1."
    assert errors[0] == "No file can have this name (embedded null byte): name an image."
    assert errors[1] == "The object cannot be read: the name is not text that can be sent."
    assert errors[2:] == [
        f"The object cannot be read: {empty_key}",
        "This is not a plain file: name an image.",
    ]


NAMES = {
    b"=1+1.jpeg": "./=1+1.jpeg",
    b"+1.jpeg": "./+1.jpeg",
    b"-1.jpeg": "./-1.jpeg",
    b"@SUM(A1).jpeg": "./@SUM(A1).jpeg",
    "＝1.jpeg".encode(): "./＝1.jpeg",  # noqa: RUF001
    b"\t=1.jpeg": r"$'\x09=1.jpeg'",
    b"\r=1.jpeg": r"$'\x0d=1.jpeg'",
    b"a;=1.jpeg": r"$'a\x3b=1.jpeg'",
    b"a\nb.jpeg": r"$'a\x0ab.jpeg'",
    b"Icon\r": r"$'Icon\x0d'",
    "a\u2028b.jpeg".encode(): r"$'a\xe2\x80\xa8b.jpeg'",
    b" a.jpeg ": " a.jpeg ",
    b"2026.001": "./2026.001",
    b"NA": "./NA",
    b'a",=1.jpeg': 'a",=1.jpeg',
    b"bytes\xff.jpeg": r"$'bytes\xff.jpeg'",
    rb"bytes\xff.jpeg": r"bytes\xff.jpeg",
    rb"$'bytes\xff.jpeg'": r"$'$\x27bytes\x5cxff.jpeg\x27'",
    "röntgen \u202e.jpeg".encode(): "röntgen \u202e.jpeg",
}


def line_for(name: bytes) -> bytes:
    """Return a manifest's line for a name: as it is where that can be read back, or quoted."""
    is_plain = not {*b"\r\n"} & {*name} and not name.startswith(b"$'")
    return name if is_plain else quoted(os.fsdecode(name)).encode()


def test_no_name_is_a_formula_or_spoils_the_table(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    xray = encoded(draw_radiograph(Random(1), "NORMAL", 64), "JPEG")
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(os.fsdecode(name)).write_bytes(xray)
    # As `pneumonia batch .` would list them, but with the names alone, and one that is no image.
    Path(os.fsdecode(b"gone\xfe.jpeg")).write_text("text")
    manifest = tmp_path / "names.txt"
    manifest.write_bytes(b"\n".join([*(line_for(name) for name in NAMES), b"gone\xfe.jpeg"]))
    assert run(".", "../answers.csv", "--weights", weights) == 3
    assert {row["file"] for row in rows_of(tmp_path.parent / "answers.csv")} >= set(NAMES.values())
    (tmp_path.parent / "answers.csv").unlink()
    assert run(manifest, "../listed.csv", "--weights", weights) == 3
    listed = rows_of(tmp_path.parent / "listed.csv")
    assert [row["file"] for row in listed if not row["error"]] == [*NAMES.values()]
    assert r"  $'gone\xfe.jpeg': The file is not an image" in capsys.readouterr().err
    assert run(manifest, "../listed.parquet", "--weights", weights) == 3
    plain = [row["file"].removeprefix("./").replace(r"$'a\x3b=1.jpeg'", "a;=1.jpeg") for row in listed]
    assert parquet.read_table(tmp_path.parent / "listed.parquet")["file"].to_pylist() == plain


def test_run_of_such_names_goes_on_where_it_was(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    monkeypatch.chdir(folder)
    xray = encoded(draw_radiograph(Random(1), "NORMAL", 64), "JPEG")
    for name in NAMES:
        (folder / os.fsdecode(name)).write_bytes(xray)
    for number in range(BATCH_SIZE):
        (folder / f"={number}").write_bytes(xray)
    monkeypatch.chdir(tmp_path)
    assert run("images", "whole.csv", "--weights", weights) == 0
    journal, content = journal_of(Path("images"), weights, tmp_path)
    journal.write_bytes(b"".join(content.splitlines(keepends=True)[: 1 + BATCH_SIZE]))
    assert run("images", "answers.csv", "--weights", weights) == 0
    assert Path("answers.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.processes
def test_s3_that_refuses_everything_ends_the_run_and_no_image_is_blamed(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("models,a.jpeg\n")
    with standing_for_s3(monkeypatch, {"/models/a.jpeg": [refusal(400, "ExpiredToken")]}):
        assert run(tmp_path / "rows.csv", tmp_path / "answers.csv", "--weights", weights) == 1
    assert capsys.readouterr().err == (
        "The object cannot be read, S3 answers ExpiredToken: log in to AWS again, or renew the access keys. The same "
        "command continues from here.\n"
    )
    assert lines_in(tmp_path / "answers.csv.journal") == 1


@pytest.mark.parametrize(
    ("source", "output", "sentence"),
    [
        ("nowhere", "answers.csv", "is not a folder, an s3://bucket/prefix or a manifest"),
        ("nowhere.csv", "answers.csv", "nowhere.csv does not exist: check the name."),
        ("empty", "answers.csv", "empty holds no files"),
        ("images", "answers.json", "ends with neither .csv nor .parquet"),
        ("images", "there.csv", "there.csv already exists and nothing is overwritten"),
        ("images", "images/a/answers.csv", "is in the folder of images"),
        ("s3://", "answers.csv", "is not an address in S3"),
    ],
)
def test_what_cannot_be_run_is_told_and_makes_status_1(
    source: str,
    output: str,
    sentence: str,
    images: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").write_text("precious")
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "x-1"}.items():
        monkeypatch.setenv(name, value)
    assert images.is_dir()
    assert run(source, output, "--weights", weights) == 1
    assert sentence in capsys.readouterr().err
    assert (tmp_path / "there.csv").read_text() == "precious"


def test_missing_weights_are_told_not_replaced(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(images, tmp_path / "answers.csv", "--weights", tmp_path / "none.pth") == 1
    assert "none.pth does not exist: name a weights file, a folder with one, or s3://bucket." in capsys.readouterr().err


def test_weights_are_those_that_serving_finds(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_PATH", str(weights))
    assert run(images, tmp_path / "answers.csv") == 0
    assert {row["model_version"] for row in rows_of(tmp_path / "answers.csv")} == {
        Predictor(Weights(weights)).load().version
    }


def test_help_tells_the_columns_and_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    told: Any = capsys.readouterr().out
    assert ", ".join(COLUMNS) in told
    assert "exit status: 0 all images have an answer, 3 some have an error instead, 1 the command failed" in told


def test_a_buckets_weights_are_not_left_for_later_runs(
    bucket: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(weights, manifest_for(weights), bucket)
    kept = tmp_path / "model.pth"
    default = Path("/tmp/model.pth")
    before = default.exists()
    monkeypatch.setenv("MODEL_BUCKET", bucket)
    monkeypatch.delenv("MODEL_PATH", raising=False)
    version = manifest_for(weights).version
    assert load_served().version == version
    assert default.exists() == before
    monkeypatch.setenv("MODEL_PATH", str(kept))
    assert load_served().version == version
    assert kept.exists()
