"""Give an older release a calibration with a bias. Its operating point is kept, so no class changes.

`python tools/recalibrate.py WEIGHTS FOLDER` fits temperature, bias and band of doubt on the validation images in
FOLDER, and writes them into the manifest beside WEIGHTS. It is for releases from before the calibration had a bias.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.engines.torch import engine_in
from pneumonia.imaging.preprocessing import normalized
from pneumonia.releases.release import Release
from pneumonia.releases.release_files import write_release
from pneumonia.training.channels import scan_folder
from pneumonia.training.fitting import SENSITIVITY, at_sensitivity, fit_at, log_odds
from pneumonia.training.images import Images, load_channel
from tools.earlier_release import given


def odds_of(release: Release, images: Images) -> Tensor:
    """Return the network's log-odds of PNEUMONIA, float64, shape (N,)."""
    engine = engine_in(release.weights, release.source, is_checked=True)
    parts = (normalized(part.numpy()) for part in torch.split(images.pixels, 32))
    return log_odds(torch.cat([torch.from_numpy(engine(part).logits) for part in parts]))


def main(argv: Sequence[str] | None = None) -> int:
    """Fit the calibration, print it and write the manifest; return the exit status."""
    weights, folder, release, manifest = given("recalibrate.py", __doc__, "the training's validation images", argv)
    channel = scan_folder(folder)
    images = load_channel(channel, 2)
    odds, pneumonia = odds_of(release, images), images.labels == 1
    kept = torch.tensor(-manifest.calibration.bias * manifest.calibration.temperature, dtype=torch.float64)
    rule = at_sensitivity(odds, pneumonia, SENSITIVITY)
    print(f"{channel.counts()}; operating point in log-odds: {kept:.6f}, which is kept; {rule:.6f} by the rule")
    calibration = fit_at(kept, odds, pneumonia)
    # The weights, too: another process may have replaced them since they were read.
    write_release({weights: release.weights}, dataclasses.replace(manifest, calibration=calibration))
    print(f"was {manifest.calibration}\nis  {calibration}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
