"""ResNet-18 as torchvision has it, but training it on a CPU takes less memory: docs/performance.md has the figures."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from torchvision.models.resnet import BasicBlock, ResNet

from pneumonia.network.contract import CLASSES

# What takes long, and so is kept of a block that is computed again in the backward pass.
_KEPT = functools.partial(create_selective_checkpoint_contexts, [torch.ops.aten.convolution.default])


class SparingResNet18(ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet-18 with an output for each class. Its gradients are torchvision's, to the last bit.

    On a CPU, less is kept from the forward pass for the backward pass. ReLU follows pooling instead of preceding it,
    which changes no value, and the input of pooling is not kept. In single precision, batch norm and ReLU of `layer1`
    are computed again in the backward pass; in mixed precision that would take longer. So there the running statistics
    move twice in a step (training re-estimates them), and a forward pass allows one backward pass.
    """

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2])
        self.fc = nn.Linear(512, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images, float32 (N, 3, H, W), to logits (N, 2) in the order of CLASSES."""
        if not (x.is_cpu and torch.is_grad_enabled()):
            return super().forward(x)  # type: ignore[no-any-return]
        x = self.relu(_SparingPool.apply(self.bn1(self.conv1(x))))
        for block in self.layer1:
            x = block(x) if torch.is_autocast_enabled("cpu") else _computed_again(block, x)
        x = self.layer4(self.layer3(self.layer2(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


def _computed_again(block: nn.Module, x: Tensor) -> Tensor:
    """Run a block, and keep only its input and the outputs of its convolutions for the backward pass."""
    return checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, context_fn=_KEPT)  # type: ignore[no-any-return]


class _SparingPool(torch.autograd.Function):
    """ResNet's max pooling, which keeps its indices in 32 bits instead of 64, and not its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401
        """Map (N, C, H, W) to (N, C, H / 2, W / 2), rounded up."""
        ctx.input = {"size": x.shape, "stride": x.stride(), "dtype": x.dtype}
        pooled, places = functional.max_pool2d_with_indices(x, [3, 3], [2, 2], [1, 1])
        ctx.save_for_backward(places.int())
        return pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        """Return the gradient of the input."""
        (places,) = ctx.saved_tensors
        # Of the input only shape and strides count here. Memory that nobody touches takes no room.
        input_ = torch.empty_strided(**ctx.input)
        return torch.ops.aten.max_pool2d_with_indices_backward(  # type: ignore[no-any-return]
            gradient, input_, [3, 3], [2, 2], [1, 1], [1, 1], ceil_mode=False, indices=places.long()
        )
