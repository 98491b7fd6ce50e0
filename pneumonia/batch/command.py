"""Classify many X-rays, of a folder, a prefix in S3 or a manifest, and write a CSV or Parquet file.

A run that was stopped continues when it is started again: OUTPUT.csv.journal keeps the answers until all are there.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pneumonia.batch.journal import JournalHeader, digest_of, opened, rows_in
from pneumonia.batch.sources import Source, listed, read_ahead
from pneumonia.batch.tables import COLUMNS, Row, answer_row, error_row, writer
from pneumonia.command import SOME_FAILED, printable, progress
from pneumonia.deadline import Deadline
from pneumonia.errors import ConfigurationError, ImageError
from pneumonia.files import replacing
from pneumonia.network.classifier import BATCH_SIZE, CORES, Classifier, Input, prepared
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.releases.fetch import Weights
from pneumonia.serving.predictor import Predictor

LOAD_SECONDS = 300.0
SHOWN = 10  # broken files that are named at the end
EPILOG = f"""INPUT is one of
  a folder               all files below it, except those whose name begins with a dot
  s3://bucket/prefix     all objects below it
  a manifest, *.csv      rows of bucket,key or bucket,key,version, keys URL-encoded, as S3 Batch Operations takes them
  a manifest, *.txt      a path or s3://bucket/key per line

OUTPUT, *.csv or *.parquet, has a row per image, in the order of INPUT, with the columns
  {", ".join(COLUMNS)}

exit status: 0 all images have an answer, {SOME_FAILED} some have an error instead, 1 the run failed

example: pneumonia batch xrays answers.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("input", metavar="INPUT", help="folder, s3://bucket/prefix or manifest")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="file to write, *.csv or *.parquet")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="weights file with its manifest.json beside it (as serving: MODEL_PATH, MODEL_BUCKET, else the released "
        "model)",
    )


def run(args: argparse.Namespace) -> int:
    """Classify all images of an input; return the exit status."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            broken = answer_all(args.input, args.output, weights_of(args.weights, Path(folder)))
    except KeyboardInterrupt:
        print("Stopped: the same command continues from here.", file=sys.stderr)
        return 130
    return SOME_FAILED if broken else 0


def answer_all(source: str, output: Path, weights: Weights) -> int:
    """Classify all images of an input, and write the answers.

    Args:
        source: folder, `s3://bucket/prefix`, or manifest.
        output: file to write, `.csv` or `.parquet`.
        weights: where the model's weights are.

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
    model = Predictor(weights).load(Deadline.after(LOAD_SECONDS))
    names = [str(one) for one in sources]
    output.parent.mkdir(parents=True, exist_ok=True)
    with opened(journal, JournalHeader(model.version, len(names), digest_of(names))) as (file, done):
        if output.exists() and done < len(names):  # something wrote it while the run was stopped
            raise ConfigurationError(
                f"{output} already exists and nothing is overwritten: remove it, and start this again to continue."
            )
        for row in progress(answers(model, sources[done:]), len(names) - done, "answering"):
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
        with replacing(output) as temporary:
            write(temporary, ([name, *row] for name, row in zip(names, rows_in(file), strict=True)))
        broken = [(name, row[-1]) for name, row in zip(names, rows_in(file), strict=True) if row[-1] is not None]
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
    with ThreadPoolExecutor(CORES, "decoding") as pool:
        for files in read_ahead(sources):
            images = list(pool.map(prepared_or_error, files))
            for start in range(0, len(images), BATCH_SIZE):
                found = model.answers_or_errors(images[start : start + BATCH_SIZE])
                yield from (error_row(str(one)) if isinstance(one, ImageError) else answer_row(one) for one in found)


def prepared_or_error(file: bytes | ImageError) -> Input | ImageError:
    """Return the network's input for a file's bytes, or why there is none."""
    if isinstance(file, ImageError):
        return file
    try:
        return prepared(file)
    except ImageError as error:
        return error


def check_output(source: str, output: Path, journal: Path) -> None:
    """Check that the output overwrites nothing and is not in the folder of images.

    Raises:
        ConfigurationError: it does.
    """
    if output.exists() and not journal.exists():
        raise ConfigurationError(f"{output} already exists and nothing is overwritten: remove it, or name another.")
    folder = Path(source)
    if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError(f"{output} is in the folder of images: name an output elsewhere.")


def report(output: Path, model: Classifier, images: int, broken: Sequence[tuple[str, object]]) -> None:
    """Print what was written, and on standard error which images have no answer."""
    if broken:
        print(f"{len(broken):,} of {images:,} images have no answer:", file=sys.stderr)
        for name, error in broken[:SHOWN]:
            print(f"  {printable(name)}: {error}", file=sys.stderr)
        if len(broken) > SHOWN:
            print(f"  and {len(broken) - SHOWN:,} more, in the column `error`", file=sys.stderr)
    print(f"{output} has the answers of model {model.version} for {images - len(broken):,} images.")


def weights_of(file: Path | None, folder: Path) -> Weights:
    """Return the weights of a file, or those that serving uses.

    Weights from a bucket go into `folder` unless MODEL_PATH is set: at the default path, later runs that name no bucket
    would use them.

    Raises:
        ConfigurationError: the file does not exist.
    """
    if file is None:
        weights = Weights.from_environment()
        if weights.bucket and not os.environ.get("MODEL_PATH"):
            weights.path = folder / WEIGHTS_NAME
        return weights
    if not file.exists():  # without this the released model would answer
        raise ConfigurationError(f"{file} does not exist: name a weights file with --weights.")
    return Weights(file)
