"""Latency arithmetic and the order of interleaved runs, on hand-made numbers and a counting clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.board import timing
from edgekd.board.timing import Budget


def ticking(*durations: int) -> Callable[[], int]:
    """Return a clock that gives start, end, start, end, ... of runs that take `durations` ns, cycled, back to back."""
    now = 0
    steps = itertools.cycle(durations)
    at_start = True

    def clock() -> int:
        nonlocal now, at_start
        if not at_start:
            now += next(steps)
        at_start = not at_start
        return now

    return clock


@pytest.mark.parametrize(
    ("percentile", "expected"), [(5, 15), (30, 20), (40, 20), (50, 35), (100, 50)]
)  # the worked example of Wikipedia's "Percentile", nearest-rank method
def test_nearest_rank_matches_the_textbook_example(percentile: float, expected: float) -> None:
    assert timing.percentile_nearest_rank(np.array([35, 20, 15, 50, 40]), percentile) == expected


def test_nearest_rank_is_not_fooled_by_binary_fractions() -> None:
    assert timing.percentile_nearest_rank(np.arange(1, 1001), 99.9) == 999


@given(st.lists(st.integers(1, 10**9), min_size=1), st.floats(0.1, 100))
def test_nearest_rank_is_the_smallest_sample_that_covers_the_percentile(samples: list[int], percentile: float) -> None:
    percentile = round(percentile, 1)
    ours = timing.percentile_nearest_rank(np.array(samples), percentile)
    assert ours in samples
    at_or_below = sum(s <= ours for s in samples)
    assert at_or_below * 100 >= round(len(samples) * percentile, 6)
    assert sum(s < ours for s in samples) * 100 < round(len(samples) * percentile, 6)


def test_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="got 0 samples"):
        timing.percentile_nearest_rank(np.array([]), 50)


@pytest.mark.parametrize(("percentile", "needed"), [(90, 44), (95, 90), (99, 459), (99.9, 4603)])
def test_minimum_samples_are_those_of_mlperf_early_stopping(percentile: float, needed: int) -> None:
    assert timing.minimum_samples(percentile) == needed


def test_summary_is_in_milliseconds() -> None:
    assert timing.summarize(np.array([1_000_000, 3_000_000])) == {
        "p50": 1.0, "mean": 2.0, "std": 1.0, "min": 1.0, "max": 3.0, "n": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("count", "present"),
    [(43, "p50"), (44, "p50 p90"), (90, "p50 p90 p95"), (458, "p50 p90 p95"), (459, "p50 p90 p95 p99")],
)
def test_percentiles_that_the_count_cannot_carry_are_absent(count: int, present: str) -> None:
    summary = timing.summarize(np.arange(1, count + 1))
    assert {key for key in summary if key.startswith("p")} == set(present.split())


def test_drift_compares_the_last_third_with_the_first() -> None:
    assert timing.drift(np.array([10, 10, 10, 99, 99, 99, 12, 12, 12])) == pytest.approx(0.2)
    assert timing.coefficient_of_variation(np.array([1, 3])) == pytest.approx(0.5)


def test_warm_up_ends_when_two_windows_agree() -> None:
    runs = 0

    def function() -> None:
        nonlocal runs
        runs += 1

    # 10 slow runs, then equal ones, one each 10 ms; the clock is also read once before the first run. After 26 runs the
    # earlier window holds 4 slow and 6 fast runs, so both medians are the fast one.
    starts = [10_000_000 * i for i in range(99)]
    clock = iter([0, *itertools.chain.from_iterable((s, s + (500 if i < 10 else 100)) for i, s in enumerate(starts))])
    result = timing.warm_up(function, max_seconds=1.0, clock=lambda: next(clock))
    assert (result.runs, result.is_steady, result.first_ns) == (26, True, 500)
    assert runs == 26


def test_warm_up_gives_up_at_the_time_limit_and_says_so() -> None:
    durations = itertools.count(1)
    now = 0

    def clock() -> int:
        nonlocal now
        now += next(durations) * 10**6
        return now

    result = timing.warm_up(lambda: None, max_seconds=0.5, clock=clock)
    assert not result.is_steady
    assert result.seconds >= 0.5


def test_warm_up_of_a_fast_function_lasts_until_clocks_have_risen() -> None:
    result = timing.warm_up(lambda: None, max_seconds=5.0, clock=ticking(1_000_000))
    assert (result.runs, result.is_steady) == (200, True)  # 20 runs agree after 20 ms, and 0.2 s are asked for


def test_a_slow_function_is_judged_by_the_runs_that_the_time_limit_leaves() -> None:
    even = timing.warm_up(lambda: None, max_seconds=5.0, clock=ticking(300_000_000))
    assert (even.runs, even.is_steady) == (17, True)  # 17 runs of 0.3 s: two windows of 8
    slow = timing.warm_up(lambda: None, max_seconds=5.0, clock=ticking(10**10))
    assert (slow.runs, slow.is_steady) == (6, True)  # two windows of 3, however long they take


def test_interleaving_gives_every_function_one_burst_a_round_and_drops_the_discarded_runs() -> None:
    calls: list[str] = []
    functions = {name: (lambda name=name: calls.append(name)) for name in ("a", "b", "c")}
    budget = Budget(min_samples=6, min_seconds=0, burst_runs=3, burst_seconds=0, discard_runs=2, discard_seconds=0)
    rounds: list[float] = []
    series = timing.measure_interleaved(functions, budget, clock=ticking(7), on_round=rounds.append)
    bursts = [(name, len(list(group))) for name, group in itertools.groupby(calls)]
    assert {name: calls.count(name) for name in functions} == {"a": 10, "b": 10, "c": 10}
    assert sum(length for _, length in bursts) == 30
    assert all(length % 5 == 0 for _, length in bursts)
    assert set(calls[:15]) == set(calls[15:]) == {"a", "b", "c"}
    assert rounds == [0.5, 1.0]
    for one in series.values():
        assert one.samples_ns.tolist() == [7] * 6
        assert one.samples_ns.dtype == one.starts_ns.dtype == np.int64
    starts = np.sort(np.concatenate([one.starts_ns for one in series.values()]))
    # 10 runs of each, back to back; of every five the first two are discarded.
    assert starts.tolist() == [7 * i for i in range(30) if i % 5 >= 2]


def test_ratios_stay_true_on_a_machine_that_slows_down() -> None:
    """The fast function meets its budget long before the slow one, and goes on beside it."""
    now = 0

    def clock() -> int:
        return now

    def taking(ms: float) -> Callable[[], None]:
        def function() -> None:
            nonlocal now
            now += round(ms * 1e6 * (1 + min(now / 30e9, 1) / 2))  # half as slow again after 30 s

        return function

    series = timing.measure_interleaved({"slow": taking(20), "fast": taking(2)}, Budget(), clock=clock)
    p50 = {name: timing.summarize(one.samples_ns)["p50"] for name, one in series.items()}
    assert p50["slow"] / p50["fast"] == pytest.approx(10, rel=0.02)


def test_bursts_last_as_long_as_asked_for() -> None:
    budget = Budget(min_samples=1, min_seconds=0, burst_seconds=0.1, burst_runs=5, discard_seconds=0.02, discard_runs=2)
    calls: list[str] = []
    functions = {"fast": lambda: calls.append("fast")}
    series = timing.measure_interleaved(functions, budget, clock=ticking(4_000_000))
    assert (len(calls), len(series["fast"].samples_ns)) == (30, 25)  # 5 runs fill 20 ms, 25 fill 0.1 s


def test_measuring_goes_on_until_the_time_is_full_too() -> None:
    budget = Budget(min_samples=1, min_seconds=1.0, burst_runs=2, burst_seconds=0, discard_runs=0, discard_seconds=0)
    series = timing.measure_interleaved({"a": lambda: None}, budget, clock=ticking(300_000_000))
    assert len(series["a"].samples_ns) == 4  # bursts of 0.6 s: 0.6 < 1.0 <= 1.2


def test_the_order_of_rounds_depends_on_the_seed_alone() -> None:
    def order(seed: int) -> str:
        calls: list[str] = []
        functions = {name: (lambda name=name: calls.append(name)) for name in "abcd"}
        timing.measure_interleaved(functions, Budget(20, 0, 0, 1, 0, 0, seed), clock=ticking(1))
        return "".join(calls)

    assert order(3) == order(3)
    assert order(3) != order(4)
    assert len({order(3)[i : i + 4] for i in range(0, 80, 4)}) > 1


def test_runs_are_paired_by_round() -> None:
    budget = Budget(min_samples=6, min_seconds=0, burst_runs=3, burst_seconds=0, discard_runs=0, discard_seconds=0)
    series = timing.measure_interleaved({"a": lambda: None}, budget, clock=ticking(5, 1, 9, 4, 2, 3))["a"]
    assert series.samples_ns.tolist() == [5, 1, 9, 4, 2, 3]
    assert series.bursts.tolist() == [3, 3]
    assert series.medians_ns().tolist() == [5, 3]
    assert series.parts_ns.shape == (6, 0)


def test_a_function_may_time_its_own_parts() -> None:
    parts, calls = np.zeros(2, np.int64), itertools.count(1)

    def run() -> None:
        parts[0], parts[1] = next(calls), -1

    budget = Budget(min_samples=4, min_seconds=0, burst_runs=2, burst_seconds=0, discard_runs=1, discard_seconds=0)
    series = timing.measure_interleaved({"a": timing.Parted(run, parts)}, budget, clock=ticking(1))["a"]
    assert series.parts_ns.tolist() == [[2, -1], [3, -1], [5, -1], [6, -1]]  # runs 1 and 4 are discarded
    assert series.part_medians_ns(0).tolist() == [2.5, 5.5]


def test_rounds_may_be_asked_for() -> None:
    budget = Budget(0, 0, burst_runs=2, burst_seconds=0, discard_runs=0, discard_seconds=0, min_rounds=5)
    shares: list[float] = []
    series = timing.measure_interleaved({"a": lambda: None}, budget, clock=ticking(1), on_round=shares.append)["a"]
    assert series.bursts.tolist() == [2] * 5
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_burst_ends_when_its_buffer_is_full() -> None:
    budget = Budget(min_samples=1, min_seconds=0, burst_runs=1, burst_seconds=1.0, discard_runs=0, discard_seconds=0)
    series = timing.measure_interleaved({"a": lambda: None}, budget, clock=ticking(1))["a"]
    assert series.bursts.tolist() == [timing.LONGEST_BURST]


def test_the_interval_of_a_median_is_of_order_statistics() -> None:
    # Tables of the sign test (Conover, table A3): of 12 values the 3rd and the 10th, 96.1 %; of 6 the first and the last, 96.9 %.
    assert timing.median_interval(list(range(12, 0, -1))) == (3, 10)
    assert timing.median_interval([5, 1, 2, 9, 4, 3]) == (1, 9)
    assert timing.median_interval([1, 2, 3, 4, 5]) == (-np.inf, np.inf)
    assert timing.median_interval(list(range(1, 13)), confidence=0.99) == (2, 11)


@given(st.integers(0, 2**32 - 1))
def test_the_interval_holds_the_median_of_its_values(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=15)
    low, high = timing.median_interval(values.tolist())
    assert low <= np.median(values) <= high
