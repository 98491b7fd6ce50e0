"""Letters are found in corners alone, images belong to the right groups, and each group has its own figures."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from pneumonia.network.prediction import Prediction
from pneumonia.training.channels import Channel
from pneumonia.training.evaluate import Answered
from pneumonia.training.images import Images
from pneumonia.training.synthetic import draw_dataset, draw_radiograph
from tests.builders.benchmarks import benchmark

LETTERS, GROUPS = benchmark("letters"), benchmark("groups")


def lettered(place: tuple[int, int], letter: str = "R", size: int = 16) -> Image.Image:
    film = draw_radiograph(Random(0), "NORMAL")
    ImageDraw.Draw(film).text(place, letter, 255, ImageFont.load_default(size))
    return film


@pytest.mark.parametrize("place", [(6, 6), (20, 30), (195, 8)])
@pytest.mark.parametrize(("letter", "size"), [("R", 12), ("R", 16), ("L", 16), ("R", 22)])
def test_letters_in_upper_corners_are_found(place: tuple[int, int], letter: str, size: int) -> None:
    assert LETTERS["has_letter"](lettered(place, letter, size))


@pytest.mark.parametrize("place", [(108, 6), (6, 150), (108, 108)])
def test_letters_elsewhere_are_not(place: tuple[int, int]) -> None:
    assert not LETTERS["has_letter"](lettered(place))


@pytest.mark.parametrize("seed", range(4))
def test_films_without_a_letter_have_none(seed: int) -> None:
    film = draw_radiograph(Random(seed), "PNEUMONIA")
    assert not LETTERS["has_letter"](film)
    ImageDraw.Draw(film).rectangle((10, 10, 24, 30), fill=255)  # as thick as a clip
    ImageDraw.Draw(film).line((0, 40, 60, 44), fill=255, width=2)  # as long as a tube
    assert not LETTERS["has_letter"](film)


def folder_of(tmp_path: Path) -> tuple[Channel, Images]:
    """Return three normals and three pneumonias of different names, sizes and gray levels."""
    names = ["IM-0001-0001.jpeg", "IM-0001-0002.jpeg", "NORMAL2-IM-0002-0001.jpeg"]
    names += ["person1_bacteria_1.jpeg", "person2_bacteria_2.jpeg", "person3_virus_3.jpeg"]
    paths = [tmp_path / name for name in names]
    for number, path in enumerate(paths, 1):
        path.write_bytes(bytes(1000 * number))
    pixels = torch.stack([torch.full((1, 224, 224), 30 * number, dtype=torch.uint8) for number in range(6)])
    labels = [0, 0, 0, 1, 1, 1]
    return Channel("test", tmp_path, paths, labels), Images(pixels, torch.tensor(labels), digests=[])


def answered(tmp_path: Path, suspicions: list[float]) -> Answered:
    channel, images = folder_of(tmp_path)
    answers = [
        Prediction("PNEUMONIA" if p >= 0.5 else "NORMAL", max(p, 1 - p), {"NORMAL": 1 - p, "PNEUMONIA": p}, "1", [])
        for p in suspicions
    ]
    return Answered(channel, images, answers)


def test_images_belong_to_groups_by_name_size_and_gray_level(tmp_path: Path) -> None:
    groups = {name: mask.tolist() for name, mask in GROUPS["groups_of"](*folder_of(tmp_path)).items()}
    assert groups["all"] == [True] * 6
    assert groups["IM-"] == [True, True, False, False, False, False]
    assert groups["NORMAL2-"] == [False, False, True, False, False, False]
    assert groups["bacteria"] == [False, False, False, True, True, False]
    assert groups["virus"] == [False, False, False, False, False, True]
    assert groups["file, KB: to 2.7"] == groups["mean gray level: to 50.0"] == [True, True, False, False, False, False]
    assert groups["file, KB: above 4.3"] == groups["mean gray level: above 100.0"] == [False] * 4 + [True] * 2
    assert groups["no letter in a corner"] == [True] * 6
    assert "letter in a corner" not in groups


def test_figures_by_hand(tmp_path: Path) -> None:
    given = answered(tmp_path, [0.1, 0.7, 0.2, 0.9, 0.4, 0.05])
    groups = GROUPS["groups_of"](given.channel, given.images)
    bacteria = GROUPS["figures"](given, groups["bacteria"])
    assert bacteria["counts"] == {"NORMAL": 0, "PNEUMONIA": 2}
    assert (bacteria["sensitivity"], bacteria["specificity"]) == (0.5, None)
    assert bacteria["auroc"] == pytest.approx(5 / 6)  # against all three normals
    assert set(bacteria["intervals"]) == {"sensitivity", "auroc"}
    first = GROUPS["figures"](given, groups["IM-"])
    assert (first["sensitivity"], first["specificity"], first["auroc"]) == (None, 0.5, pytest.approx(3 / 6))
    both = GROUPS["figures"](given, groups["file, KB: 2.7 to 4.3"])
    assert (both["sensitivity"], both["specificity"], both["auroc"]) == (1, 1, 1)


def test_the_worst_group_of_each_figure_is_named() -> None:
    counts = {"NORMAL": 40, "PNEUMONIA": 30}
    groups = {
        "all": {"counts": counts, "sensitivity": 0.9, "specificity": 0.8, "auroc": 0.9},
        "virus": {"counts": counts | {"NORMAL": 0}, "sensitivity": 0.7, "specificity": None, "auroc": 0.95},
        "dark": {"counts": counts, "sensitivity": 0.8, "specificity": 0.9, "auroc": 0.85},
        "small": {"counts": counts | {"NORMAL": 1}, "sensitivity": 0.75, "specificity": 0, "auroc": 0.5},
    }
    assert GROUPS["worst"](groups) == {"sensitivity": "virus", "specificity": "all", "auroc": "dark"}
    assert GROUPS["worst"]({"small": groups["small"]})["specificity"] == "small"


def test_command_judges_all_groups(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_dataset(tmp_path, {"films": 4}, size=48)
    arguments = [str(tmp_path / "films"), str(weights), "--output", str(tmp_path / "figures.json")]
    assert GROUPS["main"](arguments) == 0
    groups = json.loads((tmp_path / "figures.json").read_text())["releases"][str(weights)]["groups"]
    assert groups["all"]["counts"] == {"NORMAL": 4, "PNEUMONIA": 4}
    assert groups["IM-"]["counts"] == {"NORMAL": 4, "PNEUMONIA": 0}
    assert np.isfinite(groups["all"]["auroc"])
    assert f"\nLowest of {weights}: sensitivity " in capsys.readouterr().out
