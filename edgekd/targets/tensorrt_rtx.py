"""Target tensorrt_rtx: TensorRT for RTX, engines for NVIDIA desktop GPUs (SM 7.5 to 12.1), built without a GPU.

An engine holds code for the compute capabilities that it was built for and is finished on the device that loads it.
It is not an engine for Jetson: Orin is SM 8.7 and Thor SM 11.0, which TensorRT-RTX does not know.

Building was run with 1.7.1 on a machine without a GPU; the session was not run on hardware.

Precision is in the graph (strong typing): fp32 as exported, with TF32 switched off; fp16 by converting the graph; int8
by explicit QuantizeLinear and DequantizeLinear of signed int8 with zero point 0. The parser also takes uint8, and would
read it as signed with the same scale, which clips everything above half of the range: such a graph is refused here.

Source: tensorrt_rtx 1.7.1 Python bindings; docs.nvidia.com/deeplearning/tensorrt-rtx, "CPU-only AOT engines".
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from edgekd.board.specs import TensorSpec
from edgekd.board.sysinfo import missing_device
from edgekd.errors import TargetError
from edgekd.targets._cuda import Cuda
from edgekd.targets.base import CompileRequest, CompileResult, SessionBase, TargetInfo, check_tensors, one_line

INFO = TargetInfo(
    suffix=".plan",
    compile_at="host",
    quantizer="qdq_signed",
    precisions=("fp32", "fp16", "int8"),
    extra="tensorrt-rtx",
    needs="cuda",
)


@dataclass(frozen=True)
class Options:
    """Options of TensorRT-RTX.

    compute_capabilities: what to build for, e.g. `SM86`, `SM89`, `SM120`; empty builds one portable engine for SM 8.0
        and later (Turing, SM75, has to be named).
    workspace_mib: limit of the scratch memory that layers may take; 0 leaves the runtime's own.
    """

    compute_capabilities: Tuple[str, ...] = ()
    workspace_mib: int = 0


def runtime_version() -> str:
    """Return TensorRT-RTX's version; TargetError when it is not installed."""
    return _import().__version__


def build_engine(request: CompileRequest) -> CompileResult:
    """Write `engine.plan`.

    Raises:
        TargetError: unreadable model, an operator that the parser refuses, a quantized graph that it would misread, a
            float model for int8, or an unknown compute capability.
    """
    trt = _import()
    model = _model_of(request)
    log = _Log(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(0)  # explicit batch and strong typing are all there is
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(model.SerializeToString()):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        raise TargetError(f"{request.model}: TensorRT-RTX cannot parse it: {'; '.join(map(_of_node, errors))}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    if request.options.workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.options.workspace_mib << 20)
    capabilities = _capabilities(trt, request.options.compute_capabilities)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for place, capability in enumerate(capabilities):
            config.set_compute_capability(capability, place)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise TargetError(f"{request.model}: TensorRT-RTX cannot build it: {log.last_error()}")
    engine = request.out_dir / f"engine{INFO.suffix}"
    engine.write_bytes(bytes(plan))
    details = {
        "compute_capabilities": list(request.options.compute_capabilities) or ["portable: SM 8.0 and later"],
        "layers": network.num_layers,
        "convolutions": _count(network, trt.LayerType.CONVOLUTION),
        "quantized_convolutions": _quantized_convolutions(network, trt),
        "tf32": False,
    }
    return CompileResult(engine, request.spec, details)


class Session(SessionBase):
    """An engine on the first CUDA device, one stream, buffers allocated once. Not run on hardware."""

    def _open(self) -> None:
        reason = missing_device(INFO.needs)
        if not self.engine.is_file():
            raise TargetError(f"{self.engine}: no such engine; build it with edgekd compile")
        trt = _import()
        log = _Log(trt)
        plan = self.engine.read_bytes()
        runtime = trt.Runtime(log.logger)
        if len(plan) < runtime.engine_header_size:
            raise TargetError(f"{self.engine}: not a TensorRT-RTX engine ({len(plan)} bytes); build it again")
        if reason:
            raise TargetError(f"{self.engine}: TensorRT-RTX engines run on an NVIDIA GPU, and there is {reason}")
        validity, diagnostics = runtime.get_engine_validity(plan)
        if validity == trt.EngineValidity.INVALID:
            raise TargetError(
                f"{self.engine}: this GPU or TensorRT-RTX {trt.__version__} cannot run it (diagnostics {diagnostics}); "
                "build it again for this GPU's compute capability with this version"
            )
        loaded = runtime.deserialize_cuda_engine(plan)
        if loaded is None:
            raise TargetError(f"{self.engine}: TensorRT-RTX cannot load it: {log.last_error()}")
        names = [loaded.get_tensor_name(i) for i in range(loaded.num_io_tensors)]
        facts = {
            n: (np.dtype(trt.nptype(loaded.get_tensor_dtype(n))).name, tuple(loaded.get_tensor_shape(n))) for n in names
        }
        is_input = {name: loaded.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        check_tensors(
            self.engine, self.spec,
            {n: fact for n, fact in facts.items() if is_input[n]}, {n: fact for n, fact in facts.items() if not is_input[n]},
        )  # fmt: skip
        self._keep = (log, runtime, loaded)  # the context refers to them
        self._context = loaded.create_execution_context()
        self._cuda = Cuda()
        self._buffers = {t.name: self._cuda.allocate(_bytes_of(t)) for t in (*self.spec.inputs, *self.spec.outputs)}
        for name, address in self._buffers.items():
            self._context.set_tensor_address(name, address)
        self._outputs = {t.name: np.empty(t.shape, t.dtype) for t in self.spec.outputs}
        self.runtime = {"runtime": "tensorrt_rtx", "version": trt.__version__, "threads": 1, "device": "cuda:0"}

    def _infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        for tensor in self.spec.inputs:
            self._cuda.to_device(self._buffers[tensor.name], inputs[tensor.name])
        if not self._context.execute_async_v3(self._cuda.stream):
            raise TargetError(f"{self.engine}: TensorRT-RTX failed to run it: {self._keep[0].last_error()}")
        for name, array in self._outputs.items():
            self._cuda.to_host(array, self._buffers[name])
        self._cuda.synchronize()
        return dict(self._outputs)

    def _close(self) -> None:
        self._cuda.free(list(self._buffers.values()))
        del self._context, self._keep


class _Log:
    """Collects what the vendor's library says, instead of printing it."""

    def __init__(self, trt: Any) -> None:
        self.lines: List[Tuple[Any, str]] = []
        lines, severe = self.lines, (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
        self._severe = severe

        class Collect(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                lines.append((severity, message))

        self.logger = Collect()

    def last_error(self) -> str:
        """Return the last line of an error, on one line."""
        errors = [text for severity, text in self.lines if severity in self._severe]
        return " ".join(errors[-1].split())[:300] if errors else "it gives no reason"


def _import() -> Any:
    try:
        import tensorrt_rtx
    except ImportError as exc:
        raise TargetError("tensorrt_rtx is not installed; pip install 'edgekd[tensorrt-rtx]'") from exc
    return tensorrt_rtx


def _model_of(request: CompileRequest) -> Any:
    """Return the ONNX model in the precision asked for."""
    import onnx

    try:
        model = onnx.load(str(request.model))
        onnx.checker.check_model(model)
    except Exception as exc:  # protobuf's DecodeError, OSError or ValidationError, depending on the damage
        raise TargetError(f"{request.model}: not a readable ONNX file: {one_line(exc)}") from exc
    is_quantized = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    if is_quantized != (request.precision == "int8"):
        wanted, got = ("quantized", "a float one") if request.precision == "int8" else ("float", "a quantized one")
        raise TargetError(f"{request.model}: precision {request.precision} expected a {wanted} model, got {got}")
    if is_quantized:
        check_zero_points(model, request.model)
    if request.precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
    return model


def check_zero_points(model: Any, path: Path) -> None:
    """Refuse a Q/DQ graph that TensorRT would misread.

    Args:
        model: an `onnx.ModelProto`.
        path: its file, for the message.

    Raises:
        TargetError: a zero point that is not 0, or not int8; the message names the node.
    """
    from onnx import numpy_helper

    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)  # ONNX's default
        if zero is None or zero.dtype != np.int8 or zero.any():
            got = "one that is computed" if zero is None else f"{zero.dtype} {np.unique(zero)[:3].tolist()}"
            raise TargetError(
                f"{path}: node {node.name!r}: expected an int8 zero point of 0, got {got}; TensorRT would misread it; "
                f"quantize with {INFO.quantizer}"
            )


def _capabilities(trt: Any, names: Tuple[str, ...]) -> List[Any]:
    known = {name: value for name, value in trt.ComputeCapability.__members__.items() if name.startswith("SM")}
    for name in names:
        if name not in known:
            raise TargetError(f"tensorrt_rtx: compute capability {name!r} is not one of {', '.join(sorted(known))}")
    return [known[name] for name in names]


def _of_node(error: Any) -> str:
    return f"{error.node_operator()} {error.node_name()!r}: {one_line(Exception(error.desc()))}"


def _count(network: Any, kind: Any) -> int:
    return sum(network.get_layer(i).type == kind for i in range(network.num_layers))


def _quantized_convolutions(network: Any, trt: Any) -> int:
    """Return how many convolutions read an activation that comes out of a dequantization."""
    producers = {}
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        producers.update({layer.get_output(k).name: layer.type for k in range(layer.num_outputs)})
    convolutions = [network.get_layer(i) for i in range(network.num_layers)]
    return sum(
        layer.type == trt.LayerType.CONVOLUTION and producers.get(layer.get_input(0).name) == trt.LayerType.DEQUANTIZE
        for layer in convolutions
    )


def _bytes_of(tensor: TensorSpec) -> int:
    return int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
