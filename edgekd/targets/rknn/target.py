"""Target rknn: Rockchip NPUs (RK3588, RK3576, RK356x, RV11xx), compiled by RKNN-Toolkit2 in its own virtualenv.

The engine takes the uint8 image itself, (1, H, W, 3): the normalisation of the exported network's contract goes into the
toolkit's configuration, once, and the contract that comes back has none.

int8 is the toolkit's own quantization (asymmetric activations, weights per channel) of the float model with the
calibration pixels that the compile request hands over.

`Session` runs on a board through rknn-toolkit-lite2 and was not run on hardware. `Simulator` runs here, in the toolchain:
the toolkit simulates only what the same process has built, so it builds again from the files kept in `simulator/` beside
the engine. It says something about correctness and nothing about time, and it is not the chip: a Resize that it computes
rightly was wrong on an RV1126B (airockchip/rknn-toolkit2, issue 579).

Source: rknn-toolkit2 2.5.0, Python signatures; RKNN SDK API reference 2.3.2.
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, Literal, Optional, Tuple

import numpy as np

from edgekd.board.choices import ARGMAX, Choice
from edgekd.board.options import option
from edgekd.board.precision import Precision
from edgekd.board.specs import ModelSpec, TensorSpec
from edgekd.errors import TargetError
from edgekd.targets.base import CompileRequest, CompileResult, SessionBase, Target, TargetInfo, Toolchain, check_range
from edgekd.targets.rknn.chip import why_not_on
from edgekd.targets.rknn.toolkit import REWRITES, Toolkit, started_version, toolkit_version

# The vendor's libraries print `E RKNN: ...` and `E build: ...` and return 0 all the same. Progress bars end without a new
# line, so the former may stand in the middle of one.
LOG_ERRORS = (r"\bE RKNN: ", r"^E [\w-]+: ")
# RKNN-Toolkit2 2.3.2 and 2.5.0 print this, spelt so, for operators that will run on the board's CPU instead of its NPU: not
# an error, but worth knowing. airockchip/rknn-toolkit2, issues 559 (what it means) and 353. Delete when it is no `E`.
LOG_NOTES = (r"\bE RKNN: \[[\d:.]+\] Unkown op target: 0$",)
INFO = TargetInfo(
    suffix=".rknn",
    compile_at="toolchain",
    quantizer="vendor",
    precisions=("fp16", "int8", "mixed"),
    extra="",
    distributions=("rknn-toolkit2", "rknn-toolkit-lite2"),
    calibration="pixels",
    toolchain=Toolchain(LOG_ERRORS, LOG_NOTES, 3600.0, Path(__file__).with_name("toolchain.txt")),
    support=(Path(__file__).with_name("support.yaml"),),
    rewrites=REWRITES,
)
CALIBRATION, KEPT, MODEL, SPEC = "calibration.npy", "simulator", "model.onnx", "spec.json"
# rknn-toolkit-lite2 2.5.0, core_mask; the others have one.
_NPU_CORES = {"rk3588": 3, "rk3576": 2}
_CORES = {"auto": 0, "0": 1, "1": 2, "2": 4, "0_1": 3, "0_1_2": 7, "all": 0xFFFF}


@dataclass(frozen=True)
class Options:
    """Options of RKNN-Toolkit2 and of the runtime."""

    chip: str = option("rk3588", "Chip, the toolkit's `target_platform`; `edgekd/chips` lists them.")
    algorithm: Literal["normal", "mmse", "kl_divergence", "gdq"] = option(
        "normal", "Method that derives activation ranges from the calibration set."
    )
    weights: Literal["channel", "layer"] = option("channel", "Weight scales: one per output channel, or one per layer.")
    auto_hybrid: bool = option(
        False, "The toolkit keeps layers in float16 whose cosine to the float result is below its threshold."
    )
    keep_float16: Tuple[str, ...] = option(
        (), "ONNX tensors whose layers stay in float16; take the worst ones of the accuracy analysis."
    )
    optimization_level: int = option(
        3, "Level of the toolkit's graph rewrites, 0 to 3. 0 turns them off, to find a wrong one."
    )
    analysed_images: int = option(
        0, "Calibration images on which every layer is compared with float. 0 skips the analysis."
    )
    core_mask: Literal["auto", "0", "1", "2", "0_1", "0_1_2", "all"] = option(
        "auto", "NPU cores that a session on the board uses."
    )

    def __post_init__(self) -> None:
        check_range("optimization_level", self.optimization_level, 0, 3)
        check_range("analysed_images", self.analysed_images, 0)
        if self.auto_hybrid and self.keep_float16:
            raise ValueError("keep_float16: auto_hybrid chooses these layers by itself; expected one of the two")
        cores = _NPU_CORES.get(self.chip, 1)
        if self.core_mask not in ("auto", "all") and _CORES[self.core_mask] >= 1 << cores:
            raise ValueError(
                f"core_mask: expected some of the NPU cores of {self.chip} ({cores}), got {self.core_mask}"
            )


def runtime_version() -> str:
    """Return the toolkit's version; TargetError when it is not installed in this Python, or does not start."""
    return started_version()


def board_version() -> str:
    """Return the version of rknn-toolkit-lite2; TargetError when it is not installed, or does not import."""
    _import_lite()
    return version("rknn-toolkit-lite2")


def why_not_here(options: Optional[Options]) -> str:
    """Return why this machine cannot run an engine; without options, an engine for any Rockchip chip."""
    return why_not_on(options.chip if options else "")


def build_engine(request: CompileRequest) -> CompileResult:
    """Write `engine.rknn`, and `simulator/` with what building it again needs.

    Raises:
        TargetError: the toolkit is missing or refuses a step, a contract that is not float32 NCHW, a float model for
            int8 or a quantized one for fp16, options that contradict the precision.
    """
    check_engine(request.precision, request.options, request.spec)
    calibration = _calibration(request)
    spec = folded(request.spec)
    kept = request.out_dir / KEPT
    kept.mkdir()
    shutil.copyfile(str(request.model), str(kept / MODEL))
    (kept / SPEC).write_text(json.dumps(request.spec.to_dict()), encoding="utf-8")
    if calibration is not None:
        shutil.copyfile(str(calibration), str(kept / CALIBRATION))
    engine = request.out_dir / f"engine{INFO.suffix}"
    with Toolkit(request.options, request.spec) as toolkit:
        details = toolkit.build(kept / MODEL, calibration)
        toolkit.export(engine)
        if request.options.analysed_images:
            details["analysis"] = toolkit.analyse(np.load(str(calibration))[: request.options.analysed_images])
    return CompileResult(engine, spec, {"chip": request.options.chip, **details})


def check_engine(precision: str, options: Options, spec: ModelSpec) -> None:
    """Refuse options against the precision, and a contract that is not float32 NCHW; TargetError."""
    asked = [name for name in ("auto_hybrid", "keep_float16", "analysed_images") if getattr(options, name)]
    if asked and precision == "fp16":
        raise TargetError(f"rknn: {', '.join(asked)} contradicts precision fp16; leave it out, or ask for int8")
    folded(spec)


def folded(spec: ModelSpec) -> ModelSpec:
    """Return the contract of the engine of an exported float32 NCHW network: uint8 NHWC, not normalised outside.

    Raises:
        TargetError: another input, e.g. one that normalises in its graph already.
    """
    (image,), before = spec.inputs, spec.preprocess
    if (before.dtype, before.layout) != ("float32", "NCHW"):
        raise TargetError(
            f"rknn: expected a network with input float32 NCHW, got {before.dtype} {before.layout}; RKNN normalises and "
            "transposes by itself: export with export.input=float32_nchw"
        )
    batch, channels, height, width = image.shape
    return replace(
        spec,
        inputs=(TensorSpec(image.name, "uint8", (batch, height, width, channels), image.role),),
        preprocess=replace(before, mean=(0.0,) * 3, std=(1.0,) * 3, layout="NHWC", dtype="uint8"),
    )


class Session(SessionBase):
    """An engine on the NPU of this board, through rknn-toolkit-lite2 (librknnrt and driver of the board's system).

    Not run on hardware. Source: rknn-toolkit-lite2 2.5.0.
    """

    options: Options
    _lite: Any = None

    def _open(self) -> None:
        _check_engine(self.engine)
        if reason := why_not_here(self.options):
            raise TargetError(
                f"{self.engine}: RKNN engines run on boards of the chip that they are built for, and there is {reason}"
            )
        self._lite = _import_lite()()
        _done(self._lite.load_rknn(str(self.engine)), "load_rknn", self.engine)
        _done(self._lite.init_runtime(core_mask=_CORES[self.options.core_mask]), "init_runtime", self.engine)
        self.runtime = {
            "runtime": "rknn",
            "version": " ".join(str(self._lite.get_sdk_version()).split()),
            "chip": self.options.chip,
            "core_mask": self.options.core_mask,
            "threads": 1,
        }

    def _infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        arrays = [inputs[tensor.name] for tensor in self.spec.inputs]
        return _named(self._lite.inference(inputs=arrays, data_format=["nhwc"]), self.spec, self.engine)

    def _close(self) -> None:
        if self._lite is not None:
            self._lite.release()
            self._lite = None


class Simulator(SessionBase):
    """The toolkit's simulator on the CPU, for correctness only: it builds the engine's graph again and runs that."""

    options: Options
    _toolkit: Any = None

    def _open(self) -> None:
        _check_engine(self.engine)
        kept = self.engine.parent / KEPT
        if not (kept / SPEC).is_file():
            raise TargetError(f"{kept}: no {SPEC}, which the simulator builds from; compile the engine again")
        exported = ModelSpec.from_dict(json.loads((kept / SPEC).read_text(encoding="utf-8")))
        calibration = kept / CALIBRATION
        self._toolkit = Toolkit(self.options, exported)
        self._toolkit.build(kept / MODEL, calibration if calibration.is_file() else None)
        self._toolkit.start_simulator()
        self.runtime = {
            "runtime": "rknn-simulator",
            "board": "simulator",
            "version": toolkit_version(),
            "chip": self.options.chip,
            "threads": 1,
        }

    def _infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return _named(self._toolkit.run([inputs[t.name] for t in self.spec.inputs]), self.spec, self.engine)

    def _close(self) -> None:
        if self._toolkit is not None:
            self._toolkit.close()
            self._toolkit = None


def _calibration(request: CompileRequest) -> Optional[Path]:
    """Return the calibration pixels of an int8 request, None for fp16.

    Raises:
        TargetError: there are none for int8 or some for fp16.
    """
    is_quantized = Precision(request.precision).is_quantized
    if is_quantized and request.calibration is None:
        raise TargetError(
            f"{request.model}: precision {request.precision} expected a quantized model, got one without calibration pixels; "
            f"quantize it with {INFO.quantizer} first"
        )
    if not is_quantized and request.calibration is not None:
        raise TargetError(f"{request.model}: precision fp16 expected a float model, got one with calibration pixels")
    return request.calibration


def _check_engine(engine: Path) -> None:
    """Refuse what is not an RKNN file: the toolkit and the runtime crash on some damaged ones."""
    if not engine.is_file():
        raise TargetError(f"{engine}: no such engine; build it with edgekd compile")
    with open(str(engine), "rb") as file:
        head = file.read(4)
    if head != b"RKNN":
        raise TargetError(f"{engine}: not an RKNN engine (it begins with {head!r}); build it again")


def _import_lite() -> Any:
    try:
        from rknnlite.api import RKNNLite
    except (ImportError, OSError) as exc:  # OSError: a shared library that is missing or of another processor
        raise TargetError(f"rknn-toolkit-lite2 does not import ({exc}); pip install rknn-toolkit-lite2") from exc
    return RKNNLite


def _done(code: Any, step: str, engine: Path) -> None:
    if code != 0:
        raise TargetError(
            f"{engine}: {step} failed with return code {code!r}; the runtime, the driver and the toolkit's version must "
            "fit each other, see the log"
        )


def _named(arrays: Any, spec: ModelSpec, engine: Path) -> Dict[str, np.ndarray]:
    """Return outputs by name, checked against the contract: shapes and count are all that the runtime tells."""
    found = [] if arrays is None else [np.asarray(array) for array in arrays]
    expected = [tuple(tensor.shape) for tensor in spec.outputs]
    if [array.shape for array in found] != expected:
        raise TargetError(f"{engine}: expected outputs {expected}, got {[array.shape for array in found]}")
    return {t.name: np.ascontiguousarray(a, dtype=t.dtype) for t, a in zip(spec.outputs, found)}  # noqa: B905


TARGET = Target(
    info=INFO,
    options=Options,
    session=Session,
    runtime_version=runtime_version,
    build_engine=build_engine,
    why_not_here=why_not_here,
    check_engine=check_engine,
    board_version=board_version,
    simulator=Simulator,
    keeps_float=lambda options, tensors: {"keep_float16": (*options.keep_float16, *tensors)},
    tunes=lambda: (
        *(Choice(f"NPU cores {mask}", options={"core_mask": mask}) for mask in ("0", "0_1", "0_1_2")),
        ARGMAX,
    ),
)
