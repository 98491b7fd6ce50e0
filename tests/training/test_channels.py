import hashlib
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image

from pneumonia.errors import DataError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import SIZE, resize
from pneumonia.network.contract import CLASSES
from pneumonia.training.channels import (
    SPLITS,
    Channel,
    Images,
    fingerprint,
    load_channel,
    main,
    patient_of,
    scan_channels,
    split_by_patient,
)
from pneumonia.training.synthetic import draw_dataset
from tests.builders.disk import full_after

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def touch(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Three channels with one file of each class; listing does not open them."""
    for split in SPLITS:
        touch(tmp_path / split / "NORMAL" / "IM-0001-0001.jpeg")
        touch(tmp_path / split / "PNEUMONIA" / "person1_virus_1.jpeg")
    return {split: tmp_path / split for split in SPLITS}


# Channels


def test_scanning_lists_and_labels_the_files_of_each_channel(folders: dict[str, Path]) -> None:
    touch(folders["val"] / "PNEUMONIA" / "person2_bacteria_2.jpeg")
    channels = scan_channels(folders)
    assert list(channels) == ["train", "val", "test"]
    assert channels["val"] == Channel(
        "val",
        folders["val"],
        [
            folders["val"] / "NORMAL" / "IM-0001-0001.jpeg",
            folders["val"] / "PNEUMONIA" / "person1_virus_1.jpeg",
            folders["val"] / "PNEUMONIA" / "person2_bacteria_2.jpeg",
        ],
        [0, 1, 1],
    )
    assert channels["val"].counts() == {"NORMAL": 1, "PNEUMONIA": 2}


def files_of(root: Path, label: str) -> list[tuple[int, Path]]:
    return list(enumerate(sorted((root / "val" / label).iterdir())))


def test_some_names_of_the_other_class_are_let_pass(folders: dict[str, Path]) -> None:
    touch(folders["val"] / "PNEUMONIA" / "IM-0001-0000.png")  # an ordinary export's name
    assert scan_channels(folders)["val"].counts()["PNEUMONIA"] == 2


def test_hidden_files_and_folders_are_passed_over(folders: dict[str, Path]) -> None:
    before = scan_channels(folders)
    touch(folders["train"] / "NORMAL" / ".DS_Store")
    touch(folders["train"] / ".ipynb_checkpoints" / "file")
    touch(folders["train"] / "README.txt")
    assert scan_channels(folders) == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            lambda root: (root / "val").rename(root / "elsewhere"),
            r"^Channel 'val' is missing: .*val is not a folder\. Pass --val or set SM_CHANNEL_VAL\.$",
            id="missing channel",
        ),
        pytest.param(
            lambda root: ((root / "test").rename(root / "elsewhere"), touch(root / "test")),
            "^Channel 'test' is missing",
            id="channel is a file",
        ),
        pytest.param(
            lambda root: (root / "train" / "NORMAL").rename(root / "elsewhere"),
            "^.*train lacks NORMAL: .* and it has PNEUMONIA",
            id="missing class",
        ),
        pytest.param(
            lambda root: (root / "train" / "NORMAL").rename(root / "train" / "normal"),
            "^.*train lacks NORMAL: .* and it has PNEUMONIA, normal",
            id="class in lower case",
        ),
        pytest.param(
            lambda root: ((root / "train").rename(root / "elsewhere"), (root / "train").mkdir()),
            "^.*train lacks NORMAL and PNEUMONIA: .* it has no folder at all",
            id="empty channel",
        ),
        pytest.param(
            lambda root: (root / "test" / "COVID").mkdir(),
            r"^.*test has more than two classes: .* remove COVID\.$",
            id="extra class",
        ),
        pytest.param(
            lambda root: [path.rename(path.with_name(f"IM-000{n}.jpeg")) for n, path in files_of(root, "PNEUMONIA")],
            r"look swapped: every file of val/PNEUMONIA is named as NORMAL are, IM-0000\.jpeg among them",
            id="normal as pneumonia",
        ),
        pytest.param(
            lambda root: [
                path.rename(path.with_name(f"person1_virus_{n}.jpg")) for n, path in files_of(root, "NORMAL")
            ],
            r"look swapped: every file of val/NORMAL is named as PNEUMONIA are, person1_virus_0\.jpg among them",
            id="pneumonia as normal",
        ),
        pytest.param(
            lambda root: (root / "train" / "NORMAL" / "IM-0001-0001.jpeg").unlink(),
            "^There are no images in train/NORMAL: every channel needs images of both NORMAL and PNEUMONIA",
            id="empty class",
        ),
        pytest.param(
            lambda root: [next(root.glob(f"{split}/PNEUMONIA/*")).unlink() for split in ("val", "test")],
            "^There are no images in val/PNEUMONIA, test/PNEUMONIA:",
            id="class in one split only",
        ),
        pytest.param(
            lambda root: [path.unlink() for path in root.glob("*/*/*")],
            "^There are no images in train/NORMAL, train/PNEUMONIA, val/NORMAL",
            id="no images",
        ),
    ],
)
def test_bad_channels_are_refused_in_one_sentence(
    spoil: Callable[[Path], object], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        scan_channels(folders)


# Images


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    draw_dataset(root, {"train": 3}, size=64)
    return root / "train"


def silently(items: Iterable[object], _: int) -> Iterable[object]:
    return items


def load(root: Path, workers: int = 2, memory: int | None = None) -> Images:
    return load_channel(scan_channels({"train": root})["train"], workers, silently, memory)


def decoded(root: Path) -> torch.Tensor:
    """Return the files' pixels as inference decodes them, one file after the other."""
    paths = sorted(root.glob("NORMAL/*")) + sorted(root.glob("PNEUMONIA/*"))
    return torch.stack([resize(decode(path.read_bytes()).image) for path in paths])


def test_loading_decodes_every_image_once_in_the_order_of_the_files(drawn: Path) -> None:
    images = load(drawn)
    assert len(images) == 6
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    paths = sorted(drawn.glob("NORMAL/*")) + sorted(drawn.glob("PNEUMONIA/*"))
    assert images.digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert torch.equal(images.pixels.expand(6, 3, SIZE, SIZE), decoded(drawn))


def test_gray_images_take_one_channel_and_one_with_colours_gives_all_three(drawn: Path, tmp_path: Path) -> None:
    root = copy_of(drawn, tmp_path / "train")
    assert load(root).pixels.shape == (6, 1, SIZE, SIZE)
    colours = Image.new("RGB", (64, 64), (90, 90, 91))
    colours.save(root / "PNEUMONIA" / "person9_virus_9.png")  # the last one: all the others were taken for gray
    images = load(root)
    assert images.pixels.shape == (7, 3, SIZE, SIZE)
    assert images.pixels[6, :, 0, 0].tolist() == [90, 90, 91]
    assert torch.equal(images.pixels, decoded(root))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("colours", [False, True])
def test_images_beyond_the_memory_go_to_a_file_without_a_name(
    drawn: Path, tmp_path: Path, temporary: Path, *, colours: bool
) -> None:
    root = copy_of(drawn, tmp_path / "train")
    if colours:
        Image.new("RGB", (64, 64), "red").save(root / "NORMAL" / "IM-0099-0001.png")
    kept, spilled = load(root), load(root, memory=0)
    assert file_of(kept) is None
    assert Path(file_of(spilled) or "").parent == temporary
    assert not list(temporary.iterdir())
    assert torch.equal(spilled.pixels, kept.pixels)
    assert spilled.digests == kept.digests


def file_of(images: Images) -> str | None:
    """Return the file that the pixels lie in, None where they lie in memory."""
    name: str | None = images.pixels.untyped_storage().filename
    return name


def test_the_memory_given_is_just_enough(drawn: Path, temporary: Path) -> None:
    needed = 6 * SIZE * SIZE
    assert file_of(load(drawn, memory=needed)) is None
    assert Path(file_of(load(drawn, memory=needed - 1)) or "").parent == temporary


def test_processes_on_one_machine_divide_its_memory(
    drawn: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000000000")
    assert Path(file_of(load(drawn)) or "").parent == temporary


def test_a_full_disk_below_the_images_is_an_error_that_names_the_folder(drawn: Path, temporary: Path) -> None:
    with full_after(5 * SIZE * SIZE), pytest.raises(OSError, match="too large") as caught:
        load(drawn, memory=0)
    assert caught.value.filename == str(temporary)
    assert not list(temporary.iterdir())


def test_no_temporary_folder_is_an_error_that_names_it(drawn: Path, temporary: Path) -> None:
    temporary.rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        load(drawn, memory=0)
    assert Path(caught.value.filename).parent == temporary


def test_the_number_of_workers_changes_nothing(drawn: Path) -> None:
    one, many = load(drawn, workers=1), load(drawn, workers=8)
    assert torch.equal(one.pixels, many.pixels)
    assert one.digests == many.digests


def test_progress_is_told_how_many_there_are(drawn: Path) -> None:
    told = []

    def progress(items: Iterable[object], total: int) -> Iterable[object]:
        told.append(total)
        return items

    load_channel(scan_channels({"train": drawn})["train"], 1, progress)
    assert told == [6]


def copy_of(root: Path, destination: Path, rename: Callable[[str], str] = str) -> Path:
    for path in root.glob("*/*"):
        touch(destination / path.parent.name / rename(path.name), path.read_bytes())
    return destination


def test_unreadable_images_are_named_with_their_faults(drawn: Path, tmp_path: Path) -> None:
    root = copy_of(drawn, tmp_path / "train")
    good = (root / "NORMAL" / "IM-0001-0001.jpeg").read_bytes()
    touch(root / "NORMAL" / "IM-0001-0001.jpeg", good[: len(good) // 2])
    touch(root / "PNEUMONIA" / "notes.txt", b"not an X-ray")
    with pytest.raises(DataError) as caught:
        load(root)
    assert str(caught.value).startswith("Images cannot be read, remove or replace them: ")
    assert "train/NORMAL/IM-0001-0001.jpeg (The image is broken" in str(caught.value)
    assert "train/PNEUMONIA/notes.txt (The file is not an image" in str(caught.value)


def test_of_many_unreadable_images_three_are_named(drawn: Path, tmp_path: Path) -> None:
    root = copy_of(drawn, tmp_path / "train")
    for number in range(5):
        touch(root / "NORMAL" / f"broken{number}.jpeg")
    with pytest.raises(DataError, match=r"broken0\.jpeg .*broken2\.jpeg [^;]* and 2 more$"):
        load(root)


def test_a_folder_among_the_images_is_named(drawn: Path, tmp_path: Path) -> None:
    root = copy_of(drawn, tmp_path / "train")
    (root / "NORMAL" / "more").mkdir()
    with pytest.raises(DataError, match=r"train/NORMAL/more \(.*Is a directory"):
        load(root)


# Fingerprint


def entries(images: Images) -> list[tuple[int, str]]:
    """Return what a fingerprint is made of."""
    return list(zip(images.labels.tolist(), images.digests, strict=True))


def test_the_fingerprint_does_not_depend_on_names(drawn: Path, tmp_path: Path) -> None:
    renamed = copy_of(drawn, tmp_path / "renamed", lambda name: f"{Random(name).random()}.jpeg")
    assert fingerprint({"train": entries(load(renamed))}) == fingerprint({"train": entries(load(drawn))})


def test_the_fingerprint_tells_split_class_and_bytes(drawn: Path, tmp_path: Path) -> None:
    images = entries(load(drawn))
    swapped = [(1 - label, digest) for label, digest in images]
    root = copy_of(drawn, tmp_path / "changed")
    path = root / "NORMAL" / "IM-0001-0001.jpeg"
    touch(path, path.read_bytes() + b"\x00")
    different = {
        fingerprint({"train": images}),
        fingerprint({"val": images}),
        fingerprint({"train": swapped}),
        fingerprint({"train": entries(load(root))}),
    }
    assert len(different) == 4
    assert all(len(value) == 64 for value in different)


# Patients and splits


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person12_bacteria_34.jpeg", "person12"),
        ("person12_virus_7.jpeg", "person12"),
        ("person120_virus_7.jpeg", "person120"),
        ("IM-0115-0001.jpeg", "IM-115"),
        ("IM-0115-0001-0002.jpeg", "IM-115"),
        ("NORMAL2-IM-0115-0001.jpeg", "IM-115"),
        ("NORMAL2-IM-1322-0001.jpeg", "IM-1322"),
        ("scan.jpeg", None),
        ("a person1.jpeg", None),
    ],
)
def test_the_patient_is_told_by_kermanys_names(name: str, patient: str | None) -> None:
    assert patient_of(Path("folder") / name) == patient


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


def test_the_command_copies_every_file_once(source: Path, tmp_path: Path) -> None:
    destination = tmp_path / "new" / "split"
    command = [sys.executable, "-m", "pneumonia.training.channels", "split", str(source), str(destination)]
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


def test_the_command_fails_with_status_1_and_one_sentence(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pneumonia.training.channels",
        "split",
        str(tmp_path / "nowhere"),
        str(tmp_path / "split"),
    ]
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


def test_names_without_patients_are_reported(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(source / "NORMAL" / "scan.jpeg", b"scan")
    assert main(["split", str(source), str(tmp_path / "split")]) == 0
    assert "1 file names tell no patient" in capsys.readouterr().out


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
    assert "is there already and nothing is overwritten" in failure(
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
    assert "person99_virus_1.jpeg cannot be read or written: File too large." in sentence
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_broken_link_in_the_source_leaves_nothing_behind(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "NORMAL" / "IM-0050-0001.jpeg").symlink_to(tmp_path / "gone.jpeg")
    assert "IM-0050-0001.jpeg does not exist" in failure(["split", str(source), str(tmp_path / "split")], capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_destination_below_a_file_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path / "file")
    assert "cannot be read or written" in failure(["split", str(source), str(tmp_path / "file" / "split")], capsys)
