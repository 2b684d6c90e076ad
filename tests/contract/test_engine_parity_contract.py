"""No target gives an fp32 engine that computes something else than its graph: it is right, or refused with the operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgekd.compile.stage import run
from edgekd.core import plugins
from edgekd.errors import GateError, TargetError
from tests.compile_job import job, network

SIZES = {"size": np.array([1, 4, 12, 20])}
POOL: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}
CASES = {
    "linear antialias": (helper.make_node("Resize", ["x", "", "", "size"], ["y"], mode="linear", antialias=1), SIZES),
    "cubic antialias": (helper.make_node("Resize", ["x", "", "", "size"], ["y"], mode="cubic", antialias=1), SIZES),
    "ceil_mode": (helper.make_node("AveragePool", ["x"], ["y"], pads=[1] * 4, count_include_pad=1, **POOL), {}),
    "ceil_mode without padding": (helper.make_node("AveragePool", ["x"], ["y"], **POOL), {}),
}
TARGETS = [name for name in plugins.names("targets") if plugins.target(name).info.compile_at == "host"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", TARGETS)
def test_an_fp32_engine_is_its_graph_or_is_refused(target: str, case: str, tmp_path: Path) -> None:
    try:
        plugins.target(target).runtime_version()
    except TargetError as exc:
        pytest.skip(str(exc))
    node, constants = CASES[case]
    node.name = "doubtful"
    model, spec = network([node], **constants)
    try:
        parity = run(job(tmp_path, model, spec, {"target": target, "precision": "fp32"})).details["parity"]
    except GateError as exc:
        assert f"the first operator that differs is {node.op_type} 'doubtful'" in str(exc)
        assert target == "openvino"
        assert case != "ceil_mode without padding"
    else:
        assert parity["float"]["max_error"] < 1e-4
        assert (target, case) not in {("openvino", one) for one in CASES if one != "ceil_mode without padding"}
