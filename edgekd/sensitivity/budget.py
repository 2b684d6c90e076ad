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
from edgekd.sensitivity.scoring import SelectionImages

log = logging.getLogger(__name__)
FAILED = "it failed"


@dataclass(frozen=True)
class TargetBudget:
    """The budget of one target on one board.

    state: `held`, `missed`, or `not scored` where none of its engines runs here.
    text: its engines with their drops in points of the metric, and those that were not scored with the reason.
    """

    target: str
    board: str
    state: str
    text: str


def run(job: StageJob) -> StageResult:
    """Score the float network and its quantized engines on the selection images.

    Raises:
        TargetError: no board that is there runs one of the engines.
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
        if reason := why_not_here(engine) if _name(engine) in built else FAILED:
            reasons[engine.id] = reason
        else:
            drops[engine.id] = reference - images.score_of(built[_name(engine)])
    if not drops:
        raise TargetError(
            f"qat.when: over_budget needs an int8 engine that runs here ({_listed(reasons)}); set qat.when: always"
        )
    targets = by_target(engines, drops, reasons, budget.max_drop, images.metric)
    for one in targets:
        log.info("budget: %s: %s", one.state, one.text)
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
        reasons: why the others were not, by id.
        max_drop: the budget, a fraction.
        metric: name of the metric.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for engine in engines:
        groups.setdefault((engine.target, engine.board), []).append(engine.id)
    found = []
    for (target, board), ids in groups.items():
        scored = sorted((one for one in ids if one in drops), key=lambda one: drops[one])
        state = "not scored" if not scored else "held" if drops[scored[0]] <= max_drop else "missed"
        label = target if board == LOCAL else f"{target} on {board}"
        parts = [f"{label} {_words(scored, drops, max_drop, metric)}"] if scored else []
        left = _listed({one: reasons[one] for one in ids if one in reasons})
        parts += [f"{label}: not scored: {left}" if not scored else f"not scored: {left}"] if left else []
        found.append(TargetBudget(target, board, state, ", ".join(parts)))
    return found


def _words(scored: list[str], drops: Mapping[str, float], max_drop: float, metric: str) -> str:
    limit, best = f"limit {100 * max_drop:.2f}", scored[0]
    over = drops[best] - max_drop
    if over <= 0:
        return f"holds the budget: {best} {_change(drops[best])} points {metric_title(metric)}, {limit}"
    losses = ", ".join(f"{one} {_change(drops[one])}" for one in scored)
    return f"misses the budget by {_points(over)} points {metric_title(metric)}: {losses}, {limit}"


def _points(fraction: float) -> str:
    """Return a fraction in points; a difference that two decimals hide gets more."""
    return f"{100 * fraction:.2f}" if abs(fraction) >= 5e-5 or fraction == 0 else f"{100 * fraction:.1g}"


def _change(drop: float) -> str:
    return f"gains {_points(-drop)}" if drop < 0 else f"loses {_points(drop)}"


def _listed(reasons: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in reasons.items())


def _asked(recipe: Recipe) -> list[Engine]:
    return [one for one in recipe.engines if one.precision.is_quantized and one.student == DEPLOYED]


def _name(engine: Engine) -> str:
    return f"engine/{engine.id}"
