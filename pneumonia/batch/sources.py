"""The images of a batch: listing those of a folder, an S3 prefix or a manifest, and reading them."""

import io
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pneumonia.deadline import Deadline
from pneumonia.errors import ConfigurationError, ImageError, ObjectError, StorageError
from pneumonia.files import open_plain
from pneumonia.imaging.reading import read_file
from pneumonia.names import named
from pneumonia.network.classifier import BATCH_SIZE
from pneumonia.storage import objects
from pneumonia.storage.addresses import split
from pneumonia.storage.client import new_client
from pneumonia.storage.objects import S3Object
from pneumonia.storage.retries import COMMAND_SECONDS

READERS = 16  # threads, which wait for a disk or for S3
CHUNK = 2 * BATCH_SIZE  # files to decode at a time, while as many are being read
Source = Path | S3Object


def listed(source: str) -> Iterator[Source]:
    """Yield the images of an input, always in the same order.

    Raises:
        ConfigurationError: not a folder, a prefix in S3 or a manifest.
        ObjectError: the bucket cannot be listed.
        StorageError: S3 cannot be reached.
        OSError: a folder or a manifest cannot be read.
    """
    path = Path(source)
    if source.startswith("s3://"):
        yield from objects.below(new_client(attempts=1), source)
    elif path.is_dir():
        yield from files_below(path)
    elif path.suffix == ".csv":
        yield from objects.manifest_rows(path)
    elif path.suffix == ".txt":
        yield from lines_of(path)
    else:
        raise ConfigurationError(f"{source} is not a folder, an s3://bucket/prefix or a manifest, *.csv or *.txt.")


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, except hidden ones.

    Raises:
        OSError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def lines_of(manifest: Path) -> Iterator[Source]:
    """Yield what a manifest names: a path or an object on each line, as it is or quoted as `names.in_text` does.

    Raises:
        ConfigurationError: an object without a bucket.
        OSError: the file cannot be read.
    """
    with open_plain(manifest) as file, io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", "\n") as lines:
        for line in lines:  # names of any bytes, with the spaces before and after them
            if name := named(line.removesuffix("\n").removesuffix("\r")):
                yield S3Object(*split(name)) if name.startswith("s3://") else Path(name)


def state_of(source: Source) -> str:
    """Return what changes when an image is replaced: of a file its size and times, of an object its ETag.

    An object that a manifest names has none: asking S3 for each would take as long as reading it.
    """
    if isinstance(source, S3Object):
        return source.etag or ""
    try:
        status = source.stat()
    except (OSError, ValueError):  # nothing to read there, or a name that no file can have
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"  # `cp -p` and `touch` set the first time


def read_ahead(sources: Sequence[Source], patience: float = COMMAND_SECONDS) -> Iterator[list[bytes | ImageError]]:
    """Yield the bytes of CHUNK files at a time, or why they cannot be read, while the next ones are being read.

    Args:
        sources: the files.
        patience: seconds to try again for each object.

    Raises:
        StorageError: S3 cannot be reached.
    """
    # Local files need no credentials. One client serves all threads.
    s3 = new_client(connections=READERS, attempts=1) if any(isinstance(one, S3Object) for one in sources) else None
    stopping = threading.Event()  # or a thread would go on trying while the command ends

    def read(source: Source) -> bytes | ImageError:
        try:
            if s3 and isinstance(source, S3Object):
                return objects.read(s3, source, Deadline.after(patience), stopping.wait)
            return read_file(Path(str(source)))
        except ImageError as error:
            return error
        except ObjectError as error:
            return ImageError(str(error))
        except OSError as error:
            return ImageError(f"The file cannot be read: {error.strerror or error}.")
        except ValueError as error:  # a key that no object can have
            return ImageError(f"The object cannot be read: {error}.")

    pool = ThreadPoolExecutor(READERS, "reading")
    try:
        following = [pool.submit(read, one) for one in sources[:CHUNK]]
        for start in range(CHUNK, len(sources) + CHUNK, CHUNK):
            current, following = following, [pool.submit(read, one) for one in sources[start : start + CHUNK]]
            yield [future.result() for future in current]
    except StorageError as error:
        raise StorageError(f"{error} The same command continues from here.", public=error.public) from error
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)
