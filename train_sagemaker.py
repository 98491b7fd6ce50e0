"""Launch train_model.py as a SageMaker training job on the chest X-rays in S3, or watch one again.

`python train_sagemaker.py --bucket BUCKET --role ROLE_ARN --region REGION`
"""

import argparse
import functools
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pneumonia.command import Parser, exit_status, say
from pneumonia.errors import ConfigurationError, TrainingError
from pneumonia.launching import settings
from pneumonia.storage.refusals import refusals_as
from pneumonia.training.hyperparameters import (
    Hyperparameters,
    add_hyperparameters,
    given_hyperparameters,
    option,
)

if TYPE_CHECKING:
    from pneumonia.launching.creating import Declare
    from pneumonia.launching.launched import Launched

YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
NUMBERS = {  # whole and above 0; the largest ones that SageMaker takes, None if that depends
    "instance_count": None,
    "max_run_seconds": None,
    "max_wait_seconds": None,
    "volume_size": 16384,
    "keep_alive": 3600,
    "jobs": 750,
    "at_once": 100,
}
TUNING = {"jobs": 12, "at_once": 3, "objective": "validation:auroc"}  # the arguments of a tuning, and their defaults
# Name, default, type and help of each argument that takes one value.
ARGUMENTS = (
    ("bucket", None, str, "S3 bucket with the images; it gets code, checkpoints and model too (required)"),
    ("prefix", None, str, f'its folder with train/, val/ and test/, "" for its root ({settings.DEFAULT_PREFIX})'),
    ("role", None, str, "ARN of the role that the job runs under (required)"),
    ("region", None, str, "AWS region (required; AWS_REGION, AWS_DEFAULT_REGION)"),
    ("instance-type", "ml.g4dn.xlarge", str, "all of its GPUs are used (%(default)s)"),
    ("instance-count", "1", int, "machines that train together (%(default)s)"),
    ("max-run-seconds", "14400", int, "the job is stopped after this time (%(default)s)"),
    ("max-wait-seconds", None, int, "with --spot: time to run and to wait for capacity (twice --max-run-seconds)"),
    ("volume-size", "30", int, "disk of each machine in GB (%(default)s)"),
    ("keep-alive", None, int, "seconds for which the machines wait for another job, at your cost (none)"),
    ("subnets", None, str, "subnets of a VPC that the job runs in: ID,… (none)"),
    ("security-groups", None, str, "security groups in that VPC: ID,… (none)"),
    ("image-uri", None, str, "the container's image in ECR (AWS's for PyTorch)"),
    (
        "checkpoints",
        None,
        str,
        "s3://bucket/folder/ for the checkpoint that a job goes on from (with --spot one of its own)",
    ),
    ("attach", None, str, "watch this job or tuning again instead of launching one (none)"),
    ("jobs", None, int, f"with --tune: how many jobs ({TUNING['jobs']})"),
    ("at-once", None, int, f"with --tune: how many of them at a time ({TUNING['at_once']})"),
    ("objective", None, str, f"with --tune: the figure to improve ({TUNING['objective']})"),
)
# Name, form and help of each that takes several, and name, action and help of each switch.
LISTS = (
    ("tag", "KEY=VALUE", "of the job; repeatable (none; TRAIN_TAG: KEY=VALUE,…)"),
    ("tune", "NAME=LOW:HIGH", "try values of a hyperparameter; repeatable (none; TRAIN_TUNE: NAME=LOW:HIGH,…)"),
)
SWITCHES = (
    ("spot", argparse.BooleanOptionalAction, "cheaper instances that may be interrupted (off)"),
    ("no-wait", "store_true", "return when the job has started (off)"),
    ("dry-run", "store_true", "print the request instead of sending it (off)"),
)


def launch(args: argparse.Namespace) -> None:
    """Start the job or the tuning; show how it goes on and wait for its end unless told otherwise.

    Raises:
        PneumoniaError: AWS refuses, the images are not as the job needs them, or the job fails.
    """
    import boto3  # noqa: PLC0415  # it and the SDK take seconds to import: wrong arguments are told before

    from pneumonia.launching import creating, dataset, ending, sdk  # noqa: PLC0415

    sdk.check_sdk()
    with sdk.one_sentence("The job cannot be launched"):
        session = boto3.Session(region_name=args.region)
        dataset.check_dataset(session, args.bucket, args.prefix)
        job, request = creating.create(session, declaration(args))
    say(f"{job} in {args.region}")
    if checkpoints := request.get("CheckpointConfig", {}).get("S3Uri"):
        say(f"Checkpoints: {checkpoints}")
    say(f"To watch it again: {job.command}")
    if not args.no_wait:
        follow(job)
    elif not args.tune:
        output = request["OutputDataConfig"]["S3OutputPath"]
        ending.print_model(f"{output}/{job.name}/output/model.tar.gz", "Model, when the job has ended")


def attach(args: argparse.Namespace) -> None:
    """Watch a job or a tuning that was created before.

    Raises:
        PneumoniaError: AWS refuses, there is no such job, or it fails.
    """
    from pneumonia.launching import watching  # noqa: PLC0415

    with refusals_as(TrainingError, f"{args.attach} cannot be watched", service="AWS"):
        job = watching.Watcher(args.region).find(args.attach)
    say(f"{job} in {args.region}")
    follow(job)


def follow(job: "Launched") -> None:
    """Show how a job goes on until it has ended, and print its result.

    Raises:
        PneumoniaError: it failed, or AWS does not tell.
    """
    from pneumonia.launching import ending, watching  # noqa: PLC0415

    with job.named_in_failures("was created and goes on, but it cannot be watched"):
        watcher = watching.Watcher(job.region)
        description = watcher.watch(job)
    ending.print_end(job, description, watcher)


def print_request(args: argparse.Namespace) -> None:
    """Print the request that would be sent, as JSON.

    Raises:
        PneumoniaError: the SDK is not there, or refuses the settings.
    """
    from pneumonia.launching import creating, sdk  # noqa: PLC0415

    sdk.check_sdk()
    with sdk.one_sentence("The job cannot be launched"):
        creating.dry_run(args.region, args.bucket, declaration(args))


def declaration(args: argparse.Namespace) -> "Declare":
    """Return what has the SDK create the job, or the tuning."""
    from pneumonia.launching import job, tuning  # noqa: PLC0415

    return functools.partial(tuning.tune if args.tune else job.train, args=args)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; each has an environment variable, TRAIN_SOME_NAME for `--some-name`.

    Returns:
        The arguments; of those to launch with, `tags`, `hyperparameters` and `tune` by name.

    Raises:
        ConfigurationError: settings are missing or wrong.
    """
    args = argument_parser().parse_args(argv)
    needed = ("region",) if args.attach else ("bucket", "role", "region")
    if missing := [name for name in needed if not getattr(args, name)]:
        named = [f"--{name} ({'AWS_REGION' if name == 'region' else variable_name(name)})" for name in missing]
        raise ConfigurationError(f"Missing: {', '.join(named)}. Pass the arguments or set the environment variables.")
    if args.attach:
        settings.check_job_name(args.attach, dry_run=args.dry_run)
    else:
        check_launch(args)
        check_tuning(args)
    return args


def check_launch(args: argparse.Namespace) -> None:
    """Check what a job is launched with, and replace texts by what they say.

    Raises:
        ConfigurationError: something is wrong.
    """
    args.bucket, args.prefix = settings.dataset_address(args.bucket, args.prefix)
    if not re.fullmatch(r"arn:[\w-]+:iam::\d{12}:role/\S+", args.role):
        raise ConfigurationError(f"--role is an ARN such as arn:aws:iam::123456789012:role/training, not {args.role}.")
    for name, largest in NUMBERS.items():
        settings.check_number(f"--{option(name)}", getattr(args, name), largest)
    args.max_wait_seconds = args.max_wait_seconds or 2 * args.max_run_seconds
    if args.max_wait_seconds < args.max_run_seconds:
        raise ConfigurationError("--max-wait-seconds includes the run: it cannot be below --max-run-seconds.")
    if args.keep_alive and args.spot:
        raise ConfigurationError("--keep-alive is for on-demand instances: SageMaker does not keep those of --spot.")
    args.subnets, args.security_groups = settings.network(args.subnets, args.security_groups)
    args.checkpoints = args.checkpoints and settings.folder_address("--checkpoints", args.checkpoints)
    settings.check_image(args.image_uri)
    args.tags = settings.parse_tags(args.tag or (variable("tag") or "").split(","))
    args.hyperparameters = hyperparameters_in(args)


def check_tuning(args: argparse.Namespace) -> None:
    """Check what a tuning is launched with, and replace texts by what they say.

    Raises:
        ConfigurationError: something is wrong, needs a tuning, or does not go with one.
    """
    args.tune = settings.parse_ranges(args.tune or (variable("tune") or "").split(","))
    if not args.tune:
        if given := [f"--{option(name)}" for name in TUNING if getattr(args, name) is not None]:
            raise ConfigurationError(f"Without --tune NAME=LOW:HIGH, leave out {' and '.join(given)}.")
        return
    if single := [f"--{option(name)}" for name in ("checkpoints", "keep_alive") if getattr(args, name)]:
        raise ConfigurationError(f"With --tune, which starts many jobs, leave out {' and '.join(single)}.")
    if both := [name for name in args.tune if name in args.hyperparameters]:
        raise ConfigurationError(f"--tune tries values of {', '.join(both)}: leave the fixed ones out.")
    for name, default in TUNING.items():
        setattr(args, name, getattr(args, name) or default)
    settings.check_objective(args.objective)
    args.at_once = min(args.at_once, args.jobs)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are read off the environment."""
    parser = Parser(
        prog="train_sagemaker.py",
        description=__doc__.partition("\n")[0],
        epilog="Each argument has an environment variable: TRAIN_BUCKET for --bucket, TRAIN_BATCH_SIZE for "
        "--batch-size, and so on; --region has AWS_REGION and AWS_DEFAULT_REGION as well. "
        "Example: train_sagemaker.py --bucket xrays --role arn:aws:iam::123456789012:role/job --region eu-west-1",
    )
    for name, default, kind, text in ARGUMENTS:
        # argparse converts and checks a default that is text, just as it does with an argument.
        parser.add_argument(f"--{name}", default=variable(name) or default, type=kind, help=text)
    for name, metavar, text in LISTS:
        parser.add_argument(f"--{name}", action="append", metavar=metavar, help=text)
    for name, action, text in SWITCHES:
        parser.add_argument(f"--{name}", action=action, default=flag(name), help=text)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    parser.set_defaults(region=variable("region") or region)
    add_hyperparameters(parser, variable)
    return parser


def hyperparameters_in(args: argparse.Namespace) -> dict[str, Any]:
    """Return the hyperparameters that are given, as the job's train_model.py takes them; its defaults hold for others.

    Raises:
        ConfigurationError: one that nothing can be trained with.
    """
    given = given_hyperparameters(args)
    if given.get("epochs") == 0 and given.get("refining_runs"):
        raise ConfigurationError(
            "--epochs 0 refines a network of yours, and a job has none: train for an epoch or more."
        )
    try:
        Hyperparameters(**given)
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from error
    if args.weights not in {None, "imagenet", "none"}:
        raise ConfigurationError(f"--weights is imagenet or none, not {args.weights}: a job has no file of yours.")
    if quoted := [name for name, value in given.items() if "'" in str(value)]:
        raise ConfigurationError(
            f"--{option(quoted[0])} has a ', which breaks the script that starts a job: write \\x27 instead."
        )
    return {option(name): value for name, value in given.items()}


def variable_name(argument: str) -> str:
    """Return the name of an argument's environment variable."""
    return f"TRAIN_{argument.upper().replace('-', '_')}"


def variable(argument: str) -> str | None:
    """Return the value of an argument's environment variable; empty counts as unset."""
    return os.environ.get(variable_name(argument)) or None


def flag(argument: str) -> bool:
    """Return whether a switch's environment variable is on.

    Raises:
        ConfigurationError: it is neither on nor off.
    """
    value = (variable(argument) or "").lower()
    if value not in YES + NO:
        raise ConfigurationError(f"{variable_name(argument)} is {value}: set it to true or false.")
    return value in YES


def main(argv: Sequence[str] | None = None) -> int:
    """Launch or watch; return the exit status."""

    def command() -> None:
        try:
            args = parse_arguments(argv)
            run = attach if args.attach else print_request if args.dry_run else launch
            run(args)
        except KeyboardInterrupt as interruption:
            raise KeyboardInterrupt(str(interruption) or "Stopped; no job was created.") from interruption

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
