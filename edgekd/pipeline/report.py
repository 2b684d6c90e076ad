"""The report of a run, with what earlier commands made in its folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.core.recipe import Recipe
from edgekd.core.stage import Stage
from edgekd.core.workspace import Workspace
from edgekd.errors import PackageError
from edgekd.pipeline import StageRun, recall

log = logging.getLogger(__name__)


def write(
    recipe: Recipe,
    workspace: Workspace,
    stages: Sequence[Stage],
    ran: Sequence[StageRun],
    failures: Mapping[str, str],
    failure: str,
) -> dict[str, Any]:
    """Write report, its data and the page of what a run has, and return the report.

    Args:
        recipe: the recipe.
        workspace: the run's folder, locked.
        stages: all stages of the recipe.
        ran: what was run or skipped now.
        failures: reason of each stage that failed without ending the run, by its name.
        failure: why the run ended, "" when it did not fail.
    """
    from edgekd.report import collect
    from edgekd.report.model import StageTiming
    from edgekd.report.page_data import write_data

    # `edgekd evaluate` keeps what `edgekd bench` measured.
    known = recall(recipe, stages, ran, workspace, is_held=True) if ran else []
    artifacts = {stage_run.stage.name: stage_run.artifact for stage_run in known}
    earlier = {f"{name}/{subject}": why for name, one in artifacts.items() for subject, why in one.failures.items()}
    failures = {**earlier, **failures}
    older = [
        stage.name
        for stage in stages
        if stage.name not in artifacts and stage.name not in failures and workspace.artifact_dir(stage.name).exists()
    ]
    if older and not failure:
        log.warning(
            "the report leaves out %s: made with other settings or, bench, another machine or power mode; "
            "edgekd run makes it again",
            ", ".join(older),
        )
    timings = [
        StageTiming(name=r.stage.name, seconds=round(r.artifact.manifest["seconds"], 1), skipped=r.skipped)
        for r in known
    ]
    report = collect.collect(recipe, artifacts, timings, [stage.name for stage in stages], failures, failure)
    write_data(recipe, artifacts, workspace.root)
    collect.write_report(report, workspace.root)
    try:
        collect.write_page(report, workspace.root)
    except PackageError as exc:  # a board needs no page
        (workspace.root / "report.html").unlink(missing_ok=True)  # the page of an earlier state
        log.warning("the page is not written: %s", exc)
    return report.to_dict()
