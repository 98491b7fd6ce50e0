"""Add the usual evidence to a release whose training did not measure it, so that heatmaps show what exceeds it.

`python tools/fit_usual_evidence.py WEIGHTS FOLDER` measures it on the validation images in FOLDER, and writes it into
the manifest beside WEIGHTS. All else in the manifest stays as it is.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.network.weights_file import network_in
from pneumonia.releases.release import read_release
from pneumonia.releases.release_files import write_release
from pneumonia.training.channels import scan_folder
from pneumonia.training.images import load_channel
from pneumonia.training.usual_evidence import usual_evidence_of


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the usual evidence, print it and write the manifest; return the exit status."""
    parser = argparse.ArgumentParser(prog="fit_usual_evidence.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file with its manifest beside it")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the training's validation images")
    args = parser.parse_args(argv)
    release = read_release(args.weights, engine="torch")
    if release.manifest is None:
        parser.error(f"{args.weights} has no manifest beside it: name the weights file of a release")
    images = load_channel(scan_folder(args.folder), 2)
    network = network_in(release.weights, release.source, is_checked=True)
    usual = usual_evidence_of(network, images.pixels, images.labels, 32)
    # The weights, too: another process may have replaced them since they were read.
    write_release({args.weights: release.weights}, dataclasses.replace(release.manifest, usual_evidence=usual))
    print("\n".join(" ".join(f"{value:8.3f}" for value in row) for row in usual))
    return 0


if __name__ == "__main__":
    sys.exit(main())
