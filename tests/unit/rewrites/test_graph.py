"""The reader of ONNX graphs: shapes, constants and who reads what, also where the weights lie in other files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ArtifactError
from edgekd.rewrites import graph
from edgekd.rewrites.graph import Graph, copy_onnx, name_nodes, read_graph, read_onnx

CHANNELS = 512  # the weights are just over SMALL_BYTES


def network(height: int | str = 8) -> onnx.ModelProto:
    """Return image -> 1x1 convolution -> Relu, read twice -> Add -> Reshape by a constant -> out."""
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["a"], name="conv"),
        helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([1, -1], np.int64))),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Add", ["b", "b"], ["c"], name="add"),
        helper.make_node("Reshape", ["c", "shape"], ["out"]),
    ]
    net = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, CHANNELS, height, 4))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, None))],
        [numpy_helper.from_array(np.ones((CHANNELS + 1, CHANNELS, 1, 1), np.float32), "weight")],
    )
    return helper.make_model(net, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_shapes_are_inferred_without_the_large_weights() -> None:
    net = Graph(network())
    assert graph.inferred(network()).initializer == []
    assert net.shape("weight") == (CHANNELS + 1, CHANNELS, 1, 1)
    assert net.shape("a") == net.shape("c") == (1, CHANNELS + 1, 8, 4)
    assert net.shape("out") == (1, (CHANNELS + 1) * 8 * 4)
    assert net.shape("none of them") is None


def test_a_dimension_that_is_not_static_has_its_name_and_its_tensor_no_static_shape() -> None:
    net = Graph(network("rows"))
    assert net.shapes["image"] == (1, CHANNELS, "rows", 4)
    assert net.shape("b") is None


def test_producers_and_readers() -> None:
    net = Graph(network())
    assert [node.op_type for node in net.nodes] == ["Conv", "Relu", "Add", "Reshape"]
    assert net.producer("c").name == "add"
    assert net.producer("image") is net.producer("shape") is None
    assert [node.name for node in net.readers("b")] == ["add", "add"]
    assert net.only_reader("a").name == "relu"
    assert net.only_reader("b") is None  # two inputs of one node
    assert net.only_reader("out") is None
    assert graph.name_of(net.producer("out")) == "out"
    assert [value.name for value in net.inputs] == ["image"]


def test_the_constant_of_a_node_is_one_and_a_computed_tensor_is_none() -> None:
    net = Graph(network())
    assert np.array_equal(net.constant("shape"), [1, -1])
    assert net.constant("weight").shape == (CHANNELS + 1, CHANNELS, 1, 1)
    assert net.constant("a") is None


def test_weights_in_another_file_stay_there_and_small_tensors_are_read(tmp_path: Path) -> None:
    model = network()
    model.graph.initializer.append(numpy_helper.from_array(np.arange(300, dtype=np.int64), "indices"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=1024)
    net = read_graph(tmp_path / "m.onnx")
    assert net.constant("weight") is None
    assert np.array_equal(net.constant("indices"), np.arange(300))
    assert net.shape("a") == (1, CHANNELS + 1, 8, 4)
    assert len(net.model.SerializeToString()) < 10_000
    loaded = read_onnx(tmp_path / "m.onnx")
    assert numpy_helper.to_array(loaded.graph.initializer[0]).sum() == CHANNELS * (CHANNELS + 1)


@pytest.mark.parametrize("damage", ["no such file", "no ONNX", "cut", "no data file"])
def test_a_damaged_file_is_one_line(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    if damage == "no such file":
        path.unlink()
    elif damage == "no data file":
        (tmp_path / "m.data").unlink()
    else:
        path.write_bytes(b"\xff" * 50 if damage == "no ONNX" else path.read_bytes()[:60])
    for read in (read_onnx, read_graph):
        todo = "put the file with its weights beside it" if damage == "no data file" else "export it again"
        with pytest.raises(ArtifactError, match=rf"m.onnx: not a readable ONNX file: .+; {todo}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_nodes_without_a_name_and_with_anothers_get_their_own() -> None:
    nodes = [
        helper.make_node("Relu", ["image"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"], name="a"),
        helper.make_node("Relu", ["b"], ["c"], name="a"),
        helper.make_node("Relu", ["c"], ["d"], name="kept"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    assert name_nodes(model) == ["a_1", "c"]
    assert [one.name for one in model.graph.node] == ["a_1", "a", "c", "kept"]
    assert name_nodes(model) == []


def test_a_copy_holds_the_weights_that_lie_in_other_files(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    onnx.save(network(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    copy_onnx(tmp_path / "m.onnx", tmp_path / "out/m.onnx")
    (tmp_path / "m.data").unlink()
    values = [
        numpy_helper.to_array(model.graph.initializer[0]) for model in (onnx.load(tmp_path / "out/m.onnx"), network())
    ]
    assert np.array_equal(*values)
