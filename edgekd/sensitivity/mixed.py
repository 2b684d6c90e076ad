"""The stage of a mixed engine: the quantized model whose engine holds the budget.

It begins with the operators that the sensitivity stage leaves in float, or with none where `quantize.adjust` improves the weights.
A runtime may round more than the reference graph, for example the outputs of int8 operators. If the engine misses the budget, the
search goes on with engines.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgekd.compile.stage import engine_options
from edgekd.core import plugins
from edgekd.core.artifact import StageResult
from edgekd.core.plugin_options import plugin_options
from edgekd.core.recipe import DEPLOYED, Engine
from edgekd.core.stage import StageJob
from edgekd.executors.boards import why_not_here
from edgekd.executors.builder import build
from edgekd.executors.inference import EngineFiles, files_in
from edgekd.executors.predictions import predict_with
from edgekd.quantize.adjust import EXACT
from edgekd.quantize.grids import named_graph
from edgekd.quantize.place import options_of
from edgekd.quantize.ptq import WEIGHTED
from edgekd.quantize.stage import learned_ranges, quantized
from edgekd.rewrites.graph import Graph
from edgekd.sensitivity.scoring import SelectionImages, drop_text
from edgekd.sensitivity.search import ENGINE_DIFFERS, STUDENT_DIFFERS, BudgetSearch, Floats
from edgekd.sensitivity.stage import LAYERS, order_of
from edgekd.targets.base import CompileRequest

log = logging.getLogger(__name__)
_MODEL, _ENGINE = "model", "engine"
_QUANTIZED = ("Add", "AveragePool", "Concat", "GlobalAveragePool", "MaxPool", "Mul", "Resize", "Softmax", "Sub")
_MERGED = ("Add", "Mul", "Sub")


def run(job: StageJob) -> StageResult:
    """Quantize the model of the mixed engine whose id is the stage's subject.

    Raises:
        GateError: the engine misses the budget with every operator in float.
    """
    (engine,) = job.recipe.engines
    sensitivity = next(artifact for artifact in job.inputs.values() if artifact.kind == "sensitivity")
    found = json.loads(sensitivity.file(LAYERS).read_text(encoding="utf-8"))
    with TemporaryDirectory(prefix="edgekd-mixed-") as text:
        trials = EngineTrials(job, engine, found, Path(text))
        floats = tuple(found["floats"])
        # With better rounded weights than the reference graph has, fewer operators in float may be enough.
        start = () if trials.rounds_better else floats
        reason = why_not_here(engine)
        floats, drop, count = (floats, None, 0) if reason else trials.search(start)
        made, model = trials.quantized(frozenset(floats))
        shutil.copytree(model, job.out_dir, dirs_exist_ok=True)
    details = dict(made.details)
    shares = {layer["name"]: layer["macs_share"] for layer in found["layers"]}
    details["budget"] = {
        "metric": found["metric"],
        "max_drop": found["max_drop"],
        "images": len(found["selection"]["images"]),
        "score": found["score"],
        "reference_drop": found["drop"],
        "drop": drop,
        "why_not_verified": reason,
        "trials": count,
        "floats": list(floats),
        "layers": len(shares),
        "float_macs_share": sum(shares[name] for name in floats),
    }
    return StageResult(made.spec, details)


class EngineTrials:
    """Engines of one target with different operators in float, and the drop of their metric on the selection images.

    Args:
        job: with the sections `data`, `quantize`, `evaluate` and this engine, the exported network, and for an engine of QAT its
            artifact, whose ranges the operators in int8 take.
        engine: the mixed engine.
        found: `layers.json` of its quantizer.
        folder: an empty folder.
    """

    def __init__(self, job: StageJob, engine: Engine, found: Mapping[str, Any], folder: Path) -> None:
        recipe = job.recipe
        self._recipe, self._export, self._engine, self._found = recipe, job.input_of("onnx"), engine, found
        self._folder = folder
        self._quantizer = plugins.target(engine.target).info.quantizer
        self._options = options_of(recipe.quantize, self._quantizer)
        self._ranges = learned_ranges(job.inputs, self._quantizer, self._options)
        self._graph = named_graph(self._export.file("model.onnx"))
        assert recipe.quantize.budget is not None
        self._images = SelectionImages.of(recipe, recipe.quantize.budget)
        inexact = set(recipe.quantize.adjustments(self._quantizer)) - set(EXACT)
        self.rounds_better = bool(inexact) and self._ranges is None  # QAT has chosen the weights

    def search(self, start: Sequence[str]) -> tuple[tuple[str, ...], float, int]:
        """Return the operators to leave in float, the engine's drop, and the number of engines that were built."""
        layers = self._found["layers"]
        order = order_of(layers)
        # An int8 operator rounds its output in most runtimes, so those that feed the float ones come first.
        feeding = set(feeders(self._graph, start)) - set(start)
        order = [*(name for name in order if name in feeding), *(name for name in order if name not in feeding)]
        what = f"{self._found['metric']} of engine {self._engine.id}"
        cause = ENGINE_DIFFERS if self._engine.student == DEPLOYED else STUDENT_DIFFERS
        search = BudgetSearch(self.drop, self._found["max_drop"], what, cause)
        found = search.run(order, {layer["name"]: layer["macs"] for layer in layers}, start)
        return found.floats, found.drop, found.trials

    def drop(self, floats: Floats) -> float:
        """Build the engine with these operators in float; return the drop of its metric."""
        made, model = self.quantized(floats)
        out = self._folder / _ENGINE
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        pixels = made.details.get("calibration_pixels")
        given = engine_options(self._engine, made.details)
        options = plugin_options("targets", self._engine.target, given, f"engines.{self._engine.id}.options")
        request = CompileRequest(
            model=model / made.details["model"],
            spec=self._export.spec,
            precision=self._engine.precision,
            out_dir=out,
            options=options,
            calibration=model / pixels
            if pixels and plugins.target(self._engine.target).info.calibration != "none"
            else None,
        )
        built = build(self._engine.target, request, self._engine.board).result
        files = EngineFiles(
            self._engine.target, built.engine.relative_to(out).as_posix(), files_in(out), built.spec, options
        )
        score = self._images.score(
            lambda images: predict_with(images, files, self._engine.board, self._images.selection)
        )
        drop: float = self._found["score"] - score
        layers = len(self._found["layers"])
        log.info("%s: %s", self._engine.id, drop_text(drop, self._found["metric"], len(floats), layers))
        return drop

    def quantized(self, floats: Floats) -> tuple[StageResult, Path]:
        """Quantize the model with these operators in float; return its facts and its folder, which the next call empties."""
        out = self._folder / _MODEL
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        options = self._options
        kept = [node.name for node in self._graph.nodes if node.name in floats]
        if plugins.load("quantizers", self._quantizer).KEEPS_FLOAT:
            names = [escape(name) for name in (*kept, *between(self._graph, kept))]
            options = replace(options, keep_float=(*options.keep_float, *names))
        made = quantized(self._recipe, self._export, self._quantizer, options, out, self._ranges)
        tensors = [node.output[0] for node in self._graph.nodes if node.name in floats]
        return replace(made, details={**made.details, "float_tensors": tensors}), out


def feeders(graph: Graph, names: Sequence[str]) -> list[str]:
    """Return the operators with weights whose results some operators read, also through operators without weights."""
    return [node.name for node in _before(graph, names) if node.op_type in WEIGHTED]


def between(graph: Graph, names: Sequence[str]) -> list[str]:
    """Return the operators between some operators and those with weights that feed them, of the kinds that quantizers quantize.

    One that adds or multiplies a constant is not among them: toolchains merge it into an operator with weights.
    """
    constants = set(graph.constants)
    return [
        node.name
        for node in _before(graph, names)
        if node.op_type in _QUANTIZED and (node.op_type not in _MERGED or constants.isdisjoint(node.input))
    ]


def _before(graph: Graph, names: Sequence[str]) -> Iterator[Any]:
    wanted = set(names)
    pending = [name for node in graph.nodes if node.name in wanted for name in node.input]
    seen = set()
    while pending:
        node = graph.producer(pending.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        yield node
        if node.op_type not in WEIGHTED:
            pending += node.input
