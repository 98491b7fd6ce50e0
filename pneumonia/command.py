"""What all commands share: the parser, the exit status, and what a terminal shows."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn, TypeVar

from pneumonia.errors import ConfigurationError, PneumoniaError, file_sentence

Item = TypeVar("Item")
SOME_FAILED = 3  # exit status where some files could not be answered; 1 says that nothing could be done


class Parser(argparse.ArgumentParser):
    """Reports a bad argument as every other error: in one sentence, with exit status 1."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the process.

        Raises:
            ConfigurationError: always.
        """
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        hint = nearest(unknown[1], self._option_string_actions) if unknown else ""
        raise ConfigurationError(f"{message[:1].upper()}{message[1:]}{hint}. `{self.prog} --help` lists them.")


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a question that names the word most like a mistyped one; nothing where none is like it."""
    found = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def exit_status(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit status; what a user can mend is told in its sentence, without a traceback.

    Args:
        command: returns an exit status, or None for 0.
    """
    try:
        status = command()
        sys.stdout.flush()  # while an error can still be told
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would tell it when it ends
        return 1
    except PneumoniaError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(file_sentence(error), file=sys.stderr)
        return 1
    return status or 0


def printable(name: str) -> str:
    """Return a file's name as a terminal can take it."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def progress(items: Iterable[Item], total: int, label: str) -> Iterable[Item]:
    """Return the items, and show on a terminal how far their iteration is.

    In a log, where a line cannot be redrawn, nothing is shown, nor by any but the first of several processes, nor where
    tqdm is not installed.

    Args:
        items: what is iterated over.
        total: their number.
        label: what stands before the bar.
    """
    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        return items
    try:
        from tqdm import tqdm  # noqa: PLC0415  # SageMaker's container may lack it
    except ModuleNotFoundError:
        return items
    return tqdm(items, label, total, leave=False, dynamic_ncols=True)
