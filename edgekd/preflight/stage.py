"""The stage `check`: checks the untrained student for the recipe's targets, before any training."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack

from edgekd.core.artifact import StageResult
from edgekd.core.qat_section import one_of_each
from edgekd.core.recipe import Engine, Recipe
from edgekd.core.stage import StageJob
from edgekd.errors import GateError, UserError
from edgekd.preflight.check import NO_PARSER, check, check_engines, toward_of, towards_of, untrained_student
from edgekd.preflight.findings import Finding, Report

log = logging.getLogger(__name__)


def run(job: StageJob) -> StageResult:
    """Try and export the untrained student, check it for every engine of the recipe, and record what is found.

    Raises:
        UserError: the student cannot be built from its weights, trained or exported.
        GateError: a fatal finding. With `check: warn` this and the next are warnings.
        TargetError: an engine that its target cannot build of any network, see `check_engines`.
    """
    recipe = job.recipe.model_copy(update={"engines": one_of_each(job.recipe.engines)})
    asked, classes = towards_of(recipe), tuple(job.inputs["data"].details["classes"])
    _try_student(recipe, len(classes))
    with ExitStack() as stack:
        try:
            student = stack.enter_context(untrained_student(recipe, classes))
        except UserError as exc:
            if recipe.check == "stop":
                raise UserError(f"check: {exc}; to train it anyway: --set check=warn") from exc
            log.warning("check: %s", exc)
            return StageResult(details={"reports": []})
        assert student.spec is not None
        check_engines(recipe, student.spec, student.model)
        found = [check(student, toward) for toward in asked]
    reports = {repr(toward): report for toward, report in zip(asked, found, strict=True)}
    for engine in recipe.engines:
        _judge(recipe, engine, reports[repr(toward_of(engine))])
    return StageResult(details={"reports": [report.to_dict() for report in found]})


def _try_student(recipe: Recipe, num_classes: int) -> None:
    """Build the student with its weights, which trains hours after this, and try it; UserError."""
    from edgekd.models.artifact import network_from_recipe
    from edgekd.models.build import check_input_size
    from edgekd.models.trial import try_network

    model = network_from_recipe(recipe.student, recipe.task, num_classes, "student")
    for size in {recipe.data.size, recipe.data.augment.crop or recipe.data.size}:
        check_input_size(model, size)
        try_network(recipe.student, recipe.task, num_classes, "student", size)


def _judge(recipe: Recipe, engine: Engine, report: Report) -> None:
    if report.parsed.answer == "not tried" and report.parsed != NO_PARSER:
        log.warning("check: %s: nothing here can try it: %s", engine.id, report.parsed.text)
    fatal = [one for one in report.findings if one.is_fatal_for(engine.precision)]
    others = Counter(one.consequence.replace("_", " ") for one in report.findings if one not in fatal)
    if others:
        counted = ", ".join(f"{count} {consequence}" for consequence, count in others.items())
        log.warning("check: %s: %s; edgekd check RECIPE says which and why", engine.id, counted)
    if fatal:
        message = f"check: {engine.id}: {_said(fatal[0])}"
        if len(fatal) > 1:
            message += f" (and {len(fatal) - 1} more: edgekd check RECIPE)"
        if recipe.check == "stop":
            raise GateError(f"{message}; to train and build it anyway: --set check=warn")
        log.warning("%s", message)


def _said(finding: Finding) -> str:
    where = " ".join(filter(None, [finding.operator, *finding.nodes[:1], finding.module and f"({finding.module})"]))
    consequence = finding.consequence.replace("_", " ")
    return f"{consequence}: {where or 'the graph'}: {finding.says}; {finding.fix}"
