"""The decision: the fastest engine within a point of the float network, or none and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from report_rows import engine, network

from edgekd.report.decision import choices_of, decide
from edgekd.report.model import Gate, Latency, Report, Row

ONNX = network("onnx", 0.600)


def report(*rows: Row) -> Report:
    return Report(schema="edgekd.report/1", rows=list(rows))


def timed(target: str, miou: float | None, wall: float | None, **more: object) -> Row:
    latency = Latency(p50=wall, n=20) if wall else None
    return engine(target, "int8", miou, wall_ms=latency, **more)


def test_the_fastest_of_the_engines_within_a_point_is_chosen() -> None:
    rows = [ONNX, timed("exact", 0.600, 5.0), timed("held", 0.590, 4.0), timed("lossy", 0.589, 1.0)]
    (decision,) = decide(report(*rows), {})
    assert decision.row is not None
    assert decision.row.id == "held-int8"
    assert "at most 1 point mIoU below the float network (onnx, 60.0\u00a0%)" in decision.rule


def test_nothing_is_recommended_where_no_engine_holds_and_the_best_is_named() -> None:
    (decision,) = decide(report(ONNX, timed("a", 0.55, 1.0), timed("b", 0.58, 2.0)), {})
    assert decision.row is None
    assert decision.reason == "the best engine, b-int8, loses −2.0 points"


def test_nothing_is_recommended_without_scores_or_latencies() -> None:
    unscored = {"status": "measured", "reason": "not scored"}
    assert (
        decide(report(ONNX, timed("a", None, 1.0, **unscored)), {})[0].reason
        == "no engine has a measured mIoU and passed its gates"
    )
    assert decide(report(timed("a", 0.6, 1.0)), {})[0].reason == "no float network has a measured mIoU"
    no_time = decide(report(ONNX, timed("a", 0.6, None)), {})[0].reason
    assert no_time == "no engine within the limit has a measured latency"


def test_an_engine_that_failed_or_whose_gate_failed_is_not_recommended() -> None:
    rows = [
        ONNX,
        timed("crashed", 0.6, 1.0, status="failed", reason="x"),
        timed("other", 0.6, 2.0),
        timed("held", 0.6, 9.0),
    ]
    gate = Gate(name="other-int8 as here", passed=False, text="difference 0.2")
    found = report(*rows).model_copy(update={"gates": [gate]})
    assert [one.row and one.row.id for one in decide(found, {})] == ["held-int8"]


def test_a_simulator_is_not_recommended_for_its_time() -> None:
    (decision,) = decide(report(ONNX, timed("a", 0.6, 1.0, board="simulator")), {})
    assert decision.row is None


def test_each_board_has_a_decision_of_its_own() -> None:
    rows = [ONNX, timed("a", 0.6, 1.0), timed("a", 0.6, 9.0, board="pi", id="a-int8@pi")]
    assert [(one.board, one.row and one.row.id) for one in decide(report(*rows), {})] == [
        ("local", "a-int8"),
        ("pi", "a-int8@pi"),
    ]


def test_a_runner_up_that_may_be_as_fast_is_named() -> None:
    rows = [ONNX, timed("a", 0.6, 1.0), timed("b", 0.6, 1.1), timed("c", 0.6, 9.0)]
    own, near = np.ones(8), np.array([0.9, 1, 1.1, 1.1, 1.2, 1.2, 1.2, 1.3])
    samples = {}
    for name, medians in (("a", own), ("b", near), ("c", 9 * own)):
        samples |= {f"{name}-int8/wall_ns": medians, f"{name}-int8/wall_bursts": np.ones(8, int)}
    (decision,) = decide(report(*rows), samples)
    assert decision.doubt == "Speed against b-int8 is not decided: interval includes 1 (0.90 to 1.30× the speed)."
    (sure,) = decide(report(rows[0], rows[1], rows[3]), samples)
    assert sure.doubt == ""


def test_costs_and_commands_are_those_of_the_engine() -> None:
    teacher = network("teacher", 0.70, size_bytes=8_000_000, params=4_000_000, macs=None)
    local, remote = timed("a", 0.6, 1.0, size_bytes=500_000, params=1_000_000), timed("b", 0.6, 1.0, board="pi")
    one, other = choices_of(report(teacher, ONNX, local, remote), {}, Path("runs/my run"))
    assert [(cost.name, cost.value) for cost in one.costs] == [
        ("mIoU", "−10.0 points"),
        ("file", "16.0× smaller"),
        ("parameters", "4.00× fewer"),
    ]
    assert one.commands == [
        "edgekd deploy 'runs/my run/engine/a-int8' --board NAME",
        "edgekd bundle 'runs/my run/engine/a-int8'",
    ]
    assert other.commands[0].endswith("b-int8' --board pi")
