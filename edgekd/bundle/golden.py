"""Golden images for a bundle: images of the scored split, and the engine's outputs for them on its board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekd.board.detection import detections
from edgekd.board.postprocess import class_map
from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.bundle.run import EngineRun
from edgekd.core import plugins
from edgekd.core.recipe import LOCAL
from edgekd.data.images import read_image
from edgekd.data.splits import open_split
from edgekd.errors import ArtifactError, BoardError, BundleError, RecipeError, TargetError
from edgekd.executors.base import Executor
from edgekd.executors.boards import ask_why_not, executor_of
from edgekd.executors.inference import Arrays, engine_files, run_engine
from edgekd.executors.local import open_reference
from edgekd.executors.toolchain import ToolchainExecutor
from edgekd.runner.golden import GoldenImage
from edgekd.runner.manifest import Tolerance

Source = Literal["engine", "simulator", "reference", "none"]
_COUNT = 2
_SEEN = 8  # images searched for one of another size than the network's


@dataclass(frozen=True)
class Golden:
    """Golden images of an engine.

    images: the images; () where the bundle has none.
    tolerance: limit of their check.
    source: for the manifest (JSON): where the outputs come from, a `Source`, and on which board.
    """

    images: tuple[GoldenImage, ...]
    tolerance: Tolerance
    source: dict[str, Any]


def make_golden(run: EngineRun, source: Source, files: Sequence[Path] = ()) -> Golden:
    """Return the golden images of an engine.

    `engine`: outputs of the engine on its own board; a board that computes alike is within the limits of `parity.board_*`.
    `simulator`: outputs of the engine in the simulator of its toolchain, with the same limits; for a chip that is not at hand.
    `reference`: outputs of the exported ONNX graph on this machine, for an engine whose board is not at hand; an int8 engine
    then has the wider limits of `parity.int8_*`.

    Args:
        run: the engine's.
        source: where the expected outputs come from.
        files: images to use; () for images of the scored split.

    Raises:
        BundleError: the engine cannot be run, or the run has no ONNX graph for the reference.
        DataError: an image cannot be read, or the data set is not here.
    """
    limits = run.recipe.parity
    on_board = Tolerance(limits.board_error, limits.board_different)
    if source == "none":
        return Golden((), on_board, {"from": "none"})
    images = [read_image(file) for file in files] or _of_split(run)
    if source != "reference":
        board = str(run.engine.details["board"]) if source == "engine" else LOCAL
        return Golden(_by_engine(run, source, board, images), on_board, {"from": source, "board": board})
    is_quantized = run.engine.details["precision"] in ("int8", "mixed")
    tolerance = Tolerance(limits.int8_error, limits.int8_different) if is_quantized else on_board
    return Golden(_by_reference(run, images), tolerance, {"from": "reference", "board": LOCAL})


def _of_split(run: EngineRun) -> list[np.ndarray]:
    """Return two images spread over the scored split, one of another size than the network's if there is one."""
    dataset = open_split(run.recipe, run.recipe.data.val)
    count = min(_COUNT, len(dataset))
    images = [dataset.load(place * len(dataset) // count).image for place in range(count)]
    size = run.engine.spec.preprocess.size
    if all(image.shape[:2] == size for image in images):
        seen = (dataset.load(index).image for index in range(min(_SEEN, len(dataset))))
        images[-1] = next((image for image in seen if image.shape[:2] != size), images[-1])
    return images


def _by_engine(run: EngineRun, source: Source, board: str, images: Sequence[np.ndarray]) -> tuple[GoldenImage, ...]:
    """Return the golden images of the engine itself, on its board or in the simulator of its toolchain."""
    spec, files = run.engine.spec, engine_files(run.engine)
    inputs = [{spec.inputs[0].name: prepare(image, spec.preprocess)} for image in images]
    place = "the simulator" if source == "simulator" else "this machine" if board == LOCAL else f"board {board}"
    executor: Executor
    try:
        if source == "engine":
            executor = executor_of(board)
            reason = ask_why_not(board, [(files.target, files.options)])[0]
        else:
            executor = ToolchainExecutor(files.target)
            reason = "" if plugins.target(files.target).simulator else f"target {files.target} has none"
        if reason:
            raise TargetError(reason)
        outputs, _ = run_engine(files, inputs, executor, is_simulated=source == "simulator")
    except (TargetError, BoardError, RecipeError) as exc:
        others = "simulator, reference" if plugins.target(files.target).simulator else "reference"
        raise BundleError(
            f"{run.id}: {place} cannot give the golden outputs: {exc}; build the bundle where it can, or choose another "
            f"source with --golden: {others} or none"
        ) from exc
    return tuple(_golden(image, found, spec) for image, found in zip(images, outputs, strict=True))


def _by_reference(run: EngineRun, images: Sequence[np.ndarray]) -> tuple[GoldenImage, ...]:
    export = run.input("onnx")
    if export is None:
        raise BundleError(
            f"{run.id}: {run.folder / 'export'} is not the graph that it was made from; run the recipe again"
        )
    spec, wanted = export.spec, {one.name: tuple(one.shape) for one in run.engine.spec.outputs}
    found = []
    with open_reference(export.file("model.onnx"), spec) as session:
        for image in images:
            outputs = session.infer({spec.inputs[0].name: prepare(image, spec.preprocess)})
            golden = _golden(image, outputs, spec)
            same = {name: one.copy() for name, one in outputs.items() if wanted.get(name) == one.shape}
            found.append(GoldenImage(image, same, golden.result))
    return tuple(found)


def _golden(image: np.ndarray, outputs: Arrays, spec: ModelSpec) -> GoldenImage:
    size = (image.shape[0], image.shape[1])
    if any(not np.isfinite(one).all() for one in outputs.values()):
        raise ArtifactError("the engine returns NaN or infinity for a golden image; do not deploy it")
    result = class_map(outputs, spec, size) if spec.task == "semantic" else detections(outputs, spec, size)
    return GoldenImage(image, outputs, result)
