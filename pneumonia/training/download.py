"""Download the public data set of 5,856 chest X-rays of children, about 1.2 GB, and lay it out for `split`.

What has arrived before an interruption is kept, in DEST.zip.part: the same command goes on from there.
"""

import argparse
import shlex
import sys
from pathlib import Path

from pneumonia.command import local_path, say, this_python
from pneumonia.errors import ArchiveError, ConfigurationError, DataError, keeping
from pneumonia.files import check_unused
from pneumonia.training.partial_download import Part, download
from pneumonia.training.published import LICENCE, PAGE, URL, Counts, told, unpack

BY_HAND = f"Or download ChestXRay2017.zip in a browser from {PAGE}, and name that file with --url."
EPILOG = f"""The command checks the number of images of each class, and each image by its checksum in the
archive. No checksum of the archive itself is published.

{LICENCE}

example: pneumonia download chest_xray_public
         pneumonia download chest_xray_public --url ChestXRay2017.zip"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("destination", type=local_path, metavar="DEST", help="folder to make; never overwritten")
    parser.add_argument(
        "--url", default=URL, metavar="URL", help="a mirror, or the path of the zip file (Mendeley Data)"
    )


def run(args: argparse.Namespace) -> int:
    """Download the data set, unpack it, and print what is there and whom to cite; return the exit status.

    Raises:
        ConfigurationError: the URL is neither one nor a file.
        DataError: there is something at the destination, or the data set cannot be had whole.
        OSError: a file cannot be read or written.
    """
    check_unused(args.destination)
    try:
        counts = counts_of(args.url, args.destination)
    except KeyboardInterrupt:
        say("Stopped: the same command goes on from here.", file=sys.stderr)
        return 130
    say(*summary(args.destination, counts))
    return 0


def counts_of(source: str, destination: Path) -> Counts:
    """Unpack the data set from a URL or a file; return the number of images by split and class.

    Raises:
        ConfigurationError, DataError, OSError: as `run`.
    """
    if Path(source).is_file():
        return unpack(Path(source), destination)
    if not source.startswith(("http://", "https://")):
        raise ConfigurationError(f"{source!r} is neither a file nor a URL: name a zip file, or https://….")
    return unpacked_from(source, destination)


def unpacked_from(url: str, destination: Path) -> Counts:
    """Download the data set and unpack it; return the number of images by split and class.

    Raises:
        DataError: it cannot be had whole. What was downloaded is kept where more of it can be had.
        OSError: a file cannot be read or written.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = Part(destination.with_name(f"{destination.name}.zip.part"), url)
    try:
        with keeping(lambda: f"{part.path} is kept: the same command goes on from there." if part.size else None):
            download(part)
            counts = unpack(part.path, destination)
    except ArchiveError as error:
        part.remove()
        raise ArchiveError(f"{error} It was removed: start again. {BY_HAND}") from error
    except DataError as error:
        raise DataError(f"{error} {BY_HAND}") from error
    part.remove()
    return counts


def summary(destination: Path, counts: Counts) -> list[str]:
    """Return what is where, what comes next, and whom to cite, in lines."""
    train, test = (shlex.quote(f"{destination}/{split}") for split in ("train", "test"))  # in commands to be copied
    return [
        f"{destination}/train has {told(counts['train'])}.",
        f"{destination}/test is the official test: {told(counts['test'])}.",
        "Each image has the checksum that the archive names.",
        *("", *LICENCE.split("\n"), ""),
        f"Next: {this_python()} -m pneumonia split {train} chest_xray",
        f"Keep {destination}/test for the one test at the end: {this_python()} -m pneumonia evaluate WEIGHTS {test}",
    ]
