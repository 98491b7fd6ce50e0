import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageStat

from pneumonia.__main__ import main
from pneumonia.network.contract import CLASSES
from pneumonia.training.channels import SPLITS, fingerprint, scan_channels
from pneumonia.training.images import Images, load_channel
from pneumonia.training.patients import patient_of
from pneumonia.training.synthetic import draw_dataset, draw_radiograph
from tests.builders.checkout import PROJECT
from tests.builders.disk import full_after


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize("size", [64, 224])
def test_draws_a_grayscale_square_with_contrast(label: str, size: int) -> None:
    image = draw_radiograph(Random(0), label, size)
    assert image.mode == "L"
    assert image.size == (size, size)
    assert ImageStat.Stat(image).stddev[0] > 20


@pytest.mark.parametrize("label", CLASSES)
def test_the_same_random_state_draws_the_same_image(label: str) -> None:
    first, again, other = (draw_radiograph(Random(seed), label).tobytes() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_mean_brightness_does_not_tell_the_classes() -> None:
    random = Random(0)
    brightness = [(brightness_of(draw_radiograph(random, label, 64)), label) for _ in range(150) for label in CLASSES]
    best = max(share_above(threshold, brightness) for threshold, _ in brightness)
    worst = min(share_above(threshold, brightness) for threshold, _ in brightness)
    assert best < 0.75
    assert worst > 0.25  # else calling the darker ones PNEUMONIA would do


def brightness_of(image: Image.Image) -> float:
    return ImageStat.Stat(image).mean[0]


def share_above(threshold: float, brightness: list[tuple[float, str]]) -> float:
    """Return the accuracy of calling everything brighter than the threshold PNEUMONIA."""
    return sum((value > threshold) == (label == "PNEUMONIA") for value, label in brightness) / len(brightness)


def test_opacities_make_the_lungs_uneven() -> None:
    random = Random(0)
    normal, pneumonia = (sorted(unevenness_of(draw_radiograph(random, label)) for _ in range(40)) for label in CLASSES)
    assert pneumonia[4] > normal[36]  # nine of ten


def unevenness_of(image: Image.Image) -> float:
    """Return the contrast within the upper lungs, in the contrast of the whole image."""
    lungs = [image.crop((60, 60, 90, 120)), image.crop((135, 60, 165, 120))]
    return max(ImageStat.Stat(lung).stddev[0] for lung in lungs) / ImageStat.Stat(image).stddev[0]


def dataset_fingerprint(root: Path) -> str:
    splits = load(root).items()
    return fingerprint({name: zip(images.labels.tolist(), images.digests, strict=True) for name, images in splits})


def load(root: Path) -> dict[str, Images]:
    channels = scan_channels({name: root / name for name in ("train", "val")})
    return {name: load_channel(channel, 2) for name, channel in channels.items()}


def test_a_dataset_is_what_training_reads_and_no_image_is_twice_in_it(tmp_path: Path) -> None:
    draw_dataset(tmp_path, {"train": 5, "val": 3}, size=64)
    splits = load(tmp_path)
    assert {name: images.labels.bincount().tolist() for name, images in splits.items()} == {
        "train": [5, 5],
        "val": [3, 3],
    }
    digests = [digest for images in splits.values() for digest in images.digests]
    assert len(set(digests)) == 16


def test_files_are_named_as_kermanys_and_no_patient_is_in_two_splits(tmp_path: Path) -> None:
    draw_dataset(tmp_path, {"train": 2, "val": 2}, size=64)
    assert sorted(path.name for path in tmp_path.glob("train/NORMAL/*")) == ["IM-0001-0001.jpeg", "IM-0002-0001.jpeg"]
    assert {path.name.replace("virus", "bacteria") for path in tmp_path.glob("val/PNEUMONIA/*")} == {
        "person3_bacteria_3.jpeg",
        "person4_bacteria_4.jpeg",
    }
    patients = {split: {patient_of(path) for path in tmp_path.glob(f"{split}/*/*")} for split in ("train", "val")}
    assert not patients["train"] & patients["val"]


def test_the_seed_decides_the_dataset(tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        draw_dataset(tmp_path / name, {"train": 2, "val": 2}, seed=seed, size=64)
    first, again, other = (dataset_fingerprint(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first != other


def test_command_draws_what_training_reads_and_says_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    destination = tmp_path / "deep" / "xrays"
    assert main(["draw", str(destination), "--images", "6", "--size", "48", "--seed", "1"]) == 0
    assert capsys.readouterr().out == (
        f"Drew 12 X-rays to {destination}, half of them with pneumonia: 8 in train/, 2 in val/, 2 in test/.\n"
        f"Next: make train DATA={destination}\n"
    )
    channels = scan_channels({name: destination / name for name in SPLITS})
    assert {name: list(channel.counts().values()) for name, channel in channels.items()} == {
        "train": [4, 4],
        "val": [1, 1],
        "test": [1, 1],
    }
    for path in channels["test"].paths:
        with Image.open(path) as image:
            assert image.size == (48, 48)
    assert list(destination.parent.iterdir()) == [destination]  # nothing beside it is left


@pytest.mark.parametrize("images", [4, 5, 7, 100])
def test_every_split_has_images_whatever_their_number(tmp_path: Path, images: int) -> None:
    assert main(["draw", str(tmp_path / "xrays"), "--images", str(images), "--size", "32"]) == 0
    channels = scan_channels({name: tmp_path / "xrays" / name for name in SPLITS})  # else it raises
    assert sum(len(channel.paths) for channel in channels.values()) == 2 * images


def test_a_full_disk_is_told_with_the_file_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_after(1_000):
        assert main(["draw", str(tmp_path / "drawn"), "--images", "4"]) == 1
    drawn = tmp_path / "drawn"
    told = f"{drawn}/train/NORMAL/IM-0001-0001.jpeg cannot be read or written: File too large. {drawn} is made whole"
    assert capsys.readouterr().err == f"{told} or not at all: nothing of it is left.\n"
    assert not list(tmp_path.iterdir())


def test_command_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert main(["draw", str(tmp_path), "--images", "4"]) == 1
    assert capsys.readouterr().err == (
        f"{tmp_path} already exists and nothing is overwritten: name a new folder or empty it.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--images", "3"], "--images must be at least 4, for train, val and test, not 3.\n"),
        (["--size", "8"], "--size must be from 32 to 2048, not 8.\n"),
        (["--size", "20000"], "--size must be from 32 to 2048, not 20000.\n"),
    ],
)
def test_command_says_what_it_cannot_draw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["draw", str(tmp_path / "xrays"), *arguments]) == 1
    assert capsys.readouterr().err == sentence
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, target in (("link", "empty"), ("dangling", "new")):
        (tmp_path / name).symlink_to(tmp_path / target)
        assert main(["draw", str(tmp_path / name), "--images", "4", "--size", "64"]) == 0
        assert len(list((tmp_path / target).rglob("*.jpeg"))) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "new", "link", "dangling"}


@pytest.mark.processes
def test_command_needs_pillow_alone(tmp_path: Path) -> None:
    program = """
import sys
for name in ("numpy", "psutil", "torch", "torchvision", "matplotlib"):
    sys.modules[name] = None
from pathlib import Path
from pneumonia.__main__ import main
sys.exit(main(["draw", sys.argv[1], "--images", "4", "--size", "32"]))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path / "xrays")], cwd=PROJECT, check=True)
