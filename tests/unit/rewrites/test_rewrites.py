"""Every rewrite of a graph gives what the graph gave, in ONNX Runtime on random inputs, and leaves alone what it cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.core import plugins
from edgekd.rewrites import adaptive_pool, average_pool_chain
from edgekd.targets.onnxruntime.target import import_onnxruntime
from tests.conftest import REPOSITORY


def graph(nodes: list[Any], shape: tuple[int, ...], **constants: Any) -> onnx.ModelProto:
    """Return a model from `image` to `out` in opset 18; constants are initializers by name."""
    for place, node in enumerate(nodes):
        node.name = f"{node.op_type}_{place}"
    net = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(net, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def node(kind: str, inputs: str = "image", out: str = "out", **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(" "), [out], **attributes)


def outputs(model: onnx.ModelProto, count: int = 3) -> list[np.ndarray]:
    """Return the output for some seeded inputs, without ONNX Runtime's own rewrites."""
    runtime = import_onnxruntime()
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    shape = session.get_inputs()[0].shape
    return [session.run(None, {"image": rng.normal(0.5, 2, shape).astype(np.float32)})[0] for _ in range(count)]


def rewritten(name: str, model: onnx.ModelProto) -> tuple[list[str], onnx.ModelProto]:
    """Return what a rewrite replaced, and the model after it, proven equal within what the rewrite states."""
    plugin = plugins.load("rewrites", name)
    new = onnx.ModelProto()
    new.CopyFrom(model)
    found = plugin.rewrite(new)
    for before, after in zip(outputs(model), outputs(new), strict=True):
        assert after.shape == before.shape
        assert np.abs(after - before).max() <= plugin.ERROR * np.abs(before).max()
    return found, new


def kinds(model: onnx.ModelProto) -> list[str]:
    return [one.op_type for one in model.graph.node]


def kernels(model: onnx.ModelProto) -> list[tuple[int, ...]]:
    return [tuple(a.ints) for one in model.graph.node for a in one.attribute if a.name == "kernel_shape"]


@pytest.mark.parametrize("name", plugins.names("rewrites"))
def test_a_rewrite_says_how_exact_it_is_and_leaves_a_convolution_alone(name: str) -> None:
    plugin = plugins.load("rewrites", name)
    assert 0 <= plugin.ERROR <= 1e-4
    model = graph([node("Conv", "image w")], (1, 2, 8, 8), w=np.ones((2, 2, 3, 3), np.float32))
    before = model.SerializeToString()
    assert plugin.rewrite(model) == []
    assert model.SerializeToString() == before


def test_every_rewrite_is_on_the_page_with_how_exact_it_is() -> None:
    page = (REPOSITORY / "docs/howto/check-a-model.md").read_text(encoding="utf-8")
    for name in plugins.names("rewrites"):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.endswith("| the bit |" if plugins.load("rewrites", name).ERROR == 0 else "| 1e-5 |")


@pytest.mark.parametrize(
    ("window", "chain"),
    [
        ((16, 12), [(4, 6), (4, 2)]),
        ((8, 7), [(4, 7), (2, 1)]),
        ((1, 49), [(1, 7), (1, 7)]),
        ((11, 8), []),  # 11 is prime
        ((90, 5), [(6, 5), (5, 1), (3, 1)]),
    ],
)
def test_windows_are_split_into_factors_up_to_7(window: tuple[int, int], chain: list[tuple[int, int]]) -> None:
    assert average_pool_chain.split(window) == chain


@pytest.mark.parametrize(
    "pool",
    [
        node("GlobalAveragePool"),
        node("ReduceMean", "image axes", keepdims=1),
        node("AveragePool", kernel_shape=[8, 12], strides=[8, 12]),
    ],
    ids=["global", "mean", "average"],
)
def test_a_large_average_is_a_chain_of_small_pools(pool: Any) -> None:
    found, model = rewritten("average_pool_chain", graph([pool], (2, 3, 16, 24), axes=np.array([2, -1])))
    assert found == [f"{pool.op_type}_0"]
    assert set(kinds(model)) == {"AveragePool"}
    assert max(max(one) for one in kernels(model)) <= 7


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (node("GlobalAveragePool"), (1, 2, 7, 5)),  # small enough
        (node("GlobalAveragePool"), (1, 2, 13, 8)),  # 13 is prime
        (node("ReduceMean", "image axes", keepdims=0), (1, 2, 8, 8)),
        (node("ReduceMean", "image channel", keepdims=1), (1, 2, 8, 8)),
        (node("AveragePool", kernel_shape=[8, 8], strides=[4, 4]), (1, 2, 16, 16)),  # windows overlap
        (node("AveragePool", kernel_shape=[8, 8], strides=[8, 8], pads=[1, 1, 1, 1]), (1, 2, 16, 16)),
    ],
)
def test_an_average_that_no_chain_gives_is_left_alone(pool: Any, shape: tuple[int, ...]) -> None:
    model = graph([pool], shape, axes=np.array([2, 3]), channel=np.array([1]))
    assert rewritten("average_pool_chain", model)[0] == []


@pytest.mark.parametrize("kernel", [(8, 8), (9, 13), (31, 3), (14, 20)])
@pytest.mark.parametrize("padding", [0, 1, -1], ids=["unpadded", "padded", "padded as far as may be"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_a_large_max_pool_is_a_chain_of_small_ones(
    kernel: tuple[int, int], padding: int, strides: tuple[int, int]
) -> None:
    rows, columns = kernel[0] + padding if padding < 0 else padding, kernel[1] + padding if padding < 0 else padding
    pads = [rows, columns, max(rows - 1, 0), columns]  # one side less
    pool = node("MaxPool", kernel_shape=kernel, pads=pads, strides=strides)
    found, model = rewritten("max_pool_chain", graph([pool], (1, 2, 32, 21)))
    assert found == ["MaxPool_0"]
    assert set(kinds(model)) == {"MaxPool"}
    assert max(max(one) for one in kernels(model)) <= 7


@pytest.mark.parametrize(
    "given",
    [
        {"kernel_shape": [7, 7]},
        {"kernel_shape": [8, 8], "dilations": [2, 2]},
        {"kernel_shape": [8, 8], "strides": [3, 3], "ceil_mode": 1},
    ],
)
def test_a_max_pool_that_is_small_dilated_or_rounded_up_is_left_alone(given: dict[str, Any]) -> None:
    assert rewritten("max_pool_chain", graph([node("MaxPool", **given)], (1, 1, 20, 20)))[0] == []


NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.mark.parametrize("factor", [(2, 2), (3, 5), (8, 7), (16, 4), (32, 12)])
def test_nearest_as_torch_exports_it_gets_half_pixel_coordinates_in_steps_of_8(factor: tuple[int, int]) -> None:
    scales = np.array([1, 1, *factor], np.float32)
    found, model = rewritten(
        "resize_scales", graph([node("Resize", "image  scales", **NEAREST)], (1, 2, 3, 4), scales=scales)
    )
    assert found == ["Resize_0"]
    for one in model.graph.node:
        given = {a.name: helper.get_attribute_value(a) for a in one.attribute}
        assert given["coordinate_transformation_mode"] == b"half_pixel"
        constants = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
        assert constants[one.input[2]].max() <= 8


@pytest.mark.parametrize("size", [(1, 33), (7, 5)])
@pytest.mark.parametrize("side", [9, 12, 16, 25, 49, 64])
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
def test_only_what_steps_give_exactly_is_done_in_steps(
    coordinates: str, rounding: str, side: int, size: tuple[int, int]
) -> None:
    given = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    sizes = np.array([1, 1, size[0] * side, size[1] * side])
    _, model = rewritten("resize_scales", graph([node("Resize", "image   sizes", **given)], (1, 1, *size), sizes=sizes))
    steps = [numpy_helper.to_array(one)[2:].max() for one in model.graph.initializer]
    is_nearest_centre = coordinates.endswith("half_pixel") and rounding.startswith("round")
    if is_nearest_centre or (coordinates, rounding) == ("asymmetric", "floor"):
        assert len(steps) > 1
        assert max(steps) <= 8
    else:
        assert steps == [side]


@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_sizes_become_scales(coordinates: str, mode: str) -> None:
    resize = node("Resize", "image   sizes", mode=mode, coordinate_transformation_mode=coordinates)
    found, model = rewritten("resize_scales", graph([resize], (1, 2, 5, 6), sizes=np.array([1, 2, 15, 12])))
    assert found == ["Resize_0"]
    assert len(model.graph.node[0].input) == 3


@pytest.mark.parametrize(
    ("sizes", "given"),
    [
        ([1, 2, 7, 12], {"mode": "linear"}),  # 7 of 5
        ([1, 2, 2, 3], {"mode": "linear"}),  # smaller
        ([1, 4, 10, 12], {"mode": "nearest"}),  # channels, too
    ],
)
def test_a_resize_by_other_than_whole_factors_is_left_alone(sizes: list[int], given: dict[str, str]) -> None:
    assert (
        rewritten(
            "resize_scales", graph([node("Resize", "image   sizes", **given)], (1, 2, 5, 6), sizes=np.array(sizes))
        )[0]
        == []
    )


POOL = {"kernel_shape": [5, 5], "pads": [2] * 4}


@pytest.mark.parametrize(
    ("maker", "takes"),
    [
        (node("Relu", "image", "r"), True),
        (node("Clip", "image zero six", "r"), True),
        (node("Clip", "image zero", "r"), True),
        (node("Clip", "image half six", "r"), True),
        (node("Clip", "image below six", "r"), False),
        (node("Clip", "image  six", "r"), False),
        (node("Clip", "image zero below", "r"), False),  # all of it is `below`
        (node("Clip", "image", "r"), False),
        (node("Neg", "image", "r"), False),
    ],
)
def test_a_pool_of_values_that_are_not_negative_is_padded_apart(maker: Any, takes: bool) -> None:
    bounds = {"zero": 0, "half": 0.5, "six": 6, "below": -1}
    constants = {name: np.array(value, np.float32) for name, value in bounds.items()}
    model = graph([maker, node("MaxPool", "r", **POOL)], (1, 2, 3, 4), **constants)
    found, model = rewritten("max_pool_pads", model)
    assert found == (["MaxPool_1"] if takes else [])
    assert kinds(model) == [maker.op_type, *(["Pad"] if takes else []), "MaxPool"]


def test_a_bound_that_is_computed_is_not_known() -> None:
    nodes = [
        node("ReduceMax", "image", "low", keepdims=0),
        node("Clip", "image low", "r"),
        node("MaxPool", "r", **POOL),
    ]
    assert rewritten("max_pool_pads", graph(nodes, (1, 2, 3, 4)))[0] == []


@pytest.mark.parametrize("sides", [1, 3])
def test_a_chain_of_max_pools_of_other_than_two_dimensions_is_left_alone(sides: int) -> None:
    pool = {"kernel_shape": [5] * sides, "pads": [2] * 2 * sides}
    nodes = [node("Relu", "image", "a"), node("MaxPool", "a", "b", **pool), node("MaxPool", "b", **pool)]
    assert rewritten("max_pool_pads", graph(nodes, (1, 2, *[4] * sides)))[0] == []


@pytest.mark.parametrize("reduce", ["ReduceSum", "ReduceMean"])
@pytest.mark.parametrize("axis", [0, 2, -1])
def test_a_stack_that_is_summed_is_a_chain_of_adds(reduce: str, axis: int) -> None:
    nodes = [
        node("Relu", "image", "a"),
        node("Neg", "image", "b"),
        *(node("Unsqueeze", f"{one} axis", f"{one}5") for one in ("a", "b", "image")),
        node("Concat", "a5 b5 image5", "stack", axis=axis),
        node(reduce, "stack axis", "out", keepdims=0),
    ]
    found, model = rewritten("stack_sum", graph(nodes, (1, 3, 4, 5), axis=np.array([axis])))
    assert found == [f"{reduce}_6"]
    assert set(kinds(model)) == {"Relu", "Neg", "Add"} | ({"Mul"} if reduce == "ReduceMean" else set())


def test_a_sum_over_another_axis_than_the_stack_is_left_alone() -> None:
    nodes = [
        node("Relu", "image", "a"),
        *(node("Unsqueeze", f"{one} stack_axis", f"{one}5") for one in ("a", "image")),
        node("Concat", "a5 image5", "stack", axis=0),
        node("ReduceSum", "stack sum_axis", "out", keepdims=0),
    ]
    model = graph(nodes, (1, 3, 4, 5), stack_axis=np.array([0]), sum_axis=np.array([2]))
    assert rewritten("stack_sum", model)[0] == []


def gathered_pool(size: tuple[int, int], bins: tuple[int, int], is_sum: bool = False) -> onnx.ModelProto:
    """Return adaptive pooling as torch lowers it when all its windows are of one size: gathered, and averaged."""
    starts = [[i * s // b for i in range(b)] for s, b in zip(size, bins, strict=True)]
    window = [-(s // -b) for s, b in zip(size, bins, strict=True)]
    rows, columns = (np.array(s)[:, None] + np.arange(w) for s, w in zip(starts, window, strict=True))
    where = np.stack(np.broadcast_arrays(rows[:, :, None, None], columns[None, None]), axis=-1)  # (bh, wh, bw, ww, 2)
    nodes = [
        node("Relu", "image", "x"),
        node("Transpose", "x", "turned", perm=[2, 3, 0, 1]),
        node("GatherND", "turned where", "windows"),
        node("Transpose", "windows", "values", perm=[4, 5, 0, 1, 2, 3]),
        node("ReduceSum" if is_sum else "ReduceMean", "values axes", "out", keepdims=0),
    ]
    return graph(nodes, (1, 3, *size), where=where, axes=np.array([3, 5]))


@pytest.mark.parametrize(("size", "bins"), [((32, 32), (6, 6)), ((8, 12), (2, 3)), ((10, 32), (4, 6))])
def test_gathered_windows_become_two_products(size: tuple[int, int], bins: tuple[int, int]) -> None:
    torch_like = gathered_pool(size, bins)
    found, model = rewritten("adaptive_pool", torch_like)
    assert found == ["GatherND_2"]
    assert kinds(model) == ["Relu", "MatMul", "Transpose", "MatMul", "Transpose"]
    assert {one.name for one in model.graph.initializer} == {"out/columns", "out/rows"}  # the windows are gone


def test_gathered_windows_that_are_not_averaged_are_left_alone() -> None:
    assert rewritten("adaptive_pool", gathered_pool((8, 12), (2, 3), is_sum=True))[0] == []
    assert rewritten("adaptive_pool", gathered_pool((8, 12), (3, 3)))[0] == []  # 8 in 3 bins: windows of 3, 4 and 3


def test_averages_are_those_of_adaptive_pooling() -> None:
    # 5 in 3 bins: 0 to 2, 1 to 4, 3 to 5
    expected = np.array([[1 / 2, 1 / 2, 0, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 1 / 2, 1 / 2]], np.float32)
    assert np.array_equal(adaptive_pool.averages(5, 3), expected)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(5, 9), (8, 24), (20, 6)], ids=["both sides shrink", "one stays", "one grows"])
def test_a_resize_with_antialias_is_two_products(mode: str, size: tuple[int, int]) -> None:
    resize = node("Resize", "image   size", mode=mode, antialias=1)
    found, model = rewritten("antialias_resize", graph([resize], (2, 3, 16, 24), size=np.array([2, 3, *size])))
    assert found == ["Resize_0"]
    assert kinds(model) == ["MatMul", "MatMul"]


def test_antialias_without_effect_goes() -> None:
    resize = node("Resize", "image  scales", mode="linear", antialias=1)
    found, model = rewritten(
        "antialias_resize", graph([resize], (1, 2, 4, 6), scales=np.array([1, 1, 2, 2], np.float32))
    )
    assert (found, kinds(model)) == (["Resize_0"], ["Resize"])
    assert "antialias" not in {one.name for one in model.graph.node[0].attribute}


@pytest.mark.parametrize(
    ("window", "strides", "pads", "shape"),
    [
        ([3, 3], [2, 2], [1, 1, 1, 1], (2, 3, 16, 24)),
        ([5, 3], [3, 2], [2, 1, 1, 0], (1, 2, 18, 11)),
        ([2, 2], [2, 2], [0, 0, 0, 0], (1, 2, 7, 9)),
    ],
)
def test_an_average_beyond_its_padding_is_a_plain_pool_and_a_factor(
    window: list[int], strides: list[int], pads: list[int], shape: tuple[int, ...]
) -> None:
    pool = node("AveragePool", kernel_shape=window, strides=strides, pads=pads, ceil_mode=1, count_include_pad=1)
    found, model = rewritten("average_pool_ceil", graph([pool], shape))
    assert found == ["AveragePool_0"]
    assert kinds(model) == ["Pad", "AveragePool", "Mul"]


def test_a_windows_factor_is_its_size_over_the_values_that_it_has() -> None:
    """Windows of 3 at -1, 1, 3 over 4 values and one zero on each side: the last has 2 of its 3 places (values 3, zero 4)."""
    pool = node("AveragePool", kernel_shape=[1, 3], strides=[1, 2], pads=[0, 1, 0, 1], ceil_mode=1, count_include_pad=1)
    _, model = rewritten("average_pool_ceil", graph([pool], (1, 1, 1, 4)))
    (factor,) = [numpy_helper.to_array(one) for one in model.graph.initializer if one.name.endswith("factor")]
    assert factor.ravel().tolist() == [1.0, 1.0, 1.5]


@pytest.mark.parametrize("changes", [{"ceil_mode": 0}, {"count_include_pad": 0}, {"strides": [3, 3], "pads": [0] * 4}])
def test_an_average_inside_its_padding_is_left_alone(changes: dict[str, Any]) -> None:
    given = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1, "count_include_pad": 1}
    model = graph([node("AveragePool", **{**given, **changes})], (1, 2, 12, 12))
    assert rewritten("average_pool_ceil", model)[0] == []
