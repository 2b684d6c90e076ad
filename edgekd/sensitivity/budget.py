"""The stage `budget`: whether an int8 engine of the deployed student holds the accuracy budget, so that QAT is not needed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.recipe import Engine
from edgekd.core.stage import StageJob
from edgekd.errors import TargetError
from edgekd.executors.boards import why_not_here
from edgekd.executors.predictions import predict_images
from edgekd.sensitivity.scoring import SelectionImages

log = logging.getLogger(__name__)


def run(job: StageJob) -> StageResult:
    """Score the float network and its quantized engines on the selection images.

    Raises:
        TargetError: no board that is there runs one of the engines.
        DataError: there are no selection images, or the metric has no value on them.
    """
    recipe, budget = job.recipe, job.recipe.quantize.budget
    assert budget is not None  # the recipe has one where `qat.when` asks for it
    # All variants draw their calibration images from the same beginning of one draw.
    used = [recipe.quantize.variant(engine.variant).images for engine in recipe.engines if _name(engine) in job.inputs]
    images = SelectionImages.of(recipe, budget, max(used, default=recipe.quantize.images))
    reference = _score(images, job.input_of("onnx"))
    drops: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for engine in recipe.engines:
        artifact = job.inputs.get(_name(engine))
        if artifact is None:
            continue
        if reason := why_not_here(engine):
            reasons[engine.id] = reason
        else:
            drops[engine.id] = reference - _score(images, artifact)
    if not drops:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise TargetError(f"qat.when: over_budget needs an int8 engine that runs here ({why}); set qat.when: always")
    best = min(drops, key=lambda name: drops[name])
    is_met = drops[best] <= budget.max_drop
    text = (
        f"{best} loses {100 * drops[best]:.2f} points {images.metric} on {len(images.indices)} selection images, the budget is "
        f"{100 * budget.max_drop:g}"
    )
    log.info("budget: %s: %s", "held" if is_met else "missed", text)
    details = {
        "metric": images.metric,
        "score": reference,
        "drops": drops,
        "why_not_scored": reasons,
        "max_drop": budget.max_drop,
        "is_met": is_met,
        "text": text,
        "selection": {"split": recipe.data.train, "images": images.names, "seed": recipe.seed},
    }
    return StageResult(details=details)


def _name(engine: Engine) -> str:
    return f"engine/{engine.id}"


def _score(images: SelectionImages, artifact: Artifact) -> float:
    def predict(read: Iterable[np.ndarray]) -> Iterator[Any]:
        return predict_images(read, artifact, images.selection)

    return images.score(predict)
