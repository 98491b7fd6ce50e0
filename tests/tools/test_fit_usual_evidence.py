import dataclasses
import shutil
from pathlib import Path

import pytest

import pneumonia
from pneumonia.network.contract import ONNX_NAME, WEIGHTS_NAME
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.release_files import ReleaseFiles
from pneumonia.training.channels import scan_folder
from pneumonia.training.images import load_channel
from pneumonia.training.synthetic import draw_dataset
from pneumonia.training.usual_evidence import usual_evidence_of
from tests.builders.releases import files_of, manifest_for, with_onnx
from tools.fit_usual_evidence import main


def test_a_release_gets_its_usual_evidence_and_stays_as_it_is_otherwise(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_dataset(tmp_path, {"val": 3}, size=64)
    release = tmp_path / "release"
    release.mkdir()
    before = with_onnx(files_of(weights, manifest_for(weights)), weights.with_name(ONNX_NAME).read_bytes())
    before.write_into(release)
    assert pneumonia.load(release).usual_evidence is None
    assert main([str(release / WEIGHTS_NAME), str(tmp_path / "val")]) == 0
    images = load_channel(scan_folder(tmp_path / "val"), 1)
    usual = usual_evidence_of(load_weights(weights), images.pixels, images.labels, 32)
    manifest = dataclasses.replace(before.manifest, usual_evidence=usual)
    assert ReleaseFiles.in_folder(release) == dataclasses.replace(before, manifest=manifest)
    assert pneumonia.load(release).usual_evidence == usual
    assert capsys.readouterr().out.split() == [f"{value:.3f}" for row in usual for value in row]


def test_a_manifest_is_needed(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copyfile(weights, tmp_path / WEIGHTS_NAME))
    with pytest.raises(SystemExit):
        main([str(copy), str(tmp_path)])
    assert "has no manifest beside it" in capsys.readouterr().err
