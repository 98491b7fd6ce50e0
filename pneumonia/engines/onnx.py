"""ResNet-18 by ONNX Runtime, for serving: a third of torch's memory, and no seconds of import (docs/performance.md)."""

import onnxruntime

from pneumonia.engines.cores import threads
from pneumonia.errors import WeightsError
from pneumonia.network.outputs import Engine, Floats, Outputs


def engine_in(data: bytes, name: str, *, is_checked: bool) -> Engine:  # noqa: ARG001
    """Return the engine with the network of an ONNX file, as `engines.choice.engine_in` does.

    Raises:
        WeightsError: not an ONNX file of this network.
    """
    return _OnnxEngine(_session(data, name))


class _OnnxEngine:
    """Runs a network by ONNX Runtime; safe to use from many threads."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def __call__(self, pixels: Floats, /) -> Outputs:
        return Outputs(*self._session.run(Outputs._fields, {"pixels": pixels}))


def _session(data: bytes, name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        raise WeightsError(f"{name} is not an ONNX file of this network: {error}") from error
