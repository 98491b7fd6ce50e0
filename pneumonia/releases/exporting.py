"""The ONNX file of a release, which the engine onnx reads: built from the weights file, where torch is installed."""

import dataclasses
import hashlib

from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.manifest import Manifest, OnnxFile
from pneumonia.releases.release import Release
from pneumonia.releases.release_files import ReleaseFiles
from pneumonia.releases.trial import check_serving


def export(bucket: str, version: str) -> tuple[Manifest, bool]:
    """Add the ONNX file to a release of a bucket that has none, or has lost it.

    Args:
        bucket: the weights bucket.
        version: the release.

    Returns:
        The release's manifest, and whether anything was missing.

    Raises:
        WeightsError: there is no such release, or it is not complete, or its ONNX file would not answer as it does.
        ReleaseConflictError: another process writes this release.
        WeightsUnavailableError: S3 refuses or cannot be reached.
    """
    releases = WeightsBucket(bucket)
    manifest = releases.manifest(version)
    if releases.has_onnx(manifest):
        return manifest, False
    files = with_onnx(releases.release(manifest, "torch"), manifest)
    check_serving(files, f"release {version}")
    releases.add_onnx(files)
    return files.manifest, True


def with_onnx(release: Release, manifest: Manifest) -> ReleaseFiles:
    """Return the files of a release, with an ONNX file of the network in its weights file.

    It is in 8-bit integers if the manifest tells the ranges of the activations, else in half precision, or in single if
    half precision would round the weights.

    Args:
        release: as the engine torch reads it.
        manifest: the release's, with or without what it says about another ONNX file.

    Raises:
        WeightsError: the weights are not of this network.
    """
    # Seconds, for torch, which listing releases does without.
    from pneumonia.engines.onnx_file import onnx_file, precision_of  # noqa: PLC0415
    from pneumonia.network.weights_file import network_in  # noqa: PLC0415

    # The file's own checksums are checked, too: of weights that training has just left, no digest tells anything yet.
    network = network_in(release.weights, release.source)
    content = onnx_file(network, manifest.activations)
    precision = precision_of(network, manifest.activations)
    told = OnnxFile(hashlib.sha256(content).hexdigest(), len(content), precision)
    return ReleaseFiles(release.weights, content, dataclasses.replace(manifest, onnx=told))
