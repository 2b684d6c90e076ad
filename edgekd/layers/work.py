"""The errors of an engine of a run, layer by layer: finds its graphs and its places, measures and judges."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.core import plugins
from edgekd.core.artifact import Artifact, open_artifact
from edgekd.core.recipe import LOCAL, PTQ, Recipe
from edgekd.data.splits import open_split
from edgekd.errors import EdgekdError, TargetError, UserError, one_line
from edgekd.executors.boards import ask_why_not, executor_of
from edgekd.executors.inference import engine_files
from edgekd.layers.analysis import analysed
from edgekd.layers.costs import Costs
from edgekd.layers.measure import HERE, Place, Subject, Sums, measure
from edgekd.layers.model import BOARD, QUANTIZATION, RUNTIME, TAPS, LayerError, LayerErrors
from edgekd.layers.verdict import filled, judge, shared_inputs
from edgekd.quantize.adjust import EXACT
from edgekd.quantize.noise import to_db
from edgekd.quantize.place import options_of
from edgekd.quantize.ptq import WEIGHTED
from edgekd.quantize.read_back import ReadBack, read_back
from edgekd.quantize.stage import adjusted_graph
from edgekd.rewrites.graph import name_nodes, read_graph, read_onnx

log = logging.getLogger(__name__)
IMAGES = 8


@dataclass(frozen=True)
class Network:
    """An exported network and its quantized model.

    export: artifact of its ONNX graph.
    quantized: what an engine was compiled from; None for a float engine.
    model: the float graph behind it, see `float_graph`.
    """

    export: Artifact
    quantized: Artifact | None
    model: Path


def engine_errors(
    engine: Artifact,
    network: Network,
    images: Sequence[np.ndarray],
    board: str = LOCAL,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LayerErrors:
    """Return the errors of an engine layer by layer.

    Args:
        engine: artifact of kind `engine`.
        network: what it was compiled from.
        images: uint8 RGB (H, W, 3).
        board: of the engine.
        progress: called with the number of layers measured alone, and of all.

    Raises:
        ArtifactError: a damaged graph.
        TargetError: a runtime refuses the engine.
    """
    notes: list[str] = []
    subject = subject_of(network, notes)
    places = _places(engine, board, notes)
    rows = (engine.details.get("build") or {}).get("analysis")
    if rows and subject.placement is None and not places:
        return analysed(engine.path.name, rows, notes)
    costs = Costs.of(subject, images, progress)
    return compare(engine.path.name, subject, costs, places, images, notes)


def compare(
    name: str,
    subject: Subject,
    costs: Costs,
    places: Mapping[str, Place],
    images: Sequence[np.ndarray],
    notes: Sequence[str] = (),
) -> LayerErrors:
    """Return the errors of an engine that runs in some places, see `measure`; `name` and `notes` stand in the result."""
    try:
        sums = measure(subject, places, images)
    except TargetError as exc:
        if not places:
            raise
        notes = (*notes, f"the engine is not compared layer by layer: {one_line(exc, None)}")
        places = {}
        sums = measure(subject, places, images)
    rows = _rows(subject)
    shown = filled(rows, sums, tuple(places), costs)
    blamed, sentence = judge(shown, sums, tuple(places), shared_inputs(subject))
    return LayerErrors(name, len(images), shown, _answer(sums), blamed, sentence, tuple(notes))


def _rows(subject: Subject) -> list[LayerError]:
    """Return the layers without figures, numbered where several have the same module and operator."""
    layers = subject.layered.layers
    every, seen = Counter((one.module, one.op) for one in layers), Counter[tuple[str, str]]()
    placed = () if subject.placement is None else subject.placement.nodes
    # A float operator may read a rounded tensor; a product of two activations has no weight.
    int8 = {one.name for one in placed if one.weight is not None or len(one.activations) > 1}
    rows = []
    for one in layers:
        key = (one.module, one.op)
        seen[key] += 1
        row = LayerError(
            name=one.name,
            op=one.op,
            module=one.module,
            macs=round(one.macs, 5),
            number=seen[key] if every[key] > 1 else 0,
            is_float=subject.placement is not None and one.op in WEIGHTED and one.name not in int8,
        )
        rows.append(row)
    return rows


@dataclass(frozen=True)
class BuiltEngine:
    """An engine in the folder of a run.

    engine: its artifact.
    network: what it was compiled from.
    recipe: of the run.
    """

    engine: Artifact
    network: Network
    recipe: Recipe


@contextmanager
def engine_in_run(folder: Path) -> Iterator[BuiltEngine]:
    """Yield the engine in `RUN/engine/ID` and its graphs.

    Raises:
        UserError: not the folder of an engine in a finished run.
        ArtifactError: an artifact is damaged.
    """
    from edgekd.core.recipe_loading import stored_recipe

    engine = open_artifact(folder, "engine")
    run = engine.path.parent.parent
    report = run / "report.json"
    if not report.is_file():
        raise UserError(
            f"{folder}: expected the engine of a run, RUN/engine/ID, with {report.name} in RUN; finish the run first"
        )
    recipe = stored_recipe(_stored(report), str(report))
    inputs = [name for name in engine.manifest["inputs"] if name != "data"]
    opened = {name: open_artifact(run / name) for name in inputs}
    quantized = next((one for one in opened.values() if one.kind == "quantized"), None)
    export = next((one for one in opened.values() if one.kind == "onnx"), None)
    if export is None:
        raise UserError(f"{folder}: its run has no exported graph; run edgekd run again in its folder")
    settings = recipe
    if quantized is not None:
        variant = next((one.variant for one in recipe.engines if one.id == engine.path.name), PTQ)
        settings = recipe.only("data", f"quantize:{variant}/{quantized.details['quantizer']['quantizer']}")
    with float_graph(settings, export, quantized) as model:
        yield BuiltEngine(engine, Network(export, quantized, model), recipe)


def errors_in_run(
    folder: Path, count: int = IMAGES, progress: Callable[[int, int], None] = lambda done, total: None
) -> LayerErrors:
    """Return the errors of an engine in the folder of a run, `RUN/engine/ID`, on training images of its recipe.

    Raises:
        UserError: not the folder of an engine in a run, or no images asked for.
        ArtifactError: an artifact is damaged.
    """
    if count < 1:
        raise UserError(f"--images: expected 1 or more, got {count}")
    with engine_in_run(folder) as found:
        board = found.engine.details.get("board", LOCAL)
        return engine_errors(found.engine, found.network, training_images(found.recipe, count), board, progress)


@contextmanager
def float_graph(recipe: Recipe, export: Artifact, quantized: Artifact | None) -> Iterator[Path]:
    """Yield the float graph that the quantized one is compared with: the exported one, equalized if that one was.

    Args:
        recipe: with the sections `data` and `quantize`, the latter for this quantizer and variant.
        export: the exported graph.
        quantized: the quantized model; None for a float engine.
    """
    if quantized is None or not set(EXACT) & set(quantized.details.get("adjusted") or ()):
        yield export.file("model.onnx")
        return
    made = quantized.details["quantizer"]
    name, options = made["quantizer"], options_of(recipe.quantize, made["quantizer"])
    if kept := made.get("options", {}).get("keep_float"):  # more than the recipe's: those of a mixed engine
        options = replace(options, keep_float=tuple(kept))
    with TemporaryDirectory(prefix="edgekd-layers-") as folder:
        yield adjusted_graph(recipe, export, name, options, Path(folder), is_exact=True)[0]


def training_images(recipe: Recipe, count: int) -> list[np.ndarray]:
    """Return images spread evenly over the training split."""
    dataset = open_split(recipe, recipe.data.train)
    count = min(count, len(dataset))
    return [dataset.load(round(place)).image for place in np.linspace(0, len(dataset) - 1, count)]


def _stored(report: Path) -> Any:
    import json

    try:
        return json.loads(report.read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UserError(f"{report}: damaged ({exc}); write it again with edgekd run") from exc


def subject_of(network: Network, notes: list[str]) -> Subject:
    """Return the graphs of an engine, with what its quantized model quantizes where that can be read; else a note says so."""
    export, quantized, model = network.export, network.quantized, network.model
    whole = read_onnx(model)
    name_nodes(whole)
    if quantized is None:
        return Subject(whole, export.spec)
    source = quantized.file(quantized.details.get("model", "model.onnx"))
    name = quantized.details["quantizer"]["quantizer"]
    scheme = plugins.load("quantizers", name)
    reader = vars(scheme).get("read_back")
    if reader is None and not (source.suffix == ".onnx" and read_graph(source).is_quantized):
        notes.append(f"quantizer {name} leaves the scales to the toolchain, so there is no Q/DQ graph to compare with")
        return Subject(whole, export.spec)
    back: ReadBack = (reader or read_back)(source, model)
    if back.left_out:
        notes.append(
            f"{len(back.left_out)} operators round inside, where the Q/DQ graph does not show it; they have no `engine, own`"
        )
    return Subject(back.model, export.spec, back.graph, back.is_file, back.placement, back.scales, back.left_out)


def _places(engine: Artifact, board: str, notes: list[str]) -> Mapping[str, Place]:
    """Return where the engine can run with taps: here, and on its own board."""
    target, files = engine.details["target"], engine_files(engine)
    if plugins.target(target).tap is None:
        notes.append(f"target {target} cannot read inner tensors of its engines")
        return {}
    found = {}
    for name in dict.fromkeys((LOCAL, board)):
        try:
            reason = ask_why_not(name, [(target, files.options)])[0]
        except EdgekdError as exc:
            reason = one_line(exc, None)
        if reason:
            notes.append(f"not compared {'here' if name == LOCAL else f'on board {name}'}: {reason}")
        else:
            found[HERE if name == LOCAL else name] = Place(files, executor_of(name))
    return found


def _answer(sums: Sums) -> dict[str, float | None]:
    return {
        name: round(to_db(sums.share(name)), 2) if name in sums.answer else None
        for name in (QUANTIZATION, RUNTIME, BOARD, TAPS)
    }
