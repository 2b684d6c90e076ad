"""The reference evaluation of a graph in ONNX Runtime, any tensor on request; Q/DQ pairs are computed without integer kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgekd.quantize.ptq import Batch
from edgekd.rewrites.graph import name_nodes
from edgekd.targets.onnxruntime.target import import_onnxruntime


class Run(Protocol):
    """Computes tensors of a graph for one batch."""

    def __call__(self, batch: Batch, only: Sequence[str] | None = None) -> list[np.ndarray]:
        """Return the tensors in the order of their names.

        Args:
            batch: inputs by name.
            only: names of some of the tensors, with the operators before them; None: all.
        """


def runner(model: Any, tensors: Sequence[str], folder: Path, is_optimised: bool = False) -> Run:
    """Return a function that computes tensors of a graph in ONNX Runtime without integer kernels.

    Args:
        model: an `onnx.ModelProto` with its weights.
        tensors: names of tensors, also of inputs.
        folder: for the model's file.
        is_optimised: float operators are fused, which is several times faster and changes the last bits of their sums. Otherwise
            each operator is computed by itself.

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
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if is_optimised else levels.ORT_DISABLE_ALL
    options.add_session_config_entry("session.force_spinning_stop", "1")  # threads that spin after a run cost CPU time
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # no integer kernels in an optimised graph
    options.log_severity_level = 3  # it warns of each initializer that nobody reads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    partly = onnxruntime.RunOptions()
    partly.only_execute_path_to_fetches = True

    def run(batch: Batch, only: Sequence[str] | None = None) -> list[np.ndarray]:
        names = tensors if only is None else only
        computed = wanted if only is None else [name for name in only if name not in inputs]
        found = session.run(computed, dict(batch), None if only is None else partly) if computed else []
        made = dict(zip(computed, found, strict=True))
        return [np.asarray(made[name] if name in made else batch[name]) for name in names]

    return run
