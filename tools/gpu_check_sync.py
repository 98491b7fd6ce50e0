"""Train for some steps, of which none may wait for the GPU. Part of tools/gpu_check.py."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from pneumonia.imaging.preprocessing import SIZE
from pneumonia.training.batches import GPU_IMAGES, Split, shuffled_batches
from pneumonia.training.channels import Channel
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.images import Images
from pneumonia.training.pretrained import build_network
from pneumonia.training.processes import Processes
from pneumonia.training.run import Run
from train_model import SMALL_SIZE, train_one_epoch

BATCH_SIZE = 32
COUNT = 3 * GPU_IMAGES  # images: three times what is varied at once


def watched(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches; from the first one's end to the last one's, whatever waits for the GPU is an error.

    Before, the order of the images is copied to the GPU and libraries are loaded; afterwards the loss is read.
    """
    for batch in batches:
        yield batch
        torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


def main() -> None:
    """Train for an epoch of each size on images of noise."""
    device = torch.device("cuda", torch.cuda.current_device())
    processes = Processes(1, 0, device)
    pixels = torch.randint(0, 256, (COUNT, 1, SIZE, SIZE), dtype=torch.uint8, device=device)
    labels = torch.arange(COUNT, device=device) % 2
    split = Split(Channel("train", Path(), [Path()] * COUNT, labels.tolist()), Images(pixels, labels, [""] * COUNT))
    chosen = Hyperparameters(learning_rate=1e-4, epochs=2, batch_size=BATCH_SIZE)
    run = Run.start(build_network("none")[0], (), chosen, COUNT, processes)
    sizes = (SMALL_SIZE, SIZE)
    for size in sizes:
        train_one_epoch(run, watched(shuffled_batches(split, BATCH_SIZE, processes)), size)
    print(f"none of {len(sizes) * (COUNT - GPU_IMAGES) // BATCH_SIZE} steps waits")


if __name__ == "__main__":
    main()
