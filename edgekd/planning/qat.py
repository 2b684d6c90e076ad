"""The stages of section `qat`: the student trained with quantizers, and its control, the same training without them."""

from __future__ import annotations

from edgekd.core import plugins
from edgekd.core.recipe import CONTROL, DEPLOYED, PTQ, QAT, Engine, Recipe
from edgekd.core.stage import Stage

_FUNCTIONS = {QAT: "edgekd.quantize.qat_stage:train_qat", CONTROL: "edgekd.quantize.qat_stage:train_control"}
CALIBRATED_ON = {"data": "edgekd.data.stage:calibration_part"}
_USED_PARTS = {
    "export": "edgekd.quantize.qat_inputs:graph_part",
    "budget": "edgekd.quantize.qat_inputs:budget_part",
}
# A budget is held on training images, all of them, without pictures.
ONLY_ON_VAL = ("data.val", "evaluate.images", "evaluate.pictures", "evaluate.coco_files")
# They decide nothing that is learned; `when` and `control` add stages and inputs.
_NOT_LEARNED = (
    "qat.train.checkpoint_every",
    "qat.quantizer",  # its name and options are those of section `quantize`
    "qat.when",
    "qat.control",
    "data.val",
    "data.augment.flip_pairs",  # the class names in it: `training_part` has their numbers
    "distill",  # how its watchdog is set
    "teacher",  # its floor
    "quantize.budget",
    "quantize.adjust",  # of the graph as it is; the weights of QAT are not adjusted
)


def quantizer_of(engine: Engine) -> str:
    """Return the quantizer whose model an int8 engine of this target is compiled from."""
    return plugins.target(engine.target).info.quantizer


def of_student(stage: str, student: str) -> str:
    """Return the name of a stage of the deployed student for one of the students: `export`, `export-qat`."""
    return stage if student == DEPLOYED else f"{stage}-{student}"


def further_students(recipe: Recipe) -> tuple[str, ...]:
    """Return the students of section `qat` that some engine is made of, by the name of their stage."""
    students = recipe.qat.students if recipe.qat is not None else ()
    return tuple(one for one in students if any(engine.student == one for engine in recipe.engines))


def imitated(recipe: Recipe) -> tuple[str, str]:
    """Return the quantizer that QAT imitates, and the variant of its options."""
    assert recipe.qat is not None
    engines = [engine for engine in recipe.engines if engine.precision.is_quantized and engine.student != DEPLOYED]
    used = [(quantizer_of(engine), engine.variant) for engine in engines]
    wanted = recipe.qat.quantizer or used[0][0]
    return next((one for one in used if one[0] == wanted), (wanted, PTQ))


def training_stages(recipe: Recipe, deployed: str, floor: tuple[str, ...], trained_on: dict[str, str]) -> list[Stage]:
    """Return the stages that train, [] where no engine needs one.

    Args:
        recipe: the whole recipe.
        deployed: the stage whose student they train further.
        floor: prerequisites of a stage that has a teacher.
        trained_on: the part of the data set that they use, see `Stage.partial_inputs`.
    """
    students = further_students(recipe)
    if recipe.qat is None or not students:
        return []
    quantizer, variant = imitated(recipe)
    guides = ("teacher",) if recipe.qat.methods else ()
    budget = [_budget(recipe)] if recipe.qat.when == "over_budget" else []
    return budget + [
        Stage(
            name=student,
            kind="checkpoint",
            function=_FUNCTIONS[student],
            inputs=(deployed, *guides, *(("export",) if student == QAT else ()), *(one.name for one in budget), "data"),
            sections=("data", *guides, "distill", "qat", "trainer", f"quantize:{variant}/{quantizer}"),
            subject=student,
            external_state="edgekd.quantize.stage:place",
            ignored_keys=_NOT_LEARNED,
            prerequisites=floor if guides else (),
            partial_inputs=trained_on | _USED_PARTS,
        )
        for student in students
    ]


def _budget(recipe: Recipe) -> Stage:
    """Return the stage that decides whether each target has a quantized engine of the deployed student within the budget."""
    engines = [one for one in recipe.engines if one.precision.is_quantized and one.student == DEPLOYED]
    measured = tuple(f"engine/{engine.id}" for engine in engines)
    return Stage(
        name="budget",
        kind="budget",
        function="edgekd.sensitivity.budget:run",
        inputs=("export", *measured, "data"),
        sections=("data", "quantize", "engines", "evaluate"),
        ignored_keys=ONLY_ON_VAL,
        optional_inputs=measured,
        partial_inputs=CALIBRATED_ON,
        external_state="edgekd.sensitivity.budget:place",
        fails_alone=True,
        version=2,
    )
