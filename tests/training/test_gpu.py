"""What a machine without a GPU can tell of training on one: PyTorch's fake tensors have devices, and no values."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pneumonia.imaging.preprocessing import SIZE
from pneumonia.training.batches import GPU_IMAGES, Split, network_input, shuffled_batches
from pneumonia.training.channels import Channel
from pneumonia.training.images import Images
from pneumonia.training.processes import Processes
from pneumonia.training.run import move_average

GPU = torch.device("cuda", 0)


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what makes Python wait for a GPU: reading its values, and copies that are not told not to block."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        """Run an operation, and count it where it waits."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        devices = {value.device.type for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor)}
        copies = len(devices) > 1 and not kwargs.get("non_blocking")
        if copies or str(func) == "aten._local_scalar_dense.default":
            self.count += 1
        return result


def images_on_gpu(count: int) -> Split:
    """Return a split whose images lie on a GPU; call it within `FakeTensorMode`."""
    pixels = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.uint8, device=GPU)
    labels = torch.zeros(count, dtype=torch.int64, device=GPU)
    return Split(Channel("train", Path(), [Path()] * count, [0] * count), Images(pixels, labels, [""] * count))


def waits_of(steps: int) -> int:
    """Count what waits while images are drawn, copied and varied, and weights averaged, for steps of four images."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        split, weights = images_on_gpu(4 * steps), [torch.zeros(3, device=GPU)]
        with Waits() as waits:  # type: ignore[no-untyped-call]
            for images, _ in shuffled_batches(split, 4, Processes(1, 0, GPU)):
                inputs = network_input(images, 64)
                assert inputs.device == GPU
                for _ in range(len(inputs) // 4):
                    move_average(weights, weights, 0.5)
        return int(waits.count)


def test_no_step_waits_for_the_gpu() -> None:
    """Only the order of the images is copied there in the ordinary way, once an epoch."""
    assert waits_of(GPU_IMAGES) == waits_of(1) == 1


def test_what_waits_is_counted() -> None:
    with FakeTensorMode(), Waits() as waits:  # type: ignore[no-untyped-call]
        torch.zeros(3).to(GPU)
        torch.zeros(3).to(GPU, non_blocking=True)
        assert waits.count == 1


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [(32, [512, 512, 176]), (100, [500, 500, 200]), (512, [512, 512, 176]), (600, [600, 600])],
)
def test_several_batches_are_varied_at_once(batch_size: int, expected: list[int]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        batches = list(shuffled_batches(images_on_gpu(1200), batch_size, Processes(1, 0, GPU)))
    assert [len(images) for images, _ in batches] == expected
