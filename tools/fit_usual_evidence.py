"""Add the usual evidence to a release whose training did not measure it, so that heatmaps show what exceeds it.

`python tools/fit_usual_evidence.py WEIGHTS FOLDER` measures it on the validation images in FOLDER, and writes it into
the manifest beside WEIGHTS. All else in the manifest stays as it is.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.network.weights_file import network_in
from pneumonia.releases.release_files import write_release
from pneumonia.training.channels import scan_folder
from pneumonia.training.images import load_channel
from pneumonia.training.usual_evidence import usual_evidence_of
from tools.earlier_release import given


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the usual evidence, print it and write the manifest; return the exit status."""
    weights, folder, release, manifest = given(
        "fit_usual_evidence.py", __doc__, "the training's validation images", argv
    )
    images = load_channel(scan_folder(folder), 2)
    network = network_in(release.weights, release.source, is_checked=True)
    usual = usual_evidence_of(network, images.pixels, images.labels, 32)
    # The weights, too: another process may have replaced them since they were read.
    write_release({weights: release.weights}, dataclasses.replace(manifest, usual_evidence=usual))
    print("\n".join(" ".join(f"{value:8.3f}" for value in row) for row in usual))
    return 0


if __name__ == "__main__":
    sys.exit(main())
