"""What quantization-aware training gains: its engines against those of the control, which trained the same steps without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekd.core.artifact import Artifact
from edgekd.core.qat_section import twin_of
from edgekd.core.recipe import CONTROL, DEPLOYED, QAT, Recipe
from edgekd.core.task_metrics import TASKS
from edgekd.evaluate.image_scores import FILE as IMAGE_SCORES
from edgekd.evaluate.image_scores import ImageScores, read_image_scores
from edgekd.evaluate.intervals import score_change_intervals
from edgekd.report.data_files import read_arrays
from edgekd.report.model import Report, Row
from edgekd.report.score_change import ScoreChange

_SIMPLER = {QAT: (CONTROL, DEPLOYED), CONTROL: (DEPLOYED,)}  # the nearest first


def with_gains(report: Report, recipe: Recipe, artifacts: Mapping[str, Artifact]) -> Report:
    """Return the report with the change of each engine of section `qat` against that of the simpler student."""
    rows = {row.id: row for row in report.rows}
    gains: dict[str, ScoreChange] = {}
    for engine in recipe.engines:
        twins = [twin_of(recipe.engines, engine, student) for student in _SIMPLER.get(engine.student, ())]
        found = next((twin for twin in twins if twin is not None), None)
        if found is not None and {found.id, engine.id} <= set(rows):
            gains[engine.id] = _change(rows[engine.id], rows[found.id], artifacts)
    changed = [row.model_copy(update={"gain": gains[row.id]}) if row.id in gains else row for row in report.rows]
    return report.model_copy(update={"rows": changed})


def proven(rows: Sequence[Row], known: Sequence[Row] = ()) -> list[Row]:
    """Return the engines that may be deployed: of engines that differ in their student alone, one.

    The one of a further trained student only where the interval shows that it is better than that of the simpler student, and
    its score is the highest of those before it; else the simpler one.

    Args:
        rows: measured engines.
        known: all rows of the report: an engine that failed leads to the still simpler one. Empty: `rows`.
    """
    by_id, measured = {row.id: row for row in known or rows}, {row.id for row in rows}
    chosen = {row.id: row for row in rows if row.student == DEPLOYED}
    for student in (CONTROL, QAT):
        for row in rows:
            if row.student != student:
                continue
            before = [one for one in _simpler(row, by_id) if one.id in measured]
            beaten = [one for one in before if one.id in chosen]
            if not before:  # an engine of this student alone
                chosen[row.id] = row
            elif row.gain and row.gain.is_better and all((row.score or 0) > (one.score or 0) for one in beaten):
                chosen = {key: one for key, one in chosen.items() if one not in beaten}
                chosen[row.id] = row
    return [row for row in rows if row.id in chosen]


def _simpler(row: Row, by_id: Mapping[str, Row]) -> list[Row]:
    """Return the same engine of the simpler students, the nearest first."""
    found: list[Row] = []
    while row.gain is not None and row.gain.against in by_id:
        row = by_id[row.gain.against]
        found.append(row)
    return found


def _change(row: Row, other: Row, artifacts: Mapping[str, Artifact]) -> ScoreChange:
    # Against the deployed student's engine the gain of QAT cannot be told from that of more training.
    if row.score is None or other.score is None or (row.student, other.student) == (QAT, DEPLOYED):
        return ScoreChange(against=other.id)
    low, high = None, None
    before, after = (_image_scores(artifacts.get(f"evaluate/{one.id}")) for one in (other, row))
    if before is not None and after is not None and row.images_sha256 == other.images_sha256:
        low, high = score_change_intervals(before, after).get(TASKS[row.task].metric, (None, None))
    return ScoreChange(against=other.id, change=row.score - other.score, low=low, high=high)


def _image_scores(scored: Artifact | None) -> ImageScores | None:
    return None if scored is None else read_image_scores(read_arrays(scored.file(IMAGE_SCORES)))
