"""Archives for tests, as training leaves them and as it never would."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import torch

from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.contract import CLASSES, WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import save_weights

CALIBRATION = {"temperature": 1.37, "bias": -0.45, "uncertain_low": 0.3, "uncertain_high": 0.7}
REPORT: dict[str, Any] = {
    "training_job": "pneumonia-training-1",
    "finished": "2026-01-02T03:04:05+00:00",
    "classes": list(CLASSES),
    "preprocessing": PREPROCESSING,
    "metrics": {"val_accuracy": 0.97, "test_accuracy": 0.95, "test_auroc": 0.98},
    "dataset": {"fingerprint": "f" * 64},
    "calibration": CALIBRATION,
}


def make_archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=0) as tar:  # random weights get no smaller, and trying takes a second
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def model_archive(folder: Path, weights: Path) -> Path:
    """Write a good archive of these weights."""
    return make_archive(
        folder / "model.tar.gz",
        [
            (member("code/inference.py"), b"raise SystemExit"),
            (member(WEIGHTS_NAME), weights.read_bytes()),
            (member("training.json"), json.dumps(REPORT).encode()),
        ],
    )


def archive_of(state: dict[str, torch.Tensor], report: object, folder: Path) -> Path:
    """Write an archive of this state and this report."""
    save_weights(state, folder / WEIGHTS_NAME)
    content = (folder / WEIGHTS_NAME).read_bytes()
    members = [(member(WEIGHTS_NAME), content), (member("training.json"), json.dumps(report).encode())]
    return make_archive(folder / "model.tar.gz", members)


def archive_with(folder: Path, number: int, **metrics: float) -> Path:
    """Write an archive of weights of their own, whose training reported these figures."""
    folder.mkdir(exist_ok=True)
    state = ResNet18().state_dict()
    state["fc.bias"] = torch.full((2,), float(number))
    report = REPORT | {"finished": f"2026-01-0{number}T03:04:05+00:00", "training_job": f"job-{number}"}
    path = archive_of(state, report | {"metrics": REPORT["metrics"] | metrics}, folder)
    return path.rename(folder / f"{number}.tar.gz")
