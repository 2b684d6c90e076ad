"""Target tensorrt: TensorRT 8.6 to 11, for Jetson and discrete NVIDIA GPUs. Not run on hardware.

An engine fits the version that built it and the GPU that it was built on, so it is built where it runs.

Precision: fp32 with TF32 switched off; fp16 by a builder flag up to TensorRT 10, by converting the graph from 11 on; int8
by explicit QuantizeLinear and DequantizeLinear of signed int8 with zero point 0. Implicit int8 calibration is gone in 11
and is not offered.

The code that builds is the one of the target tensorrt_rtx, which is run; the calls made only here are checked against the
published type stubs (tensorrt-stubs 10.13) and the names in the bindings' library (tensorrt-cu12-bindings 11.4.0).

Source: TensorRT Python API reference, 8.6 to 11.4.
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import importlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional

from edgekd.board.choices import GRAPHS, Choice
from edgekd.board.installation import install
from edgekd.board.options import option
from edgekd.board.specs import ModelSpec
from edgekd.errors import TargetError
from edgekd.targets._nvidia import SUPPORT
from edgekd.targets._nvidia.builder import BUILD_TIMEOUT_S, Build, probe_model
from edgekd.targets._nvidia.cuda import device_facts, why_no_gpu
from edgekd.targets._nvidia.graph import QUANTIZER, graph_for
from edgekd.targets._nvidia.machine import machine_facts, power_mode
from edgekd.targets._nvidia.options import BuilderOptions
from edgekd.targets._nvidia.session import PlanSession, check_device, write_device
from edgekd.targets._nvidia.tapping import TappedPlan, mark_debug
from edgekd.targets._nvidia.versions import build_flags, check_dla, check_dla_precision, version_of
from edgekd.targets.base import CompileRequest, CompileResult, Probe, Target, TargetInfo, Toolchain, check_range
from edgekd.targets.tensorrt_rtx.target import import_tensorrt_rtx

if TYPE_CHECKING:
    import tensorrt

INFO = TargetInfo(
    suffix=".plan",
    compile_at="board",
    quantizer=QUANTIZER,
    precisions=("fp32", "fp16", "int8", "mixed"),
    extra="tensorrt",
    distributions=("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    toolchain=Toolchain(timeout_s=BUILD_TIMEOUT_S),
    support=(SUPPORT,),
)
_PRODUCT = "TensorRT"
LAYERS = "layers.json"


@dataclass(frozen=True)
class Options(BuilderOptions):
    """Options of TensorRT."""

    optimization_level: Optional[Literal[0, 1, 2, 3, 4, 5]] = option(
        None, "Level of the builder's search, 0 (fast build) to 5 (longest search). `null`: TensorRT's own, 3."
    )
    timing_cache: Optional[str] = option(
        None,
        "File with measured kernel times, read if it exists and written after the build. The next build is faster and picks "
        "the same kernels. The file belongs to one GPU and one TensorRT version.",
        is_path=True,
    )
    version_compatible: bool = option(
        False,
        "The engine also loads in later versions (8 in 10, 10 in 11), and may be slower. It holds code that runs on the "
        "host: load only engines that you built.",
    )
    dla_core: Optional[int] = option(None, "DLA core that runs the engine. `null`: the GPU.")
    dla_gpu_fallback: bool = option(
        False, "Layers that the DLA does not support run on the GPU. `false`: they are an error."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("dla_core", self.dla_core, 0)


def runtime_version() -> str:
    """Return TensorRT's version; TargetError when it is not installed."""
    return str(_import().__version__)


def bound_to(options: Options) -> str:
    """A plan belongs to the GPU and the version. It is built again for another version, also for a compatible one."""
    return "machine"


def build_engine(request: CompileRequest) -> CompileResult:
    """Write `engine.plan`, the GPU it was built on as `engine.json`, and its layers as `layers.json`.

    Raises:
        TargetError: no TensorRT or a version that edgekd does not know, no GPU, an unreadable model, an operator that the
            parser refuses, a quantized graph that it would misread, a float model for int8, or a DLA that cannot.
    """
    trt, options = _import(), request.options
    check_engine(request.precision, options, request.spec)
    _check_timing_cache(options)
    version = version_of(trt.__version__)
    device = device_facts()
    flags = build_flags(version, request.precision, options.float_layers)
    graph = graph_for(request, flags.is_fp16_graph)
    build = Build(trt, _PRODUCT, flags)
    build.parse(graph, request.model)
    mark_debug(build.network, options.debug_tensors, _PRODUCT)
    if options.dla_core is not None:
        check_dla(version, request.precision, options.dla_core, build.builder.num_DLA_cores)
    configure(build, options)
    cache = _read_timing_cache(build, options)
    engine = request.out_dir / f"engine{INFO.suffix}"
    build.write(engine, request.model)
    write_device(engine, device)
    if cache is not None and options.timing_cache:
        Path(options.timing_cache).write_bytes(bytes(cache.serialize()))
    half = flags.is_fp16_graph or "FP16" in flags.builder
    details = {
        **build.facts(),
        **device,
        "network_flags": list(flags.network),
        "builder_flags": list(flags.builder),
        "float_layers": "fp16" if half else "fp32",
    }
    with Session(engine, request.spec, options) as session:
        details["layers_file"] = LAYERS
        (request.out_dir / LAYERS).write_text(json.dumps(session.layers(), indent=1), encoding="utf-8")
    return CompileResult(engine, request.spec, details)


def check_engine(precision: str, options: Options, spec: ModelSpec) -> None:
    """Refuse fp32 on the DLA, which has none; TargetError."""
    if options.dla_core is not None:
        check_dla_precision(precision, options.dla_core)


def _check_timing_cache(options: Options) -> None:
    """Refuse a file in a folder that is not there, before the long build; TargetError."""
    if options.timing_cache and not Path(options.timing_cache).absolute().parent.is_dir():
        raise TargetError(f"tensorrt: timing_cache {options.timing_cache}: no such folder; create it, or give another")


def probe(model: Path, options: Options) -> Probe:
    """Ask the parser which nodes of an ONNX file it takes: TensorRT's where it is installed, from 10.7 on.

    Elsewhere TensorRT-RTX's stands in: the same code, but not the same release. TargetError when neither is installed.
    """
    with suppress(TargetError):
        trt = _import()
        if hasattr(trt.OnnxParser, "supports_model_v2"):
            return probe_model(trt, _PRODUCT, model)
    try:
        stand_in = import_tensorrt_rtx()
    except TargetError as exc:
        raise TargetError(f"neither TensorRT 10.7 or later nor tensorrt_rtx, which can stand in: {exc}") from exc
    return probe_model(stand_in, "standing in for TensorRT: TensorRT-RTX", model)


def configure(build: Build, options: Options) -> None:
    """Put the options into the builder's configuration; the inspector needs detailed verbosity to name layers."""
    trt, config = build.trt, build.config
    build.limit_workspace(options.workspace_mib)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        if options.dla_gpu_fallback:
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


class Session(PlanSession):
    """An engine on the first CUDA device, or on the DLA core that it was built for. Not run on hardware."""

    product = _PRODUCT
    target = "tensorrt"
    options: Options

    def layers(self) -> Any:
        """Return the engine's layers, as TensorRT's inspector tells them."""
        trt = self._module()
        inspector: tensorrt.EngineInspector = self.loaded.create_engine_inspector()
        return json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def _module(self) -> Any:
        return _import()

    def _is_version_compatible(self) -> bool:
        return self.options.version_compatible

    def _prepare(self, runtime: tensorrt.Runtime, plan: bytes) -> None:
        check_device(self.engine, device_facts())
        if self.options.version_compatible:
            runtime.engine_host_code_allowed = True
        if self.options.dla_core is not None:
            runtime.DLA_core = self.options.dla_core


class Tapped(TappedPlan, Session):
    """An engine with its debug tensors as further outputs. Not run on hardware."""


def _read_timing_cache(build: Build, options: Options) -> Optional[tensorrt.ITimingCache]:
    """Attach the timing cache of the options, empty when its file does not exist; None when there is none.

    Raises:
        TargetError: the file belongs to another GPU or version.
    """
    if options.timing_cache is None:
        return None
    file = Path(options.timing_cache)
    cache = build.config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if cache is None or not build.config.set_timing_cache(cache, False):
        raise TargetError(
            f"{file}: not a timing cache of this GPU and TensorRT version: {build.log.last_error()}; remove it"
        )
    return cache


def _import() -> Any:
    module: Any = None
    with suppress(ImportError):
        module = importlib.import_module("tensorrt")
    if not hasattr(module, "__version__"):  # also where only its type stubs are installed
        raise TargetError(
            f"tensorrt is not installed; it comes with JetPack on a Jetson; elsewhere {install(INFO.extra)}"
        )
    return module


TARGET = Target(
    info=INFO,
    options=Options,
    session=Session,
    runtime_version=runtime_version,
    build_engine=build_engine,
    why_not_here=why_no_gpu,
    probe=probe,
    check_engine=check_engine,
    bound_to=bound_to,
    tap=Tapped,
    machine_facts=machine_facts,
    power_mode=power_mode,
    tunes=lambda: (Choice("optimization level 5", options={"optimization_level": 5}, is_built=True), *GRAPHS),
)
