"""The weights file: a plain state dict with torchvision's key names, kernels in half precision."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from pneumonia.errors import WeightsError
from pneumonia.files import replacing
from pneumonia.network.contract import CLASSES
from pneumonia.network.resnet import ResNet18

WRAPPERS = {"module", "_orig_mod"}  # parts of names that DataParallel and torch.compile put there, in front or between


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


def load_whole(path: Path, expected: str, *, mmap: bool = False) -> object:
    """Read what `save_whole` wrote onto the CPU; no code in it is run.

    Args:
        path: file to read.
        expected: what it should be, for the error's sentence.
        mmap: leave the tensors in the file until they are used, unchecked; files from before torch 1.6 do not allow it.

    Raises:
        WeightsError: torch did not write it, or not whole, or it holds more than data; the sentence says what it is.
        OSError: the file cannot be read.
    """
    if path.is_fifo():  # which opens only when somebody writes into it
        raise WeightsError(f"{path} is not {expected}, but a pipe: name a file on the disk.")
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    try:
        if is_archive:  # torch.load tells whether another file is one of before torch 1.6
            _check_archive(path, whole=not mmap)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except WeightsError:
        raise
    except Exception as error:  # torch.load raises nearly anything on broken data, OSError as well
        from pneumonia.network.foreign_files import kind_of_file  # noqa: PLC0415  # a cold start goes without

        raise WeightsError(f"{path} is not {expected}, but {kind_of_file(path, error)}.") from error


def load_state(path: Path, expected: str, *, mmap: bool = False) -> dict[str, Tensor]:
    """Read a state dict, and take off its names what DataParallel and torch.compile add.

    Args:
        path: file to read.
        expected: as for `load_whole`.
        mmap: as for `load_whole`.

    Raises:
        WeightsError, OSError: as `load_whole`; or the file holds something else than a state dict.
    """
    content = load_whole(path, expected, mmap=mmap)
    if not is_state_dict(content):
        from pneumonia.network.foreign_files import kind_of_content  # noqa: PLC0415  # a cold start goes without

        raise WeightsError(f"{path} is not a plain state dict, but {kind_of_content(content)}.")
    bare = [".".join(part for part in name.split(".") if part not in WRAPPERS) for name in content]
    return dict(zip(bare, content.values(), strict=True)) if len(set(bare)) == len(bare) else content


def load_weights(path: Path) -> ResNet18:
    """Load a weights file into a network ready for inference, float32 on the CPU.

    Args:
        path: a state dict with torchvision's key names, in half or single precision. No pickled code is run.

    Raises:
        WeightsError: not a state dict of this network.
        OSError: the file cannot be read.
    """
    state = load_state(path, "a weights file that torch.save wrote whole", mmap=True)
    with torch.device("meta"):  # no memory and no random numbers for values that loading replaces
        network = ResNet18()
    expected = network.state_dict()
    _check_names(state, expected, path)
    network.load_state_dict(sound({name: state[name] for name in expected}, expected, path), assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def sound(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, advice: str = "promote another model"
) -> dict[str, Tensor]:
    """Return a file's tensors as networks use them, copied, floating-point numbers as float32.

    Args:
        state: the tensors.
        expected: for each of them, and maybe others, one of the right shape and kind of number.
        path: the file, for the error's sentence.
        advice: what to do instead of using a file with such values, for the error's sentence.

    Raises:
        WeightsError: a tensor has another shape or kind of number, no plain values, or values that no training leaves.
    """
    for name, tensor in state.items():
        _check_tensor(name, tensor, expected[name], path)
    values = {name: _in_use(tensor) for name, tensor in state.items()}
    _check_values(values, path, advice)
    return values


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


def _check_archive(path: Path, *, whole: bool) -> None:
    """Check that torch.load may read a zip archive.

    Args:
        path: the file.
        whole: check also that each byte is as the archive's checksums say, which torch.load does not.

    Raises:
        WeightsError: it is compressed.
        ValueError: torch.save did not write it. Of TorchScript, torch.load would print a warning as well.
        zipfile.BadZipFile: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        members = {Path(entry.filename).name: entry.compress_type for entry in archive.infolist()}
        if "data.pkl" not in members or "constants.pkl" in members:
            raise ValueError("not written by torch.save")
        # torch.save compresses nothing. A compressed pickle could inflate to any amount of memory.
        if set(members.values()) != {zipfile.ZIP_STORED}:
            raise WeightsError(f"{path} is compressed, which torch.save never does: save it with torch.save.")
        if whole and (broken := archive.testzip()):
            raise zipfile.BadZipFile(f"{broken} has another checksum")


def _check_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if not (missing or unknown):
        return
    from pneumonia.names import some  # noqa: PLC0415  # a cold start goes without
    from pneumonia.network.architectures import network_of  # noqa: PLC0415

    kind = network_of(state)
    if missing:
        instead = f", but {kind}" if kind else ""
        raise WeightsError(
            f"{path} lacks {some(missing)}: it is not a ResNet-18 with torchvision's key names{instead}."
        )
    instead = f". It is {kind}" if kind else ""
    raise WeightsError(f"{path} has tensors that ResNet-18 lacks: {some(unknown)}{instead}.")


def _check_tensor(name: str, tensor: Tensor, expected: Tensor, path: Path) -> None:
    if tensor.shape != expected.shape:
        raise WeightsError(
            f"{path} has {name} of shape {tuple(tensor.shape)} where this network has {tuple(expected.shape)}: "
            f"it must be a ResNet-18 with {len(CLASSES)} outputs."
        )
    if tensor.is_floating_point() != expected.is_floating_point():
        raise WeightsError(f"{path} has {name} of type {tensor.dtype}, but {expected.dtype} is expected.")
    if tensor.is_meta or tensor.layout is not torch.strided:
        raise WeightsError(f"{path} has {name} without values of its own: save plain, dense tensors.")


def _check_values(state: Mapping[str, Tensor], path: Path, advice: str) -> None:
    # ReLU may turn NaN into 0, and the answer would look like any other. A sum is the fastest way to find one.
    broken = {name: "NaN or infinite" for name, tensor in state.items() if not math.isfinite(tensor.sum())}
    variances = {name: tensor for name, tensor in state.items() if name.endswith("running_var")}
    broken |= {name: "negative" for name, tensor in variances.items() if tensor.min() < 0}
    if broken:
        from pneumonia.names import some  # noqa: PLC0415  # a cold start goes without

        kinds = " or ".join(dict.fromkeys(broken.values()))
        raise WeightsError(f"{path} has {kinds} values that no training leaves in {some([*broken])}: {advice}.")
