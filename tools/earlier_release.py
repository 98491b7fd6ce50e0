"""What the tools that add something to an earlier release are given: the release, and a folder of images."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pneumonia.releases.manifest import Manifest
from pneumonia.releases.release import Release, read_release


class Given(NamedTuple):
    """The arguments of such a tool, with the release as it was read.

    Attributes:
        weights: the weights file.
        folder: images.
        release: as PyTorch reads it.
        manifest: the release's.
    """

    weights: Path
    folder: Path
    release: Release
    manifest: Manifest


def given(program: str, description: str | None, images: str, argv: Sequence[str] | None) -> Given:
    """Read the arguments and the release; end with status 2 if no manifest lies beside its weights file.

    Args:
        program: the tool's name.
        description: its docstring, of which the help shows the first line.
        images: which images the folder has, for the help.
        argv: the arguments, None for the command line's.

    Raises:
        WeightsError: the files are none of a release.
        OSError: a file cannot be read.
    """
    parser = argparse.ArgumentParser(prog=program, description=(description or "").partition("\n")[0])
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file with its manifest beside it")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=images)
    args = parser.parse_args(argv)
    release = read_release(args.weights, engine="torch")
    if release.manifest is None:
        parser.error(f"{args.weights} has no manifest beside it: name the weights file of a release")
    return Given(args.weights, args.folder, release, release.manifest)
