"""The compile stage: builds a target's engine from an ONNX or quantized model, and compares it with its graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.board.job import Job
from edgekd.compile.parity import engine_parity
from edgekd.core import chips, plugins
from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.plugin_options import plugin_options
from edgekd.core.recipe import Engine, Recipe
from edgekd.core.stage import StageJob
from edgekd.errors import ArtifactError, RecipeError, TargetError
from edgekd.executors.boards import ask, executor_of
from edgekd.executors.builder import build
from edgekd.targets.base import CompileRequest


def run(job: StageJob) -> StageResult:
    """Build the engine whose id is the stage's subject, and compare it with its graph on training images.

    Raises:
        GateError: the engine differs from its graph by more than the recipe's limits.
        TargetError: the target refuses the model, or sums would overflow on the engine's board.
    """
    engine = next(e for e in job.recipe.engines if e.id == job.subject)
    model = next((one for one in job.inputs.values() if one.kind == "quantized"), None) or job.input_of("onnx")
    given = engine_options(engine, model.details)
    options = plugin_options("targets", engine.target, given, f"engines.{engine.id}.options")
    request = CompileRequest(
        model=model.file(model.details.get("model", "model.onnx")),
        spec=model.spec,
        precision=engine.precision,
        out_dir=job.out_dir,
        options=options,
        calibration=_calibration(engine, model),
    )
    check_sums(engine, request.model)
    compiled = build(engine.target, request, engine.board)
    result = compiled.result
    details = {
        "target": engine.target,
        "precision": engine.precision,
        "options": given,
        "board": engine.board,
        "engine": result.engine.relative_to(job.out_dir).as_posix(),
        "runtime_version": compiled.runtime_version,
        "build": result.details,
        "parity": engine_parity(job, engine, model, result),
    }
    return StageResult(result.spec, {**{k: model.details[k] for k in ("params", "macs")}, **details})


def check_sums(engine: Engine, model: Path) -> None:
    """Refuse a quantized model whose sums would overflow on the engine's board, of which no toolchain warns.

    Raises:
        TargetError: names the node.
    """
    why_saturates = plugins.target(engine.target).why_saturates
    if why_saturates is None or not engine.precision.is_quantized:
        return
    reason = why_saturates(model, engine.target_options, executor_of(engine.board).facts()["environment"])
    if reason:
        raise TargetError(f"{engine.id} on board {engine.board}: {reason}")


def _calibration(engine: Engine, model: Artifact) -> Path | None:
    """Return the calibration pixels beside a quantized model, for a target that wants them."""
    info = plugins.target(engine.target).info
    if info.calibration == "none" or not engine.precision.is_quantized:
        return None
    name = model.details.get("calibration_pixels")
    if name is None:
        raise ArtifactError(
            f"{model.path}: expected calibration pixels, which target {engine.target} wants, got none; the quantizer "
            f"{info.quantizer} has to write them"
        )
    return model.file(name)


def bound_to(recipe: Recipe) -> dict[str, Any] | None:
    """Return the runtime version and the machine that the recipe's only engine belongs to (JSON).

    With another version, or on another machine, the engine is built again. None for an engine that loads everywhere; a
    version of None where the runtime is not installed. The target decides it in its `bound_to`.
    """
    (engine,) = recipe.engines
    target = plugins.target(engine.target)
    bound = target.bound_to(checked_options(engine)) if target.bound_to else ""
    if not bound:
        return None
    try:
        version = ask(engine.board, Job("version", engine.target))["runtime_version"]
    except TargetError:
        version = None
    machine = executor_of(engine.board).identity().hardware if bound == "machine" else None
    return {"version": version, "machine": machine}


def engine_options(engine: Engine, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an engine (JSON), checked; of a target that keeps layers in float itself, with those of its model.

    Args:
        engine: the engine.
        model: facts of the quantized model; `float_tensors` are written by the layers to keep in float.

    Raises:
        RecipeError: as `checked_options`.
    """
    options, target = checked_options(engine), plugins.target(engine.target)
    tensors = model.get("float_tensors")
    kept = target.keeps_float(options, tensors) if tensors and target.keeps_float else {}
    return {**engine.options, **kept}


def checked_options(engine: Engine) -> Any:
    """Return the target's options of an engine.

    Raises:
        RecipeError: an unknown option, a chip or a precision that the target does not build for.
    """
    options = engine.target_options
    known = plugins.target(engine.target).info.precisions
    if engine.precision not in known:
        raise RecipeError(
            f"engines: target {engine.target} has no precision '{engine.precision}'; expected one of {', '.join(known)}"
        )
    chips.check(engine.target, options, engine.precision)
    return options
