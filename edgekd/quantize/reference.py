"""The reference evaluation of a graph: ONNX Runtime without optimisation, any tensor on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.quantize.ptq import Batch
from edgekd.rewrites.graph import name_nodes
from edgekd.targets.onnxruntime.target import import_onnxruntime


def runner(model: Any, tensors: Sequence[str], folder: Path) -> Callable[[Batch], list[np.ndarray]]:
    """Return a function that computes tensors of a graph in ONNX Runtime without optimisation.

    Args:
        model: an `onnx.ModelProto` with its weights.
        tensors: names of tensors, also of inputs.
        folder: for the model's file.

    Raises:
        TargetError: ONNX Runtime is not installed.
    """
    onnxruntime = import_onnxruntime()
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    name_nodes(copy)
    inputs = {value.name for value in copy.graph.input}
    have = {value.name for value in copy.graph.output}
    wanted = [name for name in dict.fromkeys(tensors) if name not in inputs]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in have)
    path = folder / "observed.onnx"
    onnx.save(copy, path, save_as_external_data=copy.ByteSize() > 1 << 30)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(batch: Batch) -> list[np.ndarray]:
        made = dict(zip(wanted, session.run(wanted, dict(batch)), strict=True)) if wanted else {}
        return [np.asarray(made[name] if name in made else batch[name]) for name in tensors]

    return run
