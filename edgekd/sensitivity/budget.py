"""The stage `budget`: whether each target has an int8 engine of the deployed student within the accuracy budget.

QAT is needed where one target has none. Engines of one target and board are variants of one deployment: the best one counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from edgekd.core.artifact import StageResult
from edgekd.core.recipe import DEPLOYED, LOCAL, Engine, Recipe
from edgekd.core.stage import StageJob
from edgekd.core.task_metrics import metric_title
from edgekd.errors import TargetError
from edgekd.executors.boards import why_not_here, why_not_there
from edgekd.sensitivity.scoring import SelectionImages, change_text, points_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TargetBudget:
    """The budget of one target on one board.

    state: `held`, `missed`, or `not here` where none of its engines runs here.
    text: its engines with their drops in points of the metric, those that failed, and those that do not run here with the reason.
    """

    target: str
    board: str
    state: str
    text: str


def run(job: StageJob) -> StageResult:
    """Score the float network and its quantized engines on the selection images.

    Raises:
        TargetError: none of the engines runs here.
        DataError: there are no selection images, or the metric has no value on them.
    """
    recipe, budget = job.recipe, job.recipe.quantize.budget
    assert budget is not None  # the recipe has one where `qat.when` asks for it
    engines, built = _asked(recipe), job.inputs
    # All variants draw their calibration images from the same beginning of one draw.
    used = [recipe.quantize.variant(engine.variant).images for engine in engines if _name(engine) in built]
    images = SelectionImages.of(recipe, budget, max(used, default=recipe.quantize.images))
    reference = images.score_of(job.input_of("onnx"))
    drops: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for engine in engines:
        if reason := why_not_here(engine):
            reasons[engine.id] = reason
        elif _name(engine) in built:
            drops[engine.id] = reference - images.score_of(built[_name(engine)])
    if len(reasons) == len(engines):
        raise TargetError(
            f"qat.when: over_budget needs an int8 engine that runs here ({_listed(reasons)}); set qat.when: always"
        )
    targets = by_target(engines, drops, reasons, budget.max_drop, images.metric)
    for one in targets:
        log.info("budget: %s", one.text)
    details = {
        "metric": images.metric,
        "score": reference,
        "drops": drops,
        "why_not_scored": reasons,
        "max_drop": budget.max_drop,
        "is_met": all(one.state != "missed" for one in targets),
        "text": f"{'; '.join(one.text for one in targets)}; on {len(images.indices)} selection images",
        "targets": [asdict(one) for one in targets],
        "selection": {"split": recipe.data.train, "images": images.names, "seed": recipe.seed},
    }
    return StageResult(details=details)


def place(recipe: Recipe) -> dict[str, str]:
    """Return why the board of each asked engine cannot run it, "" where it can: the state outside the run."""
    return why_not_there(_asked(recipe))


def by_target(
    engines: Iterable[Engine], drops: Mapping[str, float], reasons: Mapping[str, str], max_drop: float, metric: str
) -> list[TargetBudget]:
    """Return the budget of each target and board, in the order of the engines.

    Args:
        engines: quantized engines.
        drops: drop of the metric, a fraction, of those that were scored, by id.
        reasons: why an engine does not run here, by id. The others failed, so they do not hold the budget.
        max_drop: the budget, a fraction.
        metric: name of the metric.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for engine in engines:
        groups.setdefault((engine.target, engine.board), []).append(engine.id)
    found = []
    for (target, board), ids in groups.items():
        scored = sorted((one for one in ids if one in drops), key=lambda one: drops[one])
        failed = [one for one in ids if one not in drops and one not in reasons]
        away = _listed({one: reasons[one] for one in ids if one in reasons})
        limit, title = f"limit {100 * max_drop:.2f}", metric_title(metric)
        if scored and drops[scored[0]] <= max_drop:
            best = scored[0]
            state, text = "held", f"holds the budget: {best} {change_text(drops[best])} points {title}, {limit}"
        elif scored or failed:
            by = f" by {points_text(drops[scored[0]] - max_drop)} points {title}" if scored else ""
            losses = [f"{one} {change_text(drops[one])}" for one in scored] + [f"{one} failed" for one in failed]
            state, text = "missed", f"misses the budget{by}: {', '.join(losses)}, {limit}"
        else:
            state, text = "not here", f"does not count: {away}"
        label = target if board == LOCAL else f"{target} on {board}"
        also = f"; not here: {away}" if away and state != "not here" else ""
        found.append(TargetBudget(target, board, state, f"{label} {text}{also}"))
    return found


def _listed(reasons: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in reasons.items())


def _asked(recipe: Recipe) -> list[Engine]:
    return [one for one in recipe.engines if one.precision.is_quantized and one.student == DEPLOYED]


def _name(engine: Engine) -> str:
    return f"engine/{engine.id}"
