import shutil
from pathlib import Path

import numpy as np
import pytest

from pneumonia.engines.choice import engine_in
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.outputs import probes
from pneumonia.network.weights_file import load_weights, save_weights
from pneumonia.releases.release_files import ReleaseFiles
from pneumonia.training.activations import activations_of
from pneumonia.training.channels import scan_folder
from pneumonia.training.images import load_channel
from pneumonia.training.synthetic import draw_dataset
from tests.builders.networks import untrained
from tests.builders.releases import manifest_for
from tools.quantize import main


def test_a_release_gets_an_onnx_file_in_integers(tmp_path: Path) -> None:
    weights = tmp_path / WEIGHTS_NAME
    save_weights(untrained().state_dict(), weights)
    manifest_for(weights).write_beside(weights)
    draw_dataset(tmp_path, {"train": 4})
    assert main([str(weights), str(tmp_path / "train")]) == 0
    files = ReleaseFiles.in_folder(tmp_path)
    images = load_channel(scan_folder(tmp_path / "train"), 1)
    assert files.manifest.activations == activations_of(load_weights(weights), images.pixels, 32)
    assert files.manifest.onnx
    assert files.manifest.onnx.precision == "int8"
    by_torch, by_onnx = (
        engine_in(engine, content, engine, is_checked=True)(probes()) for engine, content in files.by_engine().items()
    )
    assert 0 < np.abs(by_torch.logits - by_onnx.logits).max() < 0.1


def test_a_manifest_is_needed(weights: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copyfile(weights, tmp_path / WEIGHTS_NAME))
    with pytest.raises(SystemExit):
        main([str(copy), str(tmp_path)])
