"""Read the checkpoint that an interrupted run goes on from, and check that it holds what a run writes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pneumonia.command import say
from pneumonia.errors import CheckpointError, ConfigurationError
from pneumonia.names import some
from pneumonia.network.weights_file import is_state_dict
from pneumonia.training.checkpoint_file import one_before, read
from pneumonia.training.hyperparameters import option

CHECKPOINT_NAME = "checkpoint.pth"
# Settings of a run that are no arguments.
WORDS = {
    "processes": "the number of processes",
    "device": "the device",
    "precision": "the precision",
    "dataset": "the images",
}
ANEW = "To start anew, remove {} or name another --checkpoint-dir."
# The form of an entry of a run's history.
EPOCH = {"epoch": 1, "train_loss": 1.0, "val_accuracy": 1.0, "val_loss": 1.0, "val_auroc": 1.0, "best": True}


def resumable(path: Path, form: Mapping[str, Any], epoch_steps: int) -> dict[str, Any] | None:
    """Return the state of a run after its last epoch; where that is damaged or missing, the one before takes its place.

    Args:
        path: the newest checkpoint.
        form: a state of this run after an epoch. What is read has the same form and the same settings.
        epoch_steps: this run's steps of an epoch.

    Returns:
        The state; None if there is no checkpoint.

    Raises:
        CheckpointError: no checkpoint can be used.
        ConfigurationError: the newest state is of a run with other settings or images.
        OSError: the folder cannot be written.
    """
    earlier = one_before(path)
    if not (path.exists() or earlier.exists()):
        return None
    try:
        return read_checkpoint(path, form, epoch_steps)
    except CheckpointError as error:
        fault = error
    if not earlier.exists():
        raise CheckpointError(f"{fault} {ANEW.format('it')}") from fault
    try:
        state = read_checkpoint(earlier, form, epoch_steps)
    except ConfigurationError as error:
        raise CheckpointError(f"{fault} Nor can the one before it be used: {error} {ANEW.format('both')}") from error
    say(f"{fault} This run goes on from the one before it, {earlier}, which takes its place.")
    earlier.replace(path)
    return state


def read_checkpoint(path: Path, form: Mapping[str, Any], epoch_steps: int) -> dict[str, Any]:
    """Read the state of a run after an epoch.

    Args:
        path: the file.
        form: as for `resumable`.
        epoch_steps: this run's steps of an epoch.

    Raises:
        CheckpointError: it is missing or damaged, or lacks something that a run writes.
        ConfigurationError: the state is of a run with other settings or images.
    """
    state: Any = read(path)
    given = state.get("settings") if isinstance(state, dict) else None
    if isinstance(given, dict):
        _check_settings(given, form["settings"], path)
    alone = "it holds weights alone" if state and is_state_dict(state) else None
    if fault := alone or difference(state, form, "its content") or _fault(state, epoch_steps):
        raise CheckpointError(f"{path} is not a whole state of a run: {fault}.")
    return dict(state)


def difference(found: object, form: object, name: str) -> str | None:
    """Return how a value read back differs from what is written: in its kind, names, shapes, or as not finite.

    Args:
        found: the value.
        form: a value as it is written; numbers and tensors may have other values.
        name: the value's, for the words that are returned.
    """
    if isinstance(form, Tensor):
        return _difference_of_tensors(found, form, name)
    if isinstance(form, Mapping):
        return _difference_of_mappings(found, form, name)
    if isinstance(form, Sequence) and not isinstance(form, str):
        if not isinstance(found, Sequence) or (len(found) != len(form) and name != "history"):
            return f"{name} is not a list of {len(form)}"
        entries = ((one, form[min(index, len(form) - 1)], f"{name}[{index}]") for index, one in enumerate(found))
        return next(filter(None, (difference(*entry) for entry in entries)), None)
    if isinstance(form, bool | str | None):
        return None if type(found) is type(form) else f"{name} is of another kind"
    finite = type(found) in {int, float} and math.isfinite(found)  # type: ignore[arg-type]
    return None if finite else f"{name} is not a finite number"


def random_states(device: torch.device) -> list[Tensor]:
    """Return the states of the generators that training draws from: the CPU's, and the GPU's where it trains on one."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def restore_random_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Restore what `random_states` returned."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _difference_of_tensors(found: object, form: Tensor, name: str) -> str | None:
    if not isinstance(found, Tensor) or found.layout is not form.layout or found.is_meta:
        return f"{name} is not a plain tensor"
    if (found.shape, found.dtype) != (form.shape, form.dtype):
        return f"{name} is of shape {tuple(found.shape)} and {found.dtype}, not {tuple(form.shape)} and {form.dtype}"
    return None if bool(found.isfinite().all()) else f"{name} has NaN or infinite values"


def _difference_of_mappings(found: object, form: Mapping[Any, Any], name: str) -> str | None:
    if not isinstance(found, Mapping):
        return f"{name} is not a dict"
    if name == "optimizer.state" and not found:
        return None  # with float16, the first steps may all have been left out, as too large
    if missing := [str(key) for key in form if key not in found]:
        return f"{name} lacks {some(missing)}"
    if unknown := [str(key) for key in found if key not in form]:
        return f"{name} has {some(unknown)} besides"
    inside = "" if name == "its content" else f"{name}."
    entries = ((found[key], one, f"{inside}{key}") for key, one in form.items())
    return next(filter(None, (difference(*entry) for entry in entries)), None)


def _fault(state: Mapping[str, Any], epoch_steps: int) -> str | None:
    """Return what in a state of the right form contradicts the rest of it."""
    history, best = state["history"], state["best"]
    if [epoch["epoch"] for epoch in history] != [*range(1, len(history) + 1)] or not history:
        return "its history does not count the epochs from 1"
    if state["schedule"]["last_epoch"] != len(history) * epoch_steps:
        steps = state["schedule"]["last_epoch"]
        return f"its history has {len(history)} epochs of {epoch_steps} steps, and its schedule is at step {steps}"
    if len(history) > state["settings"]["epochs"]:
        return f"its history has more than {state['settings']['epochs']} epochs"
    losses = [epoch["val_loss"] for epoch in history if epoch["best"]]
    if losses[-1:] != [best["loss"]] or not 0 <= best["correct"] <= best["count"] > 0:
        return "its best checkpoint is not that of its history"
    try:
        for states in state["random"]:
            torch.Generator().set_state(states[0])
    except RuntimeError:
        return "it has no state of a random number generator"
    return None


def _check_settings(before: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
    """Check that a run with these settings may go on from one with those before.

    Raises:
        ConfigurationError: they differ.
    """
    if changed := [name for name, value in settings.items() if before.get(name) != value]:
        differences = ", ".join(WORDS.get(name, f"--{option(name)}") for name in changed)
        raise ConfigurationError(
            f"{path} is of a run that differs in {differences}: go on with what that run was given, or start anew "
            f"with {path.parent} emptied or another --checkpoint-dir."
        )
