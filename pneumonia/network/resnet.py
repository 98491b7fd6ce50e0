"""The network, its classes, and its weights on disk.

`ResNet18` takes the state dict of torchvision's `resnet18` with two outputs and gives the same outputs, without the
import of torchvision (its cost: docs/performance.md). Training uses torchvision's own.
"""

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from pneumonia.errors import WeightsError, first_line
from pneumonia.files import replacing
from pneumonia.imaging.decoding import SIZE, normalize

CLASSES = ("NORMAL", "PNEUMONIA")  # in the order of the network's outputs


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2015, figure 5, left)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + shortcut)  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2015, table 1) with one output per class, under torchvision's key names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images, float32 (N, 3, 224, 224), to logits (N, 2) in the order of CLASSES."""
        return self.fc(torch.flatten(self.avgpool(self.layers(x)[-1]), 1))  # type: ignore[no-any-return]

    def layers(self, x: Tensor) -> list[Tensor]:
        """Map images as `forward` takes them to the outputs of the four layers.

        Returns:
            (N, 64, 56, 56), (N, 128, 28, 28), (N, 256, 14, 14) and (N, 512, 7, 7). The means over the last one's
            positions are what `fc` makes logits of.
        """
        outputs = [self.maxpool(self.relu(self.bn1(self.conv1(x))))]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            outputs.append(layer(outputs[-1]))
        return outputs[1:]


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict, kernels and matrices in half precision, and replace `path` only when it is complete.

    Half precision halves the bytes a cold start fetches. Biases and batch-norm vectors stay float32: they are 0.2% of
    the bytes, and a running variance may leave half precision's range.

    Args:
        state: torchvision's key names to tensors, on any device, which `fits_at_rest`.
        path: file to write.

    Raises:
        OSError: the file cannot be written.
    """
    save_whole({name: _at_rest(tensor) for name, tensor in state.items()}, path)


def fits_at_rest(state: Mapping[str, Tensor]) -> bool:
    """Tell whether `save_weights` can write these values: finite, and of kernels and matrices none beyond 65,504."""
    return all(bool(_at_rest(tensor).isfinite().all()) for tensor in state.values())


def save_whole(content: object, path: Path) -> None:
    """Write what torch.load reads with `weights_only`, and replace `path` only when it is complete.

    Args:
        content: tensors, numbers and strings, in dicts and lists.
        path: file to write.

    Raises:
        OSError: the file cannot be written.
    """
    buffer = io.BytesIO()  # torch.save into a file reports a full disk as RuntimeError("unexpected pos 802816 …")
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_weights(path: Path) -> ResNet18:
    """Load a weights file into a network ready for inference, float32 on the CPU.

    Args:
        path: a state dict with torchvision's key names, in half or single precision. No pickled code is run.

    Raises:
        WeightsError: not a state dict of this network.
        OSError: the file cannot be read.
    """
    state = _read_state(path)
    with torch.device("meta"):  # no memory and no random numbers for values that loading replaces
        network = ResNet18()
    _check_shapes(state, network.state_dict(), path)
    values = {name: _in_use(tensor) for name, tensor in state.items()}
    _check_values(values, path)
    network.load_state_dict(values, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


@torch.inference_mode()
def logits_of(network: nn.Module, pixels: Tensor, batch_size: int) -> Tensor:
    """Run a network over many images, in float32 as it serves.

    Args:
        network: in evaluation mode, on any device.
        pixels: uint8, shape (N, 3, SIZE, SIZE).
        batch_size: images at a time.

    Returns:
        float32, shape (N, 2), on the network's device, in the order of CLASSES.
    """
    device = next(network.parameters()).device
    parts = (pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size))
    batches = (normalize(part.to(device)).contiguous(memory_format=torch.channels_last) for part in parts)
    return torch.cat([network(batch) for batch in batches])


def check_outputs(network: Callable[[Tensor], Tensor], name: str) -> None:
    """See that a network answers with numbers: to noise, to black and to white.

    Args:
        network: images (N, 3, SIZE, SIZE) to logits (N, 2).
        name: where it is from, for the error's sentence.

    Raises:
        WeightsError: an output is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        outputs = network(normalize(torch.cat([noise, black_and_white])))
    if not outputs.isfinite().all():
        raise WeightsError(f"The outputs of the network in {name} are not finite: training diverged, train again.")


def is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Tell whether a file's content is a plain state dict: names to tensors."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def _at_rest(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor.clone()


def _in_use(tensor: Tensor) -> Tensor:
    # A copy in any case: a tensor still mapped to the file would change, or crash the process, with the file.
    return tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)


def _read_state(path: Path) -> dict[str, Tensor]:
    path.open("rb").close()  # raises OSError where the file cannot be read
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.save compresses nothing. A pickle that torch inflates could stand for any amount of memory.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise WeightsError(f"{path} is compressed, as torch.save never does: it is refused.")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except WeightsError:
        raise
    except Exception as error:  # torch.load raises nearly anything on broken data, OSError as well
        raise WeightsError(f"{path} is not a weights file that torch.save wrote whole: {first_line(error)}") from error
    if not is_state_dict(state):
        raise WeightsError(f"{path} holds no plain state dict: save model.state_dict(), not the model itself.")
    return state


def _check_shapes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    if missing := sorted(expected.keys() - state.keys()):
        raise WeightsError(f"{path} lacks {_some(missing)}: it is not a ResNet-18 with torchvision's key names.")
    if unknown := sorted(state.keys() - expected.keys()):
        raise WeightsError(f"{path} has tensors that ResNet-18 lacks: {_some(unknown)}.")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise WeightsError(
                f"{path} has {name} of shape {tuple(state[name].shape)} where this network has {tuple(tensor.shape)}: "
                f"it must be a ResNet-18 with {len(CLASSES)} outputs."
            )
        if state[name].is_floating_point() != tensor.is_floating_point():
            raise WeightsError(f"{path} has {name} of type {state[name].dtype}, but {tensor.dtype} is expected.")
        if state[name].is_meta or state[name].layout is not torch.strided:
            raise WeightsError(f"{path} has {name} without values of its own: save plain, dense tensors.")


def _check_values(state: Mapping[str, Tensor], path: Path) -> None:
    # ReLU may turn what is not a number into 0, and the answer would look like any other. One sum finds it soonest.
    broken = [name for name, tensor in state.items() if not math.isfinite(tensor.sum())]
    broken += [name for name, tensor in state.items() if name.endswith("running_var") and tensor.min() < 0]
    if broken:
        raise WeightsError(f"{path} has values that no training leaves in {_some(broken)}: promote another model.")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
