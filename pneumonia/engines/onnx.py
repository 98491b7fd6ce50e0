"""ResNet-18 by ONNX Runtime, for serving: in a third of torch's memory, and without its seconds of import."""

import os

# Unless it is told otherwise before it is imported, it sends its maker what runs where, and keeps a number for that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from pneumonia.engines.cores import threads
from pneumonia.engines.onnx_reading import check_file, check_tensors
from pneumonia.errors import WeightsError
from pneumonia.network.outputs import Engine, Floats, Outputs

NOWHERE = "/dev/null"  # no file lies below it
FATAL = 4  # of ONNX Runtime's levels of severity


def engine_in(data: bytes, name: str, *, is_checked: bool) -> Engine:
    """Return the engine with the network of an ONNX file, as `engines.choice.engine_in` does.

    Raises:
        WeightsError: not an ONNX file of this network.
    """
    try:
        if not is_checked:
            check_file(data, name)
        session = _session(data)
    except WeightsError:
        raise
    except Exception as error:  # ONNX Runtime's have no base class of their own
        from pneumonia.network.foreign_files import kind_of_onnx  # noqa: PLC0415  # a cold start goes without

        kind = kind_of_onnx(data, str(error))
        raise WeightsError(f"{name} is not an ONNX file of this network, but {kind}.") from error
    tensors = (*session.get_inputs(), *session.get_outputs())
    check_tensors({tensor.name: (tensor.type, tensor.shape) for tensor in tensors}, name)
    return _OnnxEngine(session)


class _OnnxEngine:
    """Runs a network by ONNX Runtime; safe to use from many threads."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def __call__(self, pixels: Floats, /) -> Outputs:
        return Outputs(*self._session.run(Outputs._fields, {"pixels": pixels}))


def _session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    # Threads that wait in a loop for the next operator take the core from whoever decodes the next image.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest batch
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NOWHERE)
    options.log_severity_level = FATAL  # whatever it logs of a model, it also raises
    session = onnxruntime.InferenceSession(
        data, options, ["CPUExecutionProvider"], enable_fallback=False, read_config_from_model=False
    )
    session._model_bytes = None  # noqa: SLF001  # 11 or 22 MB, kept for changing to another kind of processor
    return session
