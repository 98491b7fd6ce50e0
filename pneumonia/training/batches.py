"""What each process sees of a split: its share of the images, in batches, varied and normalised."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pneumonia.command import progress
from pneumonia.errors import ConfigurationError, DataError
from pneumonia.network.resnet import logits_of, normalize
from pneumonia.training.augmentation import augment
from pneumonia.training.channels import Channel
from pneumonia.training.data_checking import check_readable
from pneumonia.training.images import Images, decode_channel
from pneumonia.training.processes import Processes
from pneumonia.training.shown_otherwise import shown_otherwise

GPU_IMAGES = 512  # varied at once on a GPU, which does the 150 small computations sooner than Python starts them
# Of the recipe; docs/model-card.md says what it was chosen by.
RETAKEN_SHARE = 0.5  # of the images, varied as if they had been taken otherwise


@dataclass(frozen=True)
class Split:
    """A split of the data: what every process knows of it, and the images that this process holds.

    Attributes:
        channel: the files of all processes' images.
        images: this process's.
        digests: SHA-256 of all processes' files, in the order of the channel.
    """

    channel: Channel
    images: Images
    digests: list[str] = dataclasses.field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of images of all processes."""
        return len(self.channel.paths)

    @property
    def labels(self) -> Tensor:
        """Indices in CLASSES of all processes' images, int64, shape (count,)."""
        return torch.tensor(self.channel.labels)


def check_divisible(batch_size: int, channels: Mapping[str, Channel], processes: Processes) -> None:
    """Check that every process gets its part of each batch and of each split.

    Raises:
        ConfigurationError: the batch cannot be divided.
        DataError: a split has fewer images than there are processes.
    """
    if batch_size % processes.count:
        raise ConfigurationError(
            f"--batch-size {batch_size} cannot be divided among {processes.count} processes: make it a multiple."
        )
    for channel in channels.values():
        if len(channel.paths) < processes.count:
            raise DataError(
                f"Channel '{channel.name}' has {len(channel.paths)} images for {processes.count} processes: use fewer "
                "instances or GPUs."
            )


def load_splits(channels: Mapping[str, Channel], workers: int, processes: Processes) -> dict[str, Split]:
    """Decode this process's share of each channel.

    Raises:
        DataError: images of any channel cannot be read, in any process; it names them in all processes.
        OSError: as `decode_channel`.
    """
    with processes.together():
        shares = {name: load_share(channel, workers, processes) for name, channel in channels.items()}
    broken = processes.gather_objects([problem for _, problems in shares.values() for problem in problems])
    check_readable(sorted(problem for problems in broken for problem in problems))
    return {
        name: Split(channels[name], images, processes.gather_list(images.digests))
        for name, (images, _) in shares.items()
    }


def load_share(channel: Channel, workers: int, processes: Processes) -> tuple[Images, list[str]]:
    """Decode this process's share of a channel; keep it on the GPU where it takes less than half of what is free.

    Returns:
        The images, and what is wrong with those that cannot be read.

    Raises:
        OSError: as `decode_channel`.
    """
    share = dataclasses.replace(
        channel, paths=list(processes.share(channel.paths)), labels=list(processes.share(channel.labels))
    )
    images, broken = decode_channel(share, workers)
    if processes.device.type == "cuda" and images.pixels.nbytes < torch.cuda.mem_get_info()[0] / 2:
        images = dataclasses.replace(images, pixels=images.pixels.to(processes.device))
    return images, broken


def shuffled_batches(
    split: Split, batch_size: int, processes: Processes, label: str = ""
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's images in random order on its device, its part of `batch_size` at a time.

    On a GPU it yields several such parts at once, GPU_IMAGES images where they fit in. Every process yields as many
    images: one whose share is an image smaller repeats one.

    Args:
        split: the images.
        batch_size: of all processes together.
        processes: those that train together.
        label: what stands before the bar that a terminal shows.

    Yields:
        Images, uint8, shape (N, C, H, W), and their labels, int64, shape (N,).
    """
    images, device = split.images, processes.device
    longest = math.ceil(split.count / processes.count)
    order = torch.randperm(len(images))
    order = torch.cat([order, order[: longest - len(order)]]).to(images.pixels.device)
    all_labels = images.labels.to(images.pixels.device)
    part = batch_size // processes.count
    at_once = max(1, GPU_IMAGES // part) if device.type == "cuda" else 1
    parts = order.split(part * at_once)
    for index in progress(parts, len(parts), label):
        pixels, labels = images.pixels[index], all_labels[index]
        if pixels.is_cpu and device.type == "cuda":  # only from pinned memory does the copy run beside the computation
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
        yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def network_input(images: Tensor, size: int, shown: float = 0.0) -> Tensor:
    """Vary images and normalise them.

    Args:
        images: uint8, shape (N, C, H, W).
        size: height and width of the result in pixels.
        shown: share of the images that is photographed, and share that gets other grays.

    Returns:
        float32, shape (N, 3, size, size), its channels last in memory.
    """
    return normalize(shown_otherwise(augment(images, size, RETAKEN_SHARE), shown))


def all_logits(network: nn.Module, split: Split, batch_size: int, processes: Processes) -> Tensor:
    """Run a network over a split, in float32 as it serves, each process over its share.

    Returns:
        Logits of all images on the CPU, in the order of the channel, float32, shape (N, 2).
    """
    return processes.gather(logits_of(network.eval(), split.images.pixels, batch_size))
