"""The state of a training while it goes on: the network, what moves it, the best checkpoint, and resuming."""

import copy
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pneumonia.command import say
from pneumonia.errors import TrainingError
from pneumonia.network.weights_file import fits_at_rest
from pneumonia.training.batches import Split
from pneumonia.training.channels import fingerprint
from pneumonia.training.checkpoint import EPOCH, random_states, restore_random_states, resumable
from pneumonia.training.checkpoint_file import write
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.processes import Processes

STATEFUL = ("model", "averaged", "optimizer", "schedule", "scaler")  # what of a run has a state dict
# Of the recipe; docs/model-card.md says what it was chosen by.
PRETRAINED_RATE = 0.4  # of the learning rate, for layers that have learned already
LABEL_SMOOTHING = 0.05
AVERAGED_SHARE = 0.05  # of all steps: how far back the moving average of the weights remembers


@dataclass(frozen=True)
class Evaluation:
    """How a network did on a split: correct answers, images, and mean cross-entropy in nats per image."""

    correct: int
    count: int
    loss: float

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> "Evaluation":
        """Judge logits (N, 2) by labels (N,)."""
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        return cls(int((logits.argmax(1) == labels).sum()), len(labels), float(loss) / len(labels))

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0 to 1."""
        return self.correct / self.count


def is_better(candidate: Evaluation, best: Evaluation | None) -> bool:
    """Return whether a checkpoint replaces the best one: more correct, or as many with a lower loss. NaN never wins."""
    if math.isnan(candidate.loss):
        return False
    if best is None:
        return True
    return candidate.correct > best.correct or (candidate.correct == best.correct and candidate.loss < best.loss)


@dataclass
class Run:
    """All that changes while training goes on, and so all that resuming needs.

    Attributes:
        model: the network that learns.
        parallel: the same, wrapped for several processes.
        averaged: the moving average of its weights: what is validated, selected and served.
        decay: share of the average that a step leaves.
        batch_size: this process's images a step.
        precision: type of the matrix products.
        optimizer: takes the steps.
        schedule: sets their length.
        scaler: keeps half precision's gradients in range.
        epoch_steps: steps of an epoch.
        best: the best checkpoint's evaluation.
        best_state: its state dict.
        history: one entry an epoch.
        saved: the number of epochs in the checkpoint that was written or read last.
    """

    model: nn.Module
    parallel: nn.Module
    averaged: nn.Module
    decay: float
    batch_size: int
    precision: torch.dtype
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    epoch_steps: int = 1
    best: Evaluation | None = None
    best_state: dict[str, Tensor] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    saved: int = 0

    def __post_init__(self) -> None:
        self._weights, self._averages = list(self.model.parameters()), list(self.averaged.parameters())

    @classmethod
    def start(
        cls, model: nn.Module, pretrained: Collection[str], chosen: Hyperparameters, count: int, processes: Processes
    ) -> "Run":
        """Put together what moves a network.

        Args:
            model: the network.
            pretrained: names of the parameters that have learned already, and so move more slowly.
            chosen: the hyperparameters.
            count: number of training images of all processes.
            processes: those that train together.
        """
        model = model.to(processes.device).to(memory_format=torch.channels_last)
        batch_size = chosen.batch_size // processes.count
        epoch_steps = math.ceil(math.ceil(count / processes.count) / batch_size)
        steps = max(chosen.epochs, 1) * epoch_steps  # with none, the network is only refined
        optimizer = optimizer_for(model, pretrained, chosen)
        precision = training_precision(processes.device)
        return cls(
            model,
            processes.parallel(model),
            copy.deepcopy(model),
            max(0.0, 1 - 1 / (AVERAGED_SHARE * steps)),
            batch_size,
            precision,
            optimizer,
            torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                [group["lr"] for group in optimizer.param_groups],
                total_steps=max(steps, 11),  # with 10 it divides by its warm-up's zero steps
                pct_start=0.1,
            ),
            # Small gradients vanish in half precision unless they are scaled up.
            torch.amp.GradScaler(processes.device.type, enabled=precision is torch.float16),
            epoch_steps,
        )

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return a batch's mean loss in nats, from which gradients can be computed; arguments are as for `step`."""
        with torch.autocast(labels.device.type, self.precision, enabled=self.precision is not torch.float32):
            logits = self.parallel(inputs)
        return training_loss(logits.float(), labels)

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Move the network by one batch.

        Args:
            inputs: float32, shape (N, 3, H, W), on the network's device.
            labels: int64, shape (N,), or probabilities, float32, shape (N, 2), on the network's device.

        Returns:
            The batch's mean loss in nats, where it was computed.
        """
        loss = self.loss(inputs, labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()  # now, so that memory never holds gradients beside what the next forward pass keeps
        return loss.detach()

    def follow(self) -> None:
        """Move the learning rate and the moving average on, after a step."""
        self.schedule.step()
        decay = self.decay if self.schedule.last_epoch > 1 else 0.0  # the first step begins the average
        move_average(self._averages, self._weights, decay)

    def check_finite(self, train_loss: float, validation: Evaluation, learning_rate: float) -> None:
        """Check that an epoch left finite losses, and an average that can be saved.

        Raises:
            TrainingError: it did not.
        """
        finite = math.isfinite(train_loss) and math.isfinite(validation.loss)
        if not (finite and fits_at_rest(self.averaged.state_dict())):
            raise TrainingError(
                f"Training diverged in epoch {len(self.history) + 1}: its loss ({train_loss:g}), that of validation "
                f"({validation.loss:g}) or a weight is not finite, or a weight too large to be saved. Lower "
                f"--learning-rate, now {learning_rate:g}. The best checkpoint before it, if any, is kept."
            )

    def save(self, path: Path, settings: Mapping[str, Any], processes: Processes) -> None:
        """Write the state after an epoch; the one there before is kept beside it.

        Raises:
            OSError: the file cannot be written.
        """
        state = self._state(settings, processes)
        if processes.is_first:
            write(state, path)
        self.saved = len(self.history)

    def _state(self, settings: Mapping[str, Any], processes: Processes) -> dict[str, Any]:
        """Return all that resuming needs, with the settings that must be the same then; every process has to ask."""
        return {
            "settings": settings,
            **{name: getattr(self, name).state_dict() for name in STATEFUL},
            "best": dataclasses.asdict(self.best) if self.best else None,
            "best_state": self.best_state,
            "history": self.history,
            "random": processes.gather_objects(random_states(processes.device)),
        }

    def _form(self, settings: Mapping[str, Any], processes: Processes) -> dict[str, Any]:
        """Return what a state has after an epoch, with any values."""
        state = self._state(settings, processes)
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        moments = [{"step": torch.zeros(()), "exp_avg": weight, "exp_avg_sq": weight} for weight in weights]
        return state | {
            "optimizer": state["optimizer"] | {"state": dict(enumerate(moments))},
            "best": dataclasses.asdict(Evaluation(1, 1, 1.0)),
            "best_state": state["averaged"],
            "history": [EPOCH],
        }

    def resume(self, path: Path, settings: Mapping[str, Any], processes: Processes) -> bool:
        """Go on from the state that `save` wrote last, or from the one before if that is damaged.

        The first process reads it for all.

        Returns:
            Whether there was one.

        Raises:
            ConfigurationError: no state is whole, or it is of a run with other settings or images.
            OSError: the folder cannot be written.
        """
        form = self._form(settings, processes)
        with processes.together():
            own = resumable(path, form, self.epoch_steps) if processes.is_first else None
        state = processes.from_first(own)
        if state is None:
            return False
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.best = Evaluation(**state["best"])
        self.best_state = state["best_state"]
        self.history = state["history"]
        self.saved = len(self.history)
        restore_random_states(state["random"][processes.rank], processes.device)
        say(f"resumed after epoch {len(self.history)} from {path}")
        return True


def optimizer_for(model: nn.Module, pretrained: Collection[str], chosen: Hyperparameters) -> torch.optim.Optimizer:
    """Return AdamW with a group for the parameters that have learned already, and one for the others."""
    named = dict(model.named_parameters())
    rates = {True: chosen.learning_rate * PRETRAINED_RATE, False: chosen.learning_rate}
    groups = [
        {"params": [value for name, value in named.items() if (name in pretrained) is learned], "lr": rate}
        for learned, rate in rates.items()
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, weight_decay=chosen.weight_decay, fused=True)  # unfused, the scaler waits


def training_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy, in nats, of logits (N, 2) with smoothed labels: (N,), or probabilities (N, 2)."""
    return functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)


def move_average(average: Sequence[Tensor], weights: Sequence[Tensor], decay: float) -> None:
    """Move an average of weights on, so that a share `decay` of it stays.

    torch's AveragedModel copies its counter to the GPU at every step, and waits for it.
    """
    get_ema_multi_avg_fn(decay)(average, weights, 0)


def training_precision(device: torch.device) -> torch.dtype:
    """Return the type that matrix products are computed in: the fastest that the device has in hardware."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return torch.bfloat16 if fast else torch.float32


def settings_of(chosen: Hyperparameters, splits: Mapping[str, Split], processes: Processes) -> dict[str, Any]:
    """Return what must be the same for a run to be resumed."""
    names = ("epochs", "batch_size", "learning_rate", "weight_decay", "weights", "seed")
    dataset = fingerprint(
        {name: zip(split.channel.labels, split.digests, strict=True) for name, split in splits.items()}
    )
    return {name: getattr(chosen, name) for name in names} | {
        "processes": processes.count,
        "device": processes.device.type,
        "precision": str(training_precision(processes.device)).removeprefix("torch."),
        "dataset": dataset,
    }
