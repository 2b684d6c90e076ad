"""The stages that make engines of trained students: export, quantized models, engines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekd.board.precision import Precision
from edgekd.core.recipe import LOCAL, QAT, Engine, Recipe
from edgekd.core.stage import Stage
from edgekd.planning.qat import CALIBRATED_ON, ONLY_ON_VAL, further_students, of_student, quantizer_of

NOT_QUANTIZED = ("quantize.budget",)  # it chooses layers of `mixed` engines, and changes no int8 model
_SCORED_ON = {"data": "edgekd.data.stage:scoring_part"}


def deployment(recipe: Recipe, deployed: str) -> list[Stage]:
    """Return the stages from the students to their engines.

    Args:
        recipe: the whole recipe.
        deployed: the stage of the student that goes to the chip.
    """
    mixed = [engine for engine in recipe.engines if engine.precision is Precision.MIXED]
    return [
        _export("export", deployed),
        *(_export(of_student("export", student), student) for student in further_students(recipe)),
        *_sensitivity(mixed),
        *map(_mixed, mixed),
        *_quantized(engine for engine in recipe.engines if engine.precision is Precision.INT8),
        *map(_engine, recipe.engines),
    ]


def _export(name: str, student: str) -> Stage:
    return Stage(
        name=name,
        kind="onnx",
        function="edgekd.export.stage:run",
        inputs=(student, "data"),
        sections=("data", "export"),
        subject=student,
        partial_inputs=_SCORED_ON,
        version=2,
    )


def _quantized(engines: Iterable[Engine]) -> list[Stage]:
    """Return a stage for each student, quantizer and variant that an int8 engine is compiled from."""
    return [
        Stage(
            name=name,
            kind="quantized",
            function="edgekd.quantize.stage:run",
            inputs=(of_student("export", engine.student), *_ranges(engine), "data"),
            sections=("data", settings_of(engine)),
            subject=quantizer_of(engine),
            external_state="edgekd.quantize.stage:place",
            ignored_keys=NOT_QUANTIZED,
            fails_alone=True,
            partial_inputs=CALIBRATED_ON,
        )
        for name, engine in sorted({source_of(engine): engine for engine in engines}.items())
    ]


def _engine(engine: Engine) -> Stage:
    return Stage(
        name=f"engine/{engine.id}",
        kind="engine",
        function="edgekd.compile.stage:run",
        inputs=tuple(dict.fromkeys((source_of(engine), of_student("export", engine.student), "data"))),
        sections=("data", f"engines:{engine.id}", "parity"),
        subject=engine.id,
        external_state="edgekd.compile.stage:bound_to",
        fails_alone=True,
        partial_inputs=CALIBRATED_ON,
        version=2,
    )


def source_of(engine: Engine) -> str:
    """Return the stage whose model an engine is compiled from."""
    if engine.precision is Precision.MIXED:
        return f"mixed/{engine.id}"
    return of_student(_model("quantize", engine) if engine.precision.is_quantized else "export", engine.student)


def _model(kind: str, engine: Engine) -> str:
    return f"{kind}/{quantizer_of(engine)}-{engine.variant}"


def settings_of(engine: Engine) -> str:
    """Return the section with the settings of an engine's quantizer."""
    return f"quantize:{engine.variant}/{quantizer_of(engine)}"


def _sensitivity(mixed: Sequence[Engine]) -> list[Stage]:
    """Return the stages that rank layers, one for each quantizer and variant of the mixed engines."""
    return [
        Stage(
            name=name,
            kind="sensitivity",
            function="edgekd.sensitivity.stage:run",
            version=2,
            # The drop is measured from the deployed student's float network.
            inputs=tuple(dict.fromkeys((of_student("export", engine.student), *_ranges(engine), "export", "data"))),
            sections=("data", settings_of(engine), "evaluate"),
            subject=quantizer_of(engine),
            ignored_keys=ONLY_ON_VAL,
            external_state="edgekd.quantize.stage:place",
            fails_alone=True,
            partial_inputs=CALIBRATED_ON,
        )
        for name, engine in sorted({_ranked(engine): engine for engine in mixed}.items())
    ]


def _mixed(engine: Engine) -> Stage:
    """Return the stage that makes the quantized model of a mixed engine, and builds the engine to hold it to the budget."""
    return Stage(
        name=source_of(engine),
        kind="quantized",
        function="edgekd.sensitivity.mixed:run",
        inputs=(_ranked(engine), of_student("export", engine.student), *_ranges(engine), "data"),
        sections=("data", settings_of(engine), f"engines:{engine.id}", "evaluate"),
        subject=engine.id,
        ignored_keys=ONLY_ON_VAL,
        external_state="edgekd.compile.stage:bound_to" if engine.board == LOCAL else "edgekd.evaluate.stage:place",
        fails_alone=True,
        partial_inputs=CALIBRATED_ON,
    )


def _ranges(engine: Engine) -> tuple[str, ...]:
    """Return the stage that has learned ranges for the quantizer of an engine."""
    return (QAT,) if engine.student == QAT else ()


def _ranked(engine: Engine) -> str:
    """Return the stage that ranks the layers of a mixed engine."""
    return of_student(_model("sensitivity", engine), engine.student)
