"""Run ResNet-18 with ONNX Runtime, for serving: with a third of torch's memory, and without seconds of imports."""

import os

# Otherwise ONNX Runtime sends usage data to Microsoft, with an identifier of the machine. It reads this when imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from pneumonia.engines.cores import threads
from pneumonia.engines.onnx_reading import check_file, check_tensors
from pneumonia.errors import WeightsError
from pneumonia.network.outputs import Engine, Floats, Outputs

NOWHERE = "/dev/null"  # as a folder of other files that a model may name: there can be none
FATAL = 4  # the highest of ONNX Runtime's log levels


def engine_in(data: bytes, name: str, *, is_checked: bool) -> Engine:
    """Return an engine that runs the network in an ONNX file; arguments as for `engines.choice.engine_in`.

    Raises:
        WeightsError: the bytes are not an ONNX file of this network, or hold NaN or infinite values.
    """
    try:
        if not is_checked:
            check_file(data, name)
        session = _session(data)
    except WeightsError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        from pneumonia.network.foreign_files import kind_of_onnx  # noqa: PLC0415  # a cold start goes without

        kind = kind_of_onnx(data, str(error))
        raise WeightsError(f"{name} is not an ONNX file of this network, but {kind}.") from error
    tensors = (*session.get_inputs(), *session.get_outputs())
    check_tensors({tensor.name: (tensor.type, tensor.shape) for tensor in tensors}, name)
    return _OnnxEngine(session)


class _OnnxEngine:
    """Runs a network with ONNX Runtime; safe to use from many threads."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def __call__(self, pixels: Floats, /) -> Outputs:
        return Outputs(*self._session.run(Outputs._fields, {"pixels": pixels}))


def _session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    # Threads that wait for the next operator in a loop would take the core from the thread that decodes the next image.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # an arena would keep the memory of the largest batch
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NOWHERE)
    options.log_severity_level = FATAL  # it also raises whatever it logs about a model
    session = onnxruntime.InferenceSession(
        data, options, ["CPUExecutionProvider"], enable_fallback=False, read_config_from_model=False
    )
    session._model_bytes = None  # noqa: SLF001  # 11 or 22 MB, which only a change of the execution provider would need
    return session
