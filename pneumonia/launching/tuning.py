"""Declare a tuning to the SDK: many jobs, with hyperparameters that SageMaker chooses."""

import argparse
import datetime
from typing import Any

import boto3

from pneumonia.launching.job import channels, staged_source, trainer_for
from pneumonia.launching.metrics import METRICS, direction, metric_regex
from pneumonia.launching.settings import Range

# Of the names of tuning jobs, at most 32 characters, and so of their training jobs. The promotion takes jobs named
# `pneumonia-training…`: not every trial is to be served as soon as it ends.
TUNING_PREFIX = "pneumonia-tuning"


def tune(session: boto3.Session, args: argparse.Namespace) -> None:
    """Upload the jobs' code and have the SDK create the tuning job."""
    from sagemaker.train.tuner import HyperparameterTuner  # noqa: PLC0415

    now = datetime.datetime.now(datetime.UTC)  # the SDK's own names are the same for a minute
    with staged_source() as source:
        trainer = trainer_for(session, args, source)
        trainer.hyperparameters |= launcher(trainer.training_image, args.instance_type)
        HyperparameterTuner(
            model_trainer=trainer,
            objective_metric_name=args.objective,
            objective_type=direction(args.objective),
            hyperparameter_ranges={name: sdk_range(values) for name, values in args.tune.items()},
            metric_definitions=[{"Name": name, "Regex": metric_regex(word)} for name, word in METRICS.items()],
            max_jobs=args.jobs,
            max_parallel_jobs=args.at_once,
            early_stopping_type="Auto",
        ).tune(inputs=channels(args), job_name=f"{TUNING_PREFIX}-{now:%y%m%d-%H%M%S}", wait=False)


def sdk_range(values: Range) -> Any:  # noqa: ANN401  # the SDK has no types
    """Return the SDK's range: of whole numbers if both ends are whole."""
    from sagemaker.core.parameter import ContinuousParameter, IntegerParameter  # noqa: PLC0415

    kind = IntegerParameter if isinstance(values.low, int) else ContinuousParameter
    return kind(values.low, values.high, values.scaling)


def launcher(image: str, instance_type: str) -> dict[str, str]:
    """Return the settings by which the container starts a process for each GPU.

    A tuning's jobs cannot name a command of their own: the container's own toolkit starts them, and takes it as a
    hyperparameter.
    """
    if "-gpu-" not in image:
        return {}
    return {"sagemaker_torch_distributed_enabled": "true", "sagemaker_instance_type": instance_type}
