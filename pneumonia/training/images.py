"""The decoded images of a channel, each decoded once for a whole training."""

import hashlib
import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from torch import Tensor

from pneumonia.command import progress
from pneumonia.errors import ImageError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import SIZE, resize
from pneumonia.imaging.reading import read_file
from pneumonia.training.channels import Channel
from pneumonia.training.data_checking import check_readable, unreadable
from pneumonia.training.torchrun import processes_here


@dataclass(frozen=True)
class Images:
    """A decoded channel.

    Attributes:
        pixels: uint8, shape (N, 1, SIZE, SIZE) where all images are gray, as radiographs are, else (N, 3, SIZE, SIZE).
        labels: int64, shape (N,), indices in CLASSES.
        digests: SHA-256 of each file, in the order of the images.
    """

    pixels: Tensor
    labels: Tensor
    digests: list[str]

    def __len__(self) -> int:
        return len(self.labels)


def load_channel(channel: Channel, workers: int, memory: int | None = None) -> Images:
    """Decode every image of a channel, as `decode_channel`.

    Raises:
        DataError: images that cannot be read, by name.
        OSError: as `decode_channel`.
    """
    images, broken = decode_channel(channel, workers, memory)
    check_readable(broken)
    return images


def decode_channel(channel: Channel, workers: int, memory: int | None = None) -> tuple[Images, list[str]]:
    """Decode every image of a channel: 50 KB an image, or 150 KB where one has colours.

    Args:
        channel: the files.
        workers: threads that decode; Pillow lets them run side by side.
        memory: bytes that the pixels may take. Where they take more, they go to a file without a name in the temporary
            folder, which the system keeps in memory as far as there is room. By default half of what is free, which
            torchrun's processes divide among them.

    Returns:
        The images, and of each that cannot be read its name and what is wrong with it.

    Raises:
        OSError: the temporary folder cannot be written, or is full; `filename` tells where it is.
    """
    if memory is None:
        memory = psutil.virtual_memory().available // 2 // processes_here()
    try:
        return _load(channel, _room(len(channel.paths), 1, memory), workers)
    except _ColouredError:
        return _load(channel, _room(len(channel.paths), 3, memory), workers)


class _ColouredError(Exception):
    """An image has colours, and only one channel was kept for it."""


def _room(count: int, depth: int, memory: int) -> Tensor:
    """Return room for decoded images, uint8, shape (count, depth, SIZE, SIZE)."""
    shape = (count, depth, SIZE, SIZE)
    if math.prod(shape) <= memory:
        return torch.empty(shape, dtype=torch.uint8)
    try:
        with tempfile.NamedTemporaryFile(prefix="pneumonia-images-") as file:  # the mapping outlives the name
            for _ in range(count):  # into a file with holes a full disk would end the process with SIGBUS
                file.write(bytes(math.prod(shape[1:])))
            file.flush()
            return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=torch.uint8).view(shape)
    except OSError as error:
        error.filename = error.filename or tempfile.gettempdir()  # a full disk is told without a name
        raise


def _load(channel: Channel, pixels: Tensor, workers: int) -> tuple[Images, list[str]]:
    """Decode a channel into `pixels`, several images side by side."""
    images = Images(pixels, torch.tensor(channel.labels), [""] * len(channel.paths))
    count = len(images)
    with ThreadPoolExecutor(workers) as pool:
        try:
            results = pool.map(lambda index: _decode(channel, images, index), range(count))
            broken = [problem for problem in progress(results, count, f"decoding {channel.name}") if problem]
        except _ColouredError:
            pool.shutdown(cancel_futures=True)
            raise
    return images, broken


def _decode(channel: Channel, images: Images, index: int) -> str | None:
    """Decode one image into its place; return what is wrong with it, None where it is fine.

    Raises:
        _ColouredError: it has colours, and there is no room for them.
    """
    path = channel.paths[index]
    try:
        data = read_file(path)
        image = resize(decode(data).image)
    except (ImageError, OSError) as error:
        return unreadable(channel, path, error)
    depth = images.pixels.shape[1]
    if depth == 1 and not (np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2])):
        raise _ColouredError
    images.pixels[index] = torch.from_numpy(image[:depth].copy())
    images.digests[index] = hashlib.sha256(data).hexdigest()
    return None
