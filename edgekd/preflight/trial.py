"""A trial: build an engine here, run it, and compare it with its ONNX graph, evaluated without optimisation."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np

from edgekd.board.parity import Comparison, Parity, numeric_outputs
from edgekd.board.specs import ModelSpec
from edgekd.compile.parity import why_apart
from edgekd.core import plugins
from edgekd.core.recipe import LOCAL, EngineParity
from edgekd.errors import EdgekdError, ToolchainError
from edgekd.executors.boards import executor_of
from edgekd.executors.builder import build
from edgekd.executors.inference import Arrays, EngineFiles, files_in, run_engine
from edgekd.executors.local import open_reference
from edgekd.preflight.findings import Verdict
from edgekd.rewrites.graph import Graph
from edgekd.targets.base import CompileRequest, CompileResult, Target

_SEED = 0


def attempt(name: str, graph: Graph, spec: ModelSpec, options: Any) -> tuple[Verdict, Verdict, Verdict]:
    """Build an engine, run it on one input of seeded noise, and compare its outputs with those of its graph."""
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
    try:
        return (built, *_run(name, target, graph, result, options, precision))
    finally:
        rmtree(folder)


def _run(
    name: str, target: Target, graph: Graph, built: CompileResult, options: Any, precision: str
) -> tuple[Verdict, Verdict]:
    absent = target.why_not_here(options)
    if absent:
        return _stop(Verdict("not tried", absent), 2)
    inputs, folder = _noise(built.spec), built.engine.parent
    engine = EngineFiles(name, built.engine.name, files_in(folder), built.spec, options)
    try:
        (outputs,), runtime = run_engine(engine, [inputs], executor_of(LOCAL))
    except EdgekdError as exc:
        return (Verdict("no", str(exc)), Verdict("not tried", "it did not run"))
    ran = Verdict("yes", f"{runtime.get('runtime')} {runtime.get('version')}")
    try:
        with open_reference(graph.path, built.spec) as session:
            parity = _parity(session.infer(inputs), outputs, built.spec)
    except EdgekdError as exc:
        return ran, Verdict("not tried", f"the graph cannot be evaluated: {exc}")
    return ran, _judged(parity, precision)


def _parity(expected: Arrays, got: Arrays, spec: ModelSpec) -> Parity:
    """Compare float outputs as numbers, the others value by value."""
    comparison, names = Comparison(), numeric_outputs(spec)
    comparison.add_numbers(expected, got, names)
    for name in set(expected) - set(names):
        comparison.different += int((expected[name] != got[name]).sum())
        comparison.compared += expected[name].size
    return comparison.result()


def _judged(parity: Parity, precision: str) -> Verdict:
    said = [] if parity.max_error is None else [f"an output differs by {parity.max_error:.1e} of its spread"]
    said += [f"{parity.different:.1e} of the whole numbers differ"] if parity.compared else []
    text = f"one input of noise, against the graph without optimisation: {', '.join(said)}"
    reason = why_apart(parity, precision, EngineParity())
    return Verdict("no", f"{text}; {reason}") if reason else Verdict("yes", text)


def _noise(spec: ModelSpec) -> Arrays:
    rng = np.random.default_rng(_SEED)
    return {
        tensor.name: rng.integers(0, 256, tensor.shape).astype(tensor.dtype)
        if np.dtype(tensor.dtype).kind in "ui"
        else rng.standard_normal(tensor.shape).astype(tensor.dtype)
        for tensor in spec.inputs
    }


def _stop(verdict: Verdict, count: int) -> Any:
    return (verdict,) * count
