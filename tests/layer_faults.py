"""Faults planted into quantized models and engines, for the tests and the benchmark of `edgekd layers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.executors.inference import EngineFiles
from edgekd.executors.local import Local
from edgekd.layers.costs import Costs
from edgekd.layers.measure import HERE, Place, Subject
from edgekd.layers.model import LayerErrors
from edgekd.layers.work import compare
from edgekd.quantize.read_back import read_back
from edgekd.rewrites.graph import Graph


def subject_of(quantized: Path, model: Path, spec: ModelSpec) -> Subject:
    """Return the graphs of a Q/DQ file."""
    back = read_back(quantized, model)
    return Subject(back.model, spec, back.graph, back.is_file, back.placement, back.scales)


def place_of(engine: Path, spec: ModelSpec, target: str = "onnxruntime") -> Place:
    """Return an engine of this machine."""
    files = {path.name: path for path in engine.parent.glob(f"{engine.stem}.*")}
    return Place(EngineFiles(target, engine.name, files, spec, plugins.target(target).options()), Local())


def errors_of(
    quantized: Path, model: Path, spec: ModelSpec, engine: Path, images: Sequence[np.ndarray], board: Path | None = None
) -> LayerErrors:
    """Return the errors of an engine's file, and of another file that stands for the engine on its board."""
    places = {HERE: place_of(engine, spec)} | ({} if board is None else {"pi": place_of(board, spec)})
    return errors_in("planted", subject_of(quantized, model, spec), places, images)


def errors_in(name: str, subject: Subject, places: Mapping[str, Place], images: Sequence[np.ndarray]) -> LayerErrors:
    """Return the errors of an engine in some places."""
    return compare(name, subject, Costs.of(subject, images), places, images)


def set_initializer(model: Any, name: str, value: np.ndarray) -> None:
    """Replace the value of an initializer."""
    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))


def saturated(model: Any, rng: np.random.Generator, factor: float = 1 / 16) -> set[str]:
    """Shrink the range of a random activation in a Q/DQ graph; return the nodes that read it."""
    graph = Graph(model)
    pairs = {}
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear" and graph.producer(node.input[0]) is not None:
            pairs[node.name] = {
                reader.name for one in graph.readers(node.output[0]) for reader in graph.readers(one.output[0])
            }
    chosen = rng.choice([name for name, readers in pairs.items() if readers])
    quantize = next(node for node in graph.nodes if node.name == chosen)
    name = f"{chosen}_small"  # a scale of its own: a Resize shares that of its input
    model.graph.initializer.append(numpy_helper.from_array(graph.value(quantize.input[1]) * np.float32(factor), name))
    for node in (quantize, *graph.readers(quantize.output[0])):
        node.input[1] = name
    return pairs[chosen]


def wrong_scale(model: Any, rng: np.random.Generator, factor: float = 1.5) -> set[str]:
    """Change the scale with which a random weight is dequantized; return its node."""
    graph = Graph(model)
    node, pair = _weighted(graph, rng)
    name = f"{pair.input[1]}_wrong"
    model.graph.initializer.append(numpy_helper.from_array(graph.value(pair.input[1]) * np.float32(factor), name))
    pair.input[1] = name
    return {node.name}


def swapped_channels(model: Any, rng: np.random.Generator) -> set[str]:
    """Swap two output channels of a random weight; return its node."""
    graph = Graph(model)
    node, pair = _weighted(graph, rng)
    whole = graph.value(pair.input[0]).copy()
    first, second = rng.choice(len(whole), 2, replace=False)
    whole[[first, second]] = whole[[second, first]]
    set_initializer(model, pair.input[0], whole)
    return {node.name}


def bad_resize(model: Any, rng: np.random.Generator) -> set[str]:
    """Give a random Resize another coordinate mode; return its node."""
    nodes = [node for node in model.graph.node if node.op_type == "Resize"]
    node = nodes[rng.integers(len(nodes))]
    modes = {one.name: one for one in node.attribute}
    before = modes["coordinate_transformation_mode"].s if "coordinate_transformation_mode" in modes else b"half_pixel"
    wanted = {
        "coordinate_transformation_mode": "half_pixel" if before == b"asymmetric" else "asymmetric",
        "nearest_mode": "ceil",
        "mode": modes["mode"].s.decode() if "mode" in modes else "nearest",
    }
    kept = [one for name, one in modes.items() if name not in wanted]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in wanted.items())
    return {node.name}


def _weighted(graph: Graph, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return a random node with a quantized weight, and the weight's DequantizeLinear."""
    constants = set(graph.constants)
    found = [
        (node, pair)
        for node in graph.nodes
        if node.op_type in ("Conv", "Gemm", "MatMul") and (pair := graph.producer(node.input[1])) is not None
        if pair.op_type == "DequantizeLinear" and pair.input[0] in constants
    ]
    return found[rng.integers(len(found))]


ENGINE_FAULTS = {"wrong scale": wrong_scale, "swapped channels": swapped_channels, "bad Resize": bad_resize}


class Fused(Local):
    """An executor whose tapped engine is another file than the engine: a fused kernel that tapping takes apart."""

    def __init__(self, tapped: Path) -> None:
        self.tapped = tapped

    def run_job(self, job: Any, files: Any, out_dir: Path, log: Path, progress: Any = None) -> Any:
        """Run the task `tap` on the other file."""
        if job.task == "tap":
            files = {**files, job.arguments["engine"]: self.tapped}
        return super().run_job(replace(job), files, out_dir, log)
