"""What all commands share: the parser, the exit status, and output on a terminal."""

import argparse
import contextlib
import difflib
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

from pneumonia import logs
from pneumonia.errors import ConfigurationError, PneumoniaError, file_sentence, printable
from pneumonia.files import is_address, naming

Item = TypeVar("Item")
SOME_FAILED = 3  # exit status if some images, or all, have no answer
# What --weights takes in every command that has it.
WEIGHTS_HELP = (
    "weights file, a folder with one, or s3://bucket (as serving: MODEL_PATH, MODEL_BUCKET, else the released model)"
)
# At the end of the help of every command that answers on this machine.
ENGINE_HELP = "the variable ENGINE chooses the engine, which runs the network: torch (PyTorch) or onnx (ONNX Runtime)"
# What --sign takes in every command that asks a server.
SIGN_HELP = "region of the Lambda function to sign requests for, if URL is not its Function URL"
# What installs all that training, evaluation and the other commands need.
HOW_TO_INSTALL = "pip install '.[train]', or in a checkout make develop"
EXIT_STATUSES = (
    f"exit status: 0 all images have an answer, {SOME_FAILED} some have an error instead, 1 the command failed"
)


class Parser(argparse.ArgumentParser):
    """Reports a bad argument like any other error: in one sentence, with exit status 1."""

    def parse_known_args(  # type: ignore[override]  # argparse types its result by that of the namespace
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,  # noqa: ANN401
    ) -> tuple[Any, list[str]]:
        """Parse arguments; underscores in an argument's name are read as hyphens."""
        return super().parse_known_args(hyphenated(sys.argv[1:] if args is None else args), namespace)

    def error(self, message: str) -> NoReturn:
        """Raise an error instead of ending the process.

        Raises:
            ConfigurationError: always.
        """
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        hint = nearest(unknown[1], self._option_string_actions) if unknown else ""
        raise ConfigurationError(f"{message[:1].upper()}{message[1:]}{hint}. `{self.prog} --help` lists the arguments.")


def hyphenated(arguments: Sequence[str]) -> list[str]:
    """Return arguments with hyphens for the underscores in their names; after `--` there are no names."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    names = [re.sub(r"^--[^=\s]+", lambda name: name[0].replace("_", "-"), one) for one in arguments[:end]]
    return [*names, *arguments[end:]]


def this_python() -> str:
    """Return how to start, from the current folder, the Python that runs: as `.venv/bin/python` in a checkout.

    A command that is printed to be copied needs its packages, and a plain `python` may be another one, or none.
    """
    python, here = Path(sys.executable), Path.cwd()
    return shlex.quote(str(python.relative_to(here) if python.is_relative_to(here) else python))


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a question that names the word most similar to a mistyped one, or an empty string if none is similar."""
    found = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def local_path(text: str) -> Path:
    """Return the file or folder of this machine that an argument names, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is an address, such as `s3://bucket/folder`; a folder `s3:` would be made.
    """
    if is_address(text):
        raise argparse.ArgumentTypeError(f"{text} is an address: name a file or folder of this machine")
    return Path(text)


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print each line in one line: a terminal obeys no character of the names in it, and none begins another line.

    Commands print by nothing else.

    Args:
        lines: what to print; their text is made printable.
        file: None for standard output.
    """
    with naming(Path("The standard error" if file is sys.stderr else "The standard output")):
        print(*(printable(str(line)) for line in lines), sep="\n", file=file, flush=True)


def exit_status(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit status; print an error that a user can fix as a sentence, without a traceback.

    Args:
        command: returns an exit status, or None for 0.
    """
    make_streams_writable()
    try:
        status = command()
        with naming(Path("The standard output")):
            sys.stdout.flush()  # while an error can still be reported
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would report it when it ends
        return 1
    except PneumoniaError as error:
        say(*error.files, error, file=sys.stderr)
        return 1
    except OSError as error:
        say(file_sentence(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt as interruption:
        say(str(interruption) or "Stopped.", file=sys.stderr)
        return 130
    return status or 0


def make_streams_writable() -> None:
    """Have standard output and error take any text, even if they are closed or their encoding lacks letters."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  # it was closed
        setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    logs.make_printable()


@contextlib.contextmanager
def packages_needed_by(command: str, advice: str) -> Iterator[None]:
    """Turn the error for a package that is not installed into a sentence that says what to install.

    Args:
        command: the command that the user called.
        advice: how to install all that it needs.

    Raises:
        ConfigurationError: the block imports a package that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("pneumonia"):
            raise
        package = error.name.partition(".")[0]
        raise ConfigurationError(f"`{command}` needs {package}, which is not installed: {advice}.") from error


def progress(items: Iterable[Item], total: int, label: str) -> Iterable[Item]:
    """Return the items, and show a progress bar on a terminal while they are iterated over.

    A log cannot redraw a line, so it gets no bar. Only the first of several processes shows one, and only if tqdm is
    installed.

    Args:
        items: what to iterate over.
        total: their number.
        label: the text before the bar.
    """
    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        return items
    try:
        from tqdm import tqdm  # noqa: PLC0415  # SageMaker's container may lack it
    except ModuleNotFoundError:
        return items
    return tqdm(items, label, total, leave=False, dynamic_ncols=True)
