"""The functions for notebooks: run a recipe, load an engine, load a report."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.board.detection import Selection
from edgekd.board.postprocess import Predictor
from edgekd.core.artifact import Artifact, open_artifact
from edgekd.core.error_notes import noted_on
from edgekd.core.ranks import is_first_process
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.core.workspace import Workspace, disk_errors
from edgekd.errors import EdgekdError, RecipeError, UserError

if TYPE_CHECKING:
    from edgekd.data.predictions import ReadImage

log = logging.getLogger(__name__)


def run(
    recipe: Recipe | str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    until: str | None = None,
    on_stage: Callable[[Any], None] = lambda _: None,
    on_failure: Callable[[Any], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a recipe into the folder `out`, resuming what is there, and return the report.

    Also writes `report.json`, `report_data/` and `report.html` into `out`, also when a stage fails. There is no page where
    the packages of the extra `report` are not installed. An engine that fails does not end the run: its row has the status
    `failed` and the reason. A process that Lightning started to train with the first one (several devices) does that and
    exits here.

    Args:
        recipe: the recipe, its file, or the name of a shipped one.
        out: the output folder.
        overrides: `key.path=value` strings.
        until: comma-separated stages or groups to stop after.
        on_stage: called with every stage (`pipeline.StageRun`) that is done.
        on_failure: called with every stage (`pipeline.StageFailure`) that fails without ending the run.

    Raises:
        EdgekdError: see edgekd/errors.py. Finished stages are kept, and are in the report.
    """
    from edgekd.core.recipe_loading import find_recipe
    from edgekd.executors.boards import connected

    beside = None
    if not isinstance(recipe, Recipe):
        beside, recipe = find_recipe(str(recipe)).parent, load_recipe(str(recipe), overrides)
    with connected(beside):
        return _run(recipe, Path(out), until, on_stage, on_failure)


def _run(
    recipe: Recipe,
    out: Path,
    until: str | None,
    on_stage: Callable[[Any], None],
    on_failure: Callable[[Any], None],
) -> dict[str, Any]:
    from edgekd import pipeline, planning
    from edgekd.data.splits import shared_splits
    from edgekd.pipeline import checks, report

    checks.check_options(recipe)
    stages = planning.plan(recipe, partial(pipeline.ran_before, Workspace(out)))
    chosen = planning.select(stages, until)
    if not is_first_process():
        with shared_splits():
            pipeline.assist(recipe, Workspace(out), chosen, prerequisites=stages)
        raise SystemExit(0)
    folder = Workspace(out)
    with disk_errors(folder.root):
        folder.check_own(stage.name for stage in stages)
        checks.check_training(recipe, folder, chosen)
    done: list[pipeline.StageRun] = []
    failures: dict[str, str] = {}

    def remember(stage_run: pipeline.StageRun) -> None:
        done.append(stage_run)
        on_stage(stage_run)

    def note(failure: pipeline.StageFailure) -> None:
        failures[failure.name] = failure.reason
        on_failure(failure)

    with folder.locked() as workspace, disk_errors(workspace.root), shared_splits():
        _say_whose(workspace.root, recipe)
        try:
            pipeline.run_stages(recipe, workspace, chosen, remember, note, prerequisites=stages)
        except EdgekdError as exc:
            # Refused data also gets a page, but does not replace an earlier run's.
            if done or not (workspace.root / "report.json").exists():
                with noted_on(exc):
                    report.write(recipe, workspace, stages, done, failures, str(exc))
            raise
        return report.write(recipe, workspace, stages, done, failures, "")


def _say_whose(folder: Path, recipe: Recipe) -> None:
    """Warn that a folder has another recipe's run, whose report and changed artifacts will be replaced."""
    with suppress(UserError):  # no report, or a damaged one
        other = load_report(folder).get("recipe_name")
        if other not in (None, recipe.name):
            log.warning("%s holds the run of recipe %r; to keep it, stop and give another --out", folder, other)


def run_study(
    recipe: Recipe | str | Path,
    out: str | Path,
    overrides: Iterable[str] = (),
    on_stage: Callable[[Any], None] = lambda _: None,
    on_run: Callable[[Any, Any, int, int], None] = lambda *_: None,
    retry: bool = False,
) -> dict[str, Any]:
    """Train every arm of `recipe.study` with every seed, resuming what is there, and return the comparison.

    Also writes `study.json`, `study.csv`, `study.md` and `study.png` into `out`, also during the run (results so far) and when it is
    interrupted.

    Args:
        recipe: the recipe or its file.
        out: the study's folder; several processes or machines may work in one.
        overrides: `key.path=value` strings.
        on_stage: called with every stage of the teacher that this process runs.
        on_run: called with every run, its artifacts by stage name or the reason for none, the number of ended runs and of all.
        retry: whether to build engines again that failed in an earlier study in this folder. Otherwise they have no score.

    Raises:
        EdgekdError: the recipe or the teacher; a run that fails is in the result with its reason.
    """
    from edgekd.study import run

    wanted = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)
    return run.run(wanted, Path(out).absolute(), on_stage, on_run, retry)


def tune(
    run: str | Path,
    engines: Iterable[str] = (),
    rounds: int | None = None,
    on_progress: Callable[[str, float], None] = lambda what, share: None,
) -> dict[str, Any]:
    """Measure settings that change the speed of a run's engines and not their results; return the fastest.

    Also writes `tune.yaml` into the run's folder: a list of overrides for `edgekd run RECIPE --set @tune.yaml`.

    Args:
        run: the folder of a finished run.
        engines: ids of engines; by default all.
        rounds: bursts of each engine in each measurement; 12 by default, at least 6.
        on_progress: called with the current step and the fraction done.

    Raises:
        EdgekdError: no finished run, an unknown engine, or one that does not run.
    """
    from edgekd.tuning import work

    return work.tune(Path(run), tuple(engines), rounds or work.ROUNDS, on_progress).to_dict()


def load_report(path: str | Path) -> dict[str, Any]:
    """Return the content of a `report.json` as plain data, given its path or its folder."""
    from edgekd.report.stored import read_report

    return read_report(Path(path)).to_dict()


class Engine:
    """An engine that takes images: `engine(image)` returns the class map at the image's size, or the objects."""

    def __init__(self, artifact: Artifact, session: Any, selection: Selection | None = None) -> None:
        self.artifact = artifact
        self.session = session
        self.selection = selection
        self._predictor = Predictor(session, selection)
        self._lock = Lock()
        self.classes: tuple[str, ...] = artifact.spec.classes

    def __call__(self, image: np.ndarray | str | Path) -> Any:
        """Return the class map or the objects of an image: a path, or an array (H, W, 3) uint8 RGB.

        A segmenter gives the class map (H, W) uint8, a detector or instance segmenter `board.detection.Detections`.

        Raises:
            ImageError: an array of another shape or dtype.
            DataError: a file that is not a readable image.
        """
        pixels = _pixels(image)
        with self._lock:  # threads that share an engine share its buffers
            return self._predictor(pixels)

    def stream(self, images: Iterable[np.ndarray | str | Path]) -> Iterator[Any]:
        """Yield the results of images in order, preparing the next image while the engine runs; errors as for one image.

        For throughput: `engine(image)` has the lower latency.
        """
        from edgekd.board.stream import stream

        return stream(self.session, map(_pixels, images), self.selection)


def _pixels(image: np.ndarray | str | Path) -> np.ndarray:
    from edgekd.data.images import read_image

    return image if isinstance(image, np.ndarray) else read_image(Path(image))


@contextmanager
def load_engine(path: str | Path, selection: Selection | None = None) -> Iterator[Engine]:
    """Open the engine in an artifact folder (or its checkpoint or ONNX file) for inference.

        with edgekd.load_engine("runs/quickstart/engine/openvino-int8") as engine:
            class_map = engine("street.png")

    Args:
        path: the folder or file.
        selection: rule that selects a detector's objects; by default that of scoring.

    Raises:
        RecipeError: a selection for a segmenter.
        ArtifactError: not a complete artifact folder with a network.
        TargetError: the runtime is not installed, or refuses the engine.
    """
    from edgekd.executors.boards import connected, open_session

    artifact = _network(path, selection)
    with connected(Path.cwd()), open_session(artifact) as session:
        yield Engine(artifact, session, selection)


@dataclass(frozen=True)
class Predicted:
    """An image, an engine's result for it (see `Engine`), and the engine's classes."""

    image: ReadImage
    result: Any
    classes: tuple[str, ...]


def predict(
    path: str | Path,
    images: Iterable[ReadImage | str | Path],
    selection: Selection | None = None,
    board: str | None = None,
) -> Iterator[Predicted]:
    """Yield the class map or the objects of each image, in order; many images go to a board at a time.

    Args:
        path: the artifact's folder.
        images: files, or what `edgekd.data.predictions.read_images` read.
        selection: rule that selects a detector's objects; by default that of scoring.
        board: that runs the engine; None: its own. The inventory may lie in the current folder.

    Raises:
        RecipeError: a selection for a segmenter, or a board that is not in the inventory in use.
        ArtifactError: not a complete artifact folder with a network.
        TargetError: the runtime is not installed, or refuses the engine.
        BoardError: the board cannot be reached.
        DataError: a file that is not a readable image.
    """
    from edgekd.data.images import read_image
    from edgekd.data.predictions import ReadImage
    from edgekd.executors.boards import connected
    from edgekd.executors.predictions import predict_images

    artifact = _network(path, selection)
    sent: deque[ReadImage] = deque()

    def pixels() -> Iterator[np.ndarray]:
        for image in images:
            read = image if isinstance(image, ReadImage) else ReadImage(Path(image), read_image(Path(image)))
            sent.append(read)
            yield read.pixels

    with connected(Path.cwd()):
        for result in predict_images(pixels(), artifact, selection, board):
            yield Predicted(sent.popleft(), result, artifact.spec.classes)


def _network(path: str | Path, selection: Selection | None) -> Artifact:
    artifact = open_artifact(Path(path))
    if selection is not None and artifact.spec.task == "semantic":
        raise RecipeError(f"{path}: a segmenter has no detections to select; leave out the options for detections")
    return artifact
