"""Answer for many X-rays at once.

`python -m pneumonia.batch.command INPUT OUTPUT.csv` goes through a folder, a prefix in S3 or a manifest. Whatever
stops it, the next start goes on where it was: answers are kept in OUTPUT.csv.journal until all are there.
"""

import argparse
import contextlib
import csv
import hashlib
import itertools
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from tqdm import tqdm

from pneumonia import WEIGHTS_NAME
from pneumonia.errors import ConfigurationError, ImageError, ImageTooLargeError, exit_status
from pneumonia.files import replacing
from pneumonia.imaging.decoding import MAX_BYTES, decode, normalize, resize, warnings_of
from pneumonia.releases.fetch import Weights
from pneumonia.serving.predictor import BATCH_SIZE, Model, Prediction, Predictor
from pneumonia.storage import objects
from pneumonia.storage.objects import ObjectError, S3Object

if sys.platform != "win32":
    import fcntl

CORES = os.cpu_count() or 1
READERS = 16  # threads that wait for a disk or for S3
CHUNK = 2 * BATCH_SIZE  # files that are decoded at a time, while as many are being read
LOAD_SECONDS = 300.0
SHOWN = 10  # broken files that are named at the end
BROKEN = 3  # exit status where some images have no answer; 1 and 2 say that nothing could be done

COLUMNS = ("file", "prediction", "confidence", "probability_pneumonia", "warnings", "model_version", "error")
NUMBERS = ("confidence", "probability_pneumonia")
EPILOG = f"""INPUT is one of
  a folder               all files below it, except those whose name begins with a dot
  s3://bucket/prefix     all objects below it
  a manifest, *.csv      rows of bucket,key or bucket,key,version, keys URL-encoded, as S3 Batch Operations takes them
  a manifest, *.txt      a path or s3://bucket/key a line

OUTPUT, *.csv or *.parquet, has a row per image, in the order of INPUT, with the columns
  {", ".join(COLUMNS)}

exit status: 0 all images have an answer, {BROKEN} some have an error instead, 1 the run could not begin or go on"""

Source = Path | S3Object
Decoded = tuple[Tensor, list[str]]
Row = list[str | float | None]  # of COLUMNS, without the file


@dataclass(frozen=True)
class Run:
    """What the answers in a journal are of: only those of the same run can be gone on from.

    Attributes:
        model_version: the release that answers.
        images: how many there are.
        inputs: SHA-256 over their names, in their order.
    """

    model_version: str
    images: int
    inputs: str


def run(source: str, output: Path, weights: Weights) -> int:
    """Answer for all images of an input, and write the answers.

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
    model = Predictor(weights).load(LOAD_SECONDS)
    names = [str(one) for one in sources]
    output.parent.mkdir(parents=True, exist_ok=True)
    with opened(journal, Run(model.version, len(names), digest_of(names))) as (file, done):
        if output.exists() and done < len(names):  # it came while the run was stopped
            raise ConfigurationError(
                f"{output} is there already and nothing is overwritten: remove it, and start this again to go on."
            )
        with tqdm(total=len(names), initial=done, unit="image", dynamic_ncols=True) as bar:
            for rows in answers(model, sources[done:]):
                file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
                file.flush()
                bar.update(len(rows))
        with replacing(output) as temporary:
            write(temporary, ([name, *row] for name, row in zip(names, rows_in(file), strict=True)))
        broken = [(name, row[-1]) for name, row in zip(names, rows_in(file), strict=True) if row[-1] is not None]
        journal.unlink()
    report(output, model, len(names), broken)
    return len(broken)


def listed(source: str) -> Iterator[Source]:
    """Yield the images of an input, in an order that is the same every time.

    Raises:
        ConfigurationError: it is nothing of what an input may be.
        ObjectError: the bucket cannot be listed.
        StorageError: S3 cannot be reached.
        OSError: a folder or a manifest cannot be read.
    """
    path = Path(source)
    if source.startswith("s3://"):
        yield from objects.below(objects.client(), source)
    elif path.is_dir():
        yield from files_below(path)
    elif path.suffix == ".csv":
        yield from objects.manifest_rows(path)
    elif path.suffix == ".txt":
        yield from lines_of(path)
    else:
        raise ConfigurationError(f"{source} is not a folder, an s3://bucket/prefix or a manifest, *.csv or *.txt.")


def files_below(folder: Path) -> Iterator[Path]:
    """Yield a folder's files and those of the folders in it, except hidden ones.

    Raises:
        OSError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def lines_of(manifest: Path) -> Iterator[Source]:
    """Yield what a manifest names, a path or an object a line.

    Raises:
        ConfigurationError: an object without a bucket.
        OSError: the file cannot be read.
    """
    with manifest.open(encoding="utf-8", errors="surrogateescape") as file:  # names of any bytes
        for line in filter(None, map(str.strip, file)):
            yield S3Object(*objects.split(line)) if line.startswith("s3://") else Path(line)


def answers(model: Model, sources: Sequence[Source]) -> Iterator[list[Row]]:
    """Yield the rows of a batch of images at a time, in the order of the images.

    Decoding and the network take turns, each on all cores: at the same time they are no faster (docs/performance.md).
    Reading, which takes no core, goes on meanwhile.

    Raises:
        WeightsError: the network gives no finite numbers.
        StorageError: S3 cannot be reached.
    """
    with ThreadPoolExecutor(CORES, "decoding") as pool:
        for files in read_ahead(sources):
            images = list(pool.map(decoded, files))
            for start in range(0, len(images), BATCH_SIZE):
                yield rows_of(model, images[start : start + BATCH_SIZE])


def rows_of(model: Model, images: Sequence[Decoded | str]) -> list[Row]:
    """Return the rows of one batch: images as `decoded` gives them, or why they cannot be used."""
    good = [one[0] for one in images if not isinstance(one, str)]
    predictions = iter(model.answers(normalize(torch.stack(good))) if good else [])
    return [error_row(one) if isinstance(one, str) else answer_row(next(predictions).warned(one[1])) for one in images]


def read_ahead(sources: Sequence[Source]) -> Iterator[list[bytes | str]]:
    """Yield so many files' bytes at a time, or why they cannot be read, while the next ones are being read.

    Raises:
        StorageError: S3 cannot be reached.
    """
    # Local files need no credentials. One client serves all threads.
    s3 = objects.client(READERS) if any(isinstance(one, S3Object) for one in sources) else None

    def read(source: Source) -> bytes | str:
        try:
            return objects.read(s3, source) if s3 and isinstance(source, S3Object) else read_file(Path(str(source)))
        except (ImageError, ObjectError) as error:
            return str(error)
        except OSError as error:
            return f"The file cannot be read: {error.strerror or error}."
        except ValueError as error:  # a name that none can have, as one with a zero byte
            return f"The file cannot be read: {error}."

    pool = ThreadPoolExecutor(READERS, "reading")
    try:
        following = [pool.submit(read, one) for one in sources[:CHUNK]]
        for start in range(CHUNK, len(sources) + CHUNK, CHUNK):
            current, following = following, [pool.submit(read, one) for one in sources[start : start + CHUNK]]
            yield [future.result() for future in current]
    finally:
        pool.shutdown(cancel_futures=True)


def decoded(file: bytes | str) -> Decoded | str:
    """Return an image file as the network's size, uint8, shape (3, SIZE, SIZE), and its warnings; or what is wrong."""
    if isinstance(file, str):
        return file
    try:
        return resize(decode(file)), warnings_of(file)
    except ImageError as error:
        return str(error)


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        ImageError: no plain file, such as a pipe, which might never end.
        ImageTooLargeError: more than MAX_BYTES bytes.
        OSError: it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("This is not a plain file: name an image.")
    if status.st_size > MAX_BYTES:
        raise ImageTooLargeError(f"The file has more than the {MAX_BYTES:,} bytes that are read: make it smaller.")
    return path.read_bytes()


def answer_row(prediction: Prediction) -> Row:
    """Return the row of an image that has an answer."""
    probability = prediction.probabilities["PNEUMONIA"]
    warnings = " ".join(prediction.warnings)
    return [prediction.prediction, prediction.confidence, probability, warnings, prediction.model_version, None]


def error_row(error: str) -> Row:
    """Return the row of an image that has none."""
    return [None, None, None, None, None, error]


@contextlib.contextmanager
def opened(journal: Path, this: Run) -> Iterator[tuple[BinaryIO, int]]:
    """Open a journal, or begin one; yield it with the number of images that it has answers for.

    The first line says what run it is of, each other one is an image's row. What was half-written when a run was killed
    is taken away, down to whole batches: then the network sees the same batches as if nothing had happened.

    Raises:
        ConfigurationError: it is of another run, or of one that still goes on.
        OSError: it cannot be read or written.
    """
    with journal.open("ab+") as file:
        lock(file, journal)
        file.seek(0)
        first = file.readline()
        if first.endswith(b"\n"):
            check_run(first, this, journal)
            done = keep_whole_batches(file, len(first), this.images)
        else:
            file.truncate(0)
            file.write(json.dumps(vars(this)).encode() + b"\n")
            file.flush()
            done = 0
        yield file, done


def keep_whole_batches(file: BinaryIO, start: int, images: int) -> int:
    """Cut a journal off after its last whole batch; return the number of rows that are left."""
    rows, end = 0, start
    kept, kept_end = 0, start
    for line in file:
        if not is_row(line):
            break
        rows, end = rows + 1, end + len(line)
        if rows % BATCH_SIZE == 0 or rows == images:
            kept, kept_end = rows, end
    file.truncate(kept_end)
    return kept


def is_row(line: bytes) -> bool:
    """Tell whether a journal's line is a row, and a whole one."""
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n") and isinstance(row, list) and len(row) == len(COLUMNS) - 1


def check_run(line: bytes, this: Run, journal: Path) -> None:
    """See that a journal is of this run.

    Raises:
        ConfigurationError: it is not.
    """
    try:
        other = Run(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{journal} is not a journal of a run: remove it, or name another output.") from error
    if other.model_version != this.model_version:
        raise ConfigurationError(
            f"{journal} has answers of model {other.model_version}, and this is {this.model_version}: remove it to "
            "start anew, or name another output."
        )
    if other != this:
        raise ConfigurationError(
            f"{journal} has answers for another input, of {other.images:,} images: remove it to start anew, or name "
            "another output. (Of a folder that still fills up, make a manifest first.)"
        )


def lock(file: BinaryIO, journal: Path) -> None:
    """Have this process alone write a journal, as long as it lives.

    Raises:
        ConfigurationError: another one does.
    """
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigurationError(f"{journal} is being written by another run: wait for its end.") from error


def rows_in(file: BinaryIO) -> Iterator[Row]:
    """Yield the rows of a whole journal."""
    file.seek(0)
    file.readline()
    for line in file:
        yield json.loads(line)


def digest_of(names: Iterable[str]) -> str:
    """Return a SHA-256 over names in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(json.dumps(name).encode() + b"\n")
    return digest.hexdigest()


def check_output(source: str, output: Path, journal: Path) -> None:
    """See that the output overwrites nothing and does not lie among the images.

    Raises:
        ConfigurationError: it does.
    """
    if output.exists() and not journal.exists():
        raise ConfigurationError(f"{output} is there already and nothing is overwritten: remove it, or name another.")
    folder = Path(source)
    if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError(f"{output} would lie among the images: name an output elsewhere.")


def writer(output: Path) -> Callable[[Path, Iterator[Row]], None]:
    """Return what writes rows of COLUMNS in the format that a file's name ends with.

    Raises:
        ConfigurationError: another ending, or Parquet where there is no pyarrow.
    """
    if output.suffix == ".csv":
        return write_csv
    if output.suffix != ".parquet":
        raise ConfigurationError(f"{output} ends with neither .csv nor .parquet: the ending tells what to write.")
    try:
        import pyarrow  # noqa: F401, PLC0415  # before hours of work, not after
    except ImportError as error:
        raise ConfigurationError("Writing Parquet takes pyarrow: pip install pyarrow, or name a .csv.") from error
    return write_parquet


def write_csv(path: Path, rows: Iterator[Row]) -> None:
    """Write rows as CSV; what a row lacks is empty."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:  # names of any bytes
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        lines.writerows(rows)


def write_parquet(path: Path, rows: Iterator[Row]) -> None:
    """Write rows as Parquet; what a row lacks is null. In names, bytes that are no UTF-8 become question marks."""
    import pyarrow  # noqa: PLC0415  # an extra
    from pyarrow import parquet  # noqa: PLC0415

    schema = pyarrow.schema([(name, pyarrow.float64() if name in NUMBERS else pyarrow.string()) for name in COLUMNS])
    with parquet.ParquetWriter(path, schema) as file:
        while part := list(itertools.islice(rows, 50_000)):
            columns = [list(column) for column in zip(*part, strict=True)]
            columns[0] = [str(name).encode(errors="surrogateescape").decode(errors="replace") for name in columns[0]]
            arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            file.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def report(output: Path, model: Model, images: int, broken: Sequence[tuple[str, object]]) -> None:
    """Tell what there is, and on standard error what is broken."""
    if broken:
        print(f"{len(broken):,} of {images:,} images have no answer:", file=sys.stderr)
        for name, error in broken[:SHOWN]:
            print(f"  {printable(name)}: {error}", file=sys.stderr)
        if len(broken) > SHOWN:
            print(f"  and {len(broken) - SHOWN:,} more, in the column `error`", file=sys.stderr)
    print(f"{output} has the answers of model {model.version} for {images - len(broken):,} images.")


def printable(name: str) -> str:
    """Return a file's name as a terminal can take it."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m pneumonia.batch.command",
        description=(__doc__ or "").strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="INPUT", help="folder, s3://bucket/prefix or manifest")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="file to write, *.csv or *.parquet")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="weights file, its manifest.json beside it (as serving: MODEL_PATH, MODEL_BUCKET, or weights/)",
    )
    return parser.parse_args(argv)


def weights_of(args: argparse.Namespace, folder: Path) -> Weights:
    """Return the weights that the arguments name, or those that serving takes.

    What is fetched from a bucket goes into `folder` unless MODEL_PATH is set: left at its default, it would answer for
    later runs that name no bucket.

    Raises:
        ConfigurationError: the file does not exist.
    """
    if args.weights is None:
        weights = Weights.from_environment()
        if weights.bucket and not os.environ.get("MODEL_PATH"):
            weights.path = folder / WEIGHTS_NAME
        return weights
    if not args.weights.exists():  # without this the released model would answer
        raise ConfigurationError(f"{args.weights} does not exist: name a weights file with --weights.")
    return Weights(args.weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Answer for all images; return the exit status."""
    args = parse_arguments(argv)
    broken = 0

    def command() -> None:
        nonlocal broken
        with tempfile.TemporaryDirectory() as folder:
            broken = run(args.input, args.output, weights_of(args, Path(folder)))

    try:
        return exit_status(command) or (BROKEN if broken else 0)
    except KeyboardInterrupt:
        print("Stopped: the same command goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
