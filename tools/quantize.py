"""Build the ONNX file in 8-bit integers for a release whose training did not record the activation ranges.

`python tools/quantize.py WEIGHTS FOLDER` records the ranges on the training images in FOLDER, and writes the ONNX file
and the manifest beside WEIGHTS. For newer releases, promotion builds such a file.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.network.weights_file import network_in
from pneumonia.releases.exporting import with_tried_onnx
from pneumonia.training.activations import activations_of
from pneumonia.training.channels import scan_folder
from pneumonia.training.images import load_channel
from tools.earlier_release import given


def main(argv: Sequence[str] | None = None) -> int:
    """Record the ranges, try both files and write the release; return the exit status."""
    weights, folder, release, manifest = given("quantize.py", __doc__, "the training images", argv)
    network = network_in(release.weights, release.source, is_checked=True)
    ranges = activations_of(network, load_channel(scan_folder(folder), 2).pixels, 32)
    files = with_tried_onnx(release, dataclasses.replace(manifest, activations=ranges), release.source)
    files.write_into(weights.parent)
    print(files.manifest.onnx)
    return 0


if __name__ == "__main__":
    sys.exit(main())
