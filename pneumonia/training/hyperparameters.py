"""The hyperparameters of a training: the one table that train_model.py and train_sagemaker.py take.

Imports nothing that takes long, so that launching a job reads its arguments at once.
"""

import argparse
import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pneumonia.training.patients import PATTERN_HELP, pattern_of
from pneumonia.training.torchrun import processes_here

# Hyperparameters that SageMaker, its SDK and its tuner add to a job's own, as sagemaker-training-toolkit lists them.
SAGEMAKERS = re.compile(r"--(_|sagemaker[-_]|default[-_]user[-_]module[-_]name|mp[-_]parameters)")
MOST = 1_000_000  # of epochs, runs, threads, or images a step: more cannot be meant


def decoding_threads() -> int:
    """Return the number of cores for each of torchrun's processes on this machine.

    Raises:
        ConfigurationError: torchrun's variables are not as it sets them.
    """
    return max(1, (os.cpu_count() or 1) // processes_here())


@dataclass(frozen=True)
class Hyperparameters:
    """What decides a training besides its images; `help` says what each one is."""

    epochs: int = field(default=15, metadata={"help": "how often all training images are seen before refining"})
    batch_size: int = field(default=32, metadata={"help": "images a step, of all processes together"})
    learning_rate: float = field(default=5e-4, metadata={"help": "at its peak; pretrained layers get 0.4 of it"})
    weight_decay: float = field(default=0.01, metadata={"help": "of AdamW"})
    weights: str = field(
        default="imagenet",
        metadata={"help": "what to start from: imagenet, none, or, not in a SageMaker job, a state dict's path"},
    )
    num_workers: int = field(
        default_factory=decoding_threads, metadata={"help": "threads of each process that decode images"}
    )
    seed: int = field(
        default=0, metadata={"help": "decides the order of the images, their variation and the random start"}
    )
    patients: str = field(default="", metadata={"help": PATTERN_HELP, "metavar": "PATTERN"})
    refining_runs: int = field(
        default=0,
        metadata={"help": "runs of one epoch from the best checkpoint; the average of their ends replaces it"},
    )

    def __post_init__(self) -> None:
        """Refuse what nothing can be trained with.

        Raises:
            ValueError: a number out of its range; the text names its argument.
            ConfigurationError: a pattern that is none.
        """
        pattern_of(self.patients)
        positive = ["epochs"] if not self.refining_runs else []
        for name in (*positive, "batch_size", "num_workers", "learning_rate"):
            if not getattr(self, name) > 0:  # "not above" rather than "at most": NaN compares false
                raise ValueError(f"--{option(name)} must be above 0, not {getattr(self, name)}")
        for name in ("epochs", "refining_runs", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"--{option(name)} must not be below 0, and is {getattr(self, name)}")
        if not self.epochs and self.weights in {"imagenet", "none"}:
            raise ValueError(f"--epochs 0 refines a trained network: --weights must name its file, not {self.weights}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"--seed must be from 0 to {2**64 - 1}, not {self.seed}")
        self._check_largest()

    def _check_largest(self) -> None:
        for name in ("epochs", "batch_size", "num_workers", "refining_runs"):
            if getattr(self, name) > MOST:
                raise ValueError(f"--{option(name)} must be at most {MOST:,}, not {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay"):
            if math.isinf(getattr(self, name)):
                raise ValueError(f"--{option(name)} must be finite, not {getattr(self, name)}")


def option(name: str) -> str:
    """Return the name of a hyperparameter's argument, without the two dashes in front."""
    return name.replace("_", "-")


def add_hyperparameters(parser: argparse.ArgumentParser, default: Callable[[str], str | None] = lambda _: None) -> None:
    """Add an argument for each hyperparameter.

    Args:
        parser: gets them.
        default: returns what counts where an argument, by its name, is not given; None for the table's own default.
    """
    group = parser.add_argument_group("hyperparameters")
    for one in dataclasses.fields(Hyperparameters):
        name = option(one.name)
        read, metavar = {int: (_whole, "N"), float: (_number, "X"), str: (_unquoted, "NAME")}[one.type]  # type: ignore[index]
        shown = "the cores, shared by a machine's processes" if one.default is dataclasses.MISSING else one.default
        text = f"{one.metadata['help']} ({shown})" if shown != "" else one.metadata["help"]
        group.add_argument(
            f"--{name}", type=read, default=default(name), metavar=one.metadata.get("metavar", metavar), help=text
        )


def without_sagemakers(arguments: Sequence[str]) -> list[str]:
    """Return a job's arguments without those that SageMaker adds for itself, each of them a name and a value."""
    kept, rest = [], iter(arguments)
    for argument in rest:
        if not SAGEMAKERS.match(argument):
            kept.append(argument)
        elif "=" not in argument:
            next(rest, None)
    return kept


def with_pattern_joined(arguments: Sequence[str]) -> list[str]:
    """Join `--patients` and its value into one argument.

    SageMaker passes two, and argparse would take a value that begins with a dash for another argument.
    """
    found, rest = [], iter(arguments)
    for argument in rest:
        value = next(rest, None) if argument == "--patients" else None
        found.append(argument if value is None else f"{argument}={value}")
    return found


def given_hyperparameters(args: argparse.Namespace) -> dict[str, Any]:
    """Return the hyperparameters that the arguments have, by their names in the table."""
    values = {one.name: getattr(args, one.name) for one in dataclasses.fields(Hyperparameters)}
    return {name: value for name, value in values.items() if value is not None}


def _unquoted(text: str) -> str:
    """Return a value without JSON's quotes, which tuners leave around one of several that they choose from."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _number(text: str) -> float:
    try:
        return float(_unquoted(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: {text!r}, a number is expected") from None


def _whole(text: str) -> int:
    """Read a whole number; tuners write one of a continuous range as 32.0."""
    plain = _unquoted(text)
    with contextlib.suppress(ValueError):
        return int(plain)  # exact, where a float has 53 bits
    with contextlib.suppress(ValueError):
        if (number := float(plain)).is_integer():
            return int(number)
    raise argparse.ArgumentTypeError(f"invalid int value: {text!r}, a whole number is expected")
