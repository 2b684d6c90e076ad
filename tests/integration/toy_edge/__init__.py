"""Target toy: an ONNX file under another name, run by ONNX Runtime; it uses every hook of a target.

It is compiled in a toolchain of its own, whose int8 rounds weights and reads the calibration pixels. Portable.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from toy_edge.rounding import rounded

from edgekd.board.options import option
from edgekd.board.specs import ModelSpec
from edgekd.errors import TargetError
from edgekd.targets.base import (
    CompileRequest,
    CompileResult,
    Probe,
    Refusal,
    SessionBase,
    Target,
    TargetInfo,
    Toolchain,
    check_tensors,
    one_line,
)

HERE = Path(__file__).parent
INFO = TargetInfo(
    suffix=".toy",
    compile_at="toolchain",
    quantizer="vendor",
    precisions=("fp32", "int8"),
    extra="",
    distributions=("thing-toy",),
    calibration="pixels",
    toolchain=Toolchain(log_errors=(r"^TOY ERROR",), log_notes=(r"^TOY NOTE",), requirements=HERE / "toolchain.txt"),
    support=(HERE / "support.yaml",),
    chips=(HERE / "toychip.yaml",),
)


@dataclass(frozen=True)
class Options:
    """Options of the toy."""

    cache_dir: str | None = option(None, "Folder in which the toolchain says that it was there.", is_path=True)
    chip: str = option("toychip", "Chip that the engine is built for.")
    is_fast: bool = option(False, "Skip everything that takes time, which int8 cannot.")


def runtime_version() -> str:
    """Return ONNX Runtime's version; TargetError when it is not installed."""
    return str(_runtime().__version__)


def why_not_here(options: Options | None) -> str:
    """Return why there is no toy board here, "" when there is one."""
    return "" if os.environ.get("TOY_BOARD", "1") == "1" else "no toy board in this machine"


def check_engine(precision: str, options: Options, spec: ModelSpec) -> None:
    """Refuse a fast int8 engine; TargetError."""
    if options.is_fast and precision == "int8":
        raise TargetError("toy: is_fast contradicts precision int8; leave it out")


def bound_to(options: Options) -> str:
    """An engine loads in every version, on every machine."""
    return ""


def probe(model: Path, options: Options) -> Probe:
    """Refuse nothing but a Softmax."""
    import onnx

    nodes = onnx.load(str(model)).graph.node
    refused = [
        Refusal(node.name, node.op_type, "toys do not exponentiate") for node in nodes if node.op_type == "Softmax"
    ]
    return Probe("toy compiler", tuple(refused))


def machine_facts(root: str) -> dict[str, Any]:
    """Return the toy board's own fact."""
    return {"toy_board": os.environ.get("TOY_BOARD", "1")}


def build_engine(request: CompileRequest) -> CompileResult:
    """Write `engine.toy`.

    Raises:
        TargetError: unreadable, or calibration pixels that do not fit the precision.
    """
    import onnx

    check_engine(request.precision, request.options, request.spec)
    if request.precision == "int8" and request.calibration is None:
        raise TargetError(f"{request.model}: precision int8 expected a quantized model, got one without pixels")
    if request.precision == "fp32" and request.calibration is not None:
        raise TargetError(f"{request.model}: precision fp32 expected a float model, got one with pixels")
    model = onnx.load(str(request.model))
    model = onnx.load(str(request.model))
    details: dict[str, Any] = {"where": str(HERE)}
    if request.calibration is not None:
        details["pixels"] = list(np.load(str(request.calibration)).shape)
        rounded(model)
    if request.options.cache_dir is not None:
        Path(request.options.cache_dir).mkdir(exist_ok=True)
        (Path(request.options.cache_dir) / f"{request.precision}.txt").write_text("built\n", encoding="utf-8")
    print("TOY NOTE: this is no chip", flush=True)
    engine = request.out_dir / "engine.toy"
    onnx.save(model, str(engine), format="protobuf")
    return CompileResult(engine, request.spec, details)


class Session(SessionBase):
    """The ONNX file in an `InferenceSession`, on a toy board."""

    def _open(self) -> None:
        runtime = _runtime()
        if not self.engine.is_file():
            raise TargetError(f"{self.engine}: no such engine; build it with edgekd compile")
        if reason := why_not_here(self.options):
            raise TargetError(f"{self.engine}: toys run on a toy board, and there is {reason}")
        try:
            self._session = runtime.InferenceSession(self.engine.read_bytes(), providers=["CPUExecutionProvider"])
        except Exception as exc:
            raise TargetError(f"{self.engine}: not a toy: {one_line(exc)}") from exc
        check_tensors(
            self.engine, self.spec, _tensors(self._session.get_inputs()), _tensors(self._session.get_outputs())
        )
        self.runtime = {"runtime": "toy", "version": runtime_version(), "threads": 1}

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [tensor.name for tensor in self.spec.outputs]
        return dict(zip(names, self._session.run(names, inputs)))  # noqa: B905


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as exc:
        raise TargetError("onnxruntime is not installed; pip install onnxruntime") from exc
    return onnxruntime


def _tensors(arguments: Any) -> dict[str, Any]:
    kinds = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
    return {one.name: (kinds.get(one.type, one.type), tuple(one.shape)) for one in arguments}


TARGET = Target(
    info=INFO,
    options=Options,
    session=Session,
    runtime_version=runtime_version,
    build_engine=build_engine,
    why_not_here=why_not_here,
    probe=probe,
    check_engine=check_engine,
    bound_to=bound_to,
    machine_facts=machine_facts,
)
