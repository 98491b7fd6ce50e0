"""The command `pneumonia`, with a subcommand for each verb; only the one that is called is imported."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from pneumonia import __version__
from pneumonia.command import HOW_TO_INSTALL, Parser, exit_status, nearest, packages_needed_by, say
from pneumonia.errors import ConfigurationError

# What a verb does, and the module with its `add_arguments`, `run` and EPILOG.
COMMANDS = {
    "predict": ("classify image files", "pneumonia.batch.predict"),
    "evaluate": ("test a model on a labelled folder", "pneumonia.evaluate"),
    "calibrate": ("fit a model's probabilities to your own labelled X-rays", "pneumonia.calibrate"),
    "download": (
        "download the public data set, some 1.2 GB, and lay it out for `split`",
        "pneumonia.training.download",
    ),
    "split": ("divide a labelled folder into train/, val/ and test/ by patient", "pneumonia.training.split"),
    "draw": ("draw chest X-rays to try everything with", "pneumonia.training.synthetic"),
    "serve": ("serve the page and the API on this machine", "pneumonia.serving.server"),
    "open": ("show the page of a Function URL on this machine, and sign its requests", "pneumonia.client.open_page"),
    "batch": ("classify many X-rays: a folder, a prefix in S3 or a manifest", "pneumonia.batch.command"),
    "s3-batch": ("create an S3 Batch Operations job that classifies X-rays", "pneumonia.batch.s3_job"),
}
HELP = f"""usage: pneumonia COMMAND ...

{"".join(f"  {verb:<10} {what}{chr(10)}" for verb, (what, _) in COMMANDS.items())}
example: pneumonia predict xray.jpg

`pneumonia COMMAND --help` lists a command's arguments. Not medical advice: do not use it to diagnose anyone."""


def run(argv: Sequence[str]) -> int | None:
    """Run the subcommand that the first argument names.

    Returns:
        Its exit status, None for 0.

    Raises:
        PneumoniaError, OSError: as the subcommand.
    """
    verb, *rest = argv or ["--help"]
    if verb in {"-h", "--help"}:
        say(*HELP.split("\n"))
        return 0
    if verb == "--version":
        say(__version__)
        return 0
    if verb not in COMMANDS:
        raise ConfigurationError(
            f"There is no command {verb!r}{nearest(verb, COMMANDS)}: `pneumonia --help` lists them."
        )
    what, home = COMMANDS[verb]
    with packages_needed_by(f"pneumonia {verb}", HOW_TO_INSTALL):
        module = importlib.import_module(home)
        parser = Parser(
            prog=f"pneumonia {verb}",
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        status: int | None = module.run(parser.parse_args(rest))
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    return exit_status(lambda: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
