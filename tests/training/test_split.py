import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from pneumonia.__main__ import main
from pneumonia.network.contract import CLASSES
from pneumonia.training.channels import SPLITS
from pneumonia.training.patients import patient_of
from pneumonia.training.split import split_by_patient
from tests.builders import not_plain
from tests.builders.checkout import PROJECT
from tests.builders.disk import full_after

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def touch(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    """A list like Kermany's: few patients with many images, many with few, and some images twice in it."""
    root, random = tmp_path_factory.mktemp("files"), Random(0)
    listed: list[tuple[str, Path]] = []

    def add(label: str, name: str) -> None:
        twin = random.choice([path for other, path in listed if other == label] or [None])
        content = twin.read_bytes() if twin and random.random() < 0.01 else name.encode()
        listed.append((label, touch(root / label / name, content)))

    for patient in range(350):
        for image in range(random.choice([1, 1, 1, 2, 3])):
            add("NORMAL", f"{random.choice(['', 'NORMAL2-'])}IM-{patient:04}-{image:04}.jpeg")
    for patient in range(600):
        for image in range(random.choice([1, 1, 1, 2, 3, 5, 20])):
            add("PNEUMONIA", f"person{patient}_{random.choice(['bacteria', 'virus'])}_{image}.jpeg")
    return listed


def test_the_made_up_list_is_like_the_real_one(files: list[tuple[str, Path]]) -> None:
    counts = Counter(label for label, _ in files)
    assert counts["PNEUMONIA"] > 2 * counts["NORMAL"] > 800
    assert 10 < len(files) - len({path.read_bytes() for _, path in files}) < 100


def test_every_file_is_in_one_split(files: list[tuple[str, Path]]) -> None:
    splits = split_by_patient(files, FRACTIONS, seed=0)
    assert list(splits) == list(FRACTIONS)
    assert sorted(index for indices in splits.values() for index in indices) == list(range(len(files)))


@pytest.mark.parametrize("seed", range(3))
def test_no_patient_is_in_two_splits(files: list[tuple[str, Path]], seed: int) -> None:
    splits = split_by_patient(files, FRACTIONS, seed)
    patients = [{patient_of(files[index][1]) for index in indices} for indices in splits.values()]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 950


@pytest.mark.parametrize("seed", range(3))
def test_identical_images_are_in_one_split(files: list[tuple[str, Path]], seed: int) -> None:
    splits = split_by_patient(files, FRACTIONS, seed)
    contents = [{files[index][1].read_bytes() for index in indices} for indices in splits.values()]
    assert sum(map(len, contents)) == len(set().union(*contents))


@pytest.mark.parametrize("fractions", [FRACTIONS, {"train": 0.5, "val": 0.4, "test": 0.1}])
@pytest.mark.parametrize("seed", range(3))
def test_each_class_is_divided_by_the_fractions(
    files: list[tuple[str, Path]], fractions: dict[str, float], seed: int
) -> None:
    totals = Counter(label for label, _ in files)
    for name, indices in split_by_patient(files, fractions, seed).items():
        counts = Counter(files[index][0] for index in indices)
        for label, total in totals.items():
            assert counts[label] / total == pytest.approx(fractions[name], abs=0.02), (name, label)


@pytest.mark.parametrize("label", CLASSES)
def test_each_split_has_patients_with_many_images_and_with_few(files: list[tuple[str, Path]], label: str) -> None:
    """Else the large splits could take the patients with many images, and the small ones the rest."""
    splits = split_by_patient(files, FRACTIONS, seed=0)
    patients = {
        name: len({patient_of(path) for found, path in (files[index] for index in indices) if found == label})
        for name, indices in splits.items()
    }
    for name, count in patients.items():
        assert count / sum(patients.values()) == pytest.approx(FRACTIONS[name], abs=0.03), name


def test_the_seed_decides_the_split(files: list[tuple[str, Path]]) -> None:
    first, again, other = (split_by_patient(files, FRACTIONS, seed) for seed in (0, 0, 1))
    assert first == again
    assert set(first["test"]) != set(other["test"])


def test_identical_images_join_patients_in_a_chain(tmp_path: Path) -> None:
    names = {"person1_virus_1": b"a", "person2_virus_1": b"a", "person2_virus_2": b"b", "person3_virus_1": b"b"}
    chain = [("PNEUMONIA", touch(tmp_path / f"{name}.jpeg", content)) for name, content in names.items()]
    others = [("PNEUMONIA", touch(tmp_path / f"person{n}_virus_1.jpeg", str(n).encode())) for n in range(10, 20)]
    for seed in range(5):
        splits = split_by_patient([*chain, *others], {"train": 0.5, "val": 0.5}, seed)
        assert {0, 1, 2, 3} <= set(splits["train"]) or {0, 1, 2, 3} <= set(splits["val"])


def test_images_without_a_patients_name_are_patients_of_their_own(tmp_path: Path) -> None:
    scans = [("NORMAL", touch(tmp_path / f"scan{number}.png", str(number).encode())) for number in range(20)]
    assert {name: len(part) for name, part in split_by_patient(scans, {"train": 0.75, "val": 0.25}, 0).items()} == {
        "train": 15,
        "val": 5,
    }


# The command


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(20):
        touch(tmp_path / "source" / "NORMAL" / f"IM-{number:04}-0001.jpeg", f"normal {number}".encode())
        touch(tmp_path / "source" / "PNEUMONIA" / f"person{number}_virus_1.jpeg", f"sick {number}".encode())
    return tmp_path / "source"


def contents(root: Path, pattern: str = "*/*/*") -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in root.glob(pattern)}


@pytest.mark.processes
def test_the_command_copies_every_file_once(source: Path, tmp_path: Path) -> None:
    destination = tmp_path / "new" / "split"
    command = [sys.executable, "-m", "pneumonia", "split", str(source), str(destination)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["split", "patients", "NORMAL", "PNEUMONIA"],
        ["train", "28", "14", "14"],
        ["val", "6", "3", "3"],
        ["test", "6", "3", "3"],
    ]
    assert contents(destination) == contents(source, "*/*")
    assert len(list(destination.glob("*/*/*"))) == 40
    assert not any(path.is_symlink() for path in destination.rglob("*"))
    assert [path.name for path in destination.parent.iterdir()] == ["split"]


@pytest.mark.processes
def test_the_command_fails_with_status_1_and_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pneumonia", "split", str(tmp_path / "nowhere"), str(tmp_path / "split")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "nowhere is not a folder" in result.stderr


def test_links_lead_to_the_files(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["split", "source", "split", "--link"]) == 0
    assert all(path.is_symlink() for path in Path("split").glob("*/*/*"))
    assert contents(tmp_path / "split") == contents(source, "*/*")


def test_an_empty_destination_is_used(source: Path, tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    assert main(["split", str(source), str(tmp_path / "split")]) == 0
    assert contents(tmp_path / "split") == contents(source, "*/*")


def test_the_shares_and_the_seed_are_arguments(source: Path, tmp_path: Path) -> None:
    for name, seed in (("first", "1"), ("again", "1"), ("other", "2")):
        options = ["--val", "0.2", "--test", "0.3", "--seed", seed]
        assert main(["split", str(source), str(tmp_path / name), *options]) == 0
    first, again, other = (
        {split: contents(tmp_path / name / split, "*/*") for split in SPLITS} for name in ("first", "again", "other")
    )
    assert {split: len(files) for split, files in first.items()} == {"train": 20, "val": 8, "test": 12}
    assert first == again
    assert first != other


def test_names_without_patients_are_told(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(source / "NORMAL" / "scan.jpeg", b"scan")
    assert main(["split", str(source), str(tmp_path / "one")]) == 0
    assert "Warning: 1 of 41 file names tells no patient, such as NORMAL/scan.jpeg: " in capsys.readouterr().err
    touch(source / "PNEUMONIA" / "film.jpeg", b"film")
    assert main(["split", str(source), str(tmp_path / "two")]) == 0
    told = capsys.readouterr()
    assert "Warning: 2 of 42 file names tell no patient, such as NORMAL/scan.jpeg and PNEUMONIA/film.jpeg: " in told.err
    assert "patient," not in told.out


def test_names_without_patients_are_told_before_anything_is_split(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(source / "NORMAL" / "scan.jpeg", b"scan")
    (source / "NORMAL" / "IM-0050-0001.jpeg").symlink_to(tmp_path / "gone.jpeg")
    assert main(["split", str(source), str(tmp_path / "split")]) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[0] for line in told] == ["Warning:", "Images"]


NAMED_OTHERWISE = {
    "Mendeley V3": ("NORMAL-{0}-{1:04}.jpeg", "VIRUS-{0}-{1:04}.jpeg", "BACTERIA-{0}-{1:04}.jpeg"),
    "Kaggle, in other formats": ("NORMAL2-IM-{0:04}-{1:04}.PNG", "person{0}_bacteria_{1}_aug_3.jpg"),
    "NIH": ("{0:08}_{1:03}.png",),
    "CheXpert": ("patient{0:05}_study{1}_view1_frontal.jpg",),
}


@pytest.mark.parametrize("names", NAMED_OTHERWISE.values(), ids=NAMED_OTHERWISE.keys())
def test_public_collections_are_split_by_patient(
    names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = Random(0)
    for patient in range(100, 160):
        for image in range(random.choice([1, 2, 5])):
            name = names[0] if patient < 130 else random.choice(names[1:] or names)
            label = "NORMAL" if patient < 130 else "PNEUMONIA"
            touch(tmp_path / "source" / label / name.format(patient, image), f"{patient} {image}".encode())
    check_split(["split", str(tmp_path / "source"), str(tmp_path / "split")], r"1[0-5]\d", tmp_path / "split")
    assert capsys.readouterr().err == ""


def check_split(argv: list[str], patient: str, destination: Path) -> None:
    """Run the command, and check that no patient, by this pattern, is in two splits."""
    assert main(argv) == 0
    patients = [
        {match[0] for path in destination.glob(f"{split}/*/*") if (match := re.search(patient, path.name))}
        for split in SPLITS
    ]
    assert all(patients)
    assert sum(map(len, patients)) == len(set().union(*patients))


@pytest.mark.parametrize("pattern", [r"^[a-z]+(\d+)", r"(?P<patient>\d+)-", r"x(\d+)|child(\d+)", r"^[a-z]+\d+"])
def test_a_pattern_tells_the_patients(pattern: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for patient in range(100, 160):
        for image in range(4):
            label = "NORMAL" if patient % 2 else "PNEUMONIA"
            touch(tmp_path / "source" / label / f"child{patient}-{image}.png", f"{patient} {image}".encode())
    argv = ["split", str(tmp_path / "source"), str(tmp_path / "split"), "--patients", pattern]
    check_split(argv, r"\d{3}", tmp_path / "split")
    told = capsys.readouterr()
    assert told.err == ""
    assert sum(int(line.split()[1]) for line in told.out.splitlines()[1:]) == 60


def test_names_that_a_pattern_does_not_match_are_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["split", str(source), str(tmp_path / "split"), "--patients", r"person(\d+)"]) == 0
    told = capsys.readouterr().err
    assert told.startswith(
        r"Warning: 20 of 40 file names tell no patient by --patients 'person(\d+)', such as NORMAL/IM-0000-0001.jpeg"
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("(", "--patients '(' is not a regular expression (missing ), unterminated subpattern at position 0): correct"),
        (r"child(\d+)", r"--patients 'child(\d+)' finds no patient in any of 40 file names, such as NORMAL/IM-0000-"),
        ("IM(x*)", "--patients 'IM(x*)' finds no patient in any of 40 file names"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(
    pattern: str, expected: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in failure(["split", str(source), str(tmp_path / "split"), "--patients", pattern], capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_an_image_in_both_classes_is_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(source / "PNEUMONIA" / "copy.jpeg", b"normal 3")
    assert main(["split", str(source), str(tmp_path / "split")]) == 1
    assert (
        "The same image is in NORMAL and in PNEUMONIA, byte for byte (source/NORMAL/IM-0003-0001.jpeg and "
        "source/PNEUMONIA/copy.jpeg): remove one of them."
    ) in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def failure(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, check that it fails with one sentence, and return it."""
    assert main(argv) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    "existing", [pytest.param("split/file", id="a folder with a file"), pytest.param("split", id="a file")]
)
def test_nothing_is_overwritten(
    existing: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path / existing, b"precious")
    assert "already exists and nothing is overwritten" in failure(
        ["split", str(source), str(tmp_path / "split")], capsys
    )
    assert (tmp_path / existing).read_bytes() == b"precious"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "split"}


@pytest.mark.parametrize(
    "options",
    [
        ["--val", "0"],
        ["--test", "0"],
        ["--val", "-0.1"],
        ["--val", "0.5", "--test", "0.5"],
        ["--val", "1.5"],
        ["--val", "nan"],
        ["--test", "nan"],
        ["--test", "inf"],
    ],
)
def test_bad_fractions_are_refused(
    options: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = failure(["split", str(source), str(tmp_path / "split"), *options], capsys)
    assert "--val and --test must be above 0 and leave something for training" in sentence
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_bad_source_is_refused_before_anything_is_made(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "COVID").mkdir()
    assert "more than two classes" in failure(["split", str(source), str(tmp_path / "new" / "split")], capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_full_disk_leaves_nothing_behind(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(source / "PNEUMONIA" / "person99_virus_1.jpeg", bytes(100_000))
    with full_after(50_000):
        sentence = failure(["split", str(source), str(tmp_path / "split")], capsys)
    assert re.fullmatch(
        rf"{tmp_path}/split/\w+/PNEUMONIA/person99_virus_1\.jpeg cannot be read or written: File too large\. "
        rf"{tmp_path}/split is made whole or not at all: nothing of it is left\.",
        sentence.strip(),
    )
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_broken_link_in_the_source_leaves_nothing_behind(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "NORMAL" / "IM-0050-0001.jpeg").symlink_to(tmp_path / "gone.jpeg")
    told = "Images cannot be read, remove or replace them: source/NORMAL/IM-0050-0001.jpeg (No such file or directory)"
    assert told in failure(["split", str(source), str(tmp_path / "split")], capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


@pytest.mark.processes
@pytest.mark.parametrize("options", [[], ["--link"]])
def test_what_is_no_plain_file_is_named_and_neither_waited_for_nor_read(
    options: list[str],
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(source / "NORMAL")  # a socket's path may not be long
    not_plain.put_into(Path())
    assert main(["split", str(source), str(tmp_path / "split"), *options]) == 1
    *files, sentence = capsys.readouterr().err.splitlines()[-1 - len(not_plain.TOLD) :]
    assert sentence.startswith(f"{len(not_plain.TOLD)} images cannot be read, remove or replace them: ")
    for name, told in not_plain.TOLD.items():
        assert any(file.startswith(f"source/NORMAL/{name} ({told}") for file in files), (name, files)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_links_in_a_circle_and_a_folder_named_as_an_image_are_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert "circle is not a folder" in failure(["split", str(tmp_path / "circle"), str(tmp_path / "split")], capsys)
    assert "cannot be read or written" in failure(["split", str(source), str(tmp_path / "circle")], capsys)
    (source / "NORMAL" / "x.jpeg").mkdir()
    told = "source/NORMAL must hold images alone, and has the folders x.jpeg."
    assert told in failure(["split", str(source), str(tmp_path / "split")], capsys)


def test_a_destination_below_a_file_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path / "file")
    assert "cannot be read or written" in failure(["split", str(source), str(tmp_path / "file" / "split")], capsys)


@pytest.mark.processes
def test_command_needs_neither_torch_nor_what_only_training_needs(source: Path, tmp_path: Path) -> None:
    program = """
import sys
for name in ("numpy", "psutil", "torch", "PIL"):
    sys.modules[name] = None
from pneumonia.__main__ import main
sys.exit(main(["split", *sys.argv[1:]]))
"""
    command = [sys.executable, "-W", "error", "-c", program, str(source), str(tmp_path / "split")]
    subprocess.run(command, cwd=PROJECT, check=True)


def test_a_link_to_an_empty_folder_is_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert main(["split", str(source), str(tmp_path / "link")]) == 0
    assert contents(tmp_path / "empty") == contents(source, "*/*")


def test_a_split_is_not_made_among_its_own_images(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(source), str(source / "NORMAL" / "split")]) == 1
    assert "would be among the images: name a folder elsewhere." in capsys.readouterr().err
    assert not (source / "NORMAL" / "split").exists()
