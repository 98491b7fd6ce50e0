from collections.abc import Mapping
from pathlib import Path

import pytest

from pneumonia.errors import DataError
from pneumonia.files import sha256
from pneumonia.network.data_check import DataCheck
from pneumonia.training.channels import SPLITS, scan_channels
from pneumonia.training.data_checking import PATIENTS_NEEDED, check_channels, check_labels
from pneumonia.training.patients import pattern_of

# By public listings of Kaggle's folders: numbers go on from one folder to the next for each kind of name, and by the
# bare number these four would be patients of both.
KAGGLE = {
    "train": ["person80_virus_150", "person3_bacteria_10", "IM-0115-0001", "NORMAL2-IM-0383-0001"],
    "val": ["person1946_bacteria_4874", "NORMAL2-IM-1427-0001"],
    "test": ["person80_bacteria_389", "person3_virus_15", "NORMAL2-IM-0123-0001", "IM-0001-0001"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three channels, each of as many patients as are needed, named as Kermany et al. name theirs."""
    for offset, split in enumerate(SPLITS):
        for number in range(100 * offset, 100 * offset + PATIENTS_NEEDED):
            add(tmp_path, f"{split}/NORMAL/IM-{number:04}-0001.jpeg")
            add(tmp_path, f"{split}/PNEUMONIA/person{number}_virus_{number}.jpeg")
    return tmp_path


def add(root: Path, name: str, content: str | None = None) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or name)


def check(root: Path, folders: Mapping[str, str] | None = None, pattern: str = "") -> DataCheck:
    folders = folders or {split: split for split in SPLITS}
    channels = scan_channels({name: root / folder for name, folder in folders.items()}, pattern_of(pattern))
    return check_channels([(one, [sha256(path) for path in one.paths]) for one in channels.values()])


def test_nothing_is_found_in_good_channels(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(root) == DataCheck()
    assert capsys.readouterr().out == ""


def test_images_and_patients_in_two_channels_are_counted_and_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(root, "test/NORMAL/NORMAL2-IM-0777-0001.jpeg", "train/NORMAL/IM-0000-0001.jpeg")
    add(root, "test/NORMAL/IM-0001-0002.jpeg")
    add(root, "val/PNEUMONIA/person4_virus_99.jpeg", "train/PNEUMONIA/person4_virus_4.jpeg")
    add(root, "test/PNEUMONIA/person1_virus_99.jpeg")
    add(root, "test/PNEUMONIA/person1_virus_98.jpeg")
    add(root, "val/PNEUMONIA/person2_virus_99.jpeg")
    found = check(root)
    assert found.shared == {
        "train and val": {"images": 1, "patients": 2},
        "train and test": {"images": 1, "patients": 2},
    }
    assert found.warnings == [
        f"train and {channel} share {what}: figures on {channel} do not hold for new patients. Divide the images "
        "anew with `pneumonia split`."
        for channel, what in (("val", "1 image and 2 patients"), ("test", "1 image and 2 patients"))
    ]
    assert found.leaks() == [
        "its train and val channels share 1 image and 2 patients",
        "its train and test channels share 1 image and 2 patients",
    ]
    assert capsys.readouterr().out.splitlines() == [
        f"Warning: {found.warnings[0]}",
        "  val/PNEUMONIA/person4_virus_99.jpeg and train/PNEUMONIA/person4_virus_4.jpeg",
        "  val/PNEUMONIA/person2_virus_99.jpeg and train/PNEUMONIA/person2_virus_2.jpeg",
        f"Warning: {found.warnings[1]}",
        "  test/NORMAL/NORMAL2-IM-0777-0001.jpeg and train/NORMAL/IM-0000-0001.jpeg",
        "  test/NORMAL/IM-0001-0002.jpeg and train/NORMAL/IM-0001-0001.jpeg",
        "  test/PNEUMONIA/person1_virus_99.jpeg and train/PNEUMONIA/person1_virus_1.jpeg",
    ]


def test_one_folder_for_two_channels_shares_all(root: Path) -> None:
    found = check(root, {"train": "train", "val": "val", "test": "val"})
    both = 2 * PATIENTS_NEEDED
    assert found.shared == {"val and test": {"images": both, "patients": both}}


def test_kaggles_own_folders_share_no_patient(tmp_path: Path) -> None:
    for split, names in KAGGLE.items():
        for name in names:
            add(tmp_path, f"{split}/{'PNEUMONIA' if 'person' in name else 'NORMAL'}/{name}.jpeg")
    assert check(tmp_path).shared == {}


def test_patients_are_found_by_a_pattern(tmp_path: Path) -> None:
    for split, numbers in (("train", range(40)), ("val", range(40, 80)), ("test", range(78, 118))):
        for number in numbers:
            for label in ("NORMAL", "PNEUMONIA"):
                add(tmp_path, f"{split}/{label}/{split}-child{number}.png")
    assert check(tmp_path).shared == {}
    assert check(tmp_path, pattern=r"child(\d+)").shared == {"val and test": {"patients": 2}}


@pytest.mark.parametrize("place", ["train/PNEUMONIA", "test/PNEUMONIA"])
def test_an_image_in_both_classes_is_an_error_that_names_the_files(root: Path, place: str) -> None:
    add(root, f"{place}/copy.jpeg", "train/NORMAL/IM-0003-0001.jpeg")
    with pytest.raises(DataError) as caught:
        check(root)
    assert str(caught.value) == (
        "The same image is in NORMAL and in PNEUMONIA, byte for byte (train/NORMAL/IM-0003-0001.jpeg and "
        f"{place}/copy.jpeg): remove one of them."
    )


def test_all_images_in_both_classes_are_among_the_errors_files(root: Path) -> None:
    for number in range(9):
        add(root, f"test/PNEUMONIA/copy{number}.jpeg", f"train/NORMAL/IM-{number:04}-0001.jpeg")
    with pytest.raises(DataError, match=r"copy2\.jpeg and 6 more\): remove") as caught:
        check(root)
    assert [name.partition(" and ")[2] for name in caught.value.files] == [
        f"test/PNEUMONIA/copy{number}.jpeg" for number in range(9)
    ]


def test_the_same_image_twice_in_a_class_is_no_error(root: Path) -> None:
    add(root, "train/NORMAL/copy.jpeg", "train/NORMAL/IM-0003-0001.jpeg")
    channel = scan_channels({"train": root / "train"})["train"]
    check_labels([(channel, [sha256(path) for path in channel.paths])])


def test_files_named_as_the_other_class_are_a_warning(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(root, "train/NORMAL/BACTERIA-1008087-0001.jpeg")
    add(root, "train/NORMAL/person7_bacteria_8.jpeg")
    found = check(root)
    (warning,) = found.warnings
    assert warning == (
        "2 of 37 files of train/NORMAL are named as PNEUMONIA are, train/NORMAL/BACTERIA-1008087-0001.jpeg among them: "
        "check that they are in the right folder."
    )
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  train/NORMAL/BACTERIA-1008087-0001.jpeg",
        "  train/NORMAL/person7_bacteria_8.jpeg",
    ]


def test_too_few_patients_to_calibrate_on_are_a_warning(root: Path) -> None:
    next((root / "val" / "NORMAL").iterdir()).unlink()
    (warning,) = check(root).warnings
    assert warning == (
        "val has images of few patients, 34 with NORMAL and 35 with PNEUMONIA, and 35 of each are needed: the best "
        "epoch, the operating point and the calibration rest on a handful."
    )


def test_names_that_tell_no_patient_are_a_warning(root: Path) -> None:
    add(root, "test/NORMAL/scan.jpeg")
    (warning,) = check(root).warnings
    assert warning == (
        "1 of 211 file names tells no patient, such as NORMAL/scan.jpeg: each such image counts as a patient of its "
        "own. If names tell patients in another way, pass --patients PATTERN."
    )
