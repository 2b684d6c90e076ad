"""`edgekd check` on graphs made by hand: every hazard is found with its node, and nothing is found where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.core import plugins
from edgekd.errors import ArtifactError, UserError
from edgekd.preflight.check import Subject, Toward, check
from edgekd.preflight.findings import Report
from edgekd.preflight.patterns import PATTERNS
from edgekd.preflight.tables import tables_for, tables_of
from edgekd.rewrites.graph import SCOPES, read_graph

RKNN = Toward("rknn", "rk3588")


def weights(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(np.full(shape, 0.1, np.float32), name)


def constant(name: str, values: Any, dtype: Any = np.int64) -> Any:
    return numpy_helper.from_array(np.array(values, dtype), name)


def write(
    path: Path,
    nodes: list[Any],
    constants: list[Any],
    shape: tuple[int | str, ...] = (1, 3, 32, 32),
    modules: bool = True,
) -> Path:
    """Write a graph from `image` to `out`; nodes are named after their operator and place, modules after that."""
    for place, node in enumerate(nodes):
        node.name = f"{node.op_type}_{place}"
        if modules:
            entry = node.metadata_props.add()
            entry.key, entry.value = SCOPES, repr(["", f"net.part{place}", "op"])
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(model, data_prop=True), path)  # gives the output its shape
    return path


def conv(kernel: int = 3, source: str = "image", out: str = "out") -> Any:
    return helper.make_node("Conv", [source, "w"], [out], pads=[kernel // 2] * 4)


def checked(path: Path, toward: Toward) -> Report:
    return check(Subject(path, path.name), toward)


def rules(report: Report) -> dict[str, str]:
    return {one.rule: one.consequence for one in report.findings}


def test_a_plain_convolution_is_fine_everywhere(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.onnx", [conv()], [weights("w", 4, 3, 3, 3)])
    for target in plugins.names("targets"):
        report = checked(path, Toward(target, "rk3588" if target == "rknn" else ""))
        assert report.findings == (), target
        assert report.is_ok
        assert report.parsed.answer in ("yes", "not tried")
        assert report.built.answer == report.ran.answer == report.matched.answer == "not tried"


def test_a_kernel_beyond_the_npus_limit_names_node_module_and_fix(tmp_path: Path) -> None:
    path = write(tmp_path / "wide.onnx", [conv(33)], [weights("w", 4, 3, 33, 33)])
    report = checked(path, RKNN)
    found = {one.rule: one for one in report.findings}
    wide = found["Conv.kernel"]
    assert wide.nodes == ("Conv_0",)
    assert wide.module == "net.part0"
    assert wide.consequence == "cpu_fallback"
    assert "33x33, expected 1 to 31" in wide.says
    assert wide.fix
    assert wide.source
    assert report.is_ok  # slower, not wrong


@pytest.mark.parametrize(
    ("height", "mode", "rule"), [(48, "linear", "Resize.factor"), (64, "cubic", "Resize.mode"), (64, "linear", None)]
)
def test_a_resize_has_to_be_by_whole_factors_and_of_a_known_kind(
    tmp_path: Path, height: int, mode: str, rule: str | None
) -> None:
    node = helper.make_node("Resize", ["image", "", "", "sizes"], ["out"], mode=mode)
    path = write(tmp_path / "resize.onnx", [node], [constant("sizes", [1, 3, height, 2 * height // 2])])
    assert set(rules(checked(path, RKNN))) == ({rule} if rule else set())


def test_in_a_graph_without_names_a_pattern_hides_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["image", "groups"], ["a"]),
        helper.make_node("InstanceNormalization", ["a", "scale", "bias"], ["b"]),
        helper.make_node("Reshape", ["b", "back"], ["c"]),
        helper.make_node("Hardmax", ["c"], ["out"]),
    ]
    constants = [constant("groups", [1, 2, -1]), constant("back", [1, 4, 32, 32])]
    constants += [constant("scale", [1, 1], np.float32), constant("bias", [0, 0], np.float32)]
    path = write(tmp_path / "named.onnx", nodes, constants, (1, 4, 32, 32), modules=False)
    named = rules(checked(path, RKNN))
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, tmp_path / "unnamed.onnx")
    report = checked(tmp_path / "unnamed.onnx", RKNN)
    assert rules(report) == named
    assert len(named) > 1
    assert {name for one in report.findings for name in one.nodes} >= {"b", "out"}


def test_what_another_tool_wrote_about_modules_is_no_obstacle(tmp_path: Path) -> None:
    path = write(tmp_path / "wide.onnx", [conv(33)], [weights("w", 4, 3, 33, 33)])
    model = onnx.load(path)
    for damage in ("garbage(", "5", "{}"):
        model.graph.node[0].metadata_props[0].value = damage
        onnx.save(model, path)
        assert checked(path, RKNN).findings[0].module == ""


def test_group_norm_as_torch_lowers_it_runs_on_the_cpu_of_rockchips(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["image", "groups"], ["a"]),
        helper.make_node("InstanceNormalization", ["a", "scale", "bias"], ["b"]),
        helper.make_node("Reshape", ["b", "back"], ["out"]),
    ]
    constants = [constant("groups", [1, 2, -1]), constant("back", [1, 4, 32, 32])]
    constants += [constant("scale", [1, 1], np.float32), constant("bias", [0, 0], np.float32)]
    report = checked(write(tmp_path / "gn.onnx", nodes, constants, (1, 4, 32, 32)), RKNN)
    assert rules(report) == {"group_norm": "cpu_fallback"}
    assert report.is_ok
    assert report.findings[0].module == "net.part1"
    assert "2048 values in 2 groups" in report.findings[0].says


def test_five_dimensions_and_an_operator_in_no_list_are_unverified(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mish", ["image"], ["a"]),
        helper.make_node("Reshape", ["a", "five"], ["out"]),
    ]
    path = write(tmp_path / "five.onnx", nodes, [constant("five", [1, 3, 2, 16, 32])])
    found = rules(checked(path, RKNN))
    assert found["many_dimensions"] == found["Mish"] == "unverified"


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tensorrt_rtx", "rknn"])
def test_a_dynamic_batch_is_refused(tmp_path: Path, target: str) -> None:
    path = write(tmp_path / "dynamic.onnx", [conv()], [weights("w", 4, 3, 3, 3)], ("batch", 3, 32, 32))
    report = checked(path, Toward(target, "rk3588" if target == "rknn" else ""))
    assert rules(report)["dynamic_shape"] == "refused"
    assert not report.is_ok


def test_scores_and_boxes_in_one_tensor_are_found_and_two_scores_are_not(tmp_path: Path) -> None:
    for other, expected in (("boxes", {"mixed_range_concat": "silent_error_int8"}), ("scores", {})):
        nodes = [
            conv(out="raw"),
            helper.make_node("Sigmoid", ["raw"], ["scores"]),
            helper.make_node("Relu", ["raw"], ["boxes"]),
            helper.make_node("Concat", ["scores", other], ["out"], axis=1),
        ]
        path = write(tmp_path / f"{other}.onnx", nodes, [weights("w", 4, 3, 3, 3)])
        assert rules(checked(path, Toward("openvino"))) == expected


def quantized(path: Path, dtype: Any) -> Path:
    constants = [constant("scale", 0.1, np.float32), constant("zero", 0, dtype)]
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["out"]),
    ]
    return write(path, nodes, constants)


def test_unsigned_zero_points_are_silent_errors_for_tensorrt_only(tmp_path: Path) -> None:
    unsigned, signed = quantized(tmp_path / "u.onnx", np.uint8), quantized(tmp_path / "s.onnx", np.int8)
    for target in ("tensorrt", "tensorrt_rtx"):
        report = checked(unsigned, Toward(target))
        assert rules(report)["unsigned_quantization"] == "silent_error"
        assert report.precision == "int8"
        assert not report.is_ok
        assert "unsigned_quantization" not in rules(checked(signed, Toward(target)))
    assert rules(checked(unsigned, Toward("onnxruntime"))) == {}


def test_an_operator_that_the_parser_refuses_is_named_by_the_parser(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    node = helper.make_node("Unique", ["image"], ["out"])
    report = checked(write(tmp_path / "unique.onnx", [node], []), Toward("tensorrt_rtx"))
    assert report.parsed.answer == "no"
    (found,) = [one for one in report.findings if one.rule == "parser"]
    assert (found.consequence, found.evidence) == ("refused", "live")
    assert "Unique" in found.operator + found.says + "".join(found.nodes)


def test_a_trial_builds_runs_and_matches(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.onnx", [conv()], [weights("w", 4, 3, 3, 3)])
    report = check(Subject(path, "plain"), Toward("openvino"), is_built=True)
    assert [getattr(report, name).answer for name in ("parsed", "built", "ran", "matched")] == ["yes"] * 4
    assert "of its spread" in report.matched.text


def test_files_targets_and_chips_that_are_none_are_refused_in_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not an onnx file")
    good = write(tmp_path / "good.onnx", [conv()], [weights("w", 4, 3, 3, 3)])
    for path, toward, kind, said in (
        (bad, RKNN, ArtifactError, "not a readable ONNX file"),
        (good, Toward("rkn"), UserError, "did you mean 'rknn'"),
        (good, Toward("rknn", "rk3589"), UserError, "did you mean 'rk3588'"),
        (good, Toward("openvino", "rk3588"), UserError, "nothing is known by chip"),
    ):
        with pytest.raises(kind, match=said) as caught:
            checked(path, toward)
        assert "\n" not in str(caught.value)


def test_every_pattern_of_a_table_exists_and_every_table_has_source_and_date() -> None:
    assert all(tables_of(name) for name in ("rknn", "tensorrt", "tensorrt_rtx", "openvino", "onnxruntime"))
    for table in (table for name in plugins.names("targets") for table in tables_of(name)):
        assert set(table.patterns) <= set(PATTERNS)
        assert table.source
        assert table.date
    assert tables_for("rknn", "rk3588")


def test_a_node_without_scopes_has_no_module(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.onnx", [conv(33)], [weights("w", 4, 3, 33, 33)], modules=False)
    assert checked(path, RKNN).findings[0].module == ""
    assert read_graph(path).nodes[0].name == "Conv_0"


@pytest.mark.parametrize(
    ("nodes", "rule", "name"),
    [
        ([helper.make_node("GlobalAveragePool", ["image"], ["out"])], "GlobalAveragePool.input_size", "average_pool_chain"),
        (
            [helper.make_node("MaxPool", ["image"], ["out"], kernel_shape=[9, 9], pads=[4] * 4)],
            "MaxPool.kernel",
            "max_pool_chain",
        ),
        (
            [
                helper.make_node(
                    "Resize", ["image", "", "scales"], ["out"],
                    mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
                )
            ],
            "Resize.coordinate_transformation_mode",
            "resize_scales",
        ),
    ],
)  # fmt: skip
def test_a_finding_names_the_rewrite_that_removes_it_and_after_that_nothing_is_found(
    tmp_path: Path, nodes: list[Any], rule: str, name: str
) -> None:
    path = write(tmp_path / "net.onnx", nodes, [constant("scales", [1, 1, 2, 2], np.float32)])
    found = {one.rule: one for one in checked(path, RKNN).findings}
    assert found[rule].fix.startswith(f"export.rewrite: [{name}], ")
    model = onnx.load(path)
    assert plugins.load("rewrites", name).rewrite(model) == [f"{nodes[0].op_type}_0"]
    onnx.save(model, path)
    report = checked(path, RKNN)
    assert report.findings == ()
    assert read_graph(path).nodes[0].metadata_props  # the module is still known


def test_a_rewrite_that_would_not_help_is_not_named(tmp_path: Path) -> None:
    pool = helper.make_node("GlobalAveragePool", ["image"], ["out"])
    path = write(tmp_path / "net.onnx", [pool], [], (1, 3, 11, 11))  # 11 is prime
    (found,) = checked(path, RKNN).findings
    assert "export.rewrite" not in found.fix
    for table in (table for name in plugins.names("targets") for table in tables_of(name)):
        assert set(table.rewrites.values()) <= set(plugins.names("rewrites"))


@pytest.mark.parametrize(("maker", "expected"), [("Relu", "rewritten"), ("Neg", "refused")])
def test_a_misread_max_pool_is_no_hazard_where_the_target_rewrites_it(
    tmp_path: Path, maker: str, expected: str
) -> None:
    nodes = [
        helper.make_node(maker, ["image"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["out"], kernel_shape=[5, 5], pads=[2] * 4),
    ]
    report = checked(write(tmp_path / "pool.onnx", nodes, [], (1, 3, 3, 4)), RKNN)
    (found,) = [one for one in report.findings if one.rule == "misread_max_pool"]
    assert found.consequence == expected
    assert found.module == "net.part1"
    assert report.is_ok == (expected == "rewritten")


def test_a_summed_stack_is_rewritten_by_the_target_and_named_all_the_same(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["image"], ["a"]),
        helper.make_node("Unsqueeze", ["a", "axis"], ["a5"]),
        helper.make_node("Unsqueeze", ["image", "axis"], ["b5"]),
        helper.make_node("Concat", ["a5", "b5"], ["stack"], axis=0),
        helper.make_node("ReduceSum", ["stack", "axis"], ["out"], keepdims=0),
    ]
    report = checked(write(tmp_path / "sum.onnx", nodes, [constant("axis", [0])]), RKNN)
    assert rules(report) == {"stacked_sum": "rewritten"}
    assert report.is_ok
    assert report.findings[0].fix.startswith("none needed: the target does stack_sum by itself")


def test_what_a_target_says_it_rewrites_exists() -> None:
    for name in plugins.names("targets"):
        assert set(plugins.target(name).info.rewrites) <= set(plugins.names("rewrites"))
