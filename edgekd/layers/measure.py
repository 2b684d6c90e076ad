"""Measures the errors of an engine layer by layer, image by image: four comparisons that are kept apart.

An error grows from layer to layer, so an engine's tensor says little about its own layer. Therefore each layer of the Q/DQ graph is
computed once more *from the engine's own inputs* (`graphs.cut`), and so is the layer of the float graph. What is left is the error
of this one layer. Roundings that the engine leaves out explain some of it (`Unexplained`), and so does a rounding of its result.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgekd.board.parity import numeric_outputs
from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.executors.base import Executor
from edgekd.executors.inference import Arrays, EngineFiles, run_engine
from edgekd.executors.tapping import tap_engine
from edgekd.layers.graphs import OWN, Layer, compared_tensors, cut, layers_of, step_share
from edgekd.layers.model import BOARD, QUANTIZATION, RUNTIME, TAPS
from edgekd.quantize.errors_by_node import named
from edgekd.quantize.grids import Placement
from edgekd.quantize.noise import Noise
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import Scale
from edgekd.quantize.reference import runner
from edgekd.rewrites.graph import Graph

HERE = "here"
ROUNDING = "rounding"  # noise that the rounding of activations makes in the outputs, without that of weights
# What the coarsest float arithmetic explains: bf16 has 8 bits, and rounding to them makes noise of 2^-16 / 3, -53 dB, each time.
FLOAT_SHARE = 1e-4


@dataclass(frozen=True)
class Layered:
    """A network's layers.

    layers: in graph order.
    tensors: by layer, what the next layer reads: its name in the float graph, and in the graph of the engine.
    shapes: of the latter, by name.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[str, tuple[str, str]]
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Subject:
    """A network to compare an engine with.

    model: the float graph (`onnx.ModelProto`).
    spec: its contract.
    graph: the Q/DQ graph that the engine was compiled from; None for a float engine.
    is_file: whether `graph` is the file that the engine was compiled from, not a graph that says the same.
    placement, scales: what is quantized; None where that is not known.
    left_out: operators with a rounding that `graph` does not show; their layers are not computed from the engine's inputs.
    """

    model: Any
    spec: ModelSpec
    graph: Any = None
    is_file: bool = True
    placement: Placement | None = None
    scales: Mapping[str, Scale] | None = None
    left_out: frozenset[str] = frozenset()

    @property
    def reference(self) -> Any:
        """The graph that an engine has to compute."""
        return self.model if self.graph is None else self.graph

    def with_weights_only(self) -> Any:
        """Return the float graph with its weights quantized, and no activations."""
        assert self.placement is not None
        nodes = tuple(replace(one, activations=()) for one in self.placement.nodes if one.weight is not None)
        placement = replace(self.placement, nodes=nodes).only([one.name for one in nodes])
        return insert_qdq(self.model, placement, self.scales or {}, weights=self.integers)

    @cached_property
    def integers(self) -> Mapping[str, np.ndarray]:
        """The integers in `graph` by weight: a quantizer may have rounded to others than the nearest."""
        weights = {node.name: node.weight for node in self.placement.nodes} if self.placement is not None else {}
        graph, found = Graph(self.reference), {}
        for node in graph.nodes:
            if (weight := weights.get(node.name)) is None:
                continue
            pairs = [pair for name in node.input[:2] if (pair := graph.producer(name)) is not None]
            for pair in pairs:
                if pair.op_type == "DequantizeLinear" and (whole := graph.constant(pair.input[0])) is not None:
                    found[weight] = whole
        return found

    @cached_property
    def layered(self) -> Layered:
        """The layers."""
        graph = named(self.model)
        layers = layers_of(graph)
        tensors = compared_tensors(layers, named(self.reference), self.is_file)
        shapes = {there: graph.shape(name) or () for name, there in tensors.values()}
        return Layered(tuple(layers), tensors, shapes)


@dataclass(frozen=True)
class Place:
    """A place that runs the engine."""

    engine: EngineFiles
    executor: Executor


class Unexplained:
    """The part of a layer's error that quantization does not explain, over values and images.

    A sound engine may leave out some of the roundings of its graph. Then its result lies between that of the float layer and that of
    the quantized layer: in the ball whose diameter joins the two. By Thales, engine - quantized and engine - float have a negative
    product there. A fault has no part in this noise, so its square remains in the product.
    """

    def __init__(self) -> None:
        self.signal = self.product = 0.0

    def add(self, engine: np.ndarray, quantized: np.ndarray, exact: np.ndarray) -> None:
        """Add a layer's results on one image, all from the engine's inputs."""
        got, graph, wanted = (one.astype(np.float64).ravel() for one in (engine, quantized, exact))
        with np.errstate(invalid="ignore"):
            product = float((got - graph) @ (got - wanted))
        self.signal += float(graph @ graph)
        self.product += product if math.isfinite(product) else math.inf

    @property
    def share(self) -> float:
        """The unexplained noise as a fraction of the signal's power."""
        if self.product <= 0:
            return 0.0
        return self.product / self.signal if self.signal else math.inf


class Sums:
    """Noise of all comparisons: by layer, and of the outputs by comparison."""

    def __init__(self) -> None:
        self.engine: dict[str, Noise] = defaultdict(Noise)
        self.board: dict[str, Noise] = defaultdict(Noise)
        self.own: dict[tuple[str, str], Unexplained] = defaultdict(Unexplained)  # place, layer
        self.step: dict[str, float] = defaultdict(float)
        self.answer: dict[str, dict[str, Noise]] = defaultdict(lambda: defaultdict(Noise))  # comparison, output
        self.images = 0

    def allowed(self, layer: str) -> float:
        """Return the noise share that rounding explains in a layer: engine and graph round its result once each."""
        return 2 * self.step[layer] / max(1, self.images) + FLOAT_SHARE

    def share(self, comparison: str) -> float:
        """Return the noise share of the outputs in a comparison, the mean over the outputs; 0 where it was not made."""
        noises = self.answer[comparison].values() if comparison in self.answer else ()
        return sum(noise.share for noise in noises) / len(noises) if noises else 0.0


def measure(subject: Subject, places: Mapping[str, Place], images: Sequence[np.ndarray]) -> Sums:
    """Return the noise of an engine in the layers of its network.

    Args:
        subject: the network.
        places: by `here` or the board's name, where the engine runs; the first is compared with the graph. Empty: the graphs only.
        images: uint8 RGB (H, W, 3).

    Raises:
        TargetError: the target shows no inner tensors, or a runtime refuses the engine; errors as `tap_engine`.
    """
    shapes = subject.layered.shapes
    outputs = numeric_outputs(subject.spec) or [one.name for one in subject.spec.outputs]
    sums = Sums()
    with ExitStack() as stack:
        runs, plain = {}, {}
        for name, place in places.items():
            inputs = [_input(image, place.engine.spec) for image in images]
            plain[name], _ = run_engine(place.engine, inputs, place.executor)
            runs[name] = stack.enter_context(tap_engine(place.engine, inputs, shapes, place.executor))
        shared = set(shapes).intersection(*(run.tensors for run in runs.values())) if runs else set()
        folder = Path(stack.enter_context(TemporaryDirectory()))
        evaluate = _Evaluation(subject, shared, outputs, folder)
        tapped = {name: iter(run) for name, run in runs.items()}
        for number, image in enumerate(images):
            evaluate.image(image, sums, {n: (plain[n][number], *next(one)) for n, one in tapped.items()})
    return sums


class _Evaluation:
    """The graphs in the reference runtime: float and Q/DQ, whole and cut."""

    def __init__(
        self,
        subject: Subject,
        tapped: Collection[str],
        outputs: Sequence[str],
        folder: Path,
    ) -> None:
        self._subject, self._outputs = subject, outputs
        self._layers = {one.name: one for one in subject.layered.layers}
        self._tapped = {layer: names for layer, names in subject.layered.tensors.items() if names[1] in tapped}
        self._float = _runner(subject.model, outputs, folder / "float")
        self._weights = None
        if subject.placement is not None:
            self._weights = _runner(subject.with_weights_only(), outputs, folder / "weights")
        inner = [there for _, there in self._tapped.values()]
        self._reference = _runner(subject.reference, [*outputs, *inner], folder / "graph")
        here, there = ([names[side] for names in self._tapped.values()] for side in (0, 1))
        if self._tapped:
            self._own_float = _runner(cut(subject.model, here), _own(here), folder / "own_float")
            self._own = _runner(cut(subject.reference, there), _own(there), folder / "own")

    def image(self, image: np.ndarray, sums: Sums, places: Mapping[str, tuple[Arrays, Arrays, Arrays]]) -> None:
        """Add one image; `places` has untapped outputs, tapped outputs and tapped tensors by place, the first one first."""
        sums.images += 1
        given = _input(image, self._subject.spec)
        exact, reference = self._float(given), self._reference(given)
        if self._subject.graph is not None:
            self._answer(sums, QUANTIZATION, exact, reference)
        if self._weights is not None:
            self._answer(sums, ROUNDING, self._weights(given), reference)
        first: tuple[Arrays, Arrays, Arrays] | None = None
        for place, (plain, outputs, tensors) in places.items():
            if first is None:
                self._answer(sums, RUNTIME, reference, plain)
                self._answer(sums, TAPS, plain, outputs)
            else:
                self._answer(sums, BOARD, first[0], plain)
            for layer, (_, there) in self._tapped.items():
                if first is None:
                    sums.engine[layer].add(reference[there], tensors[there])
                    sums.step[layer] += self._step(layer, tensors[there])
                else:
                    sums.board[layer].add(first[2][there], tensors[there])
            self._layers_on_their_own(sums, place, given, tensors)
            first = first or (plain, outputs, tensors)

    def _layers_on_their_own(self, sums: Sums, place: str, given: Arrays, tensors: Arrays) -> None:
        """Add the error of each layer computed from the engine's own inputs."""
        if not self._tapped:
            return
        own = self._own({**given, **{there: tensors[there].astype(np.float32) for _, there in self._tapped.values()}})
        handed = {name: tensors[there].astype(np.float32) for name, there in self._tapped.values()}
        own_float = self._own_float({**given, **handed})
        for layer, (name, there) in self._tapped.items():
            if self._subject.left_out.isdisjoint(self._layers[layer].nodes):
                sums.own[place, layer].add(tensors[there], own[there + OWN], own_float[name + OWN])

    def _step(self, layer: str, values: np.ndarray) -> float:
        """Return the noise share of rounding a layer's output once to the grid of its readers; 0 where it is not quantized."""
        scales = self._subject.scales or {}
        grid = next((scales[name] for name in self._layers[layer].tensors if name in scales), None)
        return 0.0 if grid is None else step_share(values, grid.scale)

    def _answer(self, sums: Sums, comparison: str, expected: Arrays, got: Arrays) -> None:
        for name in self._outputs:
            one, other = expected[name], got[name]
            if one.dtype.kind == "f":
                sums.answer[comparison][name].add(one, other)
            else:  # labels: the share that differs
                sums.answer[comparison][name].add(np.ones(one.size), (one == other).astype(float))


def _input(image: np.ndarray, spec: ModelSpec) -> Arrays:
    return {spec.inputs[0].name: prepare(image, spec.preprocess)}


def _own(names: Sequence[str]) -> list[str]:
    return [name + OWN for name in names]


def _runner(model: Any, wanted: Sequence[str], folder: Path) -> Callable[[Arrays], Arrays]:
    """Return a function that computes tensors of a graph by name, without optimisation."""
    folder.mkdir()
    names = list(dict.fromkeys(wanted))
    run = runner(model, names, folder)
    return lambda given: dict(zip(names, run(given), strict=True))
