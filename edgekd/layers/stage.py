"""The stage `layers/<engine>`: the error of an engine layer by layer, for the report."""

from __future__ import annotations

from edgekd.core.artifact import StageResult
from edgekd.core.stage import StageJob
from edgekd.layers.work import Network, engine_errors, float_graph, training_images


def run(job: StageJob) -> StageResult:
    """Measure the engine whose id is the stage's subject on `layers.images` training images."""
    (engine,) = job.recipe.engines
    quantized = next((one for one in job.inputs.values() if one.kind == "quantized"), None)
    images = training_images(job.recipe, job.recipe.layers.images)
    built, export = job.inputs[f"engine/{engine.id}"], job.input_of("onnx")
    with float_graph(job.recipe, export, quantized) as model:
        found = engine_errors(built, Network(export, quantized, model), images, engine.board)
    return StageResult(details=found.to_dict())
