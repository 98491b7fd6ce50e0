"""Photographs of films that nobody took: the same ones each time, like their films, and counted rightly."""

import io
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from pneumonia.network.prediction import Prediction
from pneumonia.training.synthetic import draw_dataset, draw_radiograph
from tests.builders.benchmarks import benchmark

PHOTOGRAPHS = benchmark("photographs")


def answer(suspicion: float, *warnings: str) -> Prediction:
    prediction = "PNEUMONIA" if suspicion >= 0.5 else "NORMAL"
    probabilities = {"NORMAL": 1 - suspicion, "PNEUMONIA": suspicion}
    return Prediction(prediction, probabilities[prediction], probabilities, "1", list(warnings))


def test_photographs_are_the_same_each_time_and_differ_by_name_and_number(tmp_path: Path) -> None:
    film = draw_radiograph(Random(0), "NORMAL", 64)
    for name in ("first.png", "second.png"):
        film.save(tmp_path / name)
    first, second = (PHOTOGRAPHS["photographs_of"](tmp_path / name, 2) for name in ("first.png", "second.png"))
    assert PHOTOGRAPHS["photographs_of"](tmp_path / "first.png", 1) == first[:1]
    assert len({*first, *second}) == 4


def test_corners_of_the_film_are_found_where_they_are_seen() -> None:
    seen = np.array([(30.0, 12.0), (410.0, 25.0), (395.0, 300.0), (8.0, 310.0)])
    corners = np.array([(0.0, 0.0), (400.0, 0.0), (400.0, 300.0), (0.0, 300.0)])
    a, b, c, d, e, f, g, h = PHOTOGRAPHS["perspective"](seen, corners)
    x, y = seen.T
    found = np.stack([a * x + b * y + c, d * x + e * y + f], axis=1) / (g * x + h * y + 1)[:, None]
    assert np.allclose(found, corners)


@pytest.mark.parametrize("seed", range(2))
def test_a_photograph_shows_its_film_within_the_margin(seed: int) -> None:
    film = draw_radiograph(Random(seed), "PNEUMONIA", 96)
    picture = Image.open(io.BytesIO(PHOTOGRAPHS["photograph"](film, np.random.default_rng(seed))))
    assert picture.mode == "RGB"
    assert all(1024 <= side <= 1024 * 1.3 + 1 for side in picture.size)
    pixels = np.asarray(film, float)
    seen = np.asarray(picture.convert("L").resize(film.size), float)
    assert np.corrcoef(seen.ravel(), pixels.ravel())[0, 1] > 0.35
    assert np.abs(seen - pixels).mean() > 5


def test_figures_by_hand() -> None:
    films = [answer(0.1), answer(0.2), answer(0.6), answer(0.9)]
    photographed = [answer(0.3), answer(0.7, "uncertain"), answer(0.4, "inverted"), answer(0.9)]
    found = PHOTOGRAPHS["figures"](films, photographed, [0, 0, 1, 1])
    assert found["changed"] == 2
    assert found["changed_to"]["PNEUMONIA"] == {"NORMAL": 1, "PNEUMONIA": 0}
    assert found["changed_to"]["NORMAL"] == {"NORMAL": 0, "PNEUMONIA": 1}
    assert found["mean_difference"] == pytest.approx((0.2 + 0.5 + 0.2) / 4)
    assert found["largest_difference"] == pytest.approx(0.5)
    assert (found["auroc_of_films"], found["auroc_of_photographs"]) == (1, 0.75)
    assert found["warnings"] == {"not_a_chest_xray": 0, "not_a_frontal_view": 0, "inverted": 1}


def test_command_judges_all_weights_on_all_photographs(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_dataset(tmp_path, {"films": 2}, size=48)
    arguments = [str(tmp_path / "films"), str(weights), "--each", "2", "--save", str(tmp_path / "photographs")]
    assert PHOTOGRAPHS["main"]([*arguments, "--output", str(tmp_path / "figures.json")]) == 0
    report = json.loads((tmp_path / "figures.json").read_text())
    assert (report["films"], report["releases"][str(weights)]["photographs"]) == (4, 8)
    assert 0 < report["releases"][str(weights)]["mean_difference"] < 1
    assert len(list((tmp_path / "photographs").glob("*/*.jpeg"))) == 8
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"| {weights} | 8 | ")
