"""The errors that a user can fix. Each carries one sentence: what is wrong, where, and what to do."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Failure = TypeVar("Failure", bound="PneumoniaError")
FEW = 3  # files named in a sentence
MAX_TEXT = 4000  # characters of another program's text


class PneumoniaError(Exception):
    """Base of all errors below; a command prints the sentence and exits with status 1.

    Args:
        sentence: what is wrong, where, and what to do. Whatever names it has, it becomes one printable line.
        public: the reason without names of buckets, files, accounts or hosts, for clients of a server whose operator
            reads the whole sentence in its log; None if there is nothing to tell them.

    Attributes:
        files: all files that the error is about, if its sentence names only some; a log gets one on a line.
    """

    files: Sequence[str] = ()

    def __init__(self, sentence: str = "", *, public: str | None = None) -> None:
        super().__init__(printable(sentence))
        self.public = public


class ConfigurationError(PneumoniaError):
    """A setting is missing or cannot be used."""


class CheckpointError(ConfigurationError):
    """A checkpoint is missing or damaged; the one before it may be whole."""


class DataError(PneumoniaError):
    """A channel does not hold the images that training needs."""


class ArchiveError(DataError):
    """An archive of images is broken, or another one than it should be."""


class TrainingError(PneumoniaError):
    """Training cannot go on."""


class WeightsError(PneumoniaError):
    """A weights file or an archive of one is not what it should be."""


class ReleaseRefusedError(PneumoniaError):
    """A release is too bad to be served."""


class ReleaseConflictError(PneumoniaError):
    """Another promotion came first."""


class WeightsUnavailableError(PneumoniaError):
    """The weights cannot be read now; a later try may succeed."""


class WeightsRefusedError(WeightsUnavailableError):
    """S3 refuses the weights, and will refuse them again."""


class ObjectError(PneumoniaError):
    """S3 refuses one object, and will refuse it again."""


class StorageError(PneumoniaError):
    """S3 cannot be reached, or refuses every request; a later try may succeed."""


class BusyError(PneumoniaError):
    """Others' images take too long for this one to have its turn; a later try may succeed."""


class ServerError(PneumoniaError):
    """A server of the API cannot be asked, or refuses."""


class ImageError(PneumoniaError):
    """A file is not an image, or the image is broken."""


class UnsupportedImageError(ImageError):
    """An image in an unsupported format."""


class ImageTooLargeError(ImageError):
    """An image with too many bytes, pixels or pieces."""


def few(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - FEW:,} more" if len(names) > FEW else ""
    return "; ".join(names[:FEW]) + more


def with_files(error: Failure, files: Sequence[str]) -> Failure:
    """Give an error the files that its sentence, by `few`, names only some of."""
    if len(files) > FEW:
        error.files = files
    return error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if it has no text."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def in_one_line(text: str) -> str:
    """Return a text of another program in one printable line of at most MAX_TEXT characters."""
    return printable(" ".join(text.split()))[:MAX_TEXT]


def printable(text: str) -> str:
    r"""Return a text in one line; characters that a terminal or a log might obey become `\x1b`, `\n` and the like."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


@contextlib.contextmanager
def keeping(what: Callable[[], str | None]) -> Iterator[None]:
    """Add to what the disk refuses within the block what is kept nevertheless, for `file_sentence`.

    Args:
        what: returns it then, in a sentence; None if nothing is.
    """
    try:
        yield
    except OSError as error:
        if sentence := what():
            error.add_note(sentence)
        raise


def file_sentence(error: OSError) -> str:
    """Return what is wrong with a file, and what is kept by `keeping`, each in a sentence."""
    name = error.filename or "A file"
    if isinstance(error, FileNotFoundError) and error.filename:
        problem = f"{name} does not exist: check the name."
    else:
        problem = f"{name} cannot be read or written: {error.strerror or error}."
    return " ".join([problem, *getattr(error, "__notes__", ())])
