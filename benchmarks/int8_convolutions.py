"""Counts the convolutions that engines run in int8; `qat_agreement.py` calls it."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx

from edgekd.board.specs import ModelSpec
from edgekd.errors import EdgekdError
from edgekd.quantize.ranges import Scale
from edgekd.quantize.schemes import qdq, qdq_signed
from edgekd.rewrites.graph import Graph
from edgekd.targets.base import CompileRequest


def int8_convolutions(
    model: Path, spec: ModelSpec, batches: list[dict[str, np.ndarray]], scales: dict[str, Scale], folder: Path
) -> dict[str, str]:
    """Return the number of int8 convolutions and of those in the placement, as text by runtime."""
    placement = qdq.grids(model, spec, qdq.Options())
    graph = Graph(onnx.load(model))
    kinds = {node.name: node.op_type for node in graph.nodes}
    wanted = sum(kinds[node.name] == "Conv" for node in placement.nodes)
    made = qdq.quantize(model, spec, batches, folder, qdq.Options(), scales)
    found = {
        "onnxruntime": f"{_by_onnxruntime(made.model, folder)} of {wanted}",
        "openvino": f"{_by_openvino(made.model)} of {wanted}",
    }
    (folder / "signed").mkdir()
    options = qdq_signed.Options()
    signed = qdq_signed.quantize(model, spec, batches, folder / "signed", options)
    try:
        found["tensorrt_rtx"] = _by_tensorrt_rtx(signed.model, spec, folder / "signed")
    except EdgekdError as exc:
        found["tensorrt_rtx"] = f"0 of 1: {exc}"
    return found


def _by_onnxruntime(model: Path, folder: Path) -> int:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(folder / "optimized.onnx")
    return sum(node.op_type == "QLinearConv" for node in optimized.graph.node)


def _by_openvino(model: Path) -> int:
    import openvino

    compiled = openvino.Core().compile_model(str(model), "CPU")
    info = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    kinds = [(one["layerType"].astype(str), one["runtimePrecision"].astype(str)) for one in info]
    return sum(kind == "Convolution" and precision in ("i8", "u8") for kind, precision in kinds)


def _by_tensorrt_rtx(model: Path, spec: ModelSpec, folder: Path) -> str:
    target = importlib.import_module("edgekd.targets.tensorrt_rtx.target")
    request = CompileRequest(model, spec, "int8", folder, target.Options(compute_capabilities=("SM86",)))
    details = target.build_engine(request).details
    return f"built, {details.get('quantized_convolutions', details.get('convolutions', '?'))} convolutions"
