"""How a job ended: where its model lies and what to do next, or why there is none and how to go on."""

import shlex

from pneumonia.command import say, this_python
from pneumonia.errors import TrainingError, in_one_line
from pneumonia.launching.launched import TRAINING, TUNING, Launched
from pneumonia.launching.watching import Description, Watcher, best_figure

LIMITS = {  # SageMaker's word for what stopped a job: its limit in the request, in words, and our argument
    "MaxRuntimeExceeded": ("MaxRuntimeInSeconds", "time limit", "--max-run-seconds"),
    "MaxWaitTimeExceeded": ("MaxWaitTimeInSeconds", "time limit for waiting and running", "--max-wait-seconds"),
}


def print_end(job: Launched, description: Description, watcher: Watcher) -> None:
    """Print where the model of a job, or of a tuning's best job, lies.

    Args:
        job: has ended.
        description: what SageMaker says of it.
        watcher: asks for the best job.

    Raises:
        TrainingError: it failed or was stopped, or a tuning has no best job.
    """
    status = description[f"{job.kind}Status"]
    reason = in_one_line(description.get("FailureReason", "")) or "SageMaker gives no reason"
    if status == "Failed":
        if figure := best_figure(description):
            say(f"Best job until then: {figure}")
        if checkpoints := _checkpoints(description):
            say(f"Checkpoints: {checkpoints}")
        raise TrainingError(f"The {'job' if job.kind == TRAINING else 'tuning'} failed: {reason}")
    if job.kind == TUNING:
        print_best(job, description, watcher)
    if status == "Stopped":
        raise TrainingError(stopped(description) if job.kind == TRAINING else f"{job} was stopped.")
    if job.kind == TRAINING:
        print_model(archive_of(description, str(job)))


def print_model(archive: str, label: str = "Model") -> None:
    """Print where a job's model is or will be, and what to do with it."""
    say(f"{label}: {archive}")
    say(f"Next: {this_python()} promote_model.py {shlex.quote(archive)} --bucket WEIGHTS_BUCKET")


def print_best(job: Launched, tuning: Description, watcher: Watcher) -> None:
    """Print the best job of a tuning: its figure, its hyperparameters, and where its model lies.

    Raises:
        TrainingError: no job reported the objective, or the best one cannot be asked for.
    """
    figure = best_figure(tuning)
    if figure is None:
        raise TrainingError(f"{job} has ended, and none of its jobs reported the objective; their logs say why.")
    best = tuning["BestTrainingJob"]
    tuned = ", ".join(f"{name} {value}" for name, value in best.get("TunedHyperParameters", {}).items())
    say(f"Best job: {figure}" + f", with {tuned}" * bool(tuned))
    with job.named_in_failures("has ended, but its best job's model cannot be asked for"):
        description = watcher.describe(Launched(TRAINING, best["TrainingJobName"], job.region), exists=False)
    print_model(archive_of(description, best["TrainingJobName"]))


def archive_of(description: Description, job: str) -> str:
    """Return where the model of a job lies that has ended well.

    Raises:
        TrainingError: SageMaker does not say.
    """
    archive: str | None = description.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    if archive is None:
        raise TrainingError(f"{job} has ended, and SageMaker names no model of it: look into its output folder in S3.")
    return archive


def stopped(description: Description) -> str:
    """Return why a job was stopped, what it left, and how to go on."""
    name, why = description["TrainingJobName"], description.get("SecondaryStatus", "Stopped")
    field, limit, argument = LIMITS.get(why, ("", "", ""))
    seconds = description.get("StoppingCondition", {}).get(field)
    at = f" at its {limit} of {seconds} s" if seconds else ""
    sentences = [f"Training job {name} was stopped{at} ({why})."]
    if checkpoints := _checkpoints(description):
        longer = f" and a larger {argument}" if argument else ""
        sentences.append(
            f"Its state after the last finished epoch, the best checkpoint with it, is in {checkpoints}: "
            f"--checkpoints {checkpoints} with the same settings{longer} goes on from there."
        )
    if archive := description.get("ModelArtifacts", {}).get("S3ModelArtifacts"):
        sentences.append(
            f"The best checkpoint so far, if an epoch has finished, is in {archive}; as it was not tested, only "
            "`promote_model.py --force` serves it."
        )
    if not checkpoints:
        sentences.append("Without --checkpoints or --spot no other job can go on from it.")
    return " ".join(sentences)


def _checkpoints(description: Description) -> str | None:
    address: str | None = description.get("CheckpointConfig", {}).get("S3Uri")
    return address
