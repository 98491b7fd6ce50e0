"""What a file is that cannot be used as weights, and what to do; imported only for errors.

Each function returns the end of a sentence that begins "weights.pth is not a weights file, but ". The names in it come
from the file, so they are quoted if a terminal would not print them.
"""

import io
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pneumonia.names import on_terminal, some

SAVE_IT = "save model.state_dict() with torch.save"
AGAIN = "copy or download it again"
DAMAGED = f"cut off or damaged: {AGAIN}"
ONNX = "an ONNX model"
QUANTIZED = "the state of a quantized network: save that of the network before it was quantized"
# torch.save's files from before version 1.6 begin with this number, pickled.
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# How a file begins to what it is.
BEGINNINGS = {
    rb"\Z": f"empty: {AGAIN}",
    rb"version https://git-lfs": "a Git LFS pointer: fetch the file itself with `git lfs pull`",
    rb"(\xef\xbb\xbf)?\s*<(!doctype html|html)": "a web page: download the file itself",
    rb"\s*<": f"XML, as a server's refusal is: {AGAIN}",
    rb"\s*\{": f"JSON: {SAVE_IT}",
    # The length of its JSON in 8 bytes, and the JSON.
    rb"...\0{5}\{": "a safetensors file: save what safetensors.torch.load_file returns, with torch.save",
    rb"\x89HDF\r\n\x1a\n": f"an HDF5 file, as Keras writes: {SAVE_IT}",
    rb"\x08[\x01-\x20][\x12\x1a\x22\x3a\x42]": f"{ONNX}: {SAVE_IT}",  # the format's version, and the next field
    rb"\x93NUMPY": f"a NumPy array: {SAVE_IT}",
    rb"GGUF": f"a GGUF file: {SAVE_IT}",
    rb"\x1f\x8b": "a gzip archive: name the weights file that is in it",
    rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!": "a compressed file: name the weights file that is in it",
    rb"\x89PNG|\xff\xd8\xff": "an image: name a weights file",
    rb".{257}ustar": "a tar archive: name the weights file that is in it",
    rb"\x80[\x02-\x05]": f"a pickle that torch.save did not write: {SAVE_IT}",
    rb"[^\0-\x08\x0e-\x1f\x7f]*\Z": f"text: {SAVE_IT}",
    rb"": f"a file of an unknown kind: {SAVE_IT}",
}
# A member of a zip archive to what such an archive is.
MEMBERS = {
    "constants.pkl": "a TorchScript archive: save torch.jit.load(…).state_dict() with torch.save",
    "archive_format": "a program of torch.export: save the state_dict of the model that it was made from",
    "model.weights.h5": f"a Keras model: {SAVE_IT}",
}
# What the pickles of tensors name, and torch.load knows.
HARMLESS = re.compile(r"collections\.OrderedDict|torch\.(_utils|_tensor|storage|serialization)\.\w+|torch\.\w+")
UNUSUAL = {
    "torch._utils._rebuild_qtensor": QUANTIZED,
    "torch._utils._rebuild_sparse_tensor": "a state dict of sparse tensors: save plain, dense ones",
}
MAX_HEAD = 1024
MAX_PICKLE = 10_000_000  # bytes; that of a ResNet-152's state dict has 60,000


def kind_of_file(data: bytes) -> str:
    """Return what a file is that torch.load did not read, by its bytes, and what to do."""
    if data.startswith(b"PK"):
        return _kind_of_zip(data)
    if data.startswith(LEGACY):
        return _kind_of_objects(_globals_of_legacy(data[:MAX_PICKLE])) or DAMAGED
    head = data[:MAX_HEAD]
    return next(kind for sign, kind in BEGINNINGS.items() if re.match(sign, head, re.DOTALL | re.IGNORECASE))


def kind_of_onnx(data: bytes, reason: str) -> str:
    """Return what kind of file it is that ONNX Runtime could not read, and what to do.

    Args:
        data: the file's bytes.
        reason: ONNX Runtime's error message.
    """
    if data.startswith((b"PK", LEGACY)):
        return "a zip archive or a pickle, as weights files of PyTorch are: set ENGINE to torch, or name the ONNX file"
    kind = kind_of_file(data).partition(": ")[0]
    if kind == ONNX:
        return f"an ONNX model that cannot be run ({on_terminal(' '.join(reason.split()))}): {AGAIN}"
    return f"{kind}: name the ONNX file of a release"


def kind_of_content(content: object) -> str:
    """Return what was saved instead of a state dict, and what to do."""
    from torch import Tensor  # noqa: PLC0415  # the other functions are used without torch, too

    if not isinstance(content, dict):
        return f"a saved {on_terminal(type(content).__name__)}: {SAVE_IT}"
    if content.keys() >= {"settings", "averaged", "best_state"}:
        return "the checkpoint of a training: name the pneumonia_classifier.pth in that training's --model-dir"
    if content.keys() >= {"state", "param_groups"}:
        return f"the state of an optimizer: {SAVE_IT}"
    if any(isinstance(value, Tensor) and value.is_quantized for value in content.values()):
        return QUANTIZED
    for name, value in content.items():
        if isinstance(value, dict) and any(isinstance(one, Tensor) for one in value.values()):
            return f"a checkpoint with its weights under '{on_terminal(str(name))}': save that entry with torch.save"
    others = [str(key) for key, one in content.items() if not (isinstance(key, str) and isinstance(one, Tensor))]
    return f"a dict with more than names and tensors ({some(others)}): {SAVE_IT}"


def _kind_of_zip(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = {Path(name).name: name for name in archive.namelist()}
            for member, kind in MEMBERS.items():
                if member in names:
                    return kind
            if "data.pkl" not in names:
                return f"a zip archive that torch.save did not write: {SAVE_IT}"
            with archive.open(names["data.pkl"]) as pickled:
                found = _kind_of_objects(_globals(pickled.read(MAX_PICKLE)))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError):
        return DAMAGED
    return found or DAMAGED


def _kind_of_objects(names: Iterable[str]) -> str | None:
    """Return what a pickle holds besides tensors, by the names of its classes and functions; None if nothing."""
    found = dict.fromkeys(names)
    others = [name for name in found if not HARMLESS.fullmatch(name)]
    if not others:
        return next((kind for name, kind in UNUSUAL.items() if name in found), None)
    if any(name.startswith(("torch.nn.modules.", "torch.nn.parallel.")) for name in others):
        return f"a whole pickled model ({on_terminal(others[0])}): {SAVE_IT}"
    return f"a pickle of more than tensors ({some(others)}), which could run code and so is not loaded: {SAVE_IT}"


def _globals_of_legacy(data: bytes) -> Iterator[str]:
    """Yield the names in a file of torch's older format: three small pickles, and the one of what was saved."""
    for _ in range(4):
        yield from _globals(data)
        data = data[max((position + 1 for _, _, position in _opcodes(data)), default=0) :]


def _globals(data: bytes) -> Iterator[str]:
    """Yield the classes and functions that a pickle names, without running it."""
    words: list[str] = []
    for opcode, argument, _ in _opcodes(data):
        if opcode == "GLOBAL":
            yield str(argument).replace(" ", ".", 1)
        elif opcode == "STACK_GLOBAL":
            yield ".".join(words[-2:])
        elif isinstance(argument, str):
            words.append(argument)


def _opcodes(data: bytes) -> Iterator[tuple[str, object, int]]:
    """Yield a pickle's operations, as far as it is whole."""
    try:
        for opcode, argument, position in pickletools.genops(data):
            yield opcode.name, argument, position or 0
    except Exception:  # pickletools raises nearly anything on broken data
        return
