"""The stages of a recipe, ordered by what they read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from graphlib import TopologicalSorter

from edgekd.core.recipe import LOCAL, Engine, Recipe
from edgekd.core.stage import Stage, bench_of
from edgekd.errors import BoardError, TargetError, UserError, did_you_mean
from edgekd.executors.boards import why_not_there
from edgekd.planning.deployment import NOT_QUANTIZED, deployment, of_student, quantizer_of, settings_of, source_of
from edgekd.planning.qat import CALIBRATED_ON, further_students, imitated, training_stages

__all__ = [
    "cannot_run",
    "deployed_student",
    "further_students",
    "imitated",
    "is_twin",
    "of_student",
    "plan",
    "quantizer_of",
    "select",
    "trains_baseline",
]

log = logging.getLogger(__name__)

# They decide nothing that is learned: how often a training saves its resume state, and the scored split, on which it only
# draws its learning curve.
_NOT_LEARNED = ("teacher.train.checkpoint_every", "student.train.checkpoint_every", "data.val")
_TRAINED_ON = {"data": "edgekd.data.stage:training_part"}
_SCORED_ON = {"data": "edgekd.data.stage:scoring_part"}
_CLASSES_OF = {"data": "edgekd.data.stage:classes_part"}
# The class names in it: `training_part` has their numbers.
_NAMES = ("data.augment.flip_pairs",)
# Nor do when a training is given up, and whether a baseline is trained beside it.
_NOT_DISTILLED = ("distill.watchdog_ratio", "distill.baseline")


def plan(recipe: Recipe, ran_before: Callable[[Engine], bool] = lambda _: True) -> list[Stage]:
    """Return the stages of a recipe in an order in which every stage comes after what it reads.

    Args:
        recipe: the whole recipe.
        ran_before: whether an engine whose board cannot be asked now is taken for one that runs there.

    Raises:
        RecipeError: an engine's board is not in the inventory in use.
    """
    stages = {
        stage.name: stage
        for stage in [
            *_training(recipe),
            *deployment(recipe, deployed_student(recipe)),
            *_measuring(recipe, ran_before),
        ]
    }
    graph = {name: (*stage.inputs, *stage.prerequisites) for name, stage in stages.items()}
    return [stages[name] for name in TopologicalSorter(graph).static_order()]


def select(stages: list[Stage], until: str | None) -> list[Stage]:
    """Return the stages needed for `until`, without their prerequisites; all for None.

    Args:
        stages: from `plan`.
        until: comma-separated stages (`engine/openvino-int8`) or groups (`engine`).

    Raises:
        UserError: no stage or group has this name.
    """
    if until is None:
        return stages
    wanted: set[str] = set()
    for word in until.split(","):
        found = {s.name for s in stages if word in (s.name, s.group)}
        if not found:
            known = {s.name for s in stages} | {s.group for s in stages}
            raise UserError(f"no stage of this recipe is called {word!r}{did_you_mean(word, known)}")
        wanted |= found
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.inputs)
    return [s for s in stages if s.name in wanted]


def deployed_student(recipe: Recipe) -> str:
    """Return the stage whose student goes to the chip: the distilled one, or the plain one without methods."""
    return "distilled" if recipe.distill.methods else "student"


def trains_baseline(recipe: Recipe) -> bool:
    """Return whether the plain student is trained: as the baseline, or as the only student."""
    return recipe.distill.baseline or not recipe.distill.methods


def _training(recipe: Recipe) -> list[Stage]:
    stages = [
        Stage(
            name="data",
            kind="dataset",
            function="edgekd.data.stage:run",
            inputs=(),
            sections=("data", "evaluate"),  # it warns of images with more objects than are scored
            ignored_keys=("evaluate.images", "evaluate.pictures", "evaluate.coco_files"),
            external_state="edgekd.data.stage:state_of_data",
        )
    ]
    checks: tuple[str, ...] = ()  # they refuse, before anything is trained, what cannot end well
    if recipe.teacher.train or recipe.student.train or recipe.qat:
        checks = ("plan",)
        stages.append(
            Stage(
                name="plan",
                kind="plan",
                function="edgekd.distill.stage:run_plan",
                inputs=("data",),
                sections=("data", "teacher", "student", "distill", *(("qat",) if recipe.qat else ()), "trainer"),
                ignored_keys=_NOT_DISTILLED,
                partial_inputs=_CLASSES_OF,
            )
        )
    if recipe.check != "off":
        checks = (*checks, "check")
        stages.append(
            Stage(
                name="check",
                kind="check",
                function="edgekd.preflight.stage:run",
                inputs=("data",),
                sections=("data", "student", "export", "quantize", "engines", "check"),
                ignored_keys=NOT_QUANTIZED,
                partial_inputs=_CLASSES_OF,
                version=2,
            )
        )
    # The teacher does not read its floor: `distilled` holds it to that.
    stages.append(_trained("teacher", "edgekd.train.stage:train_teacher", ("data",), checks, ("teacher.floor",)))
    if trains_baseline(recipe):
        stages.append(_trained("student", "edgekd.train.stage:train_student", ("data",), checks))
    floor = ("evaluate/teacher",) if recipe.teacher.floor > 0 else ()
    if recipe.distill.methods:
        stages.append(_trained("distilled", "edgekd.distill.stage:run", ("data", "teacher"), floor, _NOT_DISTILLED))
    return [*stages, *training_stages(recipe, deployed_student(recipe), floor, _TRAINED_ON)]


def _trained(
    name: str,
    function: str,
    inputs: tuple[str, ...],
    prerequisites: tuple[str, ...],
    ignored_keys: tuple[str, ...] = (),
) -> Stage:
    own = ("teacher", "student", "distill") if name == "distilled" else (name,)
    return Stage(
        name=name,
        kind="checkpoint",
        function=function,
        inputs=inputs,
        sections=("data", *own, "trainer"),
        subject=name,
        ignored_keys=(*_NOT_LEARNED, *_NAMES, *ignored_keys),
        prerequisites=prerequisites,
        partial_inputs=_TRAINED_ON,
    )


def _measuring(recipe: Recipe, ran_before: Callable[[Engine], bool]) -> list[Stage]:
    absent = cannot_run(recipe.engines, ran_before)
    engines = [engine for engine in recipe.engines if not absent[engine.id]]
    trained = [stage.name for stage in _training(recipe) if stage.kind == "checkpoint"]
    stages = [_evaluated(recipe, scored) for scored in (*trained, "export")]
    stages += [_evaluated(recipe, f"engine/{engine.id}", engine) for engine in engines]
    for board in dict.fromkeys(engine.board for engine in engines):
        measured = tuple(f"engine/{engine.id}" for engine in engines if engine.board == board)
        stages.append(
            Stage(
                name=bench_of(board),
                kind="latency",
                function="edgekd.bench.stage:run",
                inputs=(*measured, "data"),
                sections=("data", f"engines:@{board}", "bench"),
                external_state="edgekd.bench.stage:machine",
                optional_inputs=measured,
                partial_inputs=_SCORED_ON,
                fails_alone=True,
                version=3,
            )
        )
    stages += [_layers(engine) for engine in engines if recipe.layers.images and engine.precision.is_quantized]
    stages += [_agreement(engine, here) for engine in engines for here in engines if is_twin(here, engine)]
    return stages


def _layers(engine: Engine) -> Stage:
    """Return the stage that measures the error of an engine layer by layer."""
    return Stage(
        name=f"layers/{engine.id}",
        kind="layers",
        function="edgekd.layers.stage:run",
        version=2,
        inputs=tuple(
            dict.fromkeys((f"engine/{engine.id}", source_of(engine), of_student("export", engine.student), "data"))
        ),
        sections=("data", "layers", f"engines:{engine.id}", settings_of(engine)),
        ignored_keys=NOT_QUANTIZED,
        subject=engine.id,
        external_state="edgekd.evaluate.stage:place" if engine.board != LOCAL else "",
        fails_alone=True,
        partial_inputs=CALIBRATED_ON,
    )


def is_twin(here: Engine, engine: Engine) -> bool:
    """Whether an engine of this machine is that of a board, but for the place."""
    at = {"id": engine.id, "board": engine.board}
    return here.board == LOCAL != engine.board and here.model_copy(update=at) == engine


def _agreement(engine: Engine, here: Engine) -> Stage:
    """Return the stage that holds the score of a board's engine to that of the same engine here."""
    return Stage(
        name=f"agreement/{engine.id}",
        kind="agreement",
        function="edgekd.evaluate.agreement:run",
        inputs=tuple(f"{kind}/{one.id}" for kind in ("evaluate", "engine") for one in (engine, here)),
        sections=("parity",),
        subject=engine.id,
        fails_alone=True,
    )


def _evaluated(recipe: Recipe, scored: str, engine: Engine | None = None) -> Stage:
    """Return the stage that scores a network, or an engine; a board's score is that of its hardware and runtime."""
    is_there = engine is not None and engine.board != LOCAL
    return Stage(
        name=f"evaluate/{scored.split('/')[-1]}",
        kind="metrics",
        function="edgekd.evaluate.stage:run",
        inputs=(scored, "data"),
        sections=("data", "evaluate", *((f"engines:{engine.id}",) if engine and is_there else ())),
        subject=scored,
        external_state="edgekd.evaluate.stage:place" if is_there else "",
        fails_alone=engine is not None,
        partial_inputs=_SCORED_ON,
        version=1 if recipe.task == "semantic" else 2,
    )


def cannot_run(engines: Collection[Engine], ran_before: Callable[[Engine], bool] = lambda _: True) -> dict[str, str]:
    """Return why its board cannot run it for each engine, by id; "" where it can.

    The stages of an engine that ran before on a board that is away are planned: they are done already, or fail with the reason.
    """
    found: dict[str, str] = {}
    for board in dict.fromkeys(engine.board for engine in engines):
        there = [engine for engine in engines if engine.board == board]
        try:
            found |= why_not_there(there)
        except (BoardError, TargetError) as exc:  # said once here, and in the rows
            if board == LOCAL:
                raise
            log.warning("%s", exc)
            found |= {engine.id: "" if ran_before(engine) else str(exc) for engine in there}
    return found
