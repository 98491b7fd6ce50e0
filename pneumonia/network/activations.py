"""The activation ranges: by tensor, the least and the greatest value that 8-bit integers stand for.

`training.activations` records them, and `engines.onnx_file` builds the ONNX file with them. This does not import torch.
"""

from collections.abc import Iterator
from typing import Any

Ranges = dict[str, tuple[float, float]]
GREATEST = (2 - 2**-23) * 2.0**127  # the greatest finite float32


def _names() -> Iterator[str]:
    yield from ("pixels", "relu")
    for layer in range(1, 5):
        for block in range(2):
            shortcut = ("downsample",) if layer > 1 and block == 0 else ()
            for part in ("relu1", "bn2", *shortcut, "out"):
                yield f"layer{layer}.{block}.{part}"


# The tensors that are rounded, in the network's order. `pixels` is the input, `relu` the stem's output before pooling.
# In a block, `relu1` is the output of the first ReLU, `bn2` the second convolution's output with batch norm, before the
# shortcut is added, `downsample` the same of the shortcut's convolution, if there is one, and `out` the block's output.
# The output of the last block is not rounded.
TENSORS = tuple(_names())[:-1]


def activations_in(content: dict[str, Any]) -> Ranges | None:
    """Return the activation ranges in a training report or a manifest, None if it has none.

    Raises:
        ValueError: these are not ranges, or not those of all TENSORS and of no others.
        OverflowError: an integer is too large.
    """
    given = content.get("activations")
    if given is None:
        return None
    if not isinstance(given, dict) or given.keys() != set(TENSORS):
        raise ValueError(f"its activations are {given!r:.200}, not those of the network's {len(TENSORS)} tensors")
    return {name: _range_in(name, given[name]) for name in TENSORS}


def _range_in(name: str, value: object) -> tuple[float, float]:
    # By type, as a bool would pass for an int.
    if not isinstance(value, list) or [type(end) in {int, float} for end in value] != [True, True]:
        raise ValueError(f"the range of its activation {name} is {value!r:.200}, not two numbers")
    low, high = map(float, value)
    if not -GREATEST <= low <= high <= GREATEST:
        raise ValueError(f"the range of its activation {name} is {value!r:.200}, not a finite minimum and maximum")
    return low, high
