"""Add the detection of other views and negatives to a release with an older input check.

`python tools/fit_layout.py WEIGHTS DATASET` fits it on DATASET/{train,val}, which the release must have been trained
and validated on, and writes it into the manifest beside the weights. All else in the manifest stays as it is.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.release import read_release
from pneumonia.training.channels import scan_channels
from pneumonia.training.images import load_channel
from pneumonia.training.input_check_fitting import with_layout


def main() -> int:
    """Fit and write; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file, its manifest.json beside it")
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder with train/ and val/")
    args = parser.parse_args()
    manifest = read_release(args.weights).manifest
    if manifest is None or manifest.input_check is None:
        parser.error(f"{args.weights} has no manifest with an input check beside it")
    channels = scan_channels({name: args.dataset / name for name in ("train", "val")}).values()
    train, validation = (load_channel(channel, 2).pixels for channel in channels)
    check = with_layout(manifest.input_check, load_weights(args.weights), train, validation, 32)
    dataclasses.replace(manifest, input_check=check).write_beside(args.weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
