import argparse
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pneumonia.errors import WeightsError
from pneumonia.network.weights_file import load_state
from tests.builders.pickles import Payload

STATE = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
HEADER = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()


def zipped(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"content")

    return write


def scripted(path: Path) -> None:
    with pytest.warns(FutureWarning):
        torch.jit.save(torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3)), path)  # type: ignore[no-untyped-call]


def cut(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-30])


def without_a_storage(path: Path) -> None:
    torch.save(STATE, path.with_name("whole"))
    with zipfile.ZipFile(path.with_name("whole")) as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            if not name.endswith("/data/1"):
                archive.writestr(name, whole.read(name))


def flipped(path: Path) -> None:
    torch.save({"weight": torch.full((100,), 3.0)}, path)
    path.write_bytes(path.read_bytes().replace(torch.tensor([3.0]).numpy().tobytes(), b"\0\0@A", 1))


def below_a_folder(path: Path) -> None:
    torch.save(STATE, path.with_name("whole"))
    with zipfile.ZipFile(path.with_name("whole")) as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            archive.writestr(f"folder/{name}", whole.read(name))


def cut_older(path: Path) -> None:
    saved(STATE, new=False)(path)
    path.write_bytes(path.read_bytes()[:-9])


def saved(content: object, *, new: bool = True) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=new)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(b"", "but empty: copy or download it again.", id="nothing"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "but a Git LFS pointer", id="LFS"),
        pytest.param(b"\n<!DOCTYPE HTML>\n<html>", "but a web page: download the file itself.", id="HTML"),
        pytest.param(b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "but XML", id="S3's refusal"),
        pytest.param(b'{"message": "Forbidden"}', "but JSON", id="JSON"),
        pytest.param(b"weights", "but text", id="text"),
        pytest.param(len(HEADER).to_bytes(8, "little") + HEADER + bytes(4), "but a safetensors file", id="safetensors"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + bytes(99), "but an HDF5 file, as Keras writes", id="HDF5"),
        pytest.param(b"\x08\x08\x12\x07pytorch" + bytes(99), "but an ONNX model", id="ONNX"),
        pytest.param(b"\x93NUMPY\x01\x00", "but a NumPy array", id="npy"),
        pytest.param(b"\x1f\x8b\x08" + bytes(99), "but a gzip archive: name the weights file", id="gzip"),
        pytest.param(b"\xfd7zXZ\x00" + bytes(99), "but a compressed file: name the weights file", id="xz"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(99), "but an image", id="PNG"),
        pytest.param(b"\xef\xbb\xbf<html>", "but a web page", id="HTML with its byte order"),
        pytest.param(b"model".ljust(257, b"\0") + b"ustar\x0000", "but a tar archive", id="tar"),
        pytest.param(pickle.dumps(STATE), "but a pickle that torch.save did not write", id="pickle"),
        pytest.param(bytes(range(200)), "but a file of an unknown kind", id="bytes"),
        pytest.param(b"PK\x03\x04" + bytes(99), "but cut off or damaged: copy or download it again.", id="torn"),
    ],
)
def test_a_file_that_torch_did_not_write_is_named_for_what_it_is(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "given.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"given\.pth is not a weights file, {re.escape(kind)}"):
        load_state(tmp_path / "given.pth", "a weights file")


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        pytest.param(zipped("weights.npy"), "but a zip archive that torch.save did not write", id="npz"),
        pytest.param(zipped("config.json", "model.weights.h5"), "but a Keras model", id="keras"),
        pytest.param(zipped("model/archive_format", "model/data.pkl"), "but a program of torch.export", id="export"),
        pytest.param(scripted, "but a TorchScript archive: save torch.jit.load(…).state_dict()", id="TorchScript"),
        pytest.param(cut, "but cut off or damaged: copy or download it again.", id="cut off"),
        pytest.param(without_a_storage, "but cut off or damaged: copy", id="without a storage"),
        pytest.param(flipped, "but cut off or damaged: copy", id="another bit"),
        pytest.param(below_a_folder, "but cut off or damaged: copy", id="packed again"),
        pytest.param(cut_older, "but cut off or damaged: copy", id="the older format, cut off"),
        *(
            pytest.param(
                saved(nn.Sequential(nn.Linear(3, 2)), new=new),
                "but a whole pickled model (torch.nn.modules.container.Sequential): save model.state_dict() with",
                id=f"model{'' if new else ', the older format'}",
            )
            for new in (True, False)
        ),
        *(
            pytest.param(
                saved({"state_dict": STATE, "arguments": argparse.Namespace()}, new=new),
                "but a pickle of more than tensors (argparse.Namespace), which could run code",
                id=f"arguments{'' if new else ', the older format'}",
            )
            for new in (True, False)
        ),
    ],
)
def test_what_torch_cannot_load_is_named_for_what_it_is(
    write: Callable[[Path], None], kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    write(tmp_path / "given.pth")
    recwarn.clear()
    with pytest.raises(WeightsError, match=rf"given\.pth is not a weights file, {re.escape(kind)}") as caught:
        load_state(tmp_path / "given.pth", "a weights file")
    assert str(caught.value).isprintable()
    assert not recwarn.list


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(
            {"state_dict": STATE, "epoch": 3}, "but a checkpoint with its weights under 'state_dict'", id="PL"
        ),
        pytest.param({"model": STATE, "optimizer": {}}, "but a checkpoint with its weights under 'model'", id="timm"),
        pytest.param({"\x1b[1m": STATE}, r"but a checkpoint with its weights under '$'\x1b[1m''", id="control code"),
        pytest.param(
            torch.optim.AdamW(nn.Linear(3, 2).parameters()).state_dict(),
            "but the state of an optimizer",
            id="optimizer",
        ),
        pytest.param(
            {"settings": {}, "averaged": STATE, "best_state": STATE}, "but the checkpoint of a training", id="our own"
        ),
        pytest.param(STATE | {"epoch": 3}, "but a dict with more than names and tensors (epoch)", id="a number"),
        pytest.param({0: torch.zeros(1)}, "but a dict with more than names and tensors (0)", id="a number as name"),
        pytest.param(torch.zeros(2), "but a saved Tensor: save model.state_dict() with torch.save.", id="tensor"),
        pytest.param([STATE], "but a saved list", id="list"),
    ],
)
def test_other_content_than_a_state_dict_is_named_for_what_it_is(content: object, kind: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "given.pth")
    with pytest.raises(WeightsError, match=rf"given\.pth is not a plain state dict, {re.escape(kind)}"):
        load_state(tmp_path / "given.pth", "a weights file")


@pytest.mark.filterwarnings("ignore:.*deprecated")  # torch's own, of quantized tensors
def test_the_state_of_a_quantized_network_is_named_for_what_it_is(tmp_path: Path) -> None:
    weight = torch.quantize_per_tensor(STATE["weight"], 0.1, 0, torch.qint8)
    torch.save({"weight": weight, "scale": 0.1}, tmp_path / "given.pth")
    with pytest.raises(WeightsError, match=r"given\.pth is not a plain state dict, but the state of a quantized"):
        load_state(tmp_path / "given.pth", "a weights file")


def test_files_of_the_older_format_are_read(tmp_path: Path) -> None:
    saved(STATE, new=False)(tmp_path / "given.pth")
    assert load_state(tmp_path / "given.pth", "a weights file").keys() == STATE.keys()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes have names")
def test_a_pipe_is_named_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "given.pth")
    with pytest.raises(WeightsError, match=r"given\.pth is not a weights file: it is not a plain file but a pipe"):
        load_state(tmp_path / "given.pth", "a weights file")


def test_long_names_are_shortened(tmp_path: Path) -> None:
    torch.save({"x" * 5000: 1}, tmp_path / "given.pth")
    with pytest.raises(WeightsError, match=r"\(x{100}…\)"):
        load_state(tmp_path / "given.pth", "a weights file")


def test_naming_a_pickle_does_not_run_it(tmp_path: Path) -> None:
    for new in (True, False):
        saved({"payload": Payload(tmp_path / "ran")}, new=new)(tmp_path / "given.pth")
        with pytest.raises(WeightsError, match=r"more than tensors \(posix\.mkdir\)"):
            load_state(tmp_path / "given.pth", "a weights file")
    assert not (tmp_path / "ran").exists()


def test_a_class_name_with_control_codes_is_quoted(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "given.pth", "w") as archive:
        for name in whole.namelist():
            content = b"\x80\x02cevil\n\x1b[31mred\n." if name.endswith("/data.pkl") else whole.read(name)
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match=r"more than tensors \(\$'evil\.\\x1b\[31mred'\)"):
        load_state(tmp_path / "given.pth", "a weights file")
