"""Fill the buckets that the apps of benchmarks/serving.py fetch from, with the network in the format of each app."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import torch
from serving_apps import APPS, AS_PROMOTED, IN_HALF, PEERS, Bench

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.engines.onnx_file import onnx_file
from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.contract import MANIFEST_NAME, ONNX_NAME, WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.fetch import RELEASED_WEIGHTS
from pneumonia.releases.layout import CURRENT_KEY, manifest_key, onnx_key, weights_key
from pneumonia.releases.manifest import Manifest, OnnxFile
from pneumonia.releases.release import read_release
from tools.stand_ins.moto import Moto


def fill_buckets(bench: Bench) -> None:
    """Store the released network in all buckets, and the releases also in folders of the same names."""
    network, manifest = load_weights(RELEASED_WEIGHTS), released_manifest()
    shutil.copytree(RELEASED_WEIGHTS.parent, bench.folder / AS_PROMOTED)
    in_half = write_in_half(bench.folder / IN_HALF, network, manifest)
    for bucket, one in ((AS_PROMOTED, manifest), (IN_HALF, in_half)):
        bench.moto.make_bucket(bucket)
        store(bench.moto, bucket, bench.folder / bucket, one)
        serve(bench.moto, bucket, one.version)
    fill_peers(bench, network)


def released_manifest() -> Manifest:
    """Return the manifest of the released weights."""
    if not (manifest := read_release(RELEASED_WEIGHTS).manifest):
        raise RuntimeError(f"{RELEASED_WEIGHTS} has no manifest")
    return manifest


def write_in_half(folder: Path, network: ResNet18, manifest: Manifest) -> Manifest:
    """Write the release into a new folder, with an ONNX file in half precision; return its manifest."""
    folder.mkdir()
    shutil.copy(RELEASED_WEIGHTS, folder)
    file = folder / ONNX_NAME
    file.write_bytes(onnx_file(network, None))
    in_half = dataclasses.replace(manifest, onnx=OnnxFile(sha256(file), file.stat().st_size, "half"))
    (folder / MANIFEST_NAME).write_text(in_half.to_json())
    return in_half


def store(moto: Moto, bucket: str, folder: Path, manifest: Manifest) -> None:
    """Store a folder's files as a release, described by a manifest."""
    for name, key in ((WEIGHTS_NAME, weights_key), (ONNX_NAME, onnx_key)):
        moto.s3().upload_file(str(folder / name), bucket, key(manifest.version))
    moto.s3().put_object(Bucket=bucket, Key=manifest_key(manifest.version), Body=manifest.to_json().encode())


def serve(moto: Moto, bucket: str, version: str) -> None:
    """Make a release the served one."""
    moto.s3().put_object(Bucket=bucket, Key=CURRENT_KEY, Body=json.dumps({"version": version}).encode())


def fill_peers(bench: Bench, network: ResNet18) -> None:
    """Store the network in single precision, as a state dict and as torch's exporter writes it."""
    folder = bench.folder / bench.moto.make_bucket(PEERS)
    folder.mkdir()
    state, exported = (folder / APPS[name].key for name in ("straightforward", "plain onnx"))
    torch.save(network.state_dict(), state)
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, SIZE, SIZE),),
        exported,
        input_names=["pixels"],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    for file in (state, exported):
        bench.moto.s3().upload_file(str(file), PEERS, file.name)
