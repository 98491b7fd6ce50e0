"""Check the arguments of a launch before anything is sent. Wrong ones are refused even without the SDK."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from pneumonia.errors import ConfigurationError
from pneumonia.launching.metrics import OBJECTIVES
from pneumonia.storage.addresses import split
from pneumonia.training.hyperparameters import Hyperparameters, option

DEFAULT_PREFIX = "chest_xray"
NOT_TUNED = {"num_workers", "seed", "refining_runs"}  # the last because what refining gains does not show in validation
TUNABLE = {  # numbers that decide how well a model learns, to their types
    option(one.name): one.type
    for one in fields(Hyperparameters)
    if one.type in {int, float} and one.name not in NOT_TUNED
}


@dataclass(frozen=True)
class Range:
    """The values of a hyperparameter that a tuning tries, both ends included."""

    low: float
    high: float

    @property
    def scaling(self) -> str:
        """SageMaker's word for how values are spread: evenly over the powers of ten if there are several."""
        wide = self.low > 0 and math.log10(self.high / self.low) > 1 - 1e-9
        return "Logarithmic" if wide else "Linear"


def dataset_address(bucket: str, prefix: str | None) -> tuple[str, str]:
    """Return the bucket's name and the folder of the channels.

    Args:
        bucket: its name, or `s3://bucket/folder`.
        prefix: the folder, "" for the bucket's root; None if it is not given.

    Raises:
        ConfigurationError: the bucket has no possible name, or two folders are named.
    """
    name, key = split(bucket) if bucket.startswith("s3://") else (bucket, "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name):
        raise ConfigurationError(f"--bucket is the name of a bucket, or s3://NAME/FOLDER, not {bucket}.")
    if prefix and prefix.startswith("s3://"):
        raise ConfigurationError(f"--prefix is a folder in the bucket, such as {DEFAULT_PREFIX}, not {prefix}.")
    key = key.strip("/")
    if prefix is None:
        return name, key or DEFAULT_PREFIX
    prefix = prefix.strip("/")
    if key and key != prefix:
        raise ConfigurationError(f"--bucket names the folder {key}, and --prefix {prefix or 'the root'}: name one.")
    return name, prefix


def folder_address(argument: str, uri: str) -> str:
    """Return the address of a folder in S3, with the slash at its end that keeps `run-1` apart from `run-10`.

    Raises:
        ConfigurationError: it is not one.
    """
    bucket, key = split(uri) if uri.startswith("s3://") else ("", "")
    if not bucket or not key.strip("/"):
        raise ConfigurationError(f"{argument} is a folder in S3, s3://bucket/folder/, not {uri}.")
    return f"s3://{bucket}/{key.strip('/')}/"


def check_number(argument: str, value: int | None, largest: int | None) -> None:
    """Check that a number, if it is given, is above 0 and not above the largest one, if there is one.

    Raises:
        ConfigurationError: it is not.
    """
    if value is not None and not value > 0:
        raise ConfigurationError(f"{argument} must be above 0, not {value}.")
    if value is not None and largest is not None and value > largest:
        raise ConfigurationError(f"{argument} must be at most {largest}, not {value}.")


def check_job_name(name: str, *, dry_run: bool) -> None:
    """Check that a job can have this name, and be watched.

    Raises:
        ConfigurationError: it cannot.
    """
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name):
        raise ConfigurationError(f"--attach takes the name of a training or tuning job, not {name}.")
    if dry_run:
        raise ConfigurationError("--attach sends no request that --dry-run could print: leave one of them out.")


def check_image(uri: str | None) -> None:
    """Check that an image, if one is given, has an address of ECR's kind.

    Raises:
        ConfigurationError: it has not.
    """
    if uri and not re.fullmatch(r"[\w.-]+\.[\w.-]+(:\d+)?/[\w./-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?", uri):
        example = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pytorch:2.10"
        raise ConfigurationError(f"--image-uri is the address of an image in ECR, such as {example}, not {uri}.")


def network(subnets: str | None, security_groups: str | None) -> tuple[list[str], list[str]]:
    """Return the subnets and the security groups of a job, both empty for a job outside a VPC.

    Raises:
        ConfigurationError: they are no identifiers, or one of the lists is missing.
    """
    parsed = _identifiers("--subnets", "subnet", subnets), _identifiers("--security-groups", "sg", security_groups)
    if bool(parsed[0]) != bool(parsed[1]):
        raise ConfigurationError("A job in a VPC needs both --subnets and --security-groups.")
    return parsed


def parse_tags(tags: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE pairs; empty ones are skipped.

    Raises:
        ConfigurationError: a pair without key or equals sign.
    """
    pairs = [tag.strip().partition("=") for tag in tags if tag.strip()]
    if wrong := ["".join(pair) for pair in pairs if not (pair[0] and pair[1])]:
        raise ConfigurationError(f"A tag is KEY=VALUE, not {', '.join(wrong)}.")
    return {key: value for key, _, value in pairs}


def parse_ranges(texts: Sequence[str]) -> dict[str, Range]:
    """Read NAME=LOW:HIGH of the hyperparameters to tune; empty ones are skipped.

    Raises:
        ConfigurationError: one that cannot be tuned, or not over these values.
    """
    ranges: dict[str, Range] = {}
    for text in filter(None, map(str.strip, texts)):
        name, given = _parse_range(text)
        if name in ranges:
            raise ConfigurationError(f"--tune names {name} twice: give it one range.")
        ranges[name] = given
    return ranges


def check_objective(objective: str) -> None:
    """Check that a tuning can aim at a figure.

    Raises:
        ConfigurationError: it cannot.
    """
    if objective not in OBJECTIVES:
        raise ConfigurationError(f"--objective is {', '.join(OBJECTIVES[:-1])} or {OBJECTIVES[-1]}, not {objective}.")


def _identifiers(argument: str, kind: str, text: str | None) -> list[str]:
    names = [name for name in re.split(r"[,\s]+", text or "") if name]
    if wrong := [name for name in names if not re.fullmatch(rf"{kind}-[0-9a-z]+", name)]:
        raise ConfigurationError(f"{argument} takes identifiers such as {kind}-0a1b2c3d, not {', '.join(wrong)}.")
    return names


def _parse_range(text: str) -> tuple[str, Range]:
    name, _, values = text.partition("=")
    name = option(name.strip().lstrip("-"))
    if name not in TUNABLE:
        *others, last = TUNABLE
        raise ConfigurationError(f"--tune takes {', '.join(others)} or {last} as NAME=LOW:HIGH, not {text}.")
    number = int if TUNABLE[name] is int else float
    try:
        low, high = map(number, values.split(":"))
    except ValueError as error:
        kind = "whole numbers" if number is int else "numbers"
        raise ConfigurationError(f"--tune {name} takes two {kind}, {name}=LOW:HIGH, not {text}.") from error
    if not low < high < math.inf:
        raise ConfigurationError(f"--tune {name} takes the lower number first, and another one after it, not {values}.")
    for value in (low, high):
        try:
            Hyperparameters(**{name.replace("-", "_"): value})  # type: ignore[arg-type]
        except ValueError as error:
            raise ConfigurationError(f"--tune cannot try {text}: {error}.") from error
    return name, Range(low, high)
