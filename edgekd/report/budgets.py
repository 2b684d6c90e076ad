"""The budget of mixed engines: the fields of their rows, and the gate on the scored split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekd.core.artifact import Artifact
from edgekd.core.recipe import LOCAL
from edgekd.report.mixed_budget import MixedBudget
from edgekd.report.model import Gate, Row
from edgekd.report.part import Json


def budget_of(engine_id: str, artifacts: Mapping[str, Artifact]) -> Json:
    """Return the field `budget` of an engine's row; empty for an engine that has none.

    The drop is measured from the deployed student's float network, also for an engine of another student.
    """
    made = artifacts.get(f"mixed/{engine_id}")
    if made is None:
        return {}
    found = made.details["budget"]
    before, after = (_metric(artifacts.get(f"evaluate/{name}"), found["metric"]) for name in ("export", engine_id))
    scored = None if before is None or after is None else before - after
    own = ("metric", "max_drop", "images", "reference_drop", "why_not_verified", "floats", "layers", "float_macs_share")
    return {
        "budget": MixedBudget(**{name: found[name] for name in own}, selection_drop=found["drop"], scored_drop=scored)
    }


def _metric(score: Artifact | None, name: str) -> float | None:
    value: float | None = score.details["metrics"].get(name) if score else None
    return value


def budget_gates(rows: Sequence[Row]) -> list[Gate]:
    """Return a gate for each mixed engine that was scored: its drop on the scored split against the limit."""
    return [
        Gate(
            name=f"{row.id} budget",
            passed=row.budget.scored_drop <= row.budget.max_drop,
            text=row.budget.drops,
        )
        for row in rows
        if row.budget and row.budget.scored_drop is not None and row.budget.max_drop is not None
    ]


def int8_budget_gates(artifacts: Mapping[str, Artifact]) -> list[Gate]:
    """Return a gate for each target that runs here: whether one of its quantized engines holds the budget."""
    budget = artifacts.get("budget")
    return [
        Gate(
            name=f"int8 budget of {one['target']}" + ("" if one["board"] == LOCAL else f" on {one['board']}"),
            passed=one["state"] == "held",
            text=one["text"],
        )
        for one in (budget.details["targets"] if budget else ())
        if one["state"] != "not here"
    ]
