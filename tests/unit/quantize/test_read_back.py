"""What a quantized file quantizes, read back onto the float graph: held to the file itself and to the engine made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekd.core import plugins
from edgekd.errors import ArtifactError
from edgekd.quantize.errors_by_node import accumulated
from edgekd.quantize.noise import Noise
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.read_back import ReadBack, read_back
from edgekd.quantize.reference import runner
from edgekd.targets.base import CompileRequest
from tests.small_nets import images, prepared, segmenter

LOGITS = {"logits": ("logits", "logits")}
BATCHES = [prepared(segmenter()[1], image) for image in images(3)]


def quantized(name: str, folder: Path, **options: Any) -> tuple[Path, ReadBack]:
    """The file of a scheme, and what is read back from it."""
    net, spec = segmenter()
    onnx.save(net, folder / "float.onnx")
    scheme = plugins.load("quantizers", name)
    (folder / "made").mkdir()
    made = scheme.quantize(folder / "float.onnx", spec, BATCHES, folder / "made", scheme.Options(**options))
    read = vars(scheme).get("read_back", read_back)
    return made.model, read(made.model, folder / "float.onnx")


def test_the_pairs_of_qdq_signed_written_again_are_the_file_to_the_bit(tmp_path: Path) -> None:
    _, back = quantized("qdq_signed", tmp_path)
    assert [node.name for node in back.placement.nodes] == ["stem", "block.a", "block.b", "block.add"]
    again = insert_qdq(back.model, back.placement, back.scales)
    assert accumulated(back.graph, again, LOGITS, BATCHES) == {"logits": 200.0}


def test_sums_and_activations_of_qdq_are_read_back_with_the_tensors_names(tmp_path: Path) -> None:
    _, back = quantized("qdq", tmp_path)
    by_name = {node.name: node for node in back.placement.nodes}
    assert by_name["block.add"].activations == ("stem.relu.out", "block.b.out")
    assert by_name["block.a"].activations == ("stem.relu.out",)  # the quantizer has merged the ReLU into the pair
    assert by_name["block.a"].weight == "block.a.weight"
    assert by_name["head"].weight is None  # a float head reads a quantized tensor
    again = insert_qdq(back.model, back.placement, back.scales)
    ours = accumulated(back.graph, again, LOGITS, BATCHES)["logits"]
    theirs = accumulated(back.model, back.graph, LOGITS, BATCHES)["logits"]
    assert ours > theirs + 10  # what differs, biases of 32 bits, is a tenth of the quantization's noise at most


@pytest.mark.parametrize("correction", ["none", "fast"])
def test_the_reference_of_an_ir_is_what_its_engine_computes(correction: str, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed")
    model, back = quantized("nncf", tmp_path, bias_correction=correction)
    assert not back.is_file
    assert {"stem", "block.a", "block.b", "block.add", "head"} <= {node.name for node in back.placement.nodes}
    target, spec = plugins.target("openvino"), segmenter()[1]
    (tmp_path / "engine").mkdir()
    built = target.build_engine(CompileRequest(model, spec, "int8", tmp_path / "engine", target.options()))
    float_noise, engine_noise = Noise(), Noise()
    exact, reference = _run(back.model, tmp_path / "f"), _run(back.graph, tmp_path / "q")
    with target.session(built.engine, spec, target.options()) as session:
        for batch in BATCHES:
            wanted = reference(batch)
            engine_noise.add(wanted, session.infer(dict(batch))["logits"])
            float_noise.add(exact(batch), wanted)
    assert engine_noise.db > float_noise.db + 3  # rounding once or twice is all that differs
    assert float_noise.db > 25


def test_a_file_of_another_graph_is_refused(tmp_path: Path) -> None:
    model, _ = quantized("qdq", tmp_path)
    net = segmenter()[0]
    for node in net.graph.node:
        node.name = f"other.{node.name}"
    onnx.save(net, tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match="none of its quantized operators is in "):
        read_back(model, tmp_path / "other.onnx")


def _run(graph: Any, folder: Path) -> Any:
    folder.mkdir()
    run = runner(graph, ["logits"], folder)
    return lambda batch: np.asarray(run(batch)[0])


def test_the_integers_of_an_ir_stand_in_its_graph_where_rounding_is_a_tie() -> None:
    from onnx import numpy_helper

    from edgekd.quantize.schemes._nncf_ir import _set_integers

    ours = {"a_quantized": [[63, -5]], "b_quantized": [[63, -5]], "other": [[63, -5]]}
    tensors = [numpy_helper.from_array(np.array(value, np.int8), name) for name, value in ours.items()]
    graph = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    theirs = np.array([64, -5], np.int8)
    _set_integers(graph, {"a": theirs, "b": theirs[::-1], "other": theirs})  # b lies in another order
    found = {one.name: numpy_helper.to_array(one).tolist() for one in graph.graph.initializer}
    assert found == {"a_quantized": [[64, -5]], "b_quantized": [[63, -5]], "other": [[63, -5]]}
