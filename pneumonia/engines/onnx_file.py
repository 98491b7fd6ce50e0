"""Build the ONNX file of a network: 8-bit integers, or float32 arithmetic from kernels in half precision.

Kernels that half precision would round, which weights files of other programs may have, stay in single precision.

The file is built from the state dict rather than exported: the graph is small, the same for every release, and can be
read here. Batch norm becomes part of the convolution before it. All operators are from the ONNX standard, so that any
runtime can read the file. ONNX Runtime computes the convolutions and sums that stand between `DequantizeLinear` and
`QuantizeLinear` in 8-bit integers.
"""

from collections.abc import Iterator
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from pneumonia.engines.onnx_reading import SHAPES
from pneumonia.network.activations import Ranges
from pneumonia.network.outputs import Floats
from pneumonia.network.resnet import BasicBlock, ResNet18

OPSET = 17
IR_VERSION = 8  # of the file's format, as published with that opset
# The largest absolute values of a weight, and of the sum of two neighbours with the same sign: see `_kernel_scales`.
MAX_WEIGHT = 127
MAX_PAIR = 128


@np.errstate(over="ignore", invalid="ignore")  # from impossible ranges; the trial finds a wrong result
def onnx_file(network: ResNet18, activations: Ranges | None = None) -> bytes:
    """Return the bytes of the ONNX file of a network; they are the same for the same values.

    Args:
        network: in evaluation mode, on the CPU.
        activations: the activation ranges of tensors in `network.activations.TENSORS`, for arithmetic in 8-bit
            integers. A convolution stays in float32 if its input or output has no range; by default all do.

    Returns:
        A file whose graph maps the input `pixels` to outputs that are named as the fields of `network.outputs.Outputs`.
    """
    graph = _Graph(activations or {}, fits_half=_fits_half(network))
    graph.write(network)
    return graph.file()


def precision_of(network: ResNet18, activations: Ranges | None) -> str:
    """Return the precision of the kernels in the ONNX file of a network; arguments as for `onnx_file`.

    Returns:
        "int8"; without ranges "half", or "single" if half precision would round them.
    """
    if activations:
        return "int8"
    return "half" if _fits_half(network) else "single"


def _fits_half(network: ResNet18) -> bool:
    kernels = [_values(module.weight) for module in network.modules() if isinstance(module, nn.Conv2d)]
    with np.errstate(over="ignore"):
        return all(np.array_equal(kernel.astype(np.float16), kernel) for kernel in kernels)


def _blocks(network: ResNet18) -> Iterator[tuple[str, BasicBlock]]:
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        for index, block in enumerate(cast("nn.Sequential", network.get_submodule(layer))):
            yield f"{layer}.{index}", cast("BasicBlock", block)


class _Graph:
    """Builds an ONNX graph; methods take and return the names of tensors.

    Args:
        ranges: as for `onnx_file`.
        fits_half: the network's kernels are the same in half precision.
    """

    def __init__(self, ranges: Ranges, *, fits_half: bool) -> None:
        self._ranges = ranges
        self._fits_half = fits_half
        self._scales: dict[str, float] = {}  # by the name of a tensor that was rounded to 8 bits
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def file(self) -> bytes:
        """Return the bytes of the file with the nodes written so far."""
        pixels, *outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPES[name]) for name in SHAPES)
        graph = helper.make_graph(self._nodes, "resnet18", [pixels], outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="pneumonia")
        return cast("bytes", model.SerializeToString(deterministic=True))

    def write(self, network: ResNet18) -> None:
        """Write all nodes of a network."""
        x = self._convolution("relu", self._at_8_bits("pixels"), network.conv1, network.bn1)
        x = self._node("MaxPool", "maxpool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        x = self._at_8_bits(x, "relu")  # a maximum has the range of the values that it is taken from
        means = []
        for name, block in _blocks(network):
            x = self._block(name, x, block)
            if name in {"layer3.1", "layer4.1"}:
                means.append(self._node("Flatten", f"{name}.means", self._node("GlobalAveragePool", f"{name}.pool", x)))
        self._node("Identity", "features", x)
        self._node("Concat", "means", *means, axis=1)
        self._head(network.fc, x, means[-1])

    def _head(self, fc: nn.Linear, features: str, means: str) -> None:
        weight, bias = _values(fc.weight), _values(fc.bias)
        matrix = self._constant("fc.weight", weight), self._constant("fc.bias", bias)
        self._node("Gemm", "logits", means, *matrix, transB=1)
        kernel = self._constant("evidence.weight", (weight[1:] - weight[:1])[:, :, None, None])
        shares = self._node("Conv", "evidence.shares", features, kernel)
        self._node("Squeeze", "evidence", shares, self._constant("evidence.axis", np.array([1])))

    def _block(self, name: str, x: str, block: BasicBlock) -> str:
        shortcut = x
        if isinstance(block.downsample, nn.Sequential):
            convolution, norm = cast("tuple[nn.Conv2d, nn.BatchNorm2d]", block.downsample)
            shortcut = self._convolution(f"{name}.downsample", x, convolution, norm)
        first = self._convolution(f"{name}.relu1", x, block.conv1, block.bn1)
        second = self._convolution(f"{name}.bn2", first, block.conv2, block.bn2)
        total = self._node("Add", f"{name}.sum", second, shortcut)
        return self._at_8_bits(self._node("Relu", f"{name}.out", total))

    def _convolution(self, name: str, x: str, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
        """Write a convolution with its batch norm, and a ReLU if `name` contains "relu"; return the output."""
        kernel, (factor, shift) = _values(convolution.weight), _factor_and_shift(norm)
        is_quantised = x in self._scales and name in self._ranges
        if is_quantised:
            constants = self._integers(name, kernel * factor, shift, self._scales[x])
        else:
            constants = self._floats(name, kernel, factor, shift)
        then = "Relu" if "relu" in name else "Identity"
        geometry = {"pads": [*convolution.padding] * 2, "strides": [*convolution.stride]}
        self._node(then, name, self._node("Conv", f"{name}.convolution", x, *constants, **geometry))
        return self._at_8_bits(name) if is_quantised else name

    def _floats(self, name: str, kernel: Floats, factor: Floats, shift: Floats) -> tuple[str, str]:
        """Write a kernel and its batch norm; return the names of kernel and bias, both float32."""
        if self._fits_half:
            half = self._constant(f"{name}.half", kernel.astype(np.float16))
            single = self._node("Cast", f"{name}.single", half, to=TensorProto.FLOAT)
        else:
            single = self._constant(f"{name}.single", kernel)
        weight = self._node("Mul", f"{name}.weight", single, self._constant(f"{name}.factor", factor))
        return weight, self._constant(f"{name}.bias", shift)

    def _integers(self, name: str, kernel: Floats, shift: Floats, x_scale: float) -> tuple[str, str]:
        """Write a kernel in 8 bits and its bias in 32; return the names of kernel and bias, both float32."""
        # A bias that is far greater than its channel's weights, which may all be 0, still has to fit into 32 bits.
        scales = np.maximum(_kernel_scales(kernel), np.abs(shift) / (2.0**30 * x_scale)).astype(np.float32)
        weights = np.rint(kernel / scales[:, None, None, None]).astype(np.int8)
        weight = self._dequantised(f"{name}.weight", weights, scales)
        scales *= np.float32(x_scale)
        return weight, self._dequantised(f"{name}.bias", np.rint(shift / scales).astype(np.int32), scales)

    def _dequantised(self, name: str, integers: NDArray[np.signedinteger], scales: Floats) -> str:
        constants = self._constant(f"{name}.integers", integers), self._constant(f"{name}.scales", scales)
        return self._node("DequantizeLinear", name, *constants, axis=0)

    def _at_8_bits(self, name: str, like: str | None = None) -> str:
        """Write the rounding of a tensor to 8 bits if its range, or that of `like`, is known; return the result."""
        if (like or name) not in self._ranges:
            return name
        low, high = self._ranges[like or name]
        scale, zero = _scale_and_zero(low, high)
        grid = self._constant(f"{name}.scale", scale), self._constant(f"{name}.zero", zero)
        integers = self._node("QuantizeLinear", f"{name}.integers", name, *grid)
        self._scales[f"{name}.8bits"] = float(scale)
        return self._node("DequantizeLinear", f"{name}.8bits", integers, *grid)

    def _node(self, operator: str, name: str, *inputs: str, **attributes: int | list[int]) -> str:
        node = helper.make_node(operator, inputs, [name], name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return name

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        self._constants.append(numpy_helper.from_array(values, name))
        return name


def _values(tensor: Tensor) -> Floats:
    return cast("Floats", tensor.detach().numpy())


def _factor_and_shift(norm: nn.BatchNorm2d) -> tuple[Floats, Floats]:
    """Return batch norm's factor for a kernel, shape (channels, 1, 1, 1), and the bias it adds, shape (channels,)."""
    mean, variance = cast("tuple[Tensor, Tensor]", (norm.running_mean, norm.running_var))
    factor = norm.weight.detach() / (variance + norm.eps).sqrt()
    return _values(factor[:, None, None, None]), _values(norm.bias - mean * factor)


def _kernel_scales(kernel: Floats) -> Floats:
    """Return the scale of each output channel, by which a kernel's weights are divided to become integers.

    Processors without VNNI multiply two activations, 0 to 255, by the weights of two neighbouring input channels and
    add the products in 16 bits, where more than 32,767 becomes 32,767. So the sum of two neighbouring weights with the
    same sign is at most MAX_PAIR, after each was rounded by up to a half. Then all processors give the same answers.
    """
    rows = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)  # in the order of ONNX Runtime's sums
    pairs = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(kernel), -1, 2)
    sums = np.maximum(pairs.clip(0).sum(2), -pairs.clip(None, 0).sum(2)).max(1)
    scales: Floats = np.maximum(np.abs(rows).max(1) / MAX_WEIGHT, sums / (MAX_PAIR - 1))
    return scales.clip(1e-20)  # a channel's weights may all be 0


def _scale_and_zero(low: float, high: float) -> tuple[Floats, NDArray[np.uint8]]:
    """Return the scale and the zero point that map a range to 0 to 255, widened to hold 0, as padding and ReLU need."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max(high - low, 1e-6) / 255)
    return np.array(scale), np.array(round(-low / float(scale)), np.uint8)
