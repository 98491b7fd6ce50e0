"""The load of benchmarks/load.py, for some seconds: a quick look at whether all that it shows still holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pneumonia.serving.problems import SENTENCES
from tests.builders.checkout import PROJECT


@pytest.mark.processes
@pytest.mark.slow
def test_answers_stay_right_while_s3_and_clients_misbehave(tmp_path: Path) -> None:
    output = tmp_path / "load.json"
    arguments = ["--parts", "load", "--seconds", "6", "--clients", "4", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "benchmarks/load.py", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    load = json.loads(output.read_text())["load"]
    without, faulty = load["without"], load["with"]
    assert (without["wrong"], without["failed"], faulty["wrong"]) == (0, 0, 0)
    assert len(faulty["by_fault"]) > 5
    assert all(one["answers"] for one in faulty["by_fault"].values())
    assert all(why == f"503 {SENTENCES[503]}" for why in faulty["reasons"])
