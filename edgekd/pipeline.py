"""The pipeline of a recipe: stages ordered by what they read, skipped when their cache key is already done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

from edgekd.compile.stage import checked_options
from edgekd.core import plugins
from edgekd.core.artifact import Artifact, publish
from edgekd.core.recipe import Engine, Recipe
from edgekd.core.recipe_loading import plugin_options
from edgekd.core.session import why_not_here
from edgekd.core.stage import Stage
from edgekd.core.third_party import sources
from edgekd.core.workspace import Workspace
from edgekd.data.splits import forget
from edgekd.errors import GateError, RecipeError, UserError, did_you_mean

log = logging.getLogger(__name__)

# What decides nothing that is learned: how often a training saves its resume state, and the scored split, on which it only
# draws its learning curve. With another one, or other labels in it, nothing is trained again.
_UNLEARNED = ("teacher.train.checkpoint_every", "student.train.checkpoint_every", "data.val")
_LEARNED = {"data": "edgekd.data.stage:learned_from"}
# Nor do when a training is given up, and what is trained beside it.
_BESIDE = ("distill.watchdog_ratio", "distill.baseline")


@dataclass(frozen=True)
class StageRun:
    """What happened to one stage in a run: its artifact, whether it was skipped, and the seconds it took now."""

    stage: Stage
    artifact: Artifact
    skipped: bool
    seconds: float


def check_options(recipe: Recipe) -> None:
    """Check everything in a recipe that belongs to a plugin, before any work is done.

    Raises:
        UserError: unknown plugin, option or precision, or decoding that would be done in int8.
    """
    plugin_options("formats", recipe.data.format, recipe.data.options, "data.options")
    if find_spec("torch"):  # a board has none: what is trained elsewhere is compiled and measured there
        for where, network in (("teacher", recipe.teacher), ("student", recipe.student)):
            plugin_options("families", network.family, network.options, f"{where}.options")
        for name, method in recipe.distill.methods.items():
            plugin_options("methods", name, method.options, f"distill.methods.{name}.options")
    for name, options in recipe.quantize.options.items():
        plugin_options("quantizers", name, options, f"quantize.options.{name}")
    for name in recipe.export.rewrite:
        plugins.load("rewrites", name)
    for engine in recipe.engines:
        checked_options(engine)
        if recipe.export.detections != "heads" and engine.precision == "int8":
            _check_float_decoding(engine)


def _check_float_decoding(engine: Engine) -> None:
    name = _quantizer(engine.target)
    if not plugins.load("quantizers", name).KEEPS_FLOAT:
        raise RecipeError(
            f"engines: {engine.id} would decode in int8, which destroys boxes: its toolchain quantizes the whole graph "
            f"(quantizer {name}); set export.detections: heads"
        )


def plan(recipe: Recipe) -> list[Stage]:
    """Return the stages of a recipe in an order in which every stage comes after what it reads."""
    stages = {stage.name: stage for stage in [*_training(recipe), *_deployment(recipe), *_measuring(recipe)]}
    order = TopologicalSorter({name: stage.inputs for name, stage in stages.items()}).static_order()
    return [stages[name] for name in order]


def select(stages: list[Stage], until: str | None) -> list[Stage]:
    """Return the stages needed for `until`; all for None. What stands before a stage as a gate is not among them.

    Args:
        stages: from `plan`.
        until: comma-separated stages (`engine/openvino-int8`) or groups (`engine`).

    Raises:
        UserError: nothing is called that.
    """
    if until is None:
        return stages
    wanted: set[str] = set()
    for word in until.split(","):
        found = {s.name for s in stages if s.name == word or s.name.split("/")[0] == word}
        if not found:
            known = {s.name for s in stages} | {s.name.split("/")[0] for s in stages}
            raise UserError(f"no stage of this recipe is called {word!r}{did_you_mean(word, known)}")
        wanted |= found
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(_built_on(stage))
    return [s for s in stages if s.name in wanted]


def run_stages(
    recipe: Recipe,
    workspace: Workspace,
    stages: list[Stage],
    on_stage: Callable[[StageRun], None] = lambda _: None,
    gates: Collection[Stage] = (),
) -> dict[str, StageRun]:
    """Run the stages that are not already done and return all of them by name; the workspace must be locked.

    gates: stages that are run, with what they need, only when one that they stand before has to be run. So a run that was
        trained elsewhere is compiled and measured on a board without what trains.
    """
    known = {stage.name: stage for stage in (*gates, *stages)}
    done: dict[str, StageRun] = {}

    def finish(stage: Stage) -> None:
        if stage.name in done:
            return
        for name in _built_on(stage):
            finish(known[name])
        key = _key(recipe, workspace, stage, {name: one.artifact for name, one in done.items()})
        artifact = workspace.finished(stage.name, key)
        started = time.monotonic()
        skipped = artifact is not None
        if artifact is None:
            for name in stage.gates:
                finish(known[name])
            started = time.monotonic()  # the gates' time is their own
            log.info("%s: running", stage.name)
            if stage.kind in ("engine", "latency"):  # what a board does: its memory is the GPU's, too
                forget(recipe.data.train)
            artifact = _run(recipe, workspace, stage, key, {name: done[name].artifact for name in stage.inputs})
        done[stage.name] = StageRun(stage, artifact, skipped, time.monotonic() - started)
        on_stage(done[stage.name])

    for stage in stages:
        finish(stage)
    return done


def assist(recipe: Recipe, workspace: Workspace, stages: list[Stage], gates: Collection[Stage] = ()) -> None:
    """Train with the first process, which runs the same stages in the same folder, and wait for what training builds on.

    A limit that is not met ends the training in all processes alike: the first one says so, and this one just returns,
    because Lightning kills the first when another fails.

    Raises:
        WorkspaceError: the first process has ended without a stage that is needed.
    """
    known = {stage.name: stage for stage in (*gates, *stages)}
    done: dict[str, Artifact] = {}

    def obtain(stage: Stage) -> None:
        if stage.name in done:
            return
        for name in _built_on(stage):
            obtain(known[name])
        key = _key(recipe, workspace, stage, done)
        if stage.kind == "checkpoint" and not workspace.has(stage.name, key):
            for name in stage.gates:
                obtain(known[name])
            stage.run(recipe, {name: done[name] for name in stage.inputs}, workspace.work_path(stage.name, key))
        done[stage.name] = workspace.awaited(stage.name, key)

    with suppress(GateError):
        for stage in stages:
            if stage.kind == "checkpoint":
                obtain(stage)


def _built_on(stage: Stage) -> list[str]:
    return [name for name in stage.inputs if name not in stage.gates]


def recall(
    recipe: Recipe,
    stages: list[Stage],
    ran: list[StageRun],
    workspace: Workspace,
    is_held: bool,
) -> list[StageRun]:
    """Return `ran` and, of the other stages, those that an earlier run finished under the same settings.

    is_held: whether this process holds the folder, and may move what is found in `.previous` to its place.
    """
    find = workspace.finished if is_held else workspace.look
    known = {stage_run.stage.name: stage_run for stage_run in ran}
    for stage in stages:
        if stage.name not in known and set(_built_on(stage)) <= set(known):
            key = _key(recipe, workspace, stage, {name: one.artifact for name, one in known.items()})
            if artifact := find(stage.name, key):
                known[stage.name] = StageRun(stage, artifact, skipped=True, seconds=0.0)
    return list(known.values())


def _key(recipe: Recipe, workspace: Workspace, stage: Stage, artifacts: Mapping[str, Artifact]) -> str:
    return stage.key(recipe, {name: artifacts[name] for name in _built_on(stage)}, workspace.code_of(stage.name))


def _run(recipe: Recipe, workspace: Workspace, stage: Stage, key: str, inputs: dict[str, Artifact]) -> Artifact:
    work = workspace.work_dir(stage.name, key)
    started = time.monotonic()
    result = stage.run(recipe, inputs, work)
    facts = {
        "kind": stage.kind,
        "stage": stage.name,
        "key": key,
        "recipe_sha256": recipe.sha256(),
        "code": sources(recipe, stage.reads),
        "inputs": {name: artifact.sha256() for name, artifact in inputs.items()},
        "seconds": round(time.monotonic() - started, 3),
    }
    workspace.set_aside(stage.name)
    return publish(work, workspace.artifact_dir(stage.name), facts, result)


def deployed_student(recipe: Recipe) -> str:
    """Return the stage whose student goes to the chip: the distilled one, or the plain one without methods."""
    return "distilled" if recipe.distill.methods else "student"


def trains_baseline(recipe: Recipe) -> bool:
    """Return whether the plain student is trained: as the baseline, or as the only student."""
    return recipe.distill.baseline or not recipe.distill.methods


def _training(recipe: Recipe) -> list[Stage]:
    stages = [
        Stage("data", "dataset", "edgekd.data.stage:run", (), ("data",), outside="edgekd.data.stage:fingerprints")
    ]
    check: tuple[str, ...] = ()  # what can be refused is refused before anything is trained
    if recipe.distill.methods:
        check = ("plan",)
        stages.append(
            Stage(
                "plan",
                "plan",
                "edgekd.distill.stage:run_plan",
                ("data",),
                ("data", "teacher", "student", "distill", "trainer"),
                keyless=_BESIDE,
            )
        )
    if recipe.engines:
        check = (*check, "check")
        looked = ("data", "student", "export", "engines", "check")
        stages.append(Stage("check", "check", "edgekd.preflight.stage:run", ("data",), looked))
    inputs = ("data", *check)
    # Of the teacher, the floor is not read: `distilled` holds it to that.
    stages.append(
        _trained(
            "teacher",
            "edgekd.train.stage:train_teacher",
            inputs,
            ("data", "teacher", "trainer"),
            ("teacher.floor",),
            check,
        )
    )
    if trains_baseline(recipe):
        stages.append(
            _trained("student", "edgekd.train.stage:train_student", inputs, ("data", "student", "trainer"), (), check)
        )
    if recipe.distill.methods:
        gates = ("evaluate/teacher",) if recipe.teacher.floor > 0 else ()
        inputs = ("data", "teacher", *gates)
        reads = ("data", "teacher", "student", "distill", "trainer")
        stages.append(_trained("distilled", "edgekd.distill.stage:run", inputs, reads, _BESIDE, gates))
    return stages


def _trained(
    name: str,
    function: str,
    inputs: tuple[str, ...],
    reads: tuple[str, ...],
    keyless: tuple[str, ...],
    gates: tuple[str, ...],
) -> Stage:
    unread = (*_UNLEARNED, *keyless)
    return Stage(name, "checkpoint", function, inputs, reads, name, unread, gates=gates, counts=_LEARNED)


def _deployment(recipe: Recipe) -> list[Stage]:
    student = deployed_student(recipe)
    export = "edgekd.export.stage:run"
    stages = [Stage("export", "onnx", export, (student, "data"), ("data", "export"), student, version=2)]
    quantizers = sorted({_quantizer(engine.target) for engine in recipe.engines if engine.precision == "int8"})
    for name in quantizers:
        reads = ("data", "quantize")
        stages.append(
            Stage(f"quantize/{name}", "quantized", "edgekd.quantize.stage:run", ("export", "data"), reads, name)
        )
    for engine in recipe.engines:
        source = f"quantize/{_quantizer(engine.target)}" if engine.precision == "int8" else "export"
        name, read, outside = f"engine/{engine.id}", (f"engines:{engine.id}",), "edgekd.compile.stage:bound_to"
        stages.append(Stage(name, "engine", "edgekd.compile.stage:run", (source,), read, engine.id, outside=outside))
    return stages


def _measuring(recipe: Recipe) -> list[Stage]:
    engines = tuple(
        f"engine/{engine.id}" for engine in recipe.engines if not why_not_here(engine.target, engine.options)
    )
    trained = [stage.name for stage in _training(recipe) if stage.kind == "checkpoint"]
    stages = []
    inputs: tuple[str, ...]
    for scored in (*trained, "export", *engines):
        row = scored.split("/")[-1]
        inputs, reads = (scored, "data"), ("data", "evaluate")
        stages.append(Stage(f"evaluate/{row}", "metrics", "edgekd.evaluate.stage:run", inputs, reads, scored))
    if engines:
        inputs, reads = (*engines, "data"), ("data", "bench")
        machine = "edgekd.core.machine:identity"
        stages.append(Stage("bench", "latency", "edgekd.bench.stage:run", inputs, reads, outside=machine, version=2))
    return stages


def _quantizer(target: str) -> str:
    return plugins.target(target).info.quantizer


def default_out(recipe: Recipe) -> Path:
    """Return `runs/<recipe name>` under the current folder."""
    return Path("runs") / recipe.name
