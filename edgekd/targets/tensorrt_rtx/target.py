"""Target tensorrt_rtx: TensorRT for RTX, engines for NVIDIA desktop GPUs (SM 7.5 to 12.1), built without a GPU.

An engine holds code for the compute capabilities that it was built for and is finished on the device that loads it.
It is not an engine for Jetson: Orin is SM 8.7 and Thor SM 11.0, which TensorRT-RTX does not know.

Building was run with 1.7.1 on a machine without a GPU; the session was not run on hardware.

Precision is in the graph (strong typing): fp32 as exported, with TF32 switched off; fp16 by converting the graph; int8
by explicit QuantizeLinear and DequantizeLinear of signed int8 with zero point 0. A timing cache has no effect and asks
for a GPU (release notes of 1.1), so there is none.

Source: tensorrt_rtx 1.7.1 Python bindings; docs.nvidia.com/deeplearning/tensorrt-rtx, "CPU-only AOT engines".
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Tuple

from edgekd.board.choices import GRAPHS
from edgekd.board.installation import install
from edgekd.board.options import option
from edgekd.board.specs import ModelSpec
from edgekd.errors import TargetError
from edgekd.targets._nvidia import SUPPORT
from edgekd.targets._nvidia.builder import BUILD_TIMEOUT_S, Build, probe_model
from edgekd.targets._nvidia.cuda import why_no_gpu
from edgekd.targets._nvidia.graph import QUANTIZER, graph_for
from edgekd.targets._nvidia.machine import machine_facts, power_mode
from edgekd.targets._nvidia.options import BuilderOptions
from edgekd.targets._nvidia.session import PlanSession
from edgekd.targets._nvidia.tapping import TappedPlan, mark_debug
from edgekd.targets._nvidia.versions import build_flags, read_plan_header
from edgekd.targets.base import CompileRequest, CompileResult, Probe, Target, TargetInfo, Toolchain

INFO = TargetInfo(
    suffix=".plan",
    compile_at="child",
    quantizer=QUANTIZER,
    precisions=("fp32", "fp16", "int8", "mixed"),
    extra="tensorrt-rtx",
    distributions=("tensorrt-rtx-cu12",),
    toolchain=Toolchain(timeout_s=BUILD_TIMEOUT_S),
    support=(SUPPORT, Path(__file__).with_name("support.yaml")),
)
_PRODUCT = "TensorRT-RTX"
_TYPED_LIKE = (11, 0)  # types and flags are those of TensorRT 11
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options(BuilderOptions):
    """Options of TensorRT-RTX."""

    compute_capabilities: Tuple[str, ...] = option(
        (),
        "GPUs to build for, e.g. `SM86`, `SM89`, `SM120`. Empty: one portable engine for SM 8.0 and later. Turing (`SM75`) "
        "needs to be named.",
    )


def runtime_version() -> str:
    """Return TensorRT-RTX's version; TargetError when it is not installed."""
    return str(import_tensorrt_rtx().__version__)


def bound_to(options: Options) -> str:
    """A plan belongs to the version that built it, and to no GPU in particular."""
    return "version"


def build_engine(request: CompileRequest) -> CompileResult:
    """Write `engine.plan`.

    Raises:
        TargetError: unreadable model, an operator that the parser refuses, a quantized graph that it would misread, a
            float model for int8, or an unknown compute capability.
    """
    trt, options = import_tensorrt_rtx(), request.options
    flags = build_flags(_TYPED_LIKE, request.precision, options.float_layers)
    graph = graph_for(request, flags.is_fp16_graph)
    build = Build(trt, _PRODUCT, flags)
    build.parse(graph, request.model)
    mark_debug(build.network, options.debug_tensors, _PRODUCT)
    build.limit_workspace(options.workspace_mib)
    capabilities = _capabilities(trt, options.compute_capabilities)
    if capabilities:
        config: Any = build.config  # these two are not in TensorRT's API
        config.num_compute_capabilities = len(capabilities)
        for place, capability in enumerate(capabilities):
            config.set_compute_capability(capability, place)
    engine = request.out_dir / f"engine{INFO.suffix}"
    build.write(engine, request.model)
    header = read_plan_header(engine.read_bytes()[:64])
    details = {
        **build.facts(),
        "compute_capabilities": list(options.compute_capabilities) or ["portable: SM 8.0 and later"],
        "float_layers": "fp16" if flags.is_fp16_graph else "fp32",
        "plan_version": ".".join(map(str, header.version)) if header else None,
    }
    return CompileResult(engine, request.spec, details)


def check_engine(precision: str, options: Options, spec: ModelSpec) -> None:
    """Refuse a compute capability that TensorRT-RTX, where it is installed, does not build for; TargetError."""
    try:
        trt = import_tensorrt_rtx()
    except TargetError:
        return
    _capabilities(trt, options.compute_capabilities)


def probe(model: Path, options: Options) -> Probe:
    """Ask the parser which nodes of an ONNX file it takes; TargetError when TensorRT-RTX is not installed."""
    return probe_model(import_tensorrt_rtx(), _PRODUCT, model)


class Session(PlanSession):
    """An engine on the first CUDA device. Not run on hardware."""

    product = _PRODUCT
    target = "tensorrt_rtx"
    options: Options

    def _module(self) -> Any:
        return import_tensorrt_rtx()

    def _prepare(self, runtime: Any, plan: bytes) -> None:
        trt = self._module()
        validity, bits = runtime.get_engine_validity(plan)
        if validity == trt.EngineValidity.INVALID:
            known = trt.EngineInvalidityDiagnostics.__members__
            reasons = [name for name, value in known.items() if int(bits) & int(value)] or ["it gives no reason"]
            raise TargetError(
                f"{self.engine}: this GPU or TensorRT-RTX {trt.__version__} cannot run it ({', '.join(reasons)}); "
                "build it again for this GPU's compute capability with this version"
            )
        self.runtime["engine_validity"] = validity.name.lower()
        if validity == trt.EngineValidity.SUBOPTIMAL:
            log.warning(
                "%s: TensorRT-RTX %s runs it on this GPU, perhaps slower than it could; build it again for this GPU's "
                "compute capability with this version",
                self.engine,
                trt.__version__,
            )


class Tapped(TappedPlan, Session):
    """An engine with its debug tensors as further outputs. Not run on hardware."""


def import_tensorrt_rtx() -> Any:
    """Return the vendor's module; TargetError with the install line when it is absent."""
    try:
        import tensorrt_rtx
    except ImportError as exc:
        raise TargetError(f"tensorrt_rtx is not installed; {install(INFO.extra)}") from exc
    return tensorrt_rtx


def _capabilities(trt: Any, names: Tuple[str, ...]) -> List[Any]:
    known = {name: value for name, value in trt.ComputeCapability.__members__.items() if name.startswith("SM")}
    for name in names:
        if name not in known:
            raise TargetError(f"tensorrt_rtx: compute capability {name!r} is not one of {', '.join(sorted(known))}")
    return [known[name] for name in names]


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
    tunes=lambda: GRAPHS,
)
