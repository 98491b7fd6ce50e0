"""Training in one process or in several, on one machine or more, as torchrun starts them.

Every process holds a share of the images and the whole network. What they have to agree on goes through here.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from pneumonia.errors import ConfigurationError, PneumoniaError, first_line
from pneumonia.training.torchrun import number

Item = TypeVar("Item")
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """The processes of one training.

    Attributes:
        count: number of processes on all machines.
        rank: this process's number, from 0; the first one writes files and the log.
        device: where this process computes.
    """

    count: int
    rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and the log."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's items: every `count`-th, so that each process gets its part of every class."""
        return items[self.rank :: self.count]

    def gather(self, share: Tensor) -> Tensor:
        """Return the rows of all processes' shares, on the CPU, in the order of all items."""
        shares = self.gather_objects(share.cpu())
        rows = torch.cat(shares)
        for rank, part in enumerate(shares):
            rows[rank :: self.count] = part
        return rows

    def gather_list(self, share: Sequence[Item]) -> list[Item]:
        """Return the items of all processes' shares, in the order of all items."""
        shares = self.gather_objects(share)
        whole = [item for part in shares for item in part]
        for rank, part in enumerate(shares):
            whole[rank :: self.count] = part
        return whole

    def gather_objects(self, own: Item) -> list[Item]:
        """Return what each process passes, by rank."""
        if self.count == 1:
            return [own]
        everyones: list[Item] = [own] * self.count
        distributed.all_gather_object(everyones, own)
        return everyones

    def mean(self, own: float) -> float:
        """Return the mean of what each process passes."""
        return sum(self.gather_objects(own)) / self.count

    def from_first(self, own: Item) -> Item:
        """Return what the first process passes."""
        held = [own]
        if self.count > 1:
            distributed.broadcast_object_list(held, 0)
        return held[0]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """End all processes with the same error where one of them meets an error within.

        Without it the others would wait for the one that has ended, and report a lost connection instead.

        Raises:
            PneumoniaError, OSError: what one of them met, the one of the lowest rank first.
        """
        failure: Exception | None = None
        try:
            yield
        except (PneumoniaError, OSError) as error:
            failure = error
        if failures := [one for one in self.gather_objects(failure) if one]:
            raise failures[0]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each floating-point tensor by its mean over the processes."""
        for tensor in tensors if self.count > 1 else ():
            if tensor.is_floating_point():
                distributed.all_reduce(tensor.div_(self.count))

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first process's."""
        for tensor in tensors if self.count > 1 else ():
            distributed.broadcast(tensor, 0)

    def parallel(self, network: nn.Module) -> nn.Module:
        """Return the network so wrapped that its gradients are averaged over the processes."""
        if self.count == 1:
            return network
        wrapped = nn.parallel.DistributedDataParallel(network)
        wrapped.broadcast_buffers = False  # batch norm's statistics, which training re-estimates after each epoch
        return wrapped


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun started, and leave them at the end; without torchrun there is one.

    After an error this process stays joined until it ends: the others fail when it leaves, and it should report its own
    reason first.

    Raises:
        ConfigurationError: torchrun's variables are not as it sets them, or the processes cannot be joined.
    """
    count, rank, local_rank = number("WORLD_SIZE", 1, least=1), number("RANK", 0), number("LOCAL_RANK", 0)
    _check_ranks(count, rank, local_rank)
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL, and objects gathered through it, use the current one
        torch.backends.cudnn.allow_tf32 = False  # not TF32: what is fitted here is served in true float32
    if count > 1:
        # The first meeting comes after all have decoded their images, which may take one of them long.
        _join("nccl" if device.type == "cuda" else "gloo")
    yield Processes(count, rank, device)
    if count > 1:
        distributed.destroy_process_group()


def _check_ranks(count: int, rank: int, local_rank: int) -> None:
    devices = torch.cuda.device_count() if torch.cuda.is_available() else count
    for name, value, limit, of in (("RANK", rank, count, "processes"), ("LOCAL_RANK", local_rank, devices, "devices")):
        if value >= limit:
            raise ConfigurationError(
                f"{name} is {value}, but there are {limit} {of}, counted from 0: start the processes with torchrun, or "
                "unset it to train in one."
            )


def _join(backend: str) -> None:
    try:
        distributed.init_process_group(backend, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:  # variables that are missing or wrong, or nobody at the address
        raise ConfigurationError(
            f"The processes cannot be joined ({first_line(error)}): start them with torchrun, which sets MASTER_ADDR "
            "and MASTER_PORT, or unset WORLD_SIZE to train in one."
        ) from error
