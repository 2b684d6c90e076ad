"""Finds the operator that a target computes differently: an engine whose every tensor is an output, against the graph."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.parity import Comparison
from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec, TensorSpec
from edgekd.core.recipe import Engine, EngineParity
from edgekd.errors import EdgekdError
from edgekd.executors.boards import executor_of
from edgekd.executors.builder import build
from edgekd.executors.inference import EngineFiles, files_in, run_engine
from edgekd.executors.local import open_reference
from edgekd.rewrites.graph import Graph, inferred, module_of, name_of, read_onnx
from edgekd.targets.base import CompileRequest

log = logging.getLogger(__name__)
MAX_BYTES = 1 << 30  # of all tensors of one image; a larger network is not searched


def suspect(model: Path, spec: ModelSpec, engine: Engine, image: np.ndarray, limits: EngineParity) -> str:
    """Return `; the first operator that differs is ...` for an engine that differs from its graph, "" when none is found.

    The engine is built again with every tensor as an output. That takes fusions away, so an error of a fusion is not found.
    """
    with TemporaryDirectory(prefix="edgekd-suspect-") as folder:
        try:
            node = _first(Path(folder), model, spec, engine, image, limits)
        except EdgekdError as exc:
            log.info("engine %s: the operator that differs was not found: %s", engine.id, exc)
            return ""
    if node is None:
        return ""
    module = module_of(node)
    return f"; the first operator that differs is {node.op_type} {name_of(node)!r}{f' of {module}' if module else ''}"


def _first(folder: Path, model: Path, spec: ModelSpec, engine: Engine, image: np.ndarray, limits: EngineParity) -> Any:
    """Return the first node, in graph order, with an output that differs by more than the limit; None without one."""
    tapped, wide = _tapped(folder, model, spec)
    inputs = {spec.inputs[0].name: prepare(image, spec.preprocess)}
    out = folder / "engine"
    out.mkdir()
    request = CompileRequest(tapped, wide, engine.precision, out, engine.target_options)
    built = build(engine.target, request, engine.board).result
    files = EngineFiles(
        engine.target, built.engine.relative_to(out).as_posix(), files_in(out), built.spec, engine.target_options
    )
    (got,), _ = run_engine(files, [inputs], executor_of(engine.board))
    with open_reference(tapped, wide) as session:
        expected = session.infer(inputs)
    limit: float = getattr(limits, f"{engine.precision}_error")
    for node in Graph(read_onnx(tapped, has_weights=False)).nodes:
        for name in node.output:
            if name in expected and not _agrees(expected[name], got[name], limit):
                return node
    return None


def _agrees(expected: np.ndarray, got: np.ndarray, limit: float) -> bool:
    comparison = Comparison()
    comparison.add_numbers({"": expected}, {"": got}, [""])
    error = comparison.result().max_error
    return error is None or error <= limit


def _tapped(folder: Path, path: Path, spec: ModelSpec) -> tuple[Path, ModelSpec]:
    """Return a copy of a graph that gives every float tensor of static shape as an output, and its contract."""
    import onnx

    model = read_onnx(path)
    outputs = {value.name for value in model.graph.output}
    computed = {name for node in model.graph.node if node.op_type != "Constant" for name in node.output}
    graph, more, size = Graph(model), [], 0
    for value in inferred(model).value_info:
        shape = graph.shape(value.name)
        is_float = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        if value.name in computed - outputs and is_float and shape and 0 not in shape:
            model.graph.output.append(value)
            more.append(TensorSpec(value.name, "float32", shape, "tap"))
            size += 4 * int(np.prod(shape))
    if size > MAX_BYTES:
        raise EdgekdError(f"its tensors have {size / 2**30:.1f} GiB")
    onnx.save(model, folder / path.name)
    return folder / path.name, replace(spec, outputs=(*spec.outputs, *more))
