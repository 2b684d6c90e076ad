"""The bench stage: the latency of all engines of a recipe, in one interleaved run on images of the scored split."""

from __future__ import annotations

from contextlib import ExitStack

from edgekd.bench.run import BenchSettings, bench, save
from edgekd.core.artifact import StageResult
from edgekd.core.session import open_session
from edgekd.core.stage import StageJob
from edgekd.data.open import open_split


def run(job: StageJob) -> StageResult:
    """Measure every engine among the inputs and keep the raw samples."""
    recipe = job.recipe
    dataset = open_split(recipe, recipe.data.val)
    images = [dataset.load(i).image for i in range(min(recipe.bench.images, len(dataset)))]
    engines = {name.split("/")[1]: artifact for name, artifact in job.inputs.items() if artifact.kind == "engine"}
    settings = BenchSettings(
        recipe.bench.min_samples, recipe.bench.min_seconds, recipe.bench.warmup_max_seconds, recipe.seed
    )
    with ExitStack() as stack:
        sessions = {row: stack.enter_context(open_session(artifact)) for row, artifact in engines.items()}
        results = bench(sessions, images, settings)
    save(results, job.out_dir)
    return StageResult(details={"rows": {row: result.row() for row, result in results.items()}})
