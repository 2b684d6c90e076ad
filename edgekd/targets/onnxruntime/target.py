"""Target onnxruntime: the engine is the ONNX file itself, run by ONNX Runtime.

The file stays portable: ONNX Runtime optimises for the CPU it runs on when it loads it. A graph saved after
optimisation would be tied to one machine and would not be faster (docs of `optimized_model_filepath`, 1.32).

Other execution providers than the CPU's come with other builds of ONNX Runtime, onnxruntime-gpu or onnxruntime-openvino
say, which replace the package onnxruntime; see `providers.py` for what is made of their falling back to the CPU.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List, Literal, Mapping, Optional, Tuple

import numpy as np

from edgekd.board.choices import GRAPHS, Choice, threads
from edgekd.board.installation import install
from edgekd.board.options import option
from edgekd.board.specs import ModelSpec
from edgekd.board.sysinfo import Facts, adds_products_in_16_bits, usable_cores
from edgekd.errors import ImageError, TargetError, one_line
from edgekd.rewrites.graph import Graph, copy_onnx, read_graph, read_onnx
from edgekd.rewrites.pairs import wide_weights
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
from edgekd.targets.onnxruntime import providers

INFO = TargetInfo(
    suffix=".onnx",
    compile_at="host",
    quantizer="qdq",
    precisions=("fp32", "int8", "mixed"),
    extra="onnxruntime",
    distributions=("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    support=(Path(__file__).with_name("support.yaml"),),
)
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
# Threads that spin after a run take the cores from what comes next: pre- and post-processing with two threads took 1.6 times as
# long on two cores (1.32, measured with `benchmarks/wall_vs_engine.py`); the run itself is as fast.
_SESSION_CONFIG = {"session.force_spinning_stop": "1"}
# What a run raises for inputs that do not fit; the rest, of a GPU without memory, say, is not the input's fault.
_OF_THE_INPUT = ("InvalidArgument", "ValueError")


@dataclass(frozen=True)
class Options:
    """Options of ONNX Runtime."""

    intra_op_threads: Optional[int] = option(
        None, "Threads of one operator, 1 to 1024. `null`: the physical cores that the process may use."
    )
    providers: Tuple[str, ...] = option(
        ("CPUExecutionProvider",),
        "Execution providers, in order. A provider that is absent is an error. Nodes that fall back to the CPU are an error "
        "unless the list names CPUExecutionProvider.",
    )
    graph_optimization: Literal["all", "extended", "basic", "disabled"] = option(
        "all", "Level of ONNX Runtime's graph optimizations."
    )
    memory_arena: bool = option(
        True,
        "Memory of tensors stays with the session between runs (`enable_cpu_mem_arena`). `false`: less memory, slower.",
    )
    provider_options: Mapping[str, Mapping[str, str]] = option(
        {},
        "Options of each provider, as ONNX Runtime documents them. By default float operators compute in float32 and a "
        "provider has the session's threads.",
    )
    session_config: Mapping[str, str] = option(
        {},
        'Entries of the session configuration. By default `session.force_spinning_stop: "1"`: threads sleep after a run.',
    )

    def __post_init__(self) -> None:
        check_range("intra_op_threads", self.intra_op_threads, 1, 1024)
        if not self.providers:
            raise ValueError("providers: expected at least one, e.g. CPUExecutionProvider")
        if "" in self.session_config:
            raise ValueError(
                "session_config: expected names of ONNX Runtime's session configuration, got an empty name"
            )


def runtime_version() -> str:
    """Return ONNX Runtime's version; TargetError when it is not installed."""
    return str(import_onnxruntime().__version__)


def build_engine(request: CompileRequest) -> CompileResult:
    """Copy the model to `engine.onnx` after checking that it is of the asked precision and that the runtime takes it.

    Raises:
        ArtifactError: the file is not a readable ONNX model.
        TargetError: float model for int8 or quantized model for fp32, a model quantized to 16 or 4 bits or to float8, provider
            options that contradict fp32, over 2 GiB with external weights, or refused by the runtime.
    """
    if request.precision == "fp32":
        providers.check_float32(request.options.provider_options)
    model = read_onnx(request.model, has_weights=False)
    quantized = sum(node.op_type == "DequantizeLinear" for node in model.graph.node)
    # A mixed model may have every layer in float.
    if request.precision != "mixed" and (request.precision == "int8") != (quantized > 0):
        wanted, todo = (
            ("quantized", "quantize it with qdq first") if quantized == 0 else ("float", "give the exported one")
        )
        raise TargetError(
            f"{request.model}: precision {request.precision} expected a {wanted} model, got one with {quantized} "
            f"DequantizeLinear nodes; {todo}"
        )
    if quantized:
        _int8.check_types(Graph(model), request.model, "ONNX Runtime")
    engine = request.out_dir / f"engine{INFO.suffix}"
    copy_onnx(request.model, engine)
    with Session(engine, request.spec, request.options) as session:
        details = dict(session.runtime)
    return CompileResult(engine, request.spec, details)


def why_saturates(model: Path, options: Options, machine: Facts) -> str:
    """Say where the CPU's sums overflow: uint8 activations with int8 weights of 8 bits; int8 with int8 does not.

    Source: ONNX Runtime documentation, "Quantize ONNX models", data type selection; measured with 1.32.
    """
    if "CPUExecutionProvider" not in options.providers or not adds_products_in_16_bits(machine):
        return ""
    found = wide_weights(read_graph(model))
    return _int8.why_saturates((one for one in found if (one.activations, one.weights) == ("uint8", "int8")), machine)


def check_engine(precision: str, options: Options, spec: ModelSpec) -> None:
    """Refuse options of no provider or against the precision, and providers that no ONNX Runtime has; TargetError."""
    if precision == "fp32":
        providers.check_float32(options.provider_options)
    providers.with_defaults(options.providers, options.provider_options, 1)
    try:
        runtime = import_onnxruntime()
    except TargetError:
        return
    providers.check_known(runtime, options.providers)


def probe(model: Path, options: Options) -> Probe:
    """Ask ONNX Runtime by loading an ONNX file on the options' providers.

    Raises:
        TargetError: ONNX Runtime is not installed or has not such a provider.
    """
    runtime, names = import_onnxruntime(), options.providers
    tool = f"onnxruntime {runtime.__version__}, {', '.join(names)}"
    settings = _settings(runtime, options)
    settings.log_severity_level = 4  # what it says is in the exception
    configured = providers.with_defaults(names, options.provider_options, settings.intra_op_num_threads)
    providers.check_available(runtime, names)
    try:
        session = providers.open_session(runtime, model, settings, configured)
    except TargetError as exc:
        named = re.search(r"[Nn]ode ?\(?(?:name: )?'?([^\s)']+)", str(exc))
        return Probe(tool, (Refusal(named[1] if named else "", "", str(exc)),))
    fallen = providers.strays(providers.placed(session, names), names)
    return Probe(tool, tuple(Refusal(node, kind, f"runs on the {where}") for where, node, kind in fallen))


class Session(SessionBase):
    """An ONNX file in an `InferenceSession`. Output arrays are new on every call."""

    options: Options

    def _open(self) -> None:
        runtime = import_onnxruntime()
        settings, names = _settings(runtime, self.options), self.options.providers
        threads = settings.intra_op_num_threads
        configured = providers.with_defaults(names, self.options.provider_options, threads)
        self._session = providers.open_session(runtime, self.engine, settings, configured)
        nodes = providers.check_placed(self.engine, providers.placed(self._session, names), names)
        check_tensors(
            self.engine, self.spec, _tensors(self._session.get_inputs()), _tensors(self._session.get_outputs())
        )
        self._run = self._session.run
        self._names = [tensor.name for tensor in self.spec.outputs]
        self.runtime = {
            "runtime": "onnxruntime",
            "version": runtime.__version__,
            "providers": self._session.get_providers(),
            "provider_options": {name: options for name, options in configured if options},
            "nodes": nodes,
            "threads": threads,
            "graph_optimization": self.options.graph_optimization,
            "session_options": {
                "inter_op_num_threads": settings.inter_op_num_threads,
                "execution_mode": settings.execution_mode.name,
                "enable_cpu_mem_arena": settings.enable_cpu_mem_arena,
                "enable_mem_pattern": settings.enable_mem_pattern,
                **_SESSION_CONFIG,
                **self.options.session_config,
            },
        }

    def _infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        for tensor in self.spec.inputs:
            if not isinstance(inputs.get(tensor.name), np.ndarray):
                raise ImageError(f"{self.engine.name}: input refused: expected an array {tensor.name}")
        try:
            arrays = self._run(self._names, inputs)
        except Exception as exc:  # the binding's exceptions have no common base but Exception
            if type(exc).__name__ in _OF_THE_INPUT:
                raise ImageError(f"{self.engine.name}: input refused: {one_line(exc)}") from exc
            raise TargetError(f"{self.engine.name}: onnxruntime fails: {one_line(exc)}") from exc
        return {name: arrays[i] for i, name in enumerate(self._names)}

    def _close(self) -> None:
        self._run = self._session = None


class Tapped(TappedSession, Session):
    """An ONNX file with some of its inner tensors as further outputs; needs the package onnx."""

    def _open(self) -> None:
        engine, model = self.engine, read_onnx(self.engine)
        known = {name for node in model.graph.node for name in node.output}
        taken = {value.name for value in model.graph.output}
        self.tensors = tuple(name for name in self.tensors if name in known)
        for name in self.tensors:
            if name not in taken:
                model.graph.output.add().name = name  # ONNX Runtime infers type and shape
        with TemporaryDirectory(prefix="edgekd-tapped-") as folder:
            self.engine = Path(folder) / engine.name
            self.engine.write_bytes(model.SerializeToString())
            try:
                super()._open()
            finally:
                self.engine = engine
        self._names += [name for name in self.tensors if name not in self._names]


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
        raise TargetError(f"onnxruntime is not installed; {install('onnxruntime')}") from exc
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return onnxruntime


def _settings(runtime: Any, options: Options) -> Any:
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = options.intra_op_threads or usable_cores()
    settings.inter_op_num_threads = 1  # operators of these networks run one after another
    settings.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, _LEVELS[options.graph_optimization])
    settings.enable_cpu_mem_arena = options.memory_arena
    for key, value in {**_SESSION_CONFIG, **options.session_config}.items():
        settings.add_session_config_entry(key, value)
    return settings


def tunes() -> Tuple[Choice, ...]:
    """Threads, their waiting between operators, memory, the optimiser's level, and the graphs that move work into it."""
    asleep = Choice("no spinning", options={"session_config": {"session.intra_op.allow_spinning": "0"}})
    between = Choice("spinning goes on", options={"session_config": {"session.force_spinning_stop": "0"}})
    plain = Choice("optimization extended", options={"graph_optimization": "extended"})
    arena = Choice("no memory arena", options={"memory_arena": False})
    return (*threads("intra_op_threads"), asleep, between, plain, arena, *GRAPHS)


def _tensors(arguments: List[Any]) -> Dict[str, Tuple[str, Tuple[int, ...]]]:
    return {a.name: (_DTYPES.get(a.type, a.type), tuple(a.shape)) for a in arguments}


TARGET = Target(
    info=INFO,
    options=Options,
    session=Session,
    runtime_version=runtime_version,
    build_engine=build_engine,
    probe=probe,
    check_engine=check_engine,
    why_saturates=why_saturates,
    tap=Tapped,
    tunes=tunes,
)
