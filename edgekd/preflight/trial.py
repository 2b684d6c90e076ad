"""A trial: build an engine here, run it, and compare it with ONNX Runtime on the same model."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np

from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.errors import EdgekdError, ToolchainError
from edgekd.executors.builder import build
from edgekd.preflight.findings import Verdict
from edgekd.rewrites.graph import Graph
from edgekd.targets.base import CompileRequest, CompileResult, Target

# Largest RMS of the difference over RMS of the reference, over all outputs.
TOLERANCE = {"fp32": 1e-3, "int8": 0.05}
_SEED = 0


def attempt(name: str, graph: Graph, spec: ModelSpec, options: Any) -> tuple[Verdict, Verdict, Verdict]:
    """Return whether an engine was built, ran, and gave what ONNX Runtime gives on one input of seeded noise."""
    target = plugins.target(name)
    if target.info.compile_at not in ("host", "child"):
        return _stop(Verdict("not tried", f"not built here: it is compiled at the {target.info.compile_at}"), 3)
    if any(not tensor.shape for tensor in (*spec.inputs, *spec.outputs)):
        return _stop(Verdict("not tried", "inputs or outputs have no static shape"), 3)
    folder, precision = Path(mkdtemp(prefix="edgekd-check-")), "int8" if graph.is_quantized else "fp32"
    try:
        result = build(name, CompileRequest(graph.path, spec, precision, folder, options)).result
    except EdgekdError as exc:
        if not isinstance(exc, ToolchainError):  # whose log stands there
            rmtree(folder)
        return (Verdict("no", str(exc)), *_stop(Verdict("not tried", "nothing was built"), 2))
    built = Verdict("yes", f"{precision}, {result.engine.stat().st_size} bytes")
    verdicts = (built, *_run(target, graph, result, options, precision))
    rmtree(folder)
    return verdicts


def _run(target: Target, graph: Graph, built: CompileResult, options: Any, precision: str) -> tuple[Verdict, Verdict]:
    absent = target.why_not_here(options)
    if absent:
        return _stop(Verdict("not tried", absent), 2)
    inputs = _noise(built.spec)
    try:
        with target.session(built.engine, built.spec, options) as session:
            outputs = {name: array.copy() for name, array in session.infer(inputs).items()}
            said = f"{session.runtime.get('runtime')} {session.runtime.get('version')}"
    except EdgekdError as exc:
        return (Verdict("no", str(exc)), Verdict("not tried", "it did not run"))
    error = _error(outputs, _reference(graph, built.spec, inputs))
    limit = TOLERANCE[precision]
    text = f"relative RMS error {error:.1e} to ONNX Runtime, limit {limit:g}, one input of noise"
    return Verdict("yes", said), Verdict("yes" if error <= limit else "no", text)


def _noise(spec: ModelSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(_SEED)
    return {
        tensor.name: rng.integers(0, 256, tensor.shape).astype(tensor.dtype)
        if np.dtype(tensor.dtype).kind in "ui"
        else rng.standard_normal(tensor.shape).astype(tensor.dtype)
        for tensor in spec.inputs
    }


def _reference(graph: Graph, spec: ModelSpec, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    reference = plugins.target("onnxruntime")
    with reference.session(graph.path, spec, reference.options()) as session:
        return session.infer(inputs)


def _error(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Return the RMS of the difference over the RMS of what is expected, over all outputs."""
    difference = sum(float(np.sum((got[n].astype(np.float64) - expected[n]) ** 2)) for n in expected)
    size = sum(float(np.sum(array.astype(np.float64) ** 2)) for array in expected.values())
    return float(np.sqrt(difference / max(size, 1e-30)))


def _stop(verdict: Verdict, count: int) -> Any:
    return (verdict,) * count
