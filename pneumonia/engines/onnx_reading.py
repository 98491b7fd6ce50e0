"""Check that an ONNX file holds what `onnx_file` writes, and nothing else.

Another file could name further files to read, loop forever, take all memory, or hold NaN, which ReLU turns into 0, so
that the answer would look like any other. The functions on Lambda have no package `onnx`, so this reads the protocol
buffers itself: a message is a list of numbered fields, some of which are messages again.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np

from pneumonia.errors import WeightsError
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.names import some
from pneumonia.network.contract import CLASSES
from pneumonia.network.input_check import FEATURES

Shape = list[str | int]
SIDE = SIZE // 32  # height and width of the last layer's output
SHAPES: dict[str, Shape] = {  # of the input and the outputs, all float32; N is the number of images
    "pixels": ["N", 3, SIZE, SIZE],
    "logits": ["N", len(CLASSES)],
    "evidence": ["N", SIDE, SIDE],
    "means": ["N", FEATURES],
    "features": ["N", 512, SIDE, SIDE],
}

# The fields that `onnx_file` writes, by their numbers in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
IR_VERSION, PRODUCER, GRAPH, OPSETS = 1, 2, 7, 8  # of a model
NODES, GRAPH_NAME, CONSTANTS, INPUTS, OUTPUTS = 1, 2, 5, 11, 12  # of a graph
SHAPE, KIND, NAME, RAW = 1, 2, 8, 9  # of a constant
# Digests of the graphs that `onnx_file` writes, without the values in them: with kernels in half precision, in single,
# and in 8-bit integers. If it writes others, add theirs, and keep these: the files that were written remain.
GRAPHS = {
    "c11133e2d980290ba35c62f1d80782b0e6c493f11542a2a4687f742a69eecba8",
    "68198d7b7ffb160e1592fded3be2d3258fe2fe4698c2d0bcc86626ffbcc7885a",
    "f4e7eca64bcb778bacc3a5037fa70b88c2941f4db5756131c90044dce82c0ce8",
}
NUMBERS = {b"\x01": "<f4", b"\x0a": "<f2", b"\x02": "u1", b"\x03": "i1", b"\x06": "<i4", b"\x07": "<i8"}  # by KIND
MAX_PARTS = 10_000  # fields of a message; this network's graph has a few hundred
Fields = dict[int, list[memoryview]]


def check_file(data: bytes, name: str) -> None:
    """Check that an ONNX file has only the parts that `onnx_file` writes, and only finite numbers.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Raises:
        WeightsError: it has other parts or another graph, or a number that is not finite.
        ValueError: it is not made of protocol buffers, or is damaged.
    """
    model = _parts(memoryview(data), {IR_VERSION, PRODUCER, GRAPH, OPSETS}, name)
    (graph,) = model[GRAPH]
    parts = _parts(graph, {NODES, GRAPH_NAME, CONSTANTS, INPUTS, OUTPUTS}, name)
    constants = [_parts(constant, {SHAPE, KIND, NAME, RAW}, name) for constant in parts[CONSTANTS]]
    if _graph_digest(model, parts, constants) not in GRAPHS:
        raise WeightsError(f"{name} is an ONNX file of another network: it has other operators or constants.")
    _check_constants(constants, name)


def check_tensors(given: Mapping[str, tuple[str, Shape]], name: str) -> None:
    """Check that a model's input and outputs have the names, types and shapes of SHAPES.

    Args:
        given: by the tensor's name, its type as ONNX Runtime calls it, and its shape.
        name: the file's name, for error messages.

    Raises:
        WeightsError: a name, a type or a shape is another one.
    """
    if given.keys() != SHAPES.keys():
        others = f"its tensors are {some([*given])}, not {', '.join(SHAPES)}"
        raise WeightsError(f"{name} is an ONNX file of another network: {others}.")
    for tensor, shape in SHAPES.items():
        if given[tensor] != ("tensor(float)", shape):
            kind, other = given[tensor]
            difference = f"its {tensor} is a {kind} of shape {other}, not a tensor(float) of {shape}"
            raise WeightsError(f"{name} is an ONNX file of another network: {difference}.")


def _graph_digest(model: Fields, parts: Fields, constants: list[Fields]) -> str:
    """Return the SHA-256 of all that a file holds but its names and its constants' values."""
    digest = hashlib.sha256()
    described = [(constant, (SHAPE, KIND, NAME)) for constant in constants]
    for fields, numbers in [(model, (IR_VERSION, OPSETS)), (parts, (NODES, INPUTS, OUTPUTS)), *described]:
        for number in numbers:
            for value in fields[number]:
                digest.update(b"%d %d " % (number, len(value)))
                digest.update(value)
    return digest.hexdigest()


def _check_constants(constants: list[Fields], file: str) -> None:
    broken = [_text(constant[NAME]) for constant in constants if not _is_finite(constant)]
    if broken:
        raise WeightsError(f"{file} has NaN or infinite values in {some(broken)}: promote another model.")


def _is_finite(constant: Fields) -> bool:
    (kind,), (raw,) = constant[KIND], constant[RAW]
    if kind not in NUMBERS:
        raise ValueError("numbers of a kind that this network does not have")
    return bool(np.isfinite(np.frombuffer(raw, NUMBERS[bytes(kind)])).all())


def _text(values: list[memoryview]) -> str:
    (value,) = values
    return str(value, "utf-8", "backslashreplace")


def _parts(data: memoryview, known: set[int], file: str) -> Fields:
    """Return the fields of a message by their numbers.

    Raises:
        WeightsError: a field is not in `known`, or there are too many.
        ValueError: as `_fields`.
    """
    parts: Fields = defaultdict(list)
    fields = list(islice(_fields(data), MAX_PARTS))
    for number, value in fields:
        parts[number].append(value)
    if len(fields) == MAX_PARTS or parts.keys() - known:
        raise WeightsError(f"{file} is an ONNX file of another network: it has parts that this one never has.")
    return parts


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the bytes of each field of a message.

    Raises:
        ValueError: the bytes are not a message, or are cut off.
    """
    place = 0
    while place < len(data):
        tag, place = _integer(data, place)
        start = place
        if tag & 7 == 0:  # an integer
            _, place = _integer(data, place)
        elif tag & 7 == 2:  # bytes, after how many they are
            length, start = _integer(data, place)
            place = start + length
        else:
            place = start + {1: 8, 5: 4}.get(tag & 7, len(data) + 1)
        if place > len(data) or tag < 8:
            raise ValueError("not a message of protocol buffers, or cut off")
        yield tag >> 3, data[start:place]


def _integer(data: memoryview, place: int) -> tuple[int, int]:
    """Return a varint, whose bytes hold 7 bits each, the lowest first, and the place after it.

    Raises:
        ValueError: the bytes are not a varint, or are cut off.
    """
    value = 0
    for index, byte in enumerate(data[place : place + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, place + index + 1
    raise ValueError("not a varint of protocol buffers, or cut off")
