"""Compares an engine with its unoptimised ONNX graph, and a board's outputs with this machine's, on training images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.parity import SAME, Comparison, Parity, check_finite, numeric_outputs
from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.compile.suspect import suspect
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.core.recipe import LOCAL, Engine, EngineParity
from edgekd.core.stage import StageJob
from edgekd.data.splits import open_split
from edgekd.errors import GateError, TargetError
from edgekd.executors.base import Executor
from edgekd.executors.boards import ask_why_not, executor_of, why_not_here
from edgekd.executors.inference import Arrays, EngineFiles, files_in, run_engine
from edgekd.executors.local import open_reference
from edgekd.executors.toolchain import ToolchainExecutor
from edgekd.rewrites.graph import read_graph
from edgekd.targets.base import CompileResult

log = logging.getLogger(__name__)
FLOAT, QUANTIZED = "float", "quantized"  # names of the graphs in manifests and reports
HERE, SIMULATOR = "here", "simulator"  # names of other ways to run one engine
_WHERE = {HERE: "on this machine", SIMULATOR: "in the simulator of its toolchain"}


def engine_parity(job: StageJob, engine: Engine, model: Artifact, built: CompileResult) -> dict[str, dict[str, Any]]:
    """Return the parity of an engine with its graphs, by name of the graph (JSON); empty where its board cannot run it.

    A float engine has one graph, the export. A quantized engine has two: the export, which it differs from by its
    quantization, and the Q/DQ graph that it was compiled from, where the quantizer wrote one. An engine of another board is
    compared with itself on this machine, and an engine of a chip with its simulator, where these are to be had.

    Args:
        job: job of the compile stage.
        engine: the engine.
        model: the artifact that it was compiled from.
        built: the result of its build.

    Raises:
        GateError: the difference exceeds `recipe.parity`, or a value is not finite.
    """
    if why_not_here(engine):
        return {}
    images, limits, precision = _images(job), job.recipe.parity, _limit_of(engine)
    files = EngineFiles(
        engine.target,
        built.engine.relative_to(job.out_dir).as_posix(),
        files_in(job.out_dir),
        built.spec,
        engine.target_options,
    )
    inputs = _inputs(images, built.spec)
    outputs, _ = run_engine(files, inputs, executor_of(engine.board))
    found, reasons = {}, dict[str, str]()
    for name, graph, spec in _graphs(job.input_of("onnx"), model):
        parity = compare(_reference(graph, spec, images), spec, outputs, built.spec, precision)
        if reason := why_apart(parity, precision, limits):
            where = "" if engine.precision.is_quantized else suspect(graph, spec, engine, images[0], limits)
            reasons[name] = f"{reason}, on {len(images)} training images{where}"
        found[name] = asdict(parity)
    if reasons:
        raise GateError(_failure(engine, reasons, tuple(found)))
    return found | _elsewhere(engine, files, inputs, outputs, limits)


def _failure(engine: Engine, reasons: dict[str, str], graphs: tuple[str, ...]) -> str:
    """Return the error for an engine that differs from some of its graphs; if only from the float one, by quantization."""
    if QUANTIZED in graphs and QUANTIZED not in reasons:
        return (
            f"{engine.id} loses too much by quantization: against its float ONNX graph, {reasons[FLOAT]}; adjust "
            "the graph (quantize.adjust), keep layers in float (precision: mixed), train for int8 (section `qat`), or raise the "
            "limit to score this engine"
        )
    name = QUANTIZED if QUANTIZED in reasons else FLOAT
    return (
        f"{engine.id} computes something else than its {name} ONNX graph: {reasons[name]}; replace the operator, or choose "
        "another target"
    )


def _elsewhere(
    engine: Engine, files: EngineFiles, inputs: Sequence[Arrays], outputs: Sequence[Arrays], limits: EngineParity
) -> dict[str, dict[str, Any]]:
    """Return the parity of an engine's outputs on its board with the same file here or in the simulator, by name (JSON)."""
    places: dict[str, Executor] = {}
    if engine.board != LOCAL and not ask_why_not(LOCAL, [(engine.target, engine.target_options)])[0]:
        places[HERE] = executor_of(LOCAL)
    if plugins.target(engine.target).simulator is not None:
        places[SIMULATOR] = ToolchainExecutor(engine.target)
    found = {}
    for name, executor in places.items():
        try:
            expected, _ = run_engine(files, inputs, executor, is_simulated=name == SIMULATOR)
        except TargetError as exc:  # a runtime or a toolchain that is not installed here
            log.info("engine %s is not compared with itself %s: %s", engine.id, _WHERE[name], exc)
            continue
        parity = compare(expected, files.spec, outputs, files.spec, _limit_of(engine))
        if reason := why_apart(parity, "board", limits):
            raise GateError(
                f"{engine.id} computes something else on board {engine.board} than {_WHERE[name]}: {reason}, on "
                f"{len(inputs)} training images; compare the versions of its runtime"
            )
        found[name] = asdict(parity)
    return found


def compare(
    expected: Sequence[Arrays],
    reference: ModelSpec,
    got: Sequence[Arrays],
    spec: ModelSpec,
    precision: str,
) -> Parity:
    """Return the parity of the outputs of an engine with those of its graph, image by image.

    Raises:
        GateError: the engine gives values that are not finite.
    """
    comparison = Comparison(SAME[precision])
    names = [name for name in numeric_outputs(spec) if name in expected[0]]
    for wanted, found in zip(expected, got, strict=True):
        check_finite("", "engine", found, "its graph's are finite")
        comparison.add_numbers(wanted, found, names)
        comparison.add_results(wanted, reference, found, spec)
    return comparison.result()


def why_apart(parity: Parity, precision: str, limits: EngineParity) -> str:
    """Return the limit that a parity exceeds, with figure and limit, in words; "" if none.

    Args:
        parity: the parity.
        precision: `fp32`, `fp16` or `int8`; `board` to compare one engine on two machines.
        limits: limits of the recipe.
    """
    error, what = (
        (parity.rms_error, "RMS error {:.1e} of an output's standard deviation")
        if precision in ("int8", "board")
        else (parity.max_error, "an output differs by {:.1e} of its spread")
    )
    limit: float = getattr(limits, f"{precision}_error")
    if error is not None and error > limit:
        return f"{what.format(error)}, limit parity.{precision}_error = {limit:g}"
    limit = getattr(limits, f"{precision}_different")
    if parity.different > limit:
        return f"{parity.different:.1e} of the results differ, limit parity.{precision}_different = {limit:g}"
    return ""


def _limit_of(engine: Engine) -> str:
    """Return the precision whose limits hold for an engine."""
    return "int8" if engine.precision.is_quantized else str(engine.precision)


def _images(job: StageJob) -> list[np.ndarray]:
    """Return images spread evenly over the training split."""
    dataset = open_split(job.recipe, job.recipe.data.train)
    count = min(job.recipe.parity.images, len(dataset))
    return [dataset.load(round(place)).image for place in np.linspace(0, len(dataset) - 1, count)]


def _inputs(images: Sequence[np.ndarray], spec: ModelSpec) -> list[Arrays]:
    return [{spec.inputs[0].name: prepare(image, spec.preprocess)} for image in images]


def _graphs(export: Artifact, model: Artifact) -> list[tuple[str, Path, ModelSpec]]:
    """Return the graphs that an engine is compared with: name, file, contract."""
    graphs = [(FLOAT, export.file("model.onnx"), export.spec)]
    source = model.file(model.details.get("model", "model.onnx"))
    if model.kind == "quantized" and source.suffix == ".onnx" and read_graph(source).is_quantized:
        graphs.append((QUANTIZED, source, model.spec))
    return graphs


def _reference(graph: Path, spec: ModelSpec, images: Sequence[np.ndarray]) -> list[Arrays]:
    with open_reference(graph, spec) as session:
        return [{name: values.copy() for name, values in session.infer(one).items()} for one in _inputs(images, spec)]
