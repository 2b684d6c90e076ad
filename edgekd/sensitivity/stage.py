"""The sensitivity stage: how much each operator loses in int8, and which ones stay in float under the recipe's budget.

It works on the reference Q/DQ graph, so it belongs to no target. `mixed.py` holds an engine to the same budget.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgekd.board.files import write_atomic
from edgekd.core import plugins
from edgekd.core.artifact import Artifact, StageResult
from edgekd.core.recipe import Budget, Recipe
from edgekd.core.stage import StageJob
from edgekd.core.task_metrics import metric_title
from edgekd.executors.predictions import predict_in
from edgekd.quantize.errors_by_node import OutputNoise
from edgekd.quantize.macs import macs_by_node
from edgekd.quantize.place import options_of
from edgekd.quantize.ranges import Scale, calibrate, method_of
from edgekd.quantize.stage import Prepared, adjusted_graph, calibration_indices, learned_ranges
from edgekd.rewrites.graph import Graph, module_of
from edgekd.sensitivity.reference import Reference
from edgekd.sensitivity.scoring import SelectionImages, drop_text
from edgekd.sensitivity.search import STUDENT_DIFFERS, BudgetSearch, Floats, Found

log = logging.getLogger(__name__)
LAYERS = "layers.json"
EXPORT = "export"  # stage of the deployed student's float network, the reference of every drop
NOISE_IMAGES = 16  # selection images on which SQNR is measured; it settles long before a metric does


def run(job: StageJob) -> StageResult:
    """Rank the operators that the quantizer named by the stage's subject puts in int8, and search those to leave in float.

    The drop is measured from the float network of the deployed student, also for another student.

    Raises:
        GateError: the budget does not hold with every operator in float.
        DataError: there are no selection images, or the metric has no value on them.
    """
    recipe, export = job.recipe, job.input_of("onnx")
    budget = recipe.quantize.budget
    assert budget is not None  # the recipe has one where an engine is mixed
    images = SelectionImages.of(recipe, budget)
    with TemporaryDirectory(prefix="edgekd-sensitivity-") as text:
        ranges = learned_ranges(job.inputs, job.subject, options_of(recipe.quantize, job.subject))
        reference = reference_of(recipe, export, job.subject, Path(text), ranges)
        inputs = _noise_inputs(images, export)
        deployed = job.inputs[EXPORT]
        score = None if deployed is export else images.score_of(deployed)
        probe = ReferenceProbe(reference, reference.noise(inputs), images, score)
        found, harm = search(probe, budget, images.metric)
        layers = _layers(probe, reference.accumulated(inputs), harm, found)
    details: dict[str, Any] = {
        "quantizer": job.subject,
        "rank": budget.rank,
        "metric": images.metric,
        "score": probe.score,
        "drop": found.drop,
        "drop_all_int8": probe.drop(frozenset()),
        "max_drop": budget.max_drop,
        "floats": list(found.floats),
        "selection": {"split": recipe.data.train, "images": images.names, "seed": recipe.seed},
    }
    write_atomic(job.out_dir / LAYERS, json.dumps({**details, "layers": layers}, indent=1).encode())
    log.info("%s: %s", job.subject, _summary(layers))
    return StageResult(details=details)


def reference_of(
    recipe: Recipe, export: Artifact, quantizer: str, folder: Path, ranges: Mapping[str, Scale] | None = None
) -> Reference:
    """Return the reference graph of an exported network, with learned scales or calibrated as the recipe says.

    Its weights are rounded to the nearest integer, also where `quantize.adjust` has `round`. So the cost of an operator is an
    upper estimate.

    Args:
        recipe: with the sections `data` and `quantize`.
        export: the exported network.
        quantizer: name of the quantizer.
        folder: an existing folder.
        ranges: scales that QAT learned, by tensor; a tensor without one is calibrated.
    """
    settings, module = recipe.quantize, plugins.load("quantizers", quantizer)
    options = options_of(settings, quantizer)
    model = export.file("model.onnx")
    if ranges is None:  # learned scales are those of the graph as it is
        model, _ = adjusted_graph(recipe, export, quantizer, options, folder, is_exact=True)
    placement = module.grids(model, export.spec, options)
    images = SelectionImages.dataset_of(recipe)
    chosen = calibration_indices(len(images), settings.images, recipe.seed)
    scales = calibrate(model, placement, Prepared(images, chosen, export.spec), method_of(options))
    learned = {name: scale for name, scale in (ranges or {}).items() if name in scales}
    return Reference(model, export.spec, placement, scales | learned, folder)


class ReferenceProbe:
    """The answers of a reference graph to a ranking, each asked once; see `base.Probe`.

    Args:
        reference: the graph.
        noise: its noise.
        images: where the metric is measured.
        score: the metric from which it drops; None: that of the graph in float.
    """

    def __init__(
        self, reference: Reference, noise: OutputNoise, images: SelectionImages, score: float | None = None
    ) -> None:
        self.nodes = reference.nodes
        self.graph = reference.graph
        self._reference, self._noise, self._images = reference, noise, images
        self._drops: dict[Floats, float] = {}
        self._alone: dict[str, float] = {}
        self.score = self._scored(frozenset(self.nodes)) if score is None else score

    def alone(self, name: str) -> float:
        """Return the SQNR in dB of the outputs when only this operator is in int8."""
        if name not in self._alone:
            self._alone[name] = self.sqnr(frozenset((name,)))
        return self._alone[name]

    def sqnr(self, quantized: Floats) -> float:
        """Return the SQNR in dB of the outputs when these operators are in int8."""
        return self._noise.db(quantized)

    def drop(self, floats: Floats) -> float:
        """Return the drop of the metric when these operators are in float."""
        if floats not in self._drops:
            self._drops[floats] = self.score - self._scored(floats)
            log.info(
                "Q/DQ graph: %s", drop_text(self._drops[floats], self._images.metric, len(floats), len(self.nodes))
            )
        return self._drops[floats]

    def _scored(self, floats: Floats) -> float:
        with self._reference.open(set(self.nodes) - floats) as session:
            return self._images.score(lambda images: predict_in(session, images, self._images.selection))


def search(probe: ReferenceProbe, budget: Budget, metric: str) -> tuple[Found, dict[str, float]]:
    """Return the operators to leave in float, and the harm of each operator by the budget's ranking."""
    log.info("ranking %d layers by %s", len(probe.nodes), budget.rank)
    harm = plugins.load("rankings", budget.rank).harm(probe)
    log.info("searching layers to leave in float; limit %g points %s", 100 * budget.max_drop, metric_title(metric))
    order = sorted(probe.nodes, key=lambda name: -harm[name])
    # The deployed student's graph loses nothing in float.
    found = BudgetSearch(probe.drop, budget.max_drop, metric, STUDENT_DIFFERS).run(order, macs_by_node(probe.graph))
    return found, harm


def order_of(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the operators of `layers.json`, the most harmful first."""
    return [layer["name"] for layer in sorted(layers, key=lambda layer: layer["rank"])]


def _noise_inputs(images: SelectionImages, export: Artifact) -> Prepared:
    step = max(1, len(images.indices) // NOISE_IMAGES)
    return Prepared(images.dataset, images.indices[::step][:NOISE_IMAGES], export.spec)


def _layers(
    probe: ReferenceProbe, accumulated: Mapping[str, float], harm: Mapping[str, float], found: Found
) -> list[dict[str, Any]]:
    """Return the rows of `layers.json` in graph order."""
    graph: Graph = probe.graph
    macs, nodes = macs_by_node(graph), {node.name: node for node in graph.nodes}
    order = sorted(probe.nodes, key=lambda name: -harm[name])
    return [
        {
            "name": name,
            "module": module_of(nodes[name]),
            "operator": nodes[name].op_type,
            "macs": macs[name],
            "macs_share": macs[name] / max(sum(macs.values()), 1),
            "alone_db": probe.alone(name),
            "accumulated_db": accumulated[name],
            "rank": order.index(name),
            "is_float": name in found.floats,
        }
        for name in probe.nodes
    ]


def _summary(layers: Sequence[Mapping[str, Any]]) -> str:
    floats = [layer for layer in layers if layer["is_float"]]
    share = 100 * sum(layer["macs_share"] for layer in floats)
    names = [f"{layer['name']} ({layer['module']})" if layer["module"] else layer["name"] for layer in floats]
    listed = f": {', '.join(names)}" if names else ""
    return f"{len(floats)} of {len(layers)} layers stay in float ({share:.1f} % of the MACs){listed}"
