"""Target openvino: the engine is an OpenVINO IR, `engine.xml` with `engine.bin` beside it, or a compiled `engine.blob`.

The CPU plugin computes float operators in bf16 by default on CPUs that have it (2026.4, avx512_bf16 and amx), so
the precision is always pinned and read back after compiling: an fp32 engine that runs in bf16 is an error.

A blob loads faster and runs only on the device and version that compiled it; what these are stands in `engine.json`.
The devices GPU and NPU were not run on hardware.

Source: OpenVINO 2026.4 documentation, "CPU device", "GPU device", "NPU device", "Model caching overview".
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Literal, Optional, Tuple

import numpy as np

from edgekd.board.choices import GRAPHS, Choice, threads
from edgekd.board.options import option
from edgekd.board.specs import ModelSpec
from edgekd.board.sysinfo import Facts, adds_products_in_16_bits, environment, is_hybrid, usable_cores
from edgekd.errors import ImageError, TargetError, one_line
from edgekd.targets import _int8
from edgekd.targets.base import (
    CompileRequest,
    CompileResult,
    Probe,
    Refusal,
    SessionBase,
    TappedSession,
    Target,
    TargetInfo,
    check_range,
    check_tensors,
)
from edgekd.targets.openvino import model_api, quantized, runtime
from edgekd.targets.openvino.compiled import (
    PRECISION,
    layers_of,
    ports_by_name,
    properties_of,
    reported_precision,
    tensors_of,
)
from edgekd.targets.openvino.runtime import import_openvino, read_model, reason_of

INFO = TargetInfo(
    suffix=runtime.IR,
    compile_at="host",
    quantizer="nncf",
    precisions=("fp32", "fp16", "int8", "mixed"),
    extra="openvino",
    distributions=("openvino",),
    tools=("nncf",),
    support=(Path(__file__).with_name("support.yaml"),),
)


@dataclass(frozen=True)
class Options:
    """Options of OpenVINO."""

    device: str = option(
        "CPU",
        "OpenVINO device name: `CPU`, `GPU`, `GPU.1`, `NPU`. Devices that choose by themselves, as AUTO, are refused.",
    )
    num_threads: Optional[int] = option(
        None,
        "Threads of the CPU device. `null`: the physical cores that the process may use; on processors with performance "
        "and efficiency cores OpenVINO chooses.",
    )
    performance_hint: Literal["LATENCY", "THROUGHPUT"] = option(
        "LATENCY", "Goal that the device arranges its streams for. Sessions run one request at a time either way."
    )
    inference_precision: Optional[Literal["f32", "f16", "bf16"]] = option(
        None,
        "Precision of the float operators of int8 engines. `null`: f32 on the CPU, f16 on GPU and NPU. For fp32 and fp16 "
        "engines it must be the engine's own.",
    )
    format: Literal["ir", "blob"] = option(
        "ir", "`ir`: compiled at every load. `blob`: compiled once, for one device and one OpenVINO version."
    )
    cache_dir: Optional[str] = option(
        None, "Folder in which OpenVINO keeps compiled IRs, so that the next load is faster.", is_path=True
    )
    npu_compiler: Literal["driver", "plugin"] = option(
        "driver",
        "Compiler of the NPU: the one in its `driver`, or OpenVINO's `plugin` library. The packages on PyPI leave the "
        "library out (2026.4, openvinotoolkit/openvino issue 36374); put it beside OpenVINO's.",
    )

    def __post_init__(self) -> None:
        check_range("num_threads", self.num_threads, 1)


def runtime_version() -> str:
    """Return OpenVINO's version; TargetError when it is not installed."""
    return str(import_openvino().__version__)


def bound_to(options: Options) -> str:
    """A blob belongs to the device and the version that compiled it, an IR to nothing."""
    return "machine" if options.format == "blob" else ""


def build_engine(request: CompileRequest) -> CompileResult:
    """Write `engine.xml` and `engine.bin`, weights uncompressed, or `engine.blob` and `engine.json`, and load it once to
    learn what the device makes of it.

    Raises:
        TargetError: unreadable model, float model for int8 or quantized model for fp32, a model quantized to 16 or 4 bits or to
            float8, a precision that contradicts
            the options, a device that is not here or lacks the precision, or refused by the device.
    """
    options = request.options
    precision = runtime.precision_of(options.device, request.precision, options.inference_precision)
    model = read_model(request.model)
    quantized.check_quantized(model, request)
    runtime.mark(model, precision)
    model_api.describe(model, model_api.model_info(request.spec))
    if options.format == "blob":
        engine = request.out_dir / f"engine{runtime.BLOB}"
        core = _core_with(options.device)
        engine.write_bytes(_compiled(core, model, engine, options, precision).export_model().getvalue())
        runtime.write_built_with(engine, core, options.device, precision)
    else:
        engine = request.out_dir / f"engine{INFO.suffix}"
        import_openvino().save_model(model, engine, compress_to_fp16=False)
    with Session(engine, request.spec, options) as session:
        details = {**session.runtime, "layers": session.layers()}
    return CompileResult(engine, request.spec, details)


def check_engine(precision: str, options: Options, spec: ModelSpec) -> None:
    """Refuse a device that is none, a precision against the options, or one that the device, where it is here, does not compute
    in; TargetError."""
    runtime.check_is_one_device(options.device)
    computed = runtime.precision_of(options.device, precision, options.inference_precision)
    try:
        capabilities = _core_with(options.device).get_property(options.device, "OPTIMIZATION_CAPABILITIES")
    except TargetError:  # not installed, or no such device here: nothing can be asked
        if re.fullmatch(rf"({'|'.join(runtime.DEVICES)})(\.\d+)?", options.device):
            return
        raise
    if {"f32": "FP32", "f16": "FP16", "bf16": "BF16"}[computed] not in capabilities:
        raise TargetError(
            f"openvino: {options.device} does not compute in {computed} here, only in {', '.join(capabilities)}; ask for "
            "another precision, or for a device that does"
        )


def why_saturates(model: Path, options: Options, machine: Facts) -> str:
    """Say where the CPU's sums overflow: OpenVINO makes unsigned activations of signed ones, so all 8-bit weights can."""
    is_narrow = options.device == "CPU" and adds_products_in_16_bits(machine)
    return _int8.why_saturates(quantized.wide_weights(model), machine) if is_narrow else ""


def probe(model: Path, options: Options) -> Probe:
    """Ask the device's plugin (`Core.query_model`) which operators of an ONNX or IR file it takes.

    Raises:
        TargetError: OpenVINO is not installed or has not such a device.
    """
    core, tool = _core_with(options.device), f"OpenVINO {runtime_version()}, {options.device}"
    try:
        graph = read_model(model)
        taken = core.query_model(graph, options.device)
    except (RuntimeError, TargetError) as exc:
        return Probe(tool, (Refusal("", "", reason_of(exc)),))
    refused = [op for op in graph.get_ordered_ops() if op.get_friendly_name() not in taken]
    reason = f"no kernel on {options.device}"
    return Probe(tool, tuple(Refusal(op.get_friendly_name(), op.get_type_name(), reason) for op in refused))


class Session(SessionBase):
    """An IR or blob on one device, with one infer request. Output arrays are the request's own memory."""

    options: Options

    def _open(self) -> None:
        started = time.perf_counter_ns()
        core, device = _core_with(self.options.device), self.options.device
        if self.engine.suffix == runtime.BLOB:
            wanted = runtime.precision_of_blob(self.engine, core, device)
            self._compiled = _imported(core, self.engine, self.options, wanted)
        else:
            model = self._model()
            wanted = self.options.inference_precision or runtime.marked(model)
            self._compiled = _compiled(core, model, self.engine, self.options, wanted)
        load_ms = (time.perf_counter_ns() - started) / 1e6
        inputs = ports_by_name(self._compiled.inputs, self.spec.inputs)
        outputs = ports_by_name(self._compiled.outputs, self.spec.outputs)
        check_tensors(self.engine, self.spec, tensors_of(inputs), tensors_of(outputs))
        self._check_precision(wanted)
        self._request = self._compiled.create_infer_request()
        self._tensor = import_openvino().Tensor
        self._bound: Dict[str, np.ndarray] = {}
        self._places = {t.name: list(inputs).index(t.name) for t in self.spec.inputs}
        self._outputs = {t.name: self._request.get_tensor(outputs[t.name]).data for t in self.spec.outputs}
        self.runtime = {**self._facts(core), "inference_precision": wanted, "load_ms": load_ms}

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
        try:
            self._request.infer(share_outputs=True)
        except RuntimeError as exc:  # a device that is lost, say
            raise TargetError(f"{self.engine.name}: {self.options.device} fails: {reason_of(exc)}") from exc
        return dict(self._outputs)

    def _close(self) -> None:
        self._outputs, self._bound, self._request, self._compiled = {}, {}, None, None

    def _model(self) -> Any:
        return read_model(self.engine)

    def layers(self) -> Dict[str, int]:
        """Return how many layers run in each precision; see `layers_of`."""
        return layers_of(self._compiled)

    def _check_precision(self, wanted: str) -> None:
        """Compare what the device says it computes in with what was pinned; an NPU that says nothing has f16 only."""
        actual = reported_precision(self._compiled)
        if not actual and wanted == "f16":
            return
        if actual != wanted:
            raise TargetError(
                f"{self.engine}: expected {self.options.device} to run in {wanted}, got {actual or 'no answer'}; "
                f"ask for a precision that the device has"
            )

    def _facts(self, core: Any) -> Facts:
        facts = properties_of(self._compiled)
        if self.options.cache_dir is not None:
            facts["loaded_from_cache"] = bool(self._compiled.get_property("LOADED_FROM_CACHE"))
        return {
            "runtime": "openvino",
            "version": runtime_version(),
            "device": self.options.device,
            "device_name": core.get_property(self.options.device, "FULL_DEVICE_NAME"),
            "format": self.engine.suffix[1:],
            "threads": facts.get("inference_num_threads", 1),
            **facts,
        }


class Tapped(TappedSession, Session):
    """An IR with some of its inner tensors as further outputs. OpenVINO fuses less around them."""

    def _open(self) -> None:
        if self.engine.suffix == runtime.BLOB:
            raise TargetError(
                f"{self.engine}: a blob is compiled and shows no tensors; expected an engine of format ir"
            )
        super()._open()
        ports = ports_by_name(self._compiled.outputs, self.spec.outputs)
        for name in self.tensors:
            port = next((one for one in ports.values() if name in one.get_names()), None)
            if port is not None:
                self._outputs[name] = self._request.get_tensor(port).data

    def _model(self) -> Any:
        model = super()._model()
        known = {name for op in model.get_ops() for port in op.outputs() for name in port.get_names()}
        taken = {name for port in model.outputs for name in port.get_names()}
        self.tensors = tuple(name for name in self.tensors if name in known)
        wanted = [name for name in self.tensors if name not in taken]
        if wanted:
            model.add_outputs(wanted)
        return model


def _core_with(device: str) -> Any:
    """Return OpenVINO's core after checking that the device is here."""
    core = runtime.shared_core()
    runtime.check_device(core, device)
    return core


def _compiled(core: Any, model: Any, engine: Path, options: Options, precision: str) -> Any:
    if any(port.partial_shape.is_dynamic for port in (*model.inputs, *model.outputs)):
        raise TargetError(
            f"{engine}: expected static shapes, which the contract names and the NPU needs, got {model.inputs}; "
            "export with fixed sizes"
        )
    try:
        return core.compile_model(model, options.device, _settings(core, options, precision))
    except RuntimeError as exc:
        raise TargetError(f"{engine}: OpenVINO refuses it on {options.device}: {reason_of(exc)}") from exc


def _imported(core: Any, blob: Path, options: Options, precision: str) -> Any:
    try:
        return core.import_model(blob.read_bytes(), options.device, _settings(core, options, precision))
    except RuntimeError as exc:
        raise TargetError(f"{blob}: {options.device} cannot import it: {reason_of(exc)}; compile it again") from exc


def tunes() -> Tuple[Choice, ...]:
    """Threads, OpenVINO's goal, and the graphs that move work into it."""
    goal = Choice("hint THROUGHPUT", options={"performance_hint": "THROUGHPUT"})
    return (*threads("num_threads"), goal, *GRAPHS)


def _settings(core: Any, options: Options, precision: str) -> Dict[str, object]:
    settings: Dict[str, object] = {
        "PERFORMANCE_HINT": options.performance_hint,
        PRECISION: precision,
        "EXECUTION_MODE_HINT": "ACCURACY" if precision == "f32" else "PERFORMANCE",
    }
    if runtime.kind_of(options.device) == "NPU":  # which properties it has depends on its driver
        supported = core.get_property(options.device, "SUPPORTED_PROPERTIES")
        settings = {key: value for key, value in settings.items() if key in supported}
        settings["NPU_COMPILER_TYPE"] = options.npu_compiler.upper()
    is_left_to_it = is_hybrid() and environment()["cpu_quota"] is None
    if options.device == "CPU" and (options.num_threads or not is_left_to_it):
        settings["INFERENCE_NUM_THREADS"] = options.num_threads or usable_cores()
    if options.cache_dir is not None:
        settings["CACHE_DIR"] = options.cache_dir
    return settings


TARGET = Target(
    info=INFO,
    options=Options,
    session=Session,
    runtime_version=runtime_version,
    build_engine=build_engine,
    probe=probe,
    check_engine=check_engine,
    why_saturates=why_saturates,
    bound_to=bound_to,
    tap=Tapped,
    tunes=tunes,
)
