"""The run behind an engine: its report's row, its recipe, and the artifacts that the engine was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgekd.core.artifact import Artifact, open_artifact
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import stored_recipe
from edgekd.errors import ArtifactError
from edgekd.report.model import Report, Row
from edgekd.report.stored import REPORT, read_report


@dataclass(frozen=True)
class EngineRun:
    """An engine with its run's report, recipe and artifacts.

    engine: artifact of the engine.
    folder: output folder of the run.
    report: report of the run.
    recipe: recipe of the run.
    row: the report's row of this very engine; None when the report has none, or that of another build.
    inputs: stage -> artifact that the engine was made from; those that were made again since are not in it.
    """

    engine: Artifact
    folder: Path
    report: Report
    recipe: Recipe
    row: Row | None
    inputs: dict[str, Artifact]

    @property
    def id(self) -> str:
        """Id of the engine, e.g. `openvino-int8`."""
        return str(PurePosixPath(self.engine.manifest["stage"]).relative_to("engine"))

    def input(self, kind: str) -> Artifact | None:
        """Return the input artifact of a kind, None if the run no longer has it."""
        return next((one for one in self.inputs.values() if one.kind == kind), None)


def open_run(folder: Path) -> EngineRun:
    """Open an engine's folder in the folder of its run.

    Raises:
        ArtifactError: no engine, or it does not lie in the folder of a run.
        UserError: the run has no report, or one of another edgekd.
    """
    engine = open_artifact(folder, "engine")
    stage = PurePosixPath(engine.manifest["stage"])
    run = engine.path.parents[len(stage.parts) - 1]
    if run / stage != engine.path or stage.parts[0] != "engine":
        raise ArtifactError(
            f"{folder}: expected an engine in the folder of its run, at RUN/{stage}; its report and its data are found there"
        )
    report = read_report(run)
    hashes = {
        engine.sha256(),
        *(one["sha256"] for one in engine.manifest["files"]),
    }  # of a row: the file, or the artifact
    rows = (one for one in report.rows if f"{one.stage}/{one.id}" == str(stage) and one.sha256 in hashes)
    recipe = stored_recipe(report.recipe, str(run / REPORT))
    return EngineRun(engine, run, report, recipe, next(rows, None), _inputs(run, engine))


def _inputs(run: Path, engine: Artifact) -> dict[str, Artifact]:
    found = {}
    for stage, digest in (engine.manifest.get("inputs") or {}).items():
        try:
            artifact = open_artifact(run / stage)
        except ArtifactError:
            continue
        if artifact.sha256() == digest:
            found[stage] = artifact
    return found
