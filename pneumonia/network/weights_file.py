"""The weights file: a plain state dict with torchvision's key names, kernels in half precision."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from pneumonia.errors import WeightsError, first_line
from pneumonia.files import replacing
from pneumonia.network.contract import CLASSES
from pneumonia.network.resnet import ResNet18


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict with kernels and matrices in half precision; replace `path` only when the file is complete.

    Half precision halves the bytes that a cold start fetches. Biases and batch-norm vectors stay float32: they are 0.2%
    of the bytes, and a running variance may exceed half precision's range.

    Args:
        state: torchvision's key names to tensors, on any device, for which `fits_at_rest` returns True.
        path: file to write.

    Raises:
        OSError: the file cannot be written.
    """
    save_whole({name: _at_rest(tensor) for name, tensor in state.items()}, path)


def fits_at_rest(state: Mapping[str, Tensor]) -> bool:
    """Return whether `save_weights` can write these values: finite, and in kernels and matrices at most 65,504."""
    return all(bool(_at_rest(tensor).isfinite().all()) for tensor in state.values())


def save_whole(content: object, path: Path) -> None:
    """Write a file that torch.load reads with `weights_only`; replace `path` only when the file is complete.

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


def is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Return whether a file's content is a plain state dict: names to tensors."""
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
    path.open("rb").close()  # raises OSError if the file cannot be read
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.save compresses nothing. A compressed pickle could inflate to any amount of memory.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise WeightsError(f"{path} is compressed, which torch.save never does: save it with torch.save.")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except WeightsError:
        raise
    except Exception as error:  # torch.load raises nearly anything on broken data, OSError as well
        raise WeightsError(f"{path} is not a weights file that torch.save wrote whole: {first_line(error)}") from error
    if not is_state_dict(state):
        raise WeightsError(f"{path} is not a plain state dict: save model.state_dict(), not the model itself.")
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
    # ReLU may turn NaN into 0, and the answer would look like any other. A sum is the fastest way to find one.
    broken = [name for name, tensor in state.items() if not math.isfinite(tensor.sum())]
    broken += [name for name, tensor in state.items() if name.endswith("running_var") and tensor.min() < 0]
    if broken:
        raise WeightsError(f"{path} has values that no training leaves in {_some(broken)}: promote another model.")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
