"""The stage `check`: what the recipe's targets will make of its student, before anything is trained."""

from __future__ import annotations

import logging
from collections import Counter

from edgekd.core.artifact import StageResult
from edgekd.core.recipe import Engine, Recipe
from edgekd.core.stage import StageJob
from edgekd.errors import GateError
from edgekd.preflight.check import NO_PARSER, check, check_engines, toward_of, towards_of, untrained_student
from edgekd.preflight.findings import Finding, Report

log = logging.getLogger(__name__)


def run(job: StageJob) -> StageResult:
    """Check the untrained student for every engine of the recipe and record what is found.

    Raises:
        GateError: a good engine is not to be expected. With `check: warn` this and the next are warnings.
        TargetError: an engine that its target cannot build of any network, see `check_engines`.
    """
    recipe = job.recipe
    asked = towards_of(recipe)
    with untrained_student(recipe, tuple(job.inputs["data"].details["classes"])) as student:
        assert student.spec is not None
        check_engines(recipe, student.spec, student.model)
        found = [check(student, toward) for toward in asked]
    reports = {repr(toward): report for toward, report in zip(asked, found, strict=True)}
    for engine in recipe.engines:
        _judge(recipe, engine, reports[repr(toward_of(engine))])
    return StageResult(details={"reports": [report.to_dict() for report in found]})


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
            raise GateError(f"{message}; to train and build it all the same: --set check=warn")
        log.warning("%s", message)


def _said(finding: Finding) -> str:
    where = " ".join(filter(None, [finding.operator, *finding.nodes[:1], finding.module and f"({finding.module})"]))
    consequence = finding.consequence.replace("_", " ")
    return f"{consequence}: {where or 'the graph'}: {finding.says}; {finding.fix}"
