"""Build the ONNX file in 8-bit integers for a release whose training did not record the activation ranges.

`python tools/quantize.py WEIGHTS FOLDER` records the ranges on the training images in FOLDER, and writes the ONNX file
and the manifest beside WEIGHTS. For newer releases, promotion builds such a file.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.network.weights_file import network_in
from pneumonia.releases.exporting import with_onnx
from pneumonia.releases.release import read_release
from pneumonia.releases.trial import check_serving
from pneumonia.training.activations import activations_of
from pneumonia.training.channels import scan_folder
from pneumonia.training.images import load_channel


def main(argv: Sequence[str] | None = None) -> int:
    """Record the ranges, try both files and write the release; return the exit status."""
    parser = argparse.ArgumentParser(prog="quantize.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file with its manifest beside it")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the training images")
    args = parser.parse_args(argv)
    release = read_release(args.weights, engine="torch")
    if release.manifest is None:
        parser.error(f"{args.weights} has no manifest beside it: name the weights file of a release")
    network = network_in(release.weights, release.source, is_checked=True)
    ranges = activations_of(network, load_channel(scan_folder(args.folder), 2).pixels, 32)
    files = with_onnx(release, dataclasses.replace(release.manifest, activations=ranges))
    check_serving(files, release.source)
    files.write_into(args.weights.parent)
    print(files.manifest.onnx)
    return 0


if __name__ == "__main__":
    sys.exit(main())
