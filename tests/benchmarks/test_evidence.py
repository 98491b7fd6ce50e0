"""The thorax is found in drawn films, and heatmaps inside and outside it are told apart."""

import dataclasses
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from pneumonia.network.classifier import prepared
from pneumonia.releases.loading import load
from pneumonia.training.synthetic import draw_dataset, draw_radiograph
from tests.builders.benchmarks import benchmark

THORAX, EVIDENCE = benchmark("thorax"), benchmark("evidence")
MASK = np.zeros((224, 224), bool)
MASK[56:168, 56:168] = True  # a quarter


def film_with(levels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> object:
    return EVIDENCE["Film"]("PNEUMONIA", Image.fromarray(levels, "P"), MASK)


def inside_the_lungs() -> tuple[slice, slice, slice]:
    """Return rows and columns that lie within the lungs of every drawn film, the left one and the right one."""
    return slice(60, 150), slice(64, 84), slice(140, 160)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("label", ["NORMAL", "PNEUMONIA"])
def test_thorax_of_drawn_films(seed: int, label: str) -> None:
    thorax = THORAX["find_thorax"](draw_radiograph(Random(seed), label), 224)
    rows, left, right = inside_the_lungs()
    assert thorax[rows, left].mean() > 0.95
    assert thorax[rows, right].mean() > 0.95
    assert 0.2 < thorax.mean() < 0.6
    assert not thorax[:, :20].any()
    assert not thorax[:, -20:].any()


def test_thorax_moves_with_the_film() -> None:
    film = draw_radiograph(Random(0), "NORMAL")
    moved = Image.new("L", film.size, 12)
    moved.paste(film, (18, 22))
    (right, down, *_), (moved_right, moved_down, *_) = map(THORAX["place_of_thorax"], (film, moved))
    assert moved_right > right
    assert moved_down > down


def test_all_mass_inside() -> None:
    film = film_with(np.where(MASK, 7, 0).astype(np.uint8))
    assert EVIDENCE["figures"]([film]) == {
        "films": 1, "without_evidence": 0, "inside": 1, "even": 0.25, "peak_inside": 1,
    }  # fmt: skip


def test_mass_and_peak_are_told_apart() -> None:
    levels = np.where(MASK, 1, 0).astype(np.uint8)
    levels[0, :224] = 31
    figures = EVIDENCE["figures"]([film_with(levels)])
    assert figures["inside"] == pytest.approx(112 * 112 / (112 * 112 + 31 * 224))
    assert figures["peak_inside"] == 0


def test_an_even_heatmap_has_the_share_inside_that_the_thorax_has_of_the_film() -> None:
    figures = EVIDENCE["figures"]([film_with(np.full((224, 224), 5, np.uint8))])
    assert figures["inside"] == figures["even"] == 0.25


def test_films_without_evidence_are_left_out() -> None:
    empty = film_with(np.zeros((224, 224), np.uint8))
    assert EVIDENCE["figures"]([empty])["inside"] is None
    figures = EVIDENCE["figures"]([empty, film_with(np.where(MASK, 7, 0).astype(np.uint8))])
    assert (figures["films"], figures["without_evidence"], figures["inside"]) == (2, 1, 1)


def test_usual_evidence_counts_as_none(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    draw_radiograph(Random(0), "PNEUMONIA", 48).save(path)
    model = load(weights)
    usual = model.answers_with_evidence(prepared(path).pixels)[1][0]
    assert EVIDENCE["film_of"](model, path, MASK).inside() is not None
    model = dataclasses.replace(model, usual_evidence=tuple(map(tuple, usual.tolist())))
    assert EVIDENCE["film_of"](model, path, MASK).inside() is None


def test_command_looks_at_all_films(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_dataset(tmp_path, {"films": 2}, size=48)
    arguments = [str(tmp_path / "films"), str(weights), "--save", str(tmp_path / "seen")]
    assert EVIDENCE["main"]([*arguments, "--output", str(tmp_path / "figures.json")]) == 0
    answers = json.loads((tmp_path / "figures.json").read_text())["releases"][str(weights)]
    assert sum(one["films"] for one in answers.values()) == 4
    assert all(0 <= one["inside"] <= 1 for one in answers.values() if one["films"] > one["without_evidence"])
    assert len(list((tmp_path / "seen").glob("*/*.png"))) == 4
    assert f"| {weights} | PNEUMONIA | " in capsys.readouterr().out
