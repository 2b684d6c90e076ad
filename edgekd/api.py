"""What a notebook calls: run a recipe, load an engine, load a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.core.artifact import Artifact, open_artifact
from edgekd.core.ranks import is_first_process
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.core.workspace import Workspace, disk_errors
from edgekd.errors import EdgekdError


def run(
    recipe: Recipe | str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    until: str | None = None,
    on_stage: Callable[[Any], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a recipe into the folder `out`, resuming what is there, and return the report.

    Also writes `report.json`, `report_data/` and `report.html` into `out`, when a stage fails too. A process that Lightning
    started to train with the first one (several devices) does that and exits here.

    Raises:
        EdgekdError: see edgekd/errors.py; what was finished is kept, and in the report.
    """
    from edgekd import pipeline

    if not isinstance(recipe, Recipe):
        recipe = load_recipe(str(recipe), overrides)
    pipeline.check_options(recipe)
    stages = pipeline.plan(recipe)
    chosen = pipeline.select(stages, until)
    if not is_first_process():
        pipeline.assist(recipe, Workspace(Path(out)), chosen)
        raise SystemExit(0)
    done: list[pipeline.StageRun] = []

    def remember(stage_run: pipeline.StageRun) -> None:
        done.append(stage_run)
        on_stage(stage_run)

    with Workspace(Path(out)).locked() as workspace, disk_errors(workspace.root):
        try:
            pipeline.run_stages(recipe, workspace, chosen, remember)
        except EdgekdError as exc:
            if done:
                _report(recipe, workspace, stages, done, str(exc))
            raise
        return _report(recipe, workspace, stages, done, "")


def run_study(
    recipe: Recipe | str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    jobs: int = 1,
    on_stage: Callable[[Any], None] = lambda _: None,
    on_run: Callable[[Any, str, int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Train every arm of `recipe.study` with every seed, resuming what is there, and return the comparison.

    Also writes `study.json`, `study.md` and `study.png` into `out`.

    Args:
        recipe: the recipe or its file.
        out: the study's folder; several processes or machines may work in one.
        overrides: `key.path=value` strings.
        jobs: runs at a time on this machine.
        on_stage: called with every stage of the teacher.
        on_run: called with every run, its state (`done`, `failed`, `elsewhere`), how many have ended, and of how many.

    Raises:
        EdgekdError: the recipe or the teacher; a run that fails is in the result with its reason.
    """
    from edgekd import pipeline
    from edgekd.study import results, run
    from edgekd.study.plan import arms_of, study_runs

    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)
    folder = Path(out)
    for methods in arms_of(recipe).values():  # before the teacher is trained
        pipeline.check_options(
            recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"methods": methods})})
        )
    run.check_arms(recipe)
    teacher = run.make_teacher(recipe, folder, on_stage)
    runs = study_runs(recipe, folder, teacher["teacher"].file("weights.safetensors"))
    ended: list[Any] = []

    def remember(one: Any, state: str) -> None:
        ended.append(one)
        on_run(one, state, len(ended), len(runs))

    with disk_errors(folder):
        run.run_all(runs, jobs, remember)
        found = [(one, run.finished(one) or run.why_failed(one)) for one in runs]
        content = results.summarize(recipe, teacher, found)
        results.write(content, folder)
    return content


def load_report(path: str | Path) -> dict[str, Any]:
    """Return the content of a `report.json`, given its path or its folder."""
    from edgekd.report.collect import read_report

    return read_report(Path(path))


class Engine:
    """An engine that takes images: `engine(image)` returns the class map at the image's size."""

    def __init__(self, artifact: Artifact, session: Any) -> None:
        self.artifact = artifact
        self.session = session
        self.classes: tuple[str, ...] = artifact.spec.classes

    def __call__(self, image: np.ndarray | str | Path) -> Any:
        """Return what the network says of an image: a path, or an array (H, W, 3) uint8 RGB.

        A segmenter gives the class map (H, W) uint8, a detector or instance segmenter `board.detection.Detections`.

        Raises:
            ImageError: an array of another shape or dtype.
            DataError: a file that is not a readable image.
        """
        from edgekd.board.postprocess import predictor
        from edgekd.data.images import read_image

        predict = predictor(self.session.spec.task)
        return predict(self.session, image if isinstance(image, np.ndarray) else read_image(Path(image)))


@contextmanager
def load_engine(path: str | Path) -> Iterator[Engine]:
    """Open the engine in an artifact folder (or its checkpoint or ONNX file) for inference.

        with edgekd.load_engine("runs/quickstart/engine/openvino-int8") as engine:
            class_map = engine("street.png")

    Raises:
        ArtifactError: not a complete artifact folder with a network.
        TargetError: the runtime is not installed, or refuses the engine.
    """
    from edgekd.core.session import open_session

    artifact = open_artifact(Path(path))
    with open_session(artifact) as session:
        yield Engine(artifact, session)


def _report(recipe: Recipe, workspace: Workspace, stages: list[Any], ran: list[Any], failure: str) -> dict[str, Any]:
    from edgekd import pipeline
    from edgekd.report import collect

    known = pipeline.recall(recipe, workspace, stages, ran)  # `edgekd evaluate` keeps what `edgekd bench` measured
    artifacts = {stage_run.stage.name: stage_run.artifact for stage_run in known}
    timings = [
        {"name": r.stage.name, "seconds": round(r.artifact.manifest["seconds"], 1), "skipped": r.skipped} for r in known
    ]
    report = collect.collect(recipe, artifacts, timings, [stage.name for stage in stages], failure)
    collect.write_data(recipe, artifacts, workspace.root)
    collect.write_report(report, workspace.root)
    collect.write_page(report, workspace.root)
    return report
