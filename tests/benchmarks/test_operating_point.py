"""Rules for the operating point: chosen on a run's validation, judged on its test."""

import json
from pathlib import Path

import pytest

from tests.builders.benchmarks import benchmark

JUDGED = benchmark("operating_point")
ANSWERS = {
    "val": [("NORMAL", 0.2), ("NORMAL", 0.6), ("PNEUMONIA", 0.7), ("PNEUMONIA", 0.9)],
    "test": [("NORMAL", 0.1), ("NORMAL", 0.66), ("NORMAL", 0.8), ("PNEUMONIA", 0.6), ("PNEUMONIA", 0.95)],
}


def test_a_rule_is_judged_on_images_that_it_was_not_chosen_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "recipe.json").write_text(json.dumps({"results": {"recipe": [{}]}}))
    for split, rows in ANSWERS.items():
        lines = ["label,probability", *(f"{label},{probability}" for label, probability in rows)]
        (tmp_path / "answers" / f"recipe-0-{split}.csv").write_text("\n".join(lines))
    assert JUDGED["main"]([str(tmp_path), "--output", str(tmp_path / "rules.json")]) == 0
    results = json.loads((tmp_path / "rules.json").read_text())["results"]
    # Even odds are 0.5. The other rules lie between 0.6 and 0.7 in log-odds, at 0.652.
    even = {"balanced_accuracy": pytest.approx(2 / 3), "sensitivity": 1.0, "specificity": pytest.approx(1 / 3)}
    other = {"balanced_accuracy": pytest.approx(5 / 12), "sensitivity": 0.5, "specificity": pytest.approx(1 / 3)}
    assert results["the larger output"] == [even]
    assert results["most balanced accuracy"] == results["96% sensitivity"] == [other]
    assert "| 96% sensitivity | 1 | 0.4167 | 0.5000 | 0.3333 |" in capsys.readouterr().out


def test_runs_without_answers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"results": {"recipe": [{}]}}))
    with pytest.raises(SystemExit):
        JUDGED["main"]([str(tmp_path)])
    assert "has not all runs of 'recipe'" in capsys.readouterr().err
