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
from pneumonia.files import NotPlainError, read_plain, replacing
from pneumonia.network.contract import CLASSES
from pneumonia.network.resnet import ResNet18

WEIGHTS = "a weights file that torch.save wrote whole"
MAX_BYTES = 1024**3  # of a file; a ResNet-18's weights have 22 or 45 million, the state of its training 270
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
    save_whole(at_rest(state), path)


def at_rest(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as `save_weights` writes it, on the CPU."""
    return {name: _at_rest(tensor) for name, tensor in state.items()}


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
    with replacing(path) as temporary:
        temporary.write_bytes(saved(content).getbuffer())


def saved(content: object) -> io.BytesIO:
    """Return what torch.save writes; into a file, it reports a full disk as RuntimeError("unexpected pos 802816 …")."""
    file = io.BytesIO()
    torch.save(content, file)
    return file


def load_whole(path: Path, expected: str) -> object:
    """Read what `save_whole` wrote onto the CPU; no code in it is run.

    Args:
        path: file to read.
        expected: what it should be, for the error's sentence.

    Raises:
        WeightsError: torch did not write it, or not whole, or it holds more than data; the sentence says what it is.
        OSError: the file cannot be read.
    """
    return whole_in(_read(path, expected), str(path), expected)


def load_state(path: Path, expected: str) -> dict[str, Tensor]:
    """Read a state dict, and take off its names what DataParallel and torch.compile add.

    Args:
        path: file to read.
        expected: as for `load_whole`.

    Raises:
        WeightsError, OSError: as `load_whole`; or the file holds something else than a state dict.
    """
    return _state_in(_read(path, expected), str(path), expected)


def load_weights(path: Path) -> ResNet18:
    """Load a weights file into a network ready for inference, float32 on the CPU.

    Args:
        path: a state dict with torchvision's key names, in half or single precision. No pickled code is run.

    Raises:
        WeightsError: not a state dict of this network.
        OSError: the file cannot be read.
    """
    return network_in(_read(path, WEIGHTS), str(path))


def network_in(data: bytes, name: str, *, is_checked: bool = False) -> ResNet18:
    """Return the network of a weights file, ready for inference, float32 on the CPU.

    Args:
        data: the file's bytes.
        name: the file's, for the error's sentence.
        is_checked: as for `whole_in`.

    Raises:
        WeightsError: not a state dict of this network.
    """
    state = _state_in(data, name, WEIGHTS, is_checked=is_checked)
    with torch.device("meta"):  # no memory and no random numbers for values that loading replaces
        network = ResNet18()
    expected = network.state_dict()
    _check_names(state, expected, name)
    network.load_state_dict(sound({key: state.pop(key) for key in expected}, expected, name), assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def whole_in(data: bytes, name: str, expected: str, *, is_checked: bool = False) -> object:
    """Return what `save_whole` wrote into a file with these bytes, on the CPU; no code in it is run.

    Args:
        data: the file's bytes.
        name: the file's, for the error's sentence.
        expected: what it should be, for the error's sentence.
        is_checked: the bytes have the digest that they should have. Otherwise the file's own checksums are checked.

    Raises:
        WeightsError: as `load_whole`.
    """
    try:
        if data.startswith(b"PK"):  # torch.load tells whether another file is one of before torch 1.6
            _check_archive(data, name, is_checked=is_checked)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # torch.load raises nearly anything on broken data, OSError as well
        from pneumonia.network.foreign_files import kind_of_file  # noqa: PLC0415  # a cold start goes without

        raise WeightsError(f"{name} is not {expected}, but {kind_of_file(data)}.") from error


def sound(
    state: dict[str, Tensor], expected: Mapping[str, Tensor], name: str, advice: str = "promote another model"
) -> dict[str, Tensor]:
    """Return a file's tensors as networks use them, copied, floating-point numbers as float32.

    Args:
        state: the tensors. It is empty afterwards: if they were kept while copies are made, the process's peak of
            memory would be higher.
        expected: for each of them, and maybe others, one of the right shape and kind of number.
        name: the file's, for the error's sentence.
        advice: what to do instead of using a file with such values, for the error's sentence.

    Raises:
        WeightsError: a tensor has another shape or kind of number, no plain values, or values that no training leaves.
    """
    for key, tensor in state.items():
        _check_tensor(key, tensor, expected[key], name)
    values = {key: _in_use(state.pop(key)) for key in [*state]}
    _check_values(values, name, advice)
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
    # A copy in any case: several tensors of a file may share their values.
    return tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)


def _read(path: Path, expected: str) -> bytes:
    try:
        return read_plain(path, MAX_BYTES)
    except NotPlainError as error:
        raise WeightsError(f"{path} is not {expected}: {error.strerror}.") from error


def _state_in(data: bytes, name: str, expected: str, *, is_checked: bool = False) -> dict[str, Tensor]:
    content = whole_in(data, name, expected, is_checked=is_checked)
    if not is_state_dict(content):
        from pneumonia.network.foreign_files import kind_of_content  # noqa: PLC0415  # a cold start goes without

        raise WeightsError(f"{name} is not a plain state dict, but {kind_of_content(content)}.")
    bare = [".".join(part for part in key.split(".") if part not in WRAPPERS) for key in content]
    return dict(zip(bare, content.values(), strict=True)) if len(set(bare)) == len(bare) else content


def _check_archive(data: bytes, name: str, *, is_checked: bool) -> None:
    """Check that torch.load may read a zip archive, and, unless that is known, that it has no damage.

    Raises:
        WeightsError: it is compressed.
        ValueError: torch.save did not write it. Of TorchScript, torch.load would print a warning as well.
        zipfile.BadZipFile: it is damaged.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {Path(entry.filename).name: entry.compress_type for entry in archive.infolist()}
        if "data.pkl" not in members or "constants.pkl" in members:
            raise ValueError("not written by torch.save")
        # torch.save compresses nothing. A compressed pickle could inflate to any amount of memory.
        if set(members.values()) != {zipfile.ZIP_STORED}:
            raise WeightsError(f"{name} is compressed, which torch.save never does: save it with torch.save.")
        if not is_checked and (broken := archive.testzip()):  # torch.load does not look at the checksums
            raise zipfile.BadZipFile(f"{broken} has another checksum")


def _check_names(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: str) -> None:
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if not (missing or unknown):
        return
    from pneumonia.names import some  # noqa: PLC0415  # a cold start goes without
    from pneumonia.network.architectures import network_of  # noqa: PLC0415

    kind = network_of(state)
    if missing:
        instead = f", but {kind}" if kind else ""
        raise WeightsError(
            f"{file} lacks {some(missing)}: it is not a ResNet-18 with torchvision's key names{instead}."
        )
    instead = f". It is {kind}" if kind else ""
    raise WeightsError(f"{file} has tensors that ResNet-18 lacks: {some(unknown)}{instead}.")


def _check_tensor(name: str, tensor: Tensor, expected: Tensor, file: str) -> None:
    if tensor.shape != expected.shape:
        raise WeightsError(
            f"{file} has {name} of shape {tuple(tensor.shape)} where this network has {tuple(expected.shape)}: "
            f"it must be a ResNet-18 with {len(CLASSES)} outputs."
        )
    if tensor.is_floating_point() != expected.is_floating_point():
        raise WeightsError(f"{file} has {name} of type {tensor.dtype}, but {expected.dtype} is expected.")
    if tensor.is_meta or tensor.layout is not torch.strided:
        raise WeightsError(f"{file} has {name} without values of its own: save plain, dense tensors.")


def _check_values(state: Mapping[str, Tensor], file: str, advice: str) -> None:
    # ReLU may turn NaN into 0, and the answer would look like any other. A sum is the fastest way to find one.
    broken = {name: "NaN or infinite" for name, tensor in state.items() if not math.isfinite(tensor.sum())}
    variances = {name: tensor for name, tensor in state.items() if name.endswith("running_var")}
    broken |= {name: "negative" for name, tensor in variances.items() if tensor.min() < 0}
    if broken:
        from pneumonia.names import some  # noqa: PLC0415  # a cold start goes without

        kinds = " or ".join(dict.fromkeys(broken.values()))
        raise WeightsError(f"{file} has {kinds} values that no training leaves in {some([*broken])}: {advice}.")
