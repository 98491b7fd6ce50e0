"""Which calibration is better on images that it was not fitted on: by the rule of `calibrate`, or by that of training.

`python benchmarks/calibration_rules.py WEIGHTS FOLDER` fits both on four fifths of the patients in FOLDER, and prints
the cross-entropy on the last fifth, both classes of equal weight: mean and standard deviation of 10 divisions.
"""

import argparse
import dataclasses
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.network.calibration import Calibration
from pneumonia.releases.loading import load
from pneumonia.training.calibrate import CERTAIN, cross_validated, figures
from pneumonia.training.channels import scan_folder
from pneumonia.training.evaluate import answers_to
from pneumonia.training.fitting import SENSITIVITY, at_sensitivity, fit_at, fit_likelihood, suspicions
from pneumonia.training.images import load_channel
from pneumonia.training.patients import joined

DIVISIONS = 10


def fit_as_training(odds: Tensor, pneumonia: Tensor) -> Calibration:
    """Fit by the rule of training, which chooses the operating point for a sensitivity."""
    return fit_at(at_sensitivity(odds, pneumonia, SENSITIVITY), odds, pneumonia)


def main() -> None:
    """Compare the rules on a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", metavar="WEIGHTS", help="weights file, a folder with one, or s3://bucket")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    args = parser.parse_args()
    model, channel = load(args.weights), scan_folder(args.folder)
    images = load_channel(channel, 2)
    patients = joined(channel.patients(), images.digests)
    odds = answers_to(channel, images, dataclasses.replace(model, calibration=Calibration()), 32).probabilities
    odds = odds.logit(eps=CERTAIN)

    def cross_entropy(probabilities: Tensor) -> float:
        return figures(probabilities.numpy(), images.labels.numpy(), np.ones(len(odds)), 0.5)[0]

    print(f"as released: {cross_entropy(suspicions(model.calibration, odds)):.3f}")
    for fit in (fit_likelihood, fit_as_training):
        found = [cross_entropy(cross_validated(odds, images.labels, patients, fit, seed)) for seed in range(DIVISIONS)]
        print(f"{fit.__name__}: {statistics.mean(found):.3f} ± {statistics.stdev(found):.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
