"""Layers of a graph, and the graph cut at them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgekd.layers.graphs import OWN, cut, layers_of, step_share
from edgekd.quantize.errors_by_node import named
from tests.small_nets import images, prepared, segmenter


def test_layers_are_the_operators_with_their_activation_functions() -> None:
    layers = layers_of(named(segmenter()[0]))
    assert [(one.name, one.tensors[0]) for one in layers] == [
        ("stem", "stem.relu.out"), ("block.a", "block.a.relu.out"), ("block.b", "block.b.out"),
        ("block.add", "block.relu.out"), ("head", "head.out"), ("up", "logits"),
    ]  # fmt: skip
    macs = np.array([16 * 24 * 8 * 27, 16 * 24 * 8 * 72, 16 * 24 * 8 * 72, 0, 16 * 24 * 3 * 8, 0])
    assert [one.macs for one in layers] == pytest.approx(macs / macs.sum())


def test_what_decides_labels_is_no_layer() -> None:
    assert [one.op for one in layers_of(named(segmenter(has_argmax=True)[0]))][-1] == "Resize"


def test_a_cut_graph_computes_each_part_from_what_is_handed_in() -> None:
    net, spec = segmenter()
    onnx.checker.check_model(net)
    given = prepared(spec, images(1)[0])
    whole = onnx.ModelProto()
    whole.CopyFrom(net)
    names = ["stem.relu.out", "block.relu.out", "logits"]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names[:2])
    logits, stem, block = ReferenceEvaluator(whole).run(None, given)
    parts = ReferenceEvaluator(cut(net, names))
    own = dict(
        zip(
            parts.output_names,
            parts.run(None, {**given, "stem.relu.out": stem, "block.relu.out": block, "logits": logits}),
            strict=True,
        )
    )
    for name, value in (("stem.relu.out", stem), ("block.relu.out", block), ("logits", logits)):
        assert np.array_equal(own[name + OWN], value)
    # An error in one part is in no other: with a stem of zeros only the block behind it changes.
    other = dict(
        zip(
            parts.output_names,
            parts.run(None, {**given, "stem.relu.out": 0 * stem, "block.relu.out": block, "logits": logits}),
            strict=True,
        )
    )
    assert np.array_equal(other["stem.relu.out" + OWN], stem)
    assert not np.array_equal(other["block.relu.out" + OWN], block)
    assert np.array_equal(other["logits" + OWN], logits)


def test_one_rounding_to_steps_makes_a_twelfth_of_a_squared_step() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 200_000)
    rounded = np.round(values / 0.01) * 0.01
    assert step_share(values, np.array(0.01)) == pytest.approx(
        ((values - rounded) ** 2).mean() / (values**2).mean(), rel=0.02
    )
