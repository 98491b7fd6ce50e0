"""Which network a state dict is of, by its names and shapes; serving imports it only for errors."""

import re
from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from pneumonia.names import on_terminal

KERNEL = re.compile(r"layer([1-4])\.\d+\.conv([1-3])\.weight")
# Blocks of each layer, and convolutions of a block, to the number in the name (He et al. 2015, table 1).
DEPTHS: dict[tuple[tuple[int, ...], int], int] = {
    ((1, 1, 1, 1), 2): 10,
    ((2, 2, 2, 2), 2): 18,
    ((3, 4, 6, 3), 2): 34,
    ((3, 4, 6, 3), 3): 50,
    ((3, 4, 23, 3), 3): 101,
    ((3, 8, 36, 3), 3): 152,
}
FIRST = "conv1.weight"  # (64, 3, 7, 7) in ResNet-18
WIDTH = 64


def network_of(state: Mapping[str, Tensor]) -> str | None:
    """Return which network other than ResNet-18 a state dict is of, such as "a ResNet-50"; None if nothing tells.

    Names come from the file, so they are quoted if a terminal would not print them.
    """
    if prefix := _prefix(state):
        return f"a network whose ResNet has the prefix '{on_terminal(prefix)}'"
    depth = _depth(state)
    if not depth or FIRST not in state or state[FIRST].ndim != 4:
        return None
    kind = f"{_variant(state)}ResNet-{depth}{_difference(state[FIRST])}"
    return kind if kind != "a ResNet-18" else None


def _prefix(state: Mapping[str, Tensor]) -> str | None:
    """Return what stands before a ResNet's names, if it is a part of a larger network."""
    if FIRST in state:
        return None
    found = (name.removesuffix(FIRST) for name in state if name.endswith(f".{FIRST}") and "layer" not in name)
    return next(found, None)


def _depth(state: Mapping[str, Tensor]) -> int | None:
    kernels = [found for found in map(KERNEL.fullmatch, state) if found]
    blocks = Counter(found[1] for found in kernels if found[2] == "1")
    return DEPTHS.get((tuple(blocks[layer] for layer in "1234"), max((int(one[2]) for one in kernels), default=0)))


def _variant(state: Mapping[str, Tensor]) -> str:
    """Return the article, and what ResNets of more channels or grouped ones are called."""
    middle = state.get("layer1.0.conv2.weight")
    if middle is None or middle.ndim != 4 or "layer1.0.conv3.weight" not in state:
        return "a "
    if middle.shape[1] < middle.shape[0]:
        return "a ResNeXt kind of "
    return "a " if middle.shape[0] == WIDTH else "a wide "


def _difference(kernel: Tensor) -> str:
    """Return how a network's first kernel differs from ResNet-18's."""
    width, channels, height, _ = kernel.shape
    parts = []
    if width != WIDTH:
        parts.append(f"of {width} channels in its first layer instead of {WIDTH}")
    if channels != 3:
        parts.append(f"for images of {channels} channel{'s' if channels != 1 else ''} instead of 3")
    if height != 7:
        parts.append(f"whose first kernel is {height} pixels wide instead of 7")
    return f" {' and '.join(parts)}" if parts else ""
