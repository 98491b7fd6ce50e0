"""Give an existing release its input check: fit it to the weights, on the images that they were trained on.

`python -m pneumonia.training.add_input_check WEIGHTS TRAIN VAL` writes it into the manifest beside the weights.
Training does the same at its end.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from pneumonia.errors import ConfigurationError, exit_status
from pneumonia.network.input_check import InputCheck
from pneumonia.network.weights_file import load_weights
from pneumonia.releases.manifest import MANIFEST_NAME, manifest_of
from pneumonia.training.channels import load_channel, scan_channels
from pneumonia.training.fitting import input_check_of

BATCH_SIZE = 64
WORKERS = 2  # threads that decode


def add(weights: Path, train: Path, validation: Path) -> InputCheck:
    """Fit an input check and write it into the manifest beside the weights, whole or not at all.

    Args:
        weights: the file.
        train: NORMAL/ and PNEUMONIA/ with the images that it was trained on.
        validation: the same with those that it was validated on.

    Raises:
        PneumoniaError: arguments, weights or images that cannot be used.
        OSError: a file cannot be read or written.
    """
    manifest = manifest_of(weights)
    if not manifest:
        raise ConfigurationError(
            f"{weights} has no {MANIFEST_NAME} of its own beside it: name the weights of a release."
        )
    channels = scan_channels({"train": train, "val": validation})
    images = {name: load_channel(channel, WORKERS, lambda results, _: results) for name, channel in channels.items()}
    check = input_check_of(load_weights(weights), images["train"].pixels, images["val"].pixels, BATCH_SIZE)
    dataclasses.replace(manifest, input_check=check).write_beside(weights)
    return check


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pneumonia.training.add_input_check", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "weights", type=Path, metavar="WEIGHTS", help="a release's weights, with its manifest beside it"
    )
    parser.add_argument("train", type=Path, metavar="TRAIN", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument("validation", type=Path, metavar="VAL", help="folder with NORMAL/ and PNEUMONIA/")
    args = parser.parse_args(argv)

    def command() -> None:
        check = add(args.weights, args.train, args.validation)
        print(f"{args.weights.with_name(MANIFEST_NAME)}: distance {check.distance:.4f}, colour {check.colour:.4f}")

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
