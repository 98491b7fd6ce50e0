"""Build the ONNX file of a release, which the engine onnx reads, from its weights file. This needs torch."""

import dataclasses
import hashlib
import logging

from pneumonia.releases.bucket import WeightsBucket
from pneumonia.releases.manifest import Manifest, OnnxFile
from pneumonia.releases.release import Release
from pneumonia.releases.release_files import ReleaseFiles
from pneumonia.releases.trial import MOST_OF_BUILT, EnginesDifferError, check_serving

logger = logging.getLogger(__name__)


def export(bucket: str, version: str) -> tuple[Manifest, bool]:
    """Add the ONNX file to a release in a bucket if it is missing or damaged.

    Args:
        bucket: the weights bucket.
        version: the release.

    Returns:
        The release's manifest, and whether an ONNX file was added.

    Raises:
        WeightsError: there is no such release, or it is not complete, or the answers of its ONNX file would differ too
            much from those of its weights file.
        ReleaseConflictError: another process is writing this release.
        WeightsUnavailableError: S3 refuses or cannot be reached.
    """
    releases = WeightsBucket(bucket)
    manifest = releases.manifest(version)
    if releases.has_onnx(manifest):
        return manifest, False
    files = with_tried_onnx(releases.release(manifest, "torch"), manifest, f"release {version}")
    releases.add_onnx(files)
    return files.manifest, True


def with_tried_onnx(release: Release, manifest: Manifest, source: str) -> ReleaseFiles:
    """Return the files of a release, with a new ONNX file, after the checks that inference makes.

    A file in 8-bit integers that answers otherwise than the network is built anew, as without activation ranges.

    Args:
        release: as the engine torch reads it.
        manifest: the release's manifest; what it says about an earlier ONNX file is replaced.
        source: where the release comes from, for error messages.

    Raises:
        WeightsError: the weights are not of this network, or inference cannot serve them.
    """
    files = with_onnx(release, manifest)
    try:
        check_serving(files, source, MOST_OF_BUILT)
    except EnginesDifferError as error:
        if manifest.activations is None:
            raise
        logger.warning(
            "In 8-bit integers, the ONNX file of release %s would not answer as its weights file does: %s. So it is "
            "built without them, and larger.",
            manifest.version,
            error.how,
        )
        return with_tried_onnx(release, dataclasses.replace(manifest, activations=None), source)
    return files


def with_onnx(release: Release, manifest: Manifest) -> ReleaseFiles:
    """Return the files of a release, with a new ONNX file of the network in its weights file.

    The ONNX file is in 8-bit integers if the manifest has the activation ranges, otherwise in half precision, or in
    single if half precision would round the weights.

    Args:
        release: as the engine torch reads it.
        manifest: the release's manifest; what it says about an earlier ONNX file is replaced.

    Raises:
        WeightsError: the weights are not of this network.
    """
    # These import torch, which takes seconds; listing releases does without it.
    from pneumonia.engines.onnx_file import onnx_file, precision_of  # noqa: PLC0415
    from pneumonia.network.weights_file import network_in  # noqa: PLC0415

    # The weights file's own checksums are checked, too: weights that come from training have no digest to compare with.
    network = network_in(release.weights, release.source)
    content = onnx_file(network, manifest.activations)
    precision = precision_of(network, manifest.activations)
    told = OnnxFile(hashlib.sha256(content).hexdigest(), len(content), precision)
    return ReleaseFiles(release.weights, content, dataclasses.replace(manifest, onnx=told))
