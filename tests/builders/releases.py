"""Releases for tests: a manifest for any weights file, and a release that a bucket serves."""

import dataclasses
import hashlib
import json
from pathlib import Path

from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import PREPROCESSING
from pneumonia.network.calibration import Calibration
from pneumonia.network.contract import CLASSES, ONNX_NAME
from pneumonia.releases import exporting
from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.layout import CURRENT_KEY, manifest_key, onnx_key, weights_key
from pneumonia.releases.manifest import Manifest, OnnxFile
from pneumonia.releases.release_files import ReleaseFiles

CALIBRATION = Calibration(temperature=1.37, bias=-0.45, uncertain_low=0.3, uncertain_high=0.7)

USUAL = tuple(tuple(float(row - column) for column in range(7)) for row in range(7))  # evidence


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


def files_of(weights: Path, manifest: Manifest) -> ReleaseFiles:
    """Return a release without an ONNX file."""
    return ReleaseFiles(weights.read_bytes(), None, manifest)


def with_onnx(files: ReleaseFiles, content: bytes) -> ReleaseFiles:
    """Return a release with these bytes as its ONNX file."""
    told = OnnxFile(hashlib.sha256(content).hexdigest(), len(content), "half")
    return ReleaseFiles(files.weights, content, dataclasses.replace(files.manifest, onnx=told))


def exported(weights: Path, manifest: Manifest) -> ReleaseFiles:
    """Return a release with a real ONNX file."""
    older = files_of(weights, dataclasses.replace(manifest, onnx=None))
    return exporting.with_onnx(older.read_by("torch", str(weights)), older.manifest)


def publish(weights: Path, manifest: Manifest, bucket: str) -> None:
    """Store a release without an ONNX file, and serve it."""
    publish_files(files_of(weights, manifest), bucket)


def publish_files(files: ReleaseFiles, bucket: str) -> None:
    """Store a release, and serve it."""
    releases = WeightsBucket(bucket)
    served, mark = releases.pointer()
    releases.add(files)
    releases.serve(files.manifest.version, served, mark)


def bucket_with(weights: Path, version: str) -> dict[str, bytes]:
    """Return the objects of a bucket that serves a release: a weights file, and the ONNX file beside it."""
    onnx = weights.with_name(ONNX_NAME).read_bytes()
    files = with_onnx(files_of(weights, manifest_for(weights, version)), onnx)
    return {
        weights_key(version): files.weights,
        onnx_key(version): onnx,
        manifest_key(version): files.manifest.to_json().encode(),
        CURRENT_KEY: json.dumps({"version": version}).encode(),
    }
