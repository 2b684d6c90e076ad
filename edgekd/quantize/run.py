"""The quantize stage: one calibration for all quantizers, a seeded subset of the training split, listed by name."""

from __future__ import annotations

import numpy as np

from edgekd.board.preprocess import prepare
from edgekd.core import plugins
from edgekd.core.artifact import StageResult
from edgekd.core.recipe_loading import plugin_options
from edgekd.core.stage import StageJob
from edgekd.data.open import open_split


def run(job: StageJob) -> StageResult:
    """Quantize the exported model with the quantizer named by the stage's part."""
    recipe, onnx = job.recipe, job.inputs["export"]
    settings = recipe.quantize
    module = plugins.load("quantizers", job.part)
    options = plugin_options("quantizers", job.part, settings.options.get(job.part, {}), f"quantize.options.{job.part}")
    dataset = open_split(recipe, recipe.data.train)
    chosen = calibration_indices(len(dataset), settings.images, recipe.seed)
    spec = onnx.spec
    batches = [{spec.inputs[0].name: prepare(dataset.load(i).image, spec.preprocess)} for i in chosen]
    result = module.quantize(onnx.file("model.onnx"), spec, batches, job.out_dir, options)
    calibration = {"split": recipe.data.train, "images": [dataset.name(i) for i in chosen], "seed": recipe.seed}
    details = {name: onnx.details[name] for name in ("params", "macs")}
    model = result.model.relative_to(job.out_dir).as_posix()
    return StageResult(spec, {**details, "model": model, "calibration": calibration, "quantizer": result.details})


def calibration_indices(available: int, wanted: int, seed: int) -> list[int]:
    """Return the sorted indices of `wanted` (at most `available`) images drawn without replacement."""
    rng = np.random.default_rng([seed, 2])
    return sorted(int(i) for i in rng.permutation(available)[: min(wanted, available)])
