"""Releases for tests: a manifest for any weights file, and a release that a bucket serves."""

from pathlib import Path

from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import CLASSES
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.manifest import Manifest

CALIBRATION = Calibration(temperature=1.37, bias=-0.45, uncertain_low=0.3, uncertain_high=0.7)


def manifest_for(weights: Path, version: str = "20260102-030405-0a1b2c3d") -> Manifest:
    return Manifest(
        version=version,
        sha256=sha256(weights),
        size=weights.stat().st_size,
        classes=list(CLASSES),
        preprocessing=PREPROCESSING,
        metrics={"val_accuracy": 0.97, "test_accuracy": 0.95},
        training_job="pneumonia-training-1",
        dataset_fingerprint="f" * 64,
        created="2026-01-02T03:04:05+00:00",
        calibration=CALIBRATION,
    )


def publish(weights: Path, manifest: Manifest, bucket: str) -> None:
    """Store a release and serve it."""
    releases = WeightsBucket(bucket)
    served, mark = releases.pointer()
    releases.add(weights, manifest)
    releases.serve(manifest.version, served, mark)
