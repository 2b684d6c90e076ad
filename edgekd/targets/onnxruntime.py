"""Target onnxruntime: the engine is the ONNX file itself, run by ONNX Runtime.

The file stays portable: ONNX Runtime optimises for the CPU it runs on when it loads it. A graph saved after
optimisation would be tied to one machine and would not be faster (docs of `optimized_model_filepath`, 1.32).

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Tuple

import numpy as np

from edgekd.board.sysinfo import usable_cores
from edgekd.errors import ImageError, TargetError
from edgekd.targets.base import (
    CompileRequest,
    CompileResult,
    Probe,
    Refusal,
    SessionBase,
    TargetInfo,
    check_tensors,
    one_line,
)

INFO = TargetInfo(suffix=".onnx", compile_at="host", quantizer="qdq", precisions=("fp32", "int8"), extra="onnxruntime")
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}


@dataclass(frozen=True)
class Options:
    """Options of ONNX Runtime.

    intra_op_threads: threads of one operator; None takes the physical cores that the process may use.
    providers: execution providers, in order; one that is absent is an error, never a silent CPU fallback.
    """

    intra_op_threads: Optional[int] = None
    providers: Tuple[str, ...] = ("CPUExecutionProvider",)
    graph_optimization: Literal["all", "extended", "basic", "disabled"] = "all"


def runtime_version() -> str:
    """Return ONNX Runtime's version; TargetError when it is not installed."""
    return import_onnxruntime().__version__


def build_engine(request: CompileRequest) -> CompileResult:
    """Copy the model to `engine.onnx` after checking that it is of the asked precision and that the runtime takes it.

    Raises:
        TargetError: unreadable model, float model for int8 or quantized model for fp32, or refused by the runtime.
    """
    model = _read(request.model)
    quantized = sum(node.op_type == "DequantizeLinear" for node in model.graph.node)
    if (request.precision == "int8") != (quantized > 0):
        wanted, todo = (
            ("quantized", "quantize it with qdq first") if quantized == 0 else ("float", "give the exported one")
        )
        raise TargetError(
            f"{request.model}: precision {request.precision} expected a {wanted} model, got one with {quantized} "
            f"DequantizeLinear nodes; {todo}"
        )
    engine = request.out_dir / f"engine{INFO.suffix}"
    if any(tensor.external_data for tensor in model.graph.initializer):
        _save_as_one_file(request.model, engine)
    else:
        shutil.copyfile(request.model, engine)
    with Session(engine, request.spec, request.options) as session:
        details = dict(session.runtime)
    return CompileResult(engine, request.spec, details)


def probe(model: Path, options: Options) -> Probe:
    """Ask ONNX Runtime by loading an ONNX file on the options' providers.

    Raises:
        TargetError: ONNX Runtime is not installed or has not such a provider.
    """
    runtime = import_onnxruntime()
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4  # what it says is in the exception
    tool = f"onnxruntime {runtime.__version__}, {', '.join(options.providers)}"
    _check_providers(runtime, options.providers)
    try:
        runtime.InferenceSession(str(model), settings, providers=list(options.providers))
    except Exception as exc:  # noqa: BLE001 - the binding's exceptions have no common base
        named = re.search(r"[Nn]ode ?\(?(?:name: )?'?([^\s)']+)", str(exc))
        return Probe(tool, (Refusal(named[1] if named else "", "", one_line(exc)),))
    return Probe(tool, ())


class Session(SessionBase):
    """An ONNX file in an `InferenceSession`. Output arrays are new on every call."""

    options: Options

    def _open(self) -> None:
        runtime = import_onnxruntime()
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = self.options.intra_op_threads or usable_cores()
        settings.inter_op_num_threads = 1  # operators of these networks run one after another
        settings.graph_optimization_level = getattr(
            runtime.GraphOptimizationLevel, _LEVELS[self.options.graph_optimization]
        )
        self._session = _load(runtime, self.engine, settings, self.options.providers)
        check_tensors(
            self.engine, self.spec, _tensors(self._session.get_inputs()), _tensors(self._session.get_outputs())
        )
        self._run = self._session.run
        self._names = [tensor.name for tensor in self.spec.outputs]
        self.runtime = {
            "runtime": "onnxruntime",
            "version": runtime.__version__,
            "providers": self._session.get_providers(),
            "threads": settings.intra_op_num_threads,
            "graph_optimization": self.options.graph_optimization,
        }

    def _infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        try:
            arrays = self._run(self._names, inputs)
        except Exception as exc:  # the binding's exceptions have no common base but Exception
            raise ImageError(f"{self.engine.name}: input refused: {one_line(exc)}") from exc
        return {name: arrays[i] for i, name in enumerate(self._names)}

    def _close(self) -> None:
        del self._run, self._session


def import_onnxruntime() -> Any:
    """Import ONNX Runtime without its telemetry; TargetError when it is not installed.

    Importing 1.32 on Linux writes an id below the home folder and starts a thread that sends usage data, unless this
    variable is set at that moment; `disable_telemetry_events` comes too late. Delete this when consent is opt-in.
    """
    name = "ORT_DISABLE_TELEMETRY"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        import onnxruntime
    except ImportError as exc:
        raise TargetError("onnxruntime is not installed; pip install 'edgekd[onnxruntime]'") from exc
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return onnxruntime


def _check_providers(runtime: Any, providers: Tuple[str, ...]) -> None:
    absent = [name for name in providers if name not in runtime.get_available_providers()]
    if absent:
        raise TargetError(
            f"onnxruntime {runtime.__version__} has no provider {', '.join(absent)}; "
            f"available: {', '.join(runtime.get_available_providers())}"
        )


def _load(runtime: Any, engine: Path, settings: Any, providers: Tuple[str, ...]) -> Any:
    _check_providers(runtime, providers)
    try:
        session = runtime.InferenceSession(str(engine), settings, providers=list(providers))
    except Exception as exc:  # the binding's exceptions have no common base but Exception
        raise TargetError(f"{engine}: onnxruntime {runtime.__version__} refuses it: {one_line(exc)}") from exc
    dropped = [name for name in providers if name not in session.get_providers()]
    if dropped:
        raise TargetError(
            f"{engine}: onnxruntime could not start {', '.join(dropped)} and fell back to "
            f"{', '.join(session.get_providers())}; see its log, or ask for another provider"
        )
    return session


def _tensors(arguments: List[Any]) -> Dict[str, Tuple[str, Tuple[int, ...]]]:
    return {a.name: (_DTYPES.get(a.type, a.type), tuple(a.shape)) for a in arguments}


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as exc:
        raise TargetError("onnx is not installed; pip install 'edgekd[onnxruntime]'") from exc
    return onnx


def _read(model: Path) -> Any:
    """Return the ONNX model without the weights it keeps in other files."""
    onnx = _onnx()
    try:
        return onnx.load(str(model), load_external_data=False)
    except Exception as exc:  # protobuf's DecodeError or OSError, depending on the damage and on protobuf's version
        raise TargetError(f"{model}: not a readable ONNX file: {one_line(exc)}") from exc


def _save_as_one_file(model: Path, engine: Path) -> None:
    onnx = _onnx()
    try:
        onnx.save(onnx.load(str(model)), str(engine))
    except Exception as exc:  # the weights' file is missing or damaged, or the whole exceeds protobuf's 2 GiB
        raise TargetError(f"{model}: its external weights cannot be packed into one file: {one_line(exc)}") from exc
