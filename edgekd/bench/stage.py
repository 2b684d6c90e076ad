"""The bench stage: the latency of all engines of a recipe, in one interleaved run on images of the scored split."""

from __future__ import annotations

from contextlib import ExitStack

from edgekd.board.bench import BenchSettings, bench
from edgekd.board.bench_files import save
from edgekd.core.artifact import StageResult
from edgekd.core.progress import progress_bar
from edgekd.core.session import open_session
from edgekd.core.stage import StageJob
from edgekd.data.splits import open_split


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
        progress = stack.enter_context(progress_bar("measuring latency, %", redraws_itself=False))
        results = bench(sessions, images, settings, lambda _, share: progress(int(100 * share), 100))
    save(results, job.out_dir)
    return StageResult(details={"rows": {row: result.row() for row, result in results.items()}})
