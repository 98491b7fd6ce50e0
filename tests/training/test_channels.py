from collections.abc import Callable
from pathlib import Path

import pytest

from pneumonia.errors import DataError
from pneumonia.training.channels import SPLITS, Channel, misnamed, scan_channels


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


@pytest.mark.parametrize(
    ("label", "names", "found"),
    [
        ("NORMAL", ["person1_bacteria_2.jpeg", "IM-0001-0001.jpeg", "scan.png"], ["person1_bacteria_2.jpeg"]),
        ("NORMAL", ["VIRUS-9564688-0002.jpeg", "NORMAL-1003233-0001.jpeg"], ["VIRUS-9564688-0002.jpeg"]),
        ("NORMAL", ["Viral Pneumonia-12.png", "Normal-12.png"], ["Viral Pneumonia-12.png"]),
        ("PNEUMONIA", ["NORMAL2-IM-0001-0001.jpeg", "person1_virus_2.png"], ["NORMAL2-IM-0001-0001.jpeg"]),
        ("PNEUMONIA", ["normal (3).jpg", "abnormal.jpg", "pneumonia_normal_contrast.jpg"], ["normal (3).jpg"]),
        ("PNEUMONIA", ["CXR10_IM-0002-1001.png", "00000013_005.png"], []),
    ],
)
def test_names_of_the_other_class_are_found(label: str, names: list[str], found: list[str]) -> None:
    assert misnamed(label, names) == found


@pytest.mark.parametrize("name", ["no_pneumonia_1.png", "No Pneumonia (2).jpeg", "non-pneumonia-3.png"])
def test_names_that_deny_the_other_class_are_of_this_one(name: str) -> None:
    assert misnamed("NORMAL", [name]) == []
    assert misnamed("PNEUMONIA", [name]) == [name]


def test_class_folders_look_swapped_if_more_than_half_of_one_is_named_as_the_other(folders: dict[str, Path]) -> None:
    touch(folders["test"] / "NORMAL" / "BACTERIA-1008087-0001.jpeg")
    scan_channels(folders)
    touch(folders["test"] / "NORMAL" / "VIRUS-1008088-0001.jpeg")
    message = "look swapped: 2 of 3 files of test/NORMAL are named as PNEUMONIA are, BACTERIA-1008087-0001.jpeg among"
    with pytest.raises(DataError, match=message):
        scan_channels(folders)


def test_hidden_files_and_folders_are_passed_over(folders: dict[str, Path]) -> None:
    before = scan_channels(folders)
    touch(folders["train"] / "NORMAL" / ".DS_Store")
    touch(folders["train"] / "NORMAL" / "Thumbs.db")
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
            lambda root: (root / "train" / "NORMAL" / "more").mkdir(),
            r"^train/NORMAL must hold images alone, and has the folders more\.$",
            id="folder among the images",
        ),
        pytest.param(
            lambda root: [(root / "train" / f"{number}").mkdir() for number in range(50)],
            r"^.*remove 0, 1, 10 and 47 more\.$",
            id="many folders",
        ),
        pytest.param(
            lambda root: (root / "train" / "\x1b[31m").mkdir(),
            r"^.*remove \$'\\x1b\[31m'\.$",
            id="control code",
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
