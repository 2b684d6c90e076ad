"""The budget search on drops that are known by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from edgekd.errors import GateError
from edgekd.sensitivity.search import BudgetSearch, Floats

ORDER = ("a", "b", "c", "d", "e")
MACS = {"a": 10, "b": 40, "c": 20, "d": 30, "e": 50}


def sum_of(losses: dict[str, float]) -> Callable[[Floats], float]:
    """Return a drop that is the sum of the losses of the operators in int8."""
    return lambda floats: sum(loss for name, loss in losses.items() if name not in floats)


def test_nothing_stays_in_float_where_int8_holds_the_budget() -> None:
    found = BudgetSearch(sum_of(dict.fromkeys(ORDER, 0.001)), 0.01).run(ORDER, MACS)
    assert (found.floats, found.trials) == ((), 1)
    assert found.drop == pytest.approx(0.005)


def test_only_the_operators_that_the_budget_needs_stay_in_float() -> None:
    # int8 loses 0.32; without a and c 0.02. The ranking puts the harmless b between them.
    losses = {"a": 0.2, "b": 0.0, "c": 0.1, "d": 0.01, "e": 0.01}
    found = BudgetSearch(sum_of(losses), 0.05).run(ORDER, MACS)
    assert found.floats == ("a", "c")
    assert found.drop == pytest.approx(0.02)


def test_the_dearest_operator_goes_back_to_int8_first() -> None:
    # Either of a and b is enough, and only the first beginning that holds has both: a alone misses by a hair.
    def drop(floats: Floats) -> float:
        return 0.0 if "b" in floats or {"a", "c"} <= floats else 0.1

    macs = {**MACS, "b": 45}
    assert BudgetSearch(drop, 0.05).run(("a", "c", "b", "d", "e"), macs).floats == ("a", "c")
    # in this order b comes first, and a does not help any more
    assert BudgetSearch(drop, 0.05).run(("a", "b", "c", "d", "e"), macs).floats == ("b",)


def test_a_start_that_holds_is_kept_and_one_that_misses_is_pruned_as_well() -> None:
    losses = {"a": 0.0, "b": 0.2, "c": 0.0, "d": 0.0, "e": 0.0}
    kept = BudgetSearch(sum_of(losses), 0.05).run(ORDER, MACS, start=("a", "b"))
    assert (kept.floats, kept.trials) == (("a", "b"), 1)
    assert BudgetSearch(sum_of(losses), 0.05).run(ORDER, MACS, start=("a",)).floats == ("b",)


def test_a_budget_that_float_misses_is_a_gate_of_one_line() -> None:
    with pytest.raises(
        GateError, match=r"quantize\.budget: miou drops by 20\.00 points with every layer in float, limit 5 "
    ) as refusal:
        BudgetSearch(lambda _: 0.2, 0.05, "miou").run(ORDER, MACS)
    assert "\n" not in str(refusal.value)
    with pytest.raises(GateError):
        BudgetSearch(lambda _: 0.2, 0.05).run((), {})


def test_long_orders_are_bisected() -> None:
    names = [f"layer{i}" for i in range(200)]
    needed = frozenset(names[:70])
    found = BudgetSearch(lambda floats: 0.0 if needed <= floats else 1.0, 0.5).run(names, dict.fromkeys(names, 1))
    assert found.floats == tuple(names[:70])
    # 0, 1, 2, ..., 64, 128, six halvings, then 70 that cannot go back, and no set twice
    assert found.trials <= 9 + 6 + 70


@pytest.mark.parametrize("seed", range(10))
def test_the_choice_costs_little_more_than_the_best_of_all_choices(seed: int) -> None:
    """Losses add up here, one or two operators are planted, and the ranking is noisy; every choice is tried by brute force."""
    rng = np.random.default_rng(seed)
    names = [f"layer{i}" for i in range(8)]
    losses = dict(zip(names, rng.uniform(0, 0.0004, 8), strict=True))
    for name in rng.choice(names, rng.integers(1, 3), replace=False):
        losses[name] += rng.uniform(0.02, 0.2)
    macs = dict(zip(names, map(int, rng.integers(1, 100, 8)), strict=True))
    drop = sum_of(losses)
    order = sorted(names, key=lambda name: -losses[name] * rng.uniform(0.5, 2))
    found = BudgetSearch(drop, 0.005).run(order, macs)
    choices = (frozenset(some) for count in range(9) for some in combinations(names, count))
    best = min(sum(macs[name] for name in some) for some in choices if drop(some) <= 0.005)
    assert drop(frozenset(found.floats)) <= 0.005
    assert sum(macs[name] for name in found.floats) <= 1.3 * best
