"""Target openvino: the engine is an OpenVINO IR, `engine.xml` with `engine.bin` beside it.

The CPU plugin computes float operators in bf16 by default on CPUs that have it (2026.4, avx512_bf16 and amx), so
the precision is always pinned and read back after compiling: an fp32 engine that runs in bf16 is an error.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Literal, Optional, Sequence, Tuple

import numpy as np

from edgekd.board.specs import TensorSpec
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

INFO = TargetInfo(suffix=".xml", compile_at="host", quantizer="nncf", precisions=("fp32", "int8"), extra="openvino")
_FACTS = (
    "INFERENCE_NUM_THREADS",
    "NUM_STREAMS",
    "PERFORMANCE_HINT",
    "EXECUTION_MODE_HINT",
    "EXECUTION_DEVICES",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
    "RUNTIME_REQUIREMENTS",
)


@dataclass(frozen=True)
class Options:
    """Options of OpenVINO.

    device: an OpenVINO device name, `CPU`, `GPU`, `NPU`.
    num_threads: of the CPU device; None takes the physical cores that the process may use.
    inference_precision: of the float operators; None pins f32, in int8 engines too.
    """

    device: str = "CPU"
    num_threads: Optional[int] = None
    performance_hint: Literal["LATENCY", "THROUGHPUT"] = "LATENCY"
    inference_precision: Optional[Literal["f32", "f16", "bf16"]] = None


def runtime_version() -> str:
    """Return OpenVINO's version; TargetError when it is not installed."""
    return _import().__version__


def build_engine(request: CompileRequest) -> CompileResult:
    """Write `engine.xml` and `engine.bin`, weights uncompressed, and compile once to learn what the device makes of it.

    Raises:
        TargetError: unreadable model, float model for int8 or quantized model for fp32, a precision that contradicts
            the options, or refused by the device.
    """
    asked = request.options.inference_precision
    if request.precision == "fp32" and asked not in (None, "f32"):
        raise TargetError(f"openvino: precision fp32 contradicts inference_precision {asked}; leave the option out")
    model = read_model(request.model)
    quantized = sum(op.get_type_name() in ("FakeQuantize", "FakeConvert") for op in model.get_ops())
    if (request.precision == "int8") != (quantized > 0):
        wanted, todo = (
            ("quantized", "quantize it with nncf first") if quantized == 0 else ("float", "give the exported one")
        )
        raise TargetError(
            f"{request.model}: precision {request.precision} expected a {wanted} model, got one with {quantized} "
            f"FakeQuantize operators; {todo}"
        )
    engine = request.out_dir / f"engine{INFO.suffix}"
    _import().save_model(model, engine, compress_to_fp16=False)
    with Session(engine, request.spec, request.options) as session:
        details = {**session.runtime, "layers": session.layers()}
    return CompileResult(engine, request.spec, details)


def probe(model: Path, options: Options) -> Probe:
    """Ask the device's plugin (`Core.query_model`) which operators of an ONNX or IR file it takes.

    Raises:
        TargetError: OpenVINO is not installed or has not such a device.
    """
    openvino = _import()
    core, tool = openvino.Core(), f"OpenVINO {openvino.__version__}, {options.device}"
    if options.device not in core.available_devices:
        raise TargetError(f"{tool}: no such device here; available: {', '.join(core.available_devices)}")
    try:
        graph = read_model(model)
        taken = core.query_model(graph, options.device)
    except (RuntimeError, TargetError) as exc:
        return Probe(tool, (Refusal("", "", _reason(exc)),))
    refused = [op for op in graph.get_ordered_ops() if op.get_friendly_name() not in taken]
    reason = f"no kernel on {options.device}"
    return Probe(tool, tuple(Refusal(op.get_friendly_name(), op.get_type_name(), reason) for op in refused))


class Session(SessionBase):
    """An IR compiled for one device, with one infer request. Output arrays are the request's own memory."""

    options: Options

    def _open(self) -> None:
        wanted = self.options.inference_precision or "f32"
        self._compiled = self._compile(wanted)
        inputs = _ports(self._compiled.inputs, self.spec.inputs)
        outputs = _ports(self._compiled.outputs, self.spec.outputs)
        check_tensors(self.engine, self.spec, _tensors(inputs), _tensors(outputs))
        actual = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if actual != wanted:
            raise TargetError(
                f"{self.engine}: expected {self.options.device} to run in {wanted}, got {actual}; "
                f"set inference_precision to what the device has"
            )
        self._request = self._compiled.create_infer_request()
        self._tensor = _import().Tensor
        self._bound: Dict[str, np.ndarray] = {}
        self._places = {t.name: list(inputs).index(t.name) for t in self.spec.inputs}
        self._outputs = {t.name: self._request.get_tensor(outputs[t.name]).data for t in self.spec.outputs}
        self.runtime = self._facts(actual)

    def _infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        try:
            for name, place in self._places.items():
                array = inputs[name]
                if array is self._bound.get(name):  # its memory is read in place; binding it costs about 0.1 ms
                    continue
                shared = array if array.flags.writeable else array.copy()  # the binding shares writable memory only
                self._request.set_input_tensor(place, self._tensor(shared, shared_memory=True))
                self._bound[name] = shared
        except (RuntimeError, KeyError) as exc:
            raise ImageError(f"{self.engine.name}: input refused: {one_line(exc)}") from exc
        self._request.infer(share_outputs=True)
        return dict(self._outputs)

    def _close(self) -> None:
        del self._outputs, self._bound, self._request, self._compiled

    def layers(self) -> Dict[str, int]:
        """Return how many layers of the compiled graph run in each precision, inputs, outputs and constants apart."""
        counts = Counter(
            info["runtimePrecision"].astype(str)
            for info in (op.get_rt_info() for op in self._compiled.get_runtime_model().get_ops())
            if info["layerType"].astype(str) not in ("Input", "Output", "Const")
        )
        return dict(sorted(counts.items()))

    def _compile(self, precision: str) -> Any:
        settings: Dict[str, Any] = {
            "PERFORMANCE_HINT": self.options.performance_hint,
            "INFERENCE_PRECISION_HINT": precision,
            "EXECUTION_MODE_HINT": "ACCURACY" if precision == "f32" else "PERFORMANCE",
        }
        if self.options.device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = self.options.num_threads or usable_cores()
        try:
            return _import().Core().compile_model(read_model(self.engine), self.options.device, settings)
        except RuntimeError as exc:
            raise TargetError(f"{self.engine}: OpenVINO refuses it on {self.options.device}: {_reason(exc)}") from exc

    def _facts(self, precision: str) -> Dict[str, Any]:
        openvino = _import()
        supported = self._compiled.get_property("SUPPORTED_PROPERTIES")
        facts = {key.lower(): _plain(self._compiled.get_property(key)) for key in _FACTS if key in supported}
        return {
            "runtime": "openvino",
            "version": openvino.__version__,
            "device": self.options.device,
            "device_name": openvino.Core().get_property(self.options.device, "FULL_DEVICE_NAME"),
            "inference_precision": precision,
            "threads": facts.get("inference_num_threads"),
            **facts,
        }


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import Intel's packages as if `openvino_telemetry` were not installed.

    OpenVINO 2026.4 and NNCF 3.4 write an id into the home folder and send usage data when they are imported, unless
    the user opted out beforehand (openvino/tools/ovc/__init__.py, nncf/telemetry/wrapper.py). Delete this when
    consent becomes opt-in.
    """
    name = "openvino_telemetry"
    before = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None  # type: ignore[assignment]  # importing it now raises ImportError
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(before)


def _import() -> Any:
    try:
        with without_telemetry():
            import openvino
    except ImportError as exc:
        raise TargetError("openvino is not installed; pip install 'edgekd[openvino]'") from exc
    return openvino


def read_model(path: Path) -> Any:
    """Return the `openvino.Model` of an ONNX or IR file; an ONNX file's constants are folded.

    OpenVINO's ONNX reader (2026.4) leaves biases behind a Reshape, where NNCF does not see them and silently skips
    its bias correction. `openvino.convert_model` folds them too, but reports usage to the vendor. An IR must not be
    folded: int8 weights would become float, and the CPU plugin would run the convolutions in float.

    Raises:
        TargetError: OpenVINO is not installed, or cannot read the file.
    """
    openvino = _import()
    from openvino.passes import ConstantFolding, Manager

    try:
        model = openvino.Core().read_model(str(path))
    except RuntimeError as exc:
        raise TargetError(f"{path}: OpenVINO {openvino.__version__} cannot read it: {_reason(exc)}") from exc
    if path.suffix == INFO.suffix:
        return model
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    return model


def _reason(exc: BaseException) -> str:
    """Drop the `Exception from src/...` and `Check ... failed at` lines of OpenVINO's messages."""
    lines = [line for line in str(exc).splitlines() if line and not line.startswith(("Exception from", "Check '"))]
    return one_line(RuntimeError(" ".join(lines) or str(exc)))


def _ports(ports: Sequence[Any], wanted: Sequence[TensorSpec]) -> Dict[str, Any]:
    """Return the ports by name, each under the contract's name when it is one of the port's names."""
    names = {tensor.name for tensor in wanted}
    return {next(iter(names & port.get_names()), port.get_any_name()): port for port in ports}


def _tensors(ports: Dict[str, Any]) -> Dict[str, Tuple[str, Tuple[int, ...]]]:
    return {name: (port.get_element_type().to_dtype().name, _shape(port.partial_shape)) for name, port in ports.items()}


def _shape(partial: Any) -> Tuple[int, ...]:
    if partial.rank.is_dynamic:
        return (-1,)
    return tuple(size.get_length() if size.is_static else -1 for size in partial)


def _plain(value: Any) -> Any:
    """Return a property as JSON-ready data."""
    return value if isinstance(value, (bool, int, float, list)) else getattr(value, "name", str(value))
