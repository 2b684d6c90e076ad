"""The budget of a mixed engine in the report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from report_rows import engine, network

from edgekd.report.budgets import budget_gates, budget_of
from edgekd.report.mixed_budget import MixedBudget
from edgekd.report.verdict import quantized_rows

BUDGET = MixedBudget(
    metric="miou", max_drop=0.005, images=256, selection_drop=0.0042, scored_drop=0.0061, floats=["a", "b"], layers=22,
    float_macs_share=0.13,
)  # fmt: skip


def test_the_row_has_the_layers_in_float_and_both_drops() -> None:
    rows = [network("onnx", 0.5), engine("a", "fp32", 0.5), engine("a", "mixed", 0.4939, budget=BUDGET)]
    (found,) = quantized_rows(rows)
    assert found.note == (
        "2 of 22 layers in float (13.0\u00a0% of the MACs); drop in points mIoU: 0.42 on 256 selection images, 0.61 on the "
        "scored split, limit 0.50"
    )


def test_the_gate_is_on_the_scored_split() -> None:
    rows = [engine("a", "mixed", 0.4939, budget=BUDGET), engine("b", "int8", 0.4)]
    (gate,) = budget_gates(rows)
    assert (gate.name, gate.passed) == ("a-mixed budget", False)
    held = BUDGET.model_copy(update={"scored_drop": 0.005})
    assert [gate.passed for gate in budget_gates([engine("a", "mixed", 0.49, budget=held)])] == [True]


@pytest.mark.parametrize("name", ["a-mixed", "a-mixed-qat"])
def test_the_scored_drop_is_from_the_deployed_students_graph_for_every_student(name: str) -> None:
    found = {"metric": "miou", "max_drop": 0.005, "images": 4, "reference_drop": 0.0, "why_not_verified": "",
             "floats": [], "layers": 2, "float_macs_share": 0.0, "drop": 0.001}  # fmt: skip
    details: dict[str, Any] = {
        f"mixed/{name}": {"budget": found},
        f"evaluate/{name}": {"metrics": {"miou": 0.48}},
        "evaluate/export": {"metrics": {"miou": 0.5}},
        "evaluate/export-qat": {"metrics": {"miou": 0.4}},
    }
    artifacts: Any = {stage: SimpleNamespace(details=one) for stage, one in details.items()}
    row = engine("a", "mixed", 0.48, id=name, **budget_of(name, artifacts))
    assert row.budget is not None
    assert row.budget.scored_drop == pytest.approx(0.02)
    (gate,) = budget_gates([row])
    assert (gate.name, gate.passed) == (f"{name} budget", False)


def test_an_engine_that_was_not_run_says_so_and_has_no_gate() -> None:
    unseen = BUDGET.model_copy(
        update={"selection_drop": None, "scored_drop": None, "why_not_verified": "no board", "metric": "map_75"}
    )
    assert unseen.text == (
        "2 of 22 layers in float (13.0\u00a0% of the MACs); drop in points AP75: limit 0.50; not verified on the engine: no board"
    )
    assert budget_gates([engine("a", "mixed", None, budget=unseen)]) == []


def test_the_budget_survives_the_file() -> None:
    row = engine("a", "mixed", 0.4939, budget=BUDGET)
    again = type(row).model_validate(row.to_dict())
    assert again.budget == BUDGET
    assert again.budget is not None
    assert again.budget.scored_drop == pytest.approx(0.0061)
