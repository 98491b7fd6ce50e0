"""Runs over folds: which images each sees, what is made of a file of earlier runs, and the table."""

import argparse
import json
import re
import shutil
from pathlib import Path
from random import Random

import pytest

from pneumonia.training.synthetic import draw_dataset, draw_radiograph
from tests.builders.benchmarks import benchmark

RUNS = benchmark("runs")
RECIPE = benchmark("recipe")
FILES = [("PNEUMONIA" if number < 20 else "NORMAL", Path(f"{number}.png")) for number in range(40)]
FOLDS = [list(range(fold, 40, 4)) for fold in range(4)]


def test_each_file_is_validated_on_once_and_tested_on_once() -> None:
    validated, tested = [], []
    for number in range(len(FOLDS)):
        splits = RUNS["splits_of"](number, FOLDS, FILES, set())
        assert sorted(index for part in splits.values() for index in part) == list(range(40))
        validated += splits["val"]
        tested += splits["test"]
        assert RUNS["splits_of"](number + len(FOLDS), FOLDS, FILES, set()) == splits
    assert sorted(validated) == sorted(tested) == list(range(40))


def test_what_is_held_out_is_only_tested_on_by_every_run() -> None:
    held_out = {20, 25, 39}  # normal images
    for number in range(len(FOLDS)):
        splits = RUNS["splits_of"](number, FOLDS, FILES, held_out)
        tested = FOLDS[(number + 1) % len(FOLDS)]
        assert set(splits["test"]) == held_out | {index for index in tested if index < 20}
        assert set(splits["train"]) | set(splits["val"]) == set(range(40)) - held_out - set(tested)


def test_only_runs_that_are_missing_are_made(tmp_path: Path) -> None:
    path, made = tmp_path / "new" / "runs.json", []

    def figures_of(name: str, number: int) -> dict[str, float]:
        made.append((name, number))
        written = json.loads(path.read_text())["results"] if path.exists() else {}
        assert sum(map(len, written.values())) == len(made) - 1  # each is written before the next begins
        return {"figure": float(number)}

    settings = {"epochs": 1}
    assert RUNS["completed"](path, settings, ["a"], 1, figures_of) == {"a": [{"figure": 0}]}
    made.clear()
    path.write_text(json.dumps({"settings": settings, "results": {}}))
    results = RUNS["completed"](path, settings, ["b", "a"], 2, figures_of)
    assert made == [("b", 0), ("a", 0), ("b", 1), ("a", 1)]
    made.clear()
    assert RUNS["completed"](path, settings, ["a", "b"], 1, figures_of) == results
    assert not made


@pytest.mark.parametrize(
    ("content", "named"),
    [({"settings": {"epochs": 2}, "results": {}}, "{'epochs': 2}"), ({"recipe": []}, "settings that it does not name")],
)
def test_runs_with_other_settings_are_refused(tmp_path: Path, content: object, named: str) -> None:
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as refused:
        RUNS["completed"](path, {"epochs": 1}, ["a"], 1, lambda *_: pytest.fail("a run was made"))
    assert refused.value.code == f"{path} is of runs with {named}, not {{'epochs': 1}}: name another --output."
    assert json.loads(path.read_text()) == content


@pytest.mark.parametrize("change", ["renamed", "other bytes", "other class", "removed", "added"])
def test_images_are_known_by_class_name_and_bytes(tmp_path: Path, change: str) -> None:
    folder, copy = tmp_path / "films", tmp_path / "copy" / "films"
    draw_dataset(tmp_path, {"films": 2}, size=32)
    shutil.copytree(folder, copy)
    before = RUNS["images_of"](folder)
    assert before == RUNS["images_of"](copy)
    assert re.fullmatch("films [0-9a-f]{12}", before)
    film = min((folder / "NORMAL").iterdir())
    if change == "other bytes":
        film.write_bytes(film.read_bytes() + b"0")
    elif change == "added":
        shutil.copy(film, film.with_name("more.png"))
    else:
        place = {"renamed": folder / "NORMAL/first.png", "other class": folder / "PNEUMONIA" / film.name}
        film.rename(place.get(change, tmp_path / film.name))
    assert RUNS["images_of"](folder) != before


def test_weights_are_known_by_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "start.pth"
    path.write_bytes(b"abc")
    assert RUNS["weights_of"](str(path)) == "start.pth ba7816bf8f01"
    assert [RUNS["weights_of"](name) for name in ("imagenet", "none")] == ["imagenet", "none"]


def test_a_table_has_the_spread_of_several_runs_and_none_of_one() -> None:
    results = {"recipe": [{"auroc": 0.5}, {"auroc": 0.7}], "other": [{"auroc": 0.25}]}
    assert RUNS["table"]("variant", results, {"auroc": "AUROC"}).splitlines() == [
        "| variant | runs | AUROC |",
        "|---|---|---|",
        "| recipe | 2 | 0.6000 ± 0.1414 |",
        "| other | 1 | 0.2500 |",
    ]


def test_a_run_of_the_recipe_links_what_it_sees(tmp_path: Path) -> None:
    for number in range(20):
        label, name = ("PNEUMONIA", f"person{number}_virus_1") if number < 10 else ("NORMAL", f"IM-{number:04}-0001")
        (tmp_path / "films" / label).mkdir(parents=True, exist_ok=True)
        prefix = "NORMAL2-" * (number >= 15)
        draw_radiograph(Random(number), label, 64).save(tmp_path / "films" / label / f"{prefix}{name}.png")
    args = argparse.Namespace(folder=tmp_path / "films", folds=5, hold_out="NORMAL2-*")
    RECIPE["link_fold"](1, args, tmp_path / "data")
    names = {
        split: [path.name for path in (tmp_path / "data" / split).rglob("*.png")] for split in ("train", "val", "test")
    }
    assert len([name for name in names["test"] if name.startswith("NORMAL2-")]) == 5
    assert not [name for name in names["train"] + names["val"] if name.startswith("NORMAL2-")]
    assert {name[:6] for name in names["test"]} == {"NORMAL", "person"}
    assert all(path.is_symlink() for path in (tmp_path / "data").rglob("*.png"))


def test_fewer_than_three_folds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        RECIPE["parse_arguments"](["films", "--folds", "2"])
    assert "--folds must be 3 or more, not 2" in capsys.readouterr().err
