"""Classify many X-rays, of a folder, a prefix in S3 or a manifest, and write a CSV or Parquet file.

A run that was stopped continues when it is started again: OUTPUT.csv.journal keeps the answers until all are there.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from pneumonia.batch.journal import JournalHeader, digest_of, opened
from pneumonia.batch.sources import Source, listed, read_ahead, state_of
from pneumonia.batch.tables import COLUMNS, Row, answer_row, error_row, writer
from pneumonia.command import ENGINE_HELP, EXIT_STATUSES, SOME_FAILED, WEIGHTS_HELP, local_path, progress, say
from pneumonia.engines.choice import PACKAGES, chosen_engine
from pneumonia.errors import ConfigurationError, ImageError, keeping
from pneumonia.files import real, replacing
from pneumonia.names import on_terminal
from pneumonia.network.classifier import Classifier
from pneumonia.network.identity import identity_of
from pneumonia.releases.loading import load, load_served

SHOWN = 10  # broken files that are named at the end
EPILOG = f"""INPUT is one of
  a folder               all files below it, except those whose name begins with a dot
  s3://bucket/prefix     all objects below it
  a manifest, *.csv      rows of bucket,key or bucket,key,version, keys URL-encoded, as S3 Batch Operations takes them
  a manifest, *.txt      a path or s3://bucket/key per line

OUTPUT, *.csv or *.parquet, has a row per image, in the order of INPUT, with the columns
  {", ".join(COLUMNS)}

{ENGINE_HELP}
{EXIT_STATUSES}

example: pneumonia batch xrays answers.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("input", metavar="INPUT", help="folder, s3://bucket/prefix or manifest")
    parser.add_argument("output", type=local_path, metavar="OUTPUT", help="file to write, *.csv or *.parquet")
    parser.add_argument("--weights", metavar="MODEL", help=WEIGHTS_HELP)


def run(args: argparse.Namespace) -> int:
    """Classify all images of an input; return the exit status."""
    try:
        broken = answer_all(args.input, args.output, args.weights)
    except KeyboardInterrupt:
        say("Stopped: the same command continues from here.", file=sys.stderr)
        return 130
    return SOME_FAILED if broken else 0


def answer_all(source: str, output: Path, weights: str | None = None) -> int:
    """Classify all images of an input, and write the answers.

    Args:
        source: folder, `s3://bucket/prefix`, or manifest.
        output: file to write, `.csv` or `.parquet`.
        weights: as `releases.loading.load` takes them; None for those that serving uses.

    Returns:
        The number of images without an answer.

    Raises:
        PneumoniaError: input, output or weights cannot be used, or S3 cannot be reached.
        OSError: a file cannot be read or written.
    """
    write = writer(output)
    journal = output.with_name(f"{output.name}.journal")
    check_output(source, output, journal)
    sources = list(listed(source))
    if not sources:
        raise ConfigurationError(f"{source} holds no files: name a folder, a prefix in S3 or a manifest of X-rays.")
    model = load(weights) if weights else load_served()
    names = [str(one) for one in sources]
    output.parent.mkdir(parents=True, exist_ok=True)
    header = JournalHeader(model.version, identity_of(model, PACKAGES[chosen_engine()]), len(names), digest_of(names))
    with (
        keeping(lambda: what_is_kept(journal)),
        opened(journal, header, [state_of(one) for one in sources]) as answered,
    ):
        done = answered.count
        if output.exists() and done < len(names):  # something wrote it while the run was stopped
            raise ConfigurationError(
                f"{output} already exists and nothing is overwritten: remove it, and start this again to continue."
            )
        for row in progress(answers(model, sources[done:]), len(names) - done, "answering"):
            answered.append(row)
        with replacing(output) as temporary:
            write(temporary, ([name, *row] for name, row in zip(names, answered.rows(), strict=True)))
        broken = [(name, row[-1]) for name, row in zip(names, answered.rows(), strict=True) if row[-1] is not None]
        journal.unlink()
    report(output, model, len(names), broken)
    return len(broken)


def answers(model: Classifier, sources: Sequence[Source]) -> Iterator[Row]:
    """Yield the rows of the images, in their order.

    Decoding and the network take turns, each on all cores: running both at once is no faster (docs/performance.md).
    Files are read meanwhile, as that takes no core.

    Raises:
        WeightsError: the network gives no finite numbers.
        StorageError: S3 cannot be reached.
    """
    for answer in model.predict_many(chain.from_iterable(read_ahead(sources))):
        yield error_row(str(answer)) if isinstance(answer, ImageError) else answer_row(answer)


def what_is_kept(journal: Path) -> str | None:
    """Return what a run leaves that the disk ended; None if nothing."""
    is_kept = journal.is_file() and journal.stat().st_size > 0
    return f"The answers so far are kept in {journal}: the same command continues from there." if is_kept else None


def check_output(source: str, output: Path, journal: Path) -> None:
    """Check that the output overwrites nothing and is not in the folder of images.

    Raises:
        ConfigurationError: it does.
    """
    if output.exists() and not journal.exists():
        raise ConfigurationError(f"{output} already exists and nothing is overwritten: remove it, or name another.")
    folder = Path(source)
    if folder.is_dir() and real(output).is_relative_to(real(folder)):
        raise ConfigurationError(f"{output} is in the folder of images: name an output elsewhere.")


def report(output: Path, model: Classifier, images: int, broken: Sequence[tuple[str, object]]) -> None:
    """Print what was written, and on standard error which images have no answer."""
    if broken:
        say(f"{len(broken):,} of {images:,} images have no answer:", file=sys.stderr)
        for name, error in broken[:SHOWN]:
            say(f"  {on_terminal(name)}: {error}", file=sys.stderr)
        if len(broken) > SHOWN:
            say(f"  and {len(broken) - SHOWN:,} more, in the column `error`", file=sys.stderr)
    say(f"{output} has the answers of model {model.version} for {images - len(broken):,} images.")
